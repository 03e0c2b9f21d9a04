// SPDX-License-Identifier: MIT
// What a flush of a volume may claim, kept by all lanes of a client together.
//
// A flush that succeeds says that every change acknowledged before it was submitted is durable, by
// whichever lane. It makes durable what is in the server's cache; but the cache may be another one
// by now, since the server's machine has died, and a lane hears of that only when it is back. So
// each lane says here which cache it has been working with (the *epoch* that the server names) and
// whether changes have been acknowledged to it that no flush has covered yet:
//
//  - A flush takes a number when it is sent. A lane notes with each acknowledged change the number
//    of the last flush that was sent before, on any lane. So a flush covers what is noted under
//    smaller numbers than its own: that was acknowledged, and so executed, before it was sent.
//  - It covers nothing of another cache. If, when it is sent, a lane has changes unflushed in
//    another cache than that of the flush, and the flush is answered all the same, then its server
//    is the later one (the two never live at once), and those changes are gone: the volume is
//    *lost*, and the flush fails.
//  - A lane that comes back to another cache with changes unflushed finds the same itself.
//
// Where a server names no cache (epoch 0, as Linux), it is believed to have survived.
//
// One lane alone uses the same, in memory of its own. All accesses are atomic, in one order.

import { assert } from "../base/index.js";

const LOST = 0;
/** The number of the last flush that was sent; never 0. */
const FLUSHES = 1;
const FIRST_LANE = 16;
// Words of a lane.
const EPOCH_HIGH = 0;
const EPOCH_LOW = 1;
/** The number that its last change was noted under; 0 when all are durable. */
const DIRTY = 2;
const LANE_WORDS = 16;

export class FlushLedger {
  private readonly words: Int32Array;
  private readonly lane: number;
  private readonly laneCount: number;

  /** @param memory from `allocate`, the same for all lanes; their own where there is but one. */
  constructor(memory: ArrayBufferLike, lane: number, laneCount: number) {
    this.words = new Int32Array(memory);
    assert(this.words.length === FIRST_LANE + laneCount * LANE_WORDS, "memory for all lanes");
    this.lane = lane;
    this.laneCount = laneCount;
  }

  static byteLength(laneCount: number): number {
    return (FIRST_LANE + laneCount * LANE_WORDS) * 4;
  }

  /** Whether unflushed changes were lost with a cache, on any lane: no flush succeeds any more. */
  get isLost(): boolean {
    return Atomics.load(this.words, LOST) !== 0;
  }

  /** Whether this lane has changes acknowledged that may not be durable. */
  get isDirty(): boolean {
    return Atomics.load(this.words, laneAt(this.lane) + DIRTY) !== 0;
  }

  markLost(): void {
    Atomics.store(this.words, LOST, 1);
  }

  /** Whether that is surely another cache than the one this lane works with. */
  isElsewhere(high: number, low: number): boolean {
    const { words } = this;
    const at = laneAt(this.lane);
    const ownHigh = Atomics.load(words, at + EPOCH_HIGH);
    return differ(ownHigh, Atomics.load(words, at + EPOCH_LOW), high | 0, low | 0);
  }

  /**
   * This lane works with that cache from now on; 0: with the one it has, as far as is known.
   * Preconditions: it has no change unflushed in another one, or `markLost` was called.
   */
  setEpoch(high: number, low: number): void {
    if ((high | low) === 0) return;
    const at = laneAt(this.lane);
    const { words } = this;
    if (this.isDirty && this.isElsewhere(high, low)) {
      assert(this.isLost, "a cache with unflushed changes is left as lost");
      // They are known to be gone; what is noted from here on is of the new cache.
      Atomics.store(words, at + DIRTY, 0);
    }
    Atomics.store(words, at + EPOCH_HIGH, high | 0);
    Atomics.store(words, at + EPOCH_LOW, low | 0);
  }

  /** A change that only a flush makes durable is acknowledged; called before its user hears. */
  noteChange(): void {
    const { words } = this;
    const at = laneAt(this.lane) + DIRTY;
    const number = Atomics.load(words, FLUSHES) || 1;
    if (Atomics.load(words, at) !== number) Atomics.store(words, at, number);
  }

  /**
   * A flush is about to be sent: then comes `isSplit`, then `isLost`, in that order, since a lane
   * that finds its changes lost says so before it takes up its new cache.
   * @returns the flush's number, for `endFlush`.
   */
  startFlush(): number {
    const { words } = this;
    let number: number;
    do number = (Atomics.add(words, FLUSHES, 1) + 1) | 0;
    while (number === 0 || number === 1);
    return number;
  }

  /**
   * Whether another lane has unflushed changes in another cache than this lane's. If the flush that
   * has just got its number is answered all the same, they are gone.
   */
  isSplit(): boolean {
    const { words, laneCount } = this;
    const own = laneAt(this.lane);
    const high = Atomics.load(words, own + EPOCH_HIGH);
    const low = Atomics.load(words, own + EPOCH_LOW);
    for (let lane = 0; lane < laneCount; lane++) {
      if (lane !== this.lane && this.dirtOf(lane, high, low, false) !== 0) return true;
    }
    return false;
  }

  /** The flush of that number has succeeded at the server. */
  endFlush(number: number): void {
    const { words, laneCount } = this;
    const own = laneAt(this.lane);
    const high = Atomics.load(words, own + EPOCH_HIGH);
    const low = Atomics.load(words, own + EPOCH_LOW);
    for (let lane = 0; lane < laneCount; lane++) {
      const dirt = this.dirtOf(lane, high, low, true);
      if (dirt === 0 || ((dirt - number) | 0) >= 0) continue;
      // It stays dirty where something has been acknowledged to it meanwhile.
      Atomics.compareExchange(words, laneAt(lane) + DIRTY, dirt, 0);
    }
  }

  /**
   * What a lane has noted in the cache of that epoch (`isSame`), or in another: 0 for nothing. A
   * lane changes its epoch while it has noted nothing, so two looks that agree belong together.
   */
  private dirtOf(lane: number, high: number, low: number, isSame: boolean): number {
    const { words } = this;
    const at = laneAt(lane);
    for (;;) {
      const firstHigh = Atomics.load(words, at + EPOCH_HIGH);
      const firstLow = Atomics.load(words, at + EPOCH_LOW);
      const dirt = Atomics.load(words, at + DIRTY);
      const isStable =
        firstHigh === Atomics.load(words, at + EPOCH_HIGH) &&
        firstLow === Atomics.load(words, at + EPOCH_LOW);
      if (!isStable) continue;
      return differ(firstHigh, firstLow, high, low) === isSame ? 0 : dirt;
    }
  }
}

function laneAt(lane: number): number {
  return FIRST_LANE + lane * LANE_WORDS;
}

/** Whether two epochs are surely of two caches; 0 is not told. */
function differ(aHigh: number, aLow: number, bHigh: number, bLow: number): boolean {
  if ((aHigh | aLow) === 0 || (bHigh | bLow) === 0) return false;
  return aHigh !== bHigh || aLow !== bLow;
}
