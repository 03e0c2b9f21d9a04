// SPDX-License-Identifier: MIT
// What an RC responder does about pages of on-demand memory that are not there. Hardware answers
// with an RNR NAK (T. Fukuoka et al., "Pitfalls of InfiniBand with On-Demand Paging"), and so does
// this for a WRITE, SEND or atomic. The fault is queued and the request refused before a byte of it
// is written; the peer sends it again. READs are not refused: their responses wait
// (responder-replies.ts).

import { SYNDROME } from "../wire/index.js";
import type { Device } from "./device.js";
import type { QpCore } from "./queue-pair.js";
import { PAGES, type PagesResult } from "./region-pages.js";
import type { SgeTable } from "./sge-table.js";

/** RNR timer codes: three steps are about three times the time; the longest here is 10 ms. */
const TIMER_STEP = 3;
const TIMER_MAX = 20;

export class ResponderPages {
  private readonly device: Device;
  private readonly qp: QpCore;
  /** The request that met an absent page last, and the timer code that it was given; -1: none. */
  private psn = -1;
  private timer = 0;

  constructor(device: Device, qp: QpCore) {
    this.device = device;
    this.qp = qp;
  }

  /**
   * Whether what a peer's request writes is there.
   * Preconditions: as of `RegionTable.ready`.
   * @returns 0, or the syndrome of the NAK that it gets.
   */
  check(region: number, position: number, length: number, ahead: number, psn: number): number {
    const result = this.device.regions.ready(region, position, length, ahead, true);
    if (result === PAGES.READY) return 0;
    return result === PAGES.WAITING ? this.syndrome(psn) : SYNDROME.NAK_REMOTE_ACCESS;
  }

  /** Whether bytes of a receive on pages are there. */
  checkReceive(sges: SgeTable, position: number, length: number): PagesResult {
    if (length === 0) return PAGES.READY;
    return sges.ready(0, this.device.regions, position, length, true);
  }

  /**
   * The RNR NAK for a request whose page is on its way: soon again, and less soon each time that it
   * comes in vain, so that a peer with few RNR retries outlasts a slow fault.
   */
  syndrome(psn: number): number {
    const { device } = this;
    device.counters.pageFaults++;
    this.qp.counters.pageFaults++;
    if (psn !== this.psn) {
      this.timer = device.pageWaits.rnrTimer;
    } else if (this.timer < TIMER_MAX) {
      this.timer = Math.min(TIMER_MAX, this.timer + TIMER_STEP);
    }
    this.psn = psn;
    return SYNDROME.RNR_NAK + this.timer;
  }

  reset(): void {
    this.psn = -1;
  }
}
