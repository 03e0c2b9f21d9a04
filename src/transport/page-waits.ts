// SPDX-License-Identifier: MIT
// Queue pairs of a device that wait for pages of on-demand memory. Whoever waits is asked to go on
// when anything was served, looks for itself whether its own pages are there, and waits again if
// not. Others go on meanwhile.

import { IntRing, type PageWaker } from "../base/index.js";
import type { QpCore } from "./queue-pair.js";

/** RNR timer code for a request that meets an absent page: 0.08 ms. */
const RNR_TIMER = 6;

export class PageWaits implements PageWaker {
  /** `DeviceOptions.faultRnrTimer`. */
  readonly rnrTimer: number;
  private readonly waiting: IntRing;
  private readonly isWaiting: Uint8Array;
  private readonly qps: readonly (QpCore | null)[];

  /** @param qps the device's queue pairs by index, as they are at any time. */
  constructor(qpCountMax: number, qps: readonly (QpCore | null)[], rnrTimer = RNR_TIMER) {
    this.rnrTimer = rnrTimer;
    this.waiting = new IntRing(qpCountMax);
    this.isWaiting = new Uint8Array(qpCountMax);
    this.qps = qps;
  }

  /** `qp.onPagesServed` is called once when faults have been served. Waiting twice is once. */
  wait(qp: QpCore): void {
    if (this.isWaiting[qp.index] === 1) return;
    this.isWaiting[qp.index] = 1;
    this.waiting.push(qp.index);
    qp.device.counters.pageFaults++;
    qp.counters.pageFaults++;
  }

  pagesServed(): void {
    for (let count = this.waiting.count; count > 0; count--) {
      const index = this.waiting.shift();
      this.isWaiting[index] = 0;
      // It may be gone; one that has its index now looks once in vain.
      this.qps[index]?.onPagesServed();
    }
  }
}
