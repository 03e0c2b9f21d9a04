// SPDX-License-Identifier: MIT
// Keeps changes of the same bytes apart that come by several lanes of a client: what
// `overlap-guard.ts` does for one device, for the devices of one volume on all lanes.
//
// Each lane has a table of the ranges that its changes in flight cover, in memory that all lanes
// see; it alone writes there. No lock: who wants to change a range first publishes it and then
// looks at the others' tables, so of two that overlap at least one sees the other. Which of them
// waits is decided as in Lamport's bakery (1974): each draws a number, and the smaller one goes
// first; so nobody waits for ever. A range without a number yet counts as an earlier one, and
// whoever has drawn his wakes those whom he may have held up by that.
//
// All accesses are atomic and so in one order that all lanes agree on; what the comments say of
// "before" and "behind" is meant in that order.

import { assert, joinHalves } from "../base/index.js";

/** Where a lane stands among those of its client. */
export interface LaneSeat {
  readonly lane: number;
  readonly laneCount: number;
  /** Has another lane's client pumped soon. */
  readonly wake: (lane: number) => void;
}

// Words: the last number drawn; ranges in doubt; then, of each lane, a header and its places.
const NUMBERS = 0;
const DOUBTS = 1;
const FIRST_LANE = 16;
// Words of a lane's header: places from here on are empty; something of the lane waits.
const END = 0;
const WAITS = 1;
const HEADER_WORDS = 16;
// Words of a place. Length 0: empty. Number: see below.
const LENGTH = 0;
const OFFSET_LOW = 1;
const OFFSET_HIGH = 2;
const NUMBER = 3;
const PLACE_WORDS = 4;
/** More than permits for changes that a session can have (`queueDepthMax`), and one that waits. */
const PLACE_COUNT = 1040;
const LANE_WORDS = HEADER_WORDS + PLACE_COUNT * PLACE_WORDS;

// Numbers that are not drawn.
/** Not drawn yet. */
const CHOOSING = 0;
/** Its turn has come: it may be at the server. */
const ENTERED = 1;
/** It has failed, and may still be executed. */
const IN_DOUBT = 2;
const FIRST_NUMBER = 3;

/** One lane's part in one volume. */
export class LaneGuard {
  private readonly words: Int32Array;
  private readonly lane: number;
  private readonly laneCount: number;
  private readonly wake: (lane: number) => void;
  private readonly free: number[] = [];
  private readonly isTaken = new Uint8Array(PLACE_COUNT);
  private end = 0;
  /** The place of the range that `enter` was asked for last and that nobody has claimed. */
  private pending = -1;
  private pendingOffset = 0;
  private pendingLength = 0;
  private hasEntered = false;
  private waits = false;

  constructor(shared: SharedArrayBuffer, { lane, laneCount, wake }: LaneSeat) {
    this.words = new Int32Array(shared);
    assert(this.words.length === FIRST_LANE + laneCount * LANE_WORDS, "memory for all lanes");
    this.lane = lane;
    this.laneCount = laneCount;
    this.wake = wake;
    for (let place = PLACE_COUNT - 1; place >= 0; place--) this.free.push(place);
  }

  static allocate(laneCount: number): SharedArrayBuffer {
    return new SharedArrayBuffer((FIRST_LANE + laneCount * LANE_WORDS) * 4);
  }

  /** Ranges of this lane that are entered or want to be. */
  get count(): number {
    return PLACE_COUNT - this.free.length;
  }

  /** Whether something of this lane waits for another one. */
  get isHeld(): boolean {
    return this.waits;
  }

  /**
   * Asks whether a change of these bytes may go to the server now. If it has to wait, its place in
   * the order is kept until the next call asks for another range; the lane is woken when it is
   * worth asking again. If it may go, that stays so until `claim` or `withdraw`.
   * Preconditions: no range of this lane overlaps it. `length` from 1 to 2^32 - 1.
   * @returns whether it may.
   */
  mayEnter(offset: number, length: number): boolean {
    const isNew =
      this.pending < 0 || this.pendingOffset !== offset || this.pendingLength !== length;
    if (isNew) {
      this.withdraw();
      if (!this.publish(offset, length)) return false;
    } else if (this.hasEntered) {
      return true;
    }
    // The second look finds what left before the lane had said that it waits.
    if (this.isBlocked(isNew) && (this.waits || this.isBlockedStill())) return false;
    this.setWaits(false);
    Atomics.store(this.words, this.at(this.lane, this.pending) + NUMBER, ENTERED);
    this.hasEntered = true;
    return true;
  }

  /** Takes the range that `mayEnter` has let in. @returns its place, to be given to `leave`. */
  claim(): number {
    assert(this.hasEntered, "what is claimed may enter");
    const place = this.pending;
    this.pending = -1;
    this.hasEntered = false;
    return place;
  }

  /** The change has failed, and may still be executed: reads of its bytes have to wait, too. */
  doubt(place: number): void {
    Atomics.add(this.words, DOUBTS, 1);
    Atomics.store(this.words, this.at(this.lane, place) + NUMBER, IN_DOUBT);
  }

  /**
   * Whether bytes are in doubt on another lane, so that a read could find them to be either. If so,
   * the lane is woken when it is worth asking again.
   * Preconditions: no change of this lane waits.
   */
  isInDoubt(offset: number, length: number): boolean {
    assert(this.pending < 0, "one request waits at most");
    const isInDoubt = this.isAnyInDoubt(offset, length);
    // The second look finds what left before the lane had said that it waits.
    this.setWaits(isInDoubt);
    if (isInDoubt) this.setWaits(this.isAnyInDoubt(offset, length));
    return this.waits;
  }

