// SPDX-License-Identifier: MIT

import { assert } from "../base/index.js";

/** Virtual time: a number that only the simulator moves, and only forwards. */
export class SimClock {
  /** Nanoseconds since the world began. */
  nowNs: number;

  constructor(startNs = 0) {
    this.nowNs = startNs;
  }

  /** Preconditions: `timeNs` is not in the past. */
  advanceTo(timeNs: number): void {
    assert(timeNs >= this.nowNs, "virtual time never runs backwards");
    assert(timeNs < Number.MAX_SAFE_INTEGER, "virtual time is exact");
    this.nowNs = timeNs;
  }
}
