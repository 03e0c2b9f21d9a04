// SPDX-License-Identifier: MIT
// What an RC responder keeps of READs and atomics (IBTA vol1 §9.7.4.1.2, "responder resources"): as
// many as the peer may have outstanding, so that each can be answered again, an atomic without
// being executed again. Those with an answer still to send form a list in the order of the
// requests.

import { assert, psnDiff } from "../base/index.js";

const NONE = -1;

export const RESOURCE_KIND = { FREE: 0, READ: 1, ATOMIC: 2 } as const;

export class ResponderResources {
  /** Slots; the oldest is overwritten. A power of two, as in rxe; 0 for none. */
  readonly count: number;
  readonly kinds: Uint8Array;
  /** The request as it first came. */
  readonly psns: Int32Array;
  readonly packetCounts: Int32Array;
  readonly keys: Uint32Array;
  readonly addressHighs: Uint32Array;
  readonly addressLows: Uint32Array;
  readonly lengths: Float64Array;
  /** Atomics: what the memory held before. */
  readonly originalHighs: Uint32Array;
  readonly originalLows: Uint32Array;
  /** The answer being sent: of a READ that is repeated, maybe of a part of it. */
  readonly replyPsns: Int32Array;
  readonly replyPacketCounts: Int32Array;
  readonly replySents: Int32Array;
  readonly replyLengths: Float64Array;
  readonly replyRegions: Int32Array;
  readonly replyGenerations: Int32Array;
  readonly replyOffsets: Float64Array;
  /** First resource with an answer to send, -1 for none. */
  replyHead = NONE;

  private replyTail = NONE;
  private readonly nexts: Int32Array;
  private readonly previouses: Int32Array;
  private readonly isQueued: Uint8Array;
  /** The queued answer is a repeat: the peer may have had the whole of the first one meanwhile. */
  private readonly isRepeat: Uint8Array;
  private newest = 0;

  /** @param depth what the peer may have outstanding, 0 .. 128. */
  constructor(depth: number) {
    let count = depth === 0 ? 0 : 1;
    while (count < depth) count *= 2;
    this.count = count;
    this.kinds = new Uint8Array(count);
    this.psns = new Int32Array(count);
    this.packetCounts = new Int32Array(count);
    this.keys = new Uint32Array(count);
    this.addressHighs = new Uint32Array(count);
    this.addressLows = new Uint32Array(count);
    this.lengths = new Float64Array(count);
    this.originalHighs = new Uint32Array(count);
    this.originalLows = new Uint32Array(count);
    this.replyPsns = new Int32Array(count);
    this.replyPacketCounts = new Int32Array(count);
    this.replySents = new Int32Array(count);
    this.replyLengths = new Float64Array(count);
    this.replyRegions = new Int32Array(count);
    this.replyGenerations = new Int32Array(count);
    this.replyOffsets = new Float64Array(count);
    this.nexts = new Int32Array(count).fill(NONE);
    this.previouses = new Int32Array(count).fill(NONE);
    this.isQueued = new Uint8Array(count);
    this.isRepeat = new Uint8Array(count);
  }

  /**
   * The slot for a new request, its old contents forgotten; -1 when there is none: no slots at all,
   * or the peer has more outstanding than it may and the oldest is still being answered. An answer
   * that is only being repeated is dropped: who asks for more has had the first one after all.
   */
  take(): number {
    if (this.count === 0) return NONE;
    const slot = (this.newest + 1) & (this.count - 1);
    if (this.isQueued[slot] === 1) {
      if (this.isRepeat[slot] === 0) return NONE;
      this.removeReply(slot);
    }
    this.newest = slot;
    return slot;
  }

  /** The saved request whose PSNs hold `psn`; -1 when it is gone. */
  find(psn: number): number {
    for (let slot = 0; slot < this.count; slot++) {
      if (this.kinds[slot] === RESOURCE_KIND.FREE) continue;
      const distance = psnDiff(psn, this.psns[slot] as number);
      if (distance >= 0 && distance < (this.packetCounts[slot] as number)) return slot;
    }
    return NONE;
  }

  /**
   * Puts a slot's answer, or its repeat, in the list, in the order of PSNs: a repeated answer that
   * came behind newer ones would look like a loss of it to the requester.
   */
  queueReply(slot: number, isRepeat: boolean): void {
    if (this.isQueued[slot] === 1) this.removeReply(slot);
    this.isQueued[slot] = 1;
    this.isRepeat[slot] = isRepeat ? 1 : 0;
    const psn = this.replyPsns[slot] as number;
    let next = NONE;
    let previous = this.replyTail;
    while (previous !== NONE && psnDiff(this.replyPsns[previous] as number, psn) > 0) {
      next = previous;
      previous = this.previouses[previous] as number;
    }
    this.nexts[slot] = next;
    this.previouses[slot] = previous;
    if (previous === NONE) this.replyHead = slot;
    else this.nexts[previous] = slot;
    if (next === NONE) this.replyTail = slot;
    else this.previouses[next] = slot;
  }

  /** Whether a queued answer has all of PSNs `psn .. psn + packetCount - 1` still to send. */
  isStillToSend(slot: number, psn: number, packetCount: number): boolean {
    if (this.isQueued[slot] === 0) return false;
    const from = psnDiff(psn, this.replyPsns[slot] as number);
    const end = this.replyPacketCounts[slot] as number;
    return from >= (this.replySents[slot] as number) && from + packetCount <= end;
  }

  /** Takes a slot's answer out of the list. */
  removeReply(slot: number): void {
    assert(this.isQueued[slot] === 1, "an answer that is removed is queued");
    const next = this.nexts[slot] as number;
    const previous = this.previouses[slot] as number;
    if (next === NONE) this.replyTail = previous;
    else this.previouses[next] = previous;
    if (previous === NONE) this.replyHead = next;
    else this.nexts[previous] = next;
    this.isQueued[slot] = 0;
  }

  /** Drops all answers that are queued; what is saved stays. */
  clearReplies(): void {
    while (this.replyHead !== NONE) this.removeReply(this.replyHead);
  }

  checkInvariants(): void {
    let queued = 0;
    let previous = NONE;
    for (let slot = this.replyHead; slot !== NONE; slot = this.nexts[slot] as number) {
      assert(this.isQueued[slot] === 1, "what is in the list knows it");
      assert(this.previouses[slot] === previous, "the list is linked both ways");
      const ahead = previous === NONE ? 1 : this.distance(previous, slot);
      assert(ahead > 0, "answers are in the order of PSNs");
      previous = slot;
      queued++;
    }
    assert(previous === this.replyTail, "the list ends at its tail");
    assert(queued === this.isQueued.reduce((sum, flag) => sum + flag, 0), "no answer is lost");
  }
  private distance(earlier: number, later: number): number {
    return psnDiff(this.replyPsns[later] as number, this.replyPsns[earlier] as number);
  }
}