  /** No execution of the change can come any more. */
  leave(place: number): void {
    this.vacate(place);
    for (let lane = 0; lane < this.laneCount; lane++) {
      if (lane === this.lane) continue;
      if (Atomics.load(this.words, laneAt(lane) + WAITS) !== 0) this.wake(lane);
    }
  }

  /** What `mayEnter` was asked for is not wanted any more. */
  withdraw(): void {
    this.setWaits(false);
    if (this.pending < 0) return;
    const place = this.pending;
    this.pending = -1;
    this.hasEntered = false;
    this.leave(place);
  }

  checkInvariants(): void {
    let taken = 0;
    for (let place = 0; place < PLACE_COUNT; place++) {
      const isTaken = this.isTaken[place] === 1;
      const length = Atomics.load(this.words, this.at(this.lane, place) + LENGTH);
      assert(isTaken === (length !== 0), "a place is taken while it has a range");
      assert(!isTaken || place < this.end, "no range behind the end");
      if (isTaken) taken++;
    }
    assert(taken === this.count, "places are taken or free");
  }

  /** @returns false when there is no place. */
  private publish(offset: number, length: number): boolean {
    const place = this.free.pop();
    if (place === undefined) return false;
    const at = this.at(this.lane, place);
    this.isTaken[place] = 1;
    if (place >= this.end) this.setEnd(place + 1);
    const { words } = this;
    Atomics.store(words, at + OFFSET_LOW, offset | 0);
    Atomics.store(words, at + OFFSET_HIGH, Math.floor(offset / 0x1_0000_0000));
    Atomics.store(words, at + NUMBER, CHOOSING);
    Atomics.store(words, at + LENGTH, length | 0);
    // Who draws a smaller one has published before, and is seen below.
    let number: number;
    do number = (Atomics.add(words, NUMBERS, 1) + 1) | 0;
    while (number >= CHOOSING && number < FIRST_NUMBER);
    Atomics.store(words, at + NUMBER, number);
    this.pending = place;
    this.pendingOffset = offset;
    this.pendingLength = length;
    return true;
  }

  private isAnyInDoubt(offset: number, length: number): boolean {
    if (Atomics.load(this.words, DOUBTS) === 0) return false;
    for (let lane = 0; lane < this.laneCount; lane++) {
      if (lane === this.lane) continue;
      const end = Atomics.load(this.words, laneAt(lane) + END);
      for (let place = 0; place < end; place++) {
        const at = this.at(lane, place);
        if (Atomics.load(this.words, at + NUMBER) !== IN_DOUBT) continue;
        if (this.overlaps(at, offset, length)) return true;
      }
    }
    return false;
  }

  private isBlockedStill(): boolean {
    this.setWaits(true);
    return this.isBlocked(false);
  }

  /**
   * Whether a range that overlaps the pending one goes before it.
   * @param isNew its number is drawn: wakes who waits because it had none.
   */
  private isBlocked(isNew: boolean): boolean {
    const own = Atomics.load(this.words, this.at(this.lane, this.pending) + NUMBER);
    let isBlocked = false;
    for (let lane = 0; lane < this.laneCount; lane++) {
      if (lane === this.lane) continue;
      const end = Atomics.load(this.words, laneAt(lane) + END);
      for (let place = 0; place < end; place++) {
        const at = this.at(lane, place);
        if (!this.overlaps(at, this.pendingOffset, this.pendingLength)) continue;
        const number = Atomics.load(this.words, at + NUMBER);
        const isDrawn = number < CHOOSING || number >= FIRST_NUMBER;
        if (!isDrawn || ((number - own) | 0) < 0) isBlocked = true;
        if (isNew && (isDrawn || number === CHOOSING)) this.wake(lane);
      }
    }
    return isBlocked;
  }

  /**
   * Whether the range at a place of another lane overlaps these bytes. Where that lane changes the
   * place meanwhile, either answer will do: what was there has left, and what comes there is
   * published behind the pending range, so it looks and sees it.
   */
  private overlaps(at: number, offset: number, length: number): boolean {
    const { words } = this;
    const theirLength = Atomics.load(words, at + LENGTH) >>> 0;
    if (theirLength === 0) return false;
    const low = Atomics.load(words, at + OFFSET_LOW) >>> 0;
    const theirs = joinHalves(Atomics.load(words, at + OFFSET_HIGH), low);
    return theirs < offset + length && offset < theirs + theirLength;
  }

  private vacate(place: number): void {
    assert(this.isTaken[place] === 1, "a place is left once");
    this.isTaken[place] = 0;
    const at = this.at(this.lane, place);
    Atomics.store(this.words, at + LENGTH, 0);
    if (Atomics.load(this.words, at + NUMBER) === IN_DOUBT) {
      Atomics.store(this.words, at + NUMBER, ENTERED);
      Atomics.sub(this.words, DOUBTS, 1);
    }
    this.free.push(place);
    let end = this.end;
    while (end > 0 && this.isTaken[end - 1] === 0) end--;
    if (end !== this.end) this.setEnd(end);
  }

  private setEnd(end: number): void {
    this.end = end;
    Atomics.store(this.words, laneAt(this.lane) + END, end);
  }

  private setWaits(waits: boolean): void {
    if (this.waits === waits) return;
    this.waits = waits;
    Atomics.store(this.words, laneAt(this.lane) + WAITS, waits ? 1 : 0);
  }

  private at(lane: number, place: number): number {
    return laneAt(lane) + HEADER_WORDS + place * PLACE_WORDS;
  }
}

function laneAt(lane: number): number {
  return FIRST_LANE + lane * LANE_WORDS;
}
