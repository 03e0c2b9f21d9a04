// SPDX-License-Identifier: MIT
// Which changes of a device may be at the server together: none that overlap, on this lane
// (`overlap-guard.ts` says why) or on another of the same client (`lane-guard.ts`).
//
// A change that has failed without an answer may still be executed, as long as its session has not
// come back. On its own lane nothing is sent before that; but other lanes are neither to change
// those bytes meanwhile, nor to read them as they are and then as they are not any more. So their
// range stays taken, *in doubt*, until the device is open again.

import { assert } from "../base/index.js";
import type { LaneGuard } from "./lane-guard.js";
import { type GuardedRange, OverlapGuard } from "./overlap-guard.js";

/** A change on its way. */
export interface GuardedChange extends GuardedRange {
  /** The guard's own: its place among the lanes' changes; -1 for none. */
  lanePlace: number;
}

export class ChangeGuard {
  private readonly own = new OverlapGuard();
  private readonly lanes: LaneGuard | null;
  /** Places of changes whose fate is not known. */
  private readonly doubts: number[] = [];

  /** @param lanes null where there is but one. */
  constructor(lanes: LaneGuard | null) {
    this.lanes = lanes;
  }

  /** Changes at the server. */
  get count(): number {
    return this.own.count;
  }

  /** Whether the request that was last asked for waits for another lane. */
  get isHeld(): boolean {
    return this.lanes?.isHeld ?? false;
  }

  /** Whether a change of these bytes may be sent now; see `LaneGuard.mayEnter`. */
  mayEnter(offset: number, length: number): boolean {
    if (this.own.overlaps(offset, length)) return false;
    return this.lanes === null || this.lanes.mayEnter(offset, length);
  }

  /** Whether these bytes may be read now. */
  mayRead(offset: number, length: number): boolean {
    return this.lanes === null || !this.lanes.isInDoubt(offset, length);
  }

  /** `change` is sent. Preconditions: `mayEnter` has just let it in. */
  add(change: GuardedChange): void {
    this.own.add(change);
    if (this.lanes !== null) change.lanePlace = this.lanes.claim();
  }

  /** What `mayEnter` was last asked for is not wanted any more. */
  withdraw(): void {
    this.lanes?.withdraw();
  }

  /**
   * `change` is over, if it is one that was added.
   * @param isKnown no execution of it can come any more.
   */
  remove(change: GuardedChange, isKnown: boolean): void {
    this.own.remove(change);
    const place = change.lanePlace;
    if (place < 0) return;
    change.lanePlace = -1;
    if (isKnown) {
      this.lanes?.leave(place);
      return;
    }
    this.lanes?.doubt(place);
    this.doubts.push(place);
  }

  /** The session is back, and nothing of its former life is in a device. */
  settle(): void {
    for (const place of this.doubts.splice(0)) this.lanes?.leave(place);
  }

  checkInvariants(): void {
    this.own.checkInvariants();
    if (this.lanes === null) return;
    this.lanes.checkInvariants();
    const entered = this.own.count + this.doubts.length;
    assert(this.lanes.count - entered <= 1, "one range beside those at the server, or none");
    assert(this.lanes.count >= entered, "every change at the server has its place");
  }
}
