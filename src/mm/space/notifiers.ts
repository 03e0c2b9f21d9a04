// SPDX-License-Identifier: MIT
// Whoever keeps page tables of his own of a process's memory is told before they become wrong. Read
// first: Linux `include/linux/mmu_notifier.h`, struct mmu_interval_notifier, and
// `Documentation/mm/hmm.rst`.
//
// A change of mappings is: invalidateStart, the change, invalidateEnd. Between the two a notifier's
// sequence number is odd, and it is another one after. Who looks a page up does so between
// readBegin and readRetry, and forgets what was found when readRetry says so.

import { assert } from "../../base/index.js";
import type { InvalidateReason } from "./constants.js";

/** A range of addresses that somebody keeps a page table of. */
export interface RangeNotifier {
  readonly start: number;
  /** First address after the range. */
  readonly end: number;
  /**
   * Mappings in [start, end) are about to change (it may reach beyond the notifier's range). When
   * this returns, no access through the owner's page table to what was there goes on or begins.
   * Mappings can't be changed from here; faults answer BUSY.
   */
  invalidate(start: number, end: number, why: InvalidateReason): void;
  /** The address space is gone, its last invalidation over; the notifier is removed already. */
  released?(): void;
}

class Entry {
  readonly notifier: RangeNotifier;
  readonly start: number;
  readonly end: number;
  sequence: number;
  /** Invalidations of its range that have started and not ended. */
  active = 0;

  /** @param sequence an even number that the notifier never had. */
  constructor(notifier: RangeNotifier, sequence: number) {
    this.notifier = notifier;
    this.start = notifier.start;
    this.end = notifier.end;
    this.sequence = sequence;
  }

  begin(): void {
    if (this.active === 0) this.sequence++;
    this.active++;
  }

  finish(): void {
    this.active--;
    assert(this.active >= 0, "an invalidation ends once");
    if (this.active === 0) this.sequence++;
  }
}

/**
 * Entries by start, and a tree over them that knows the largest end in each half, quarter, ...: who
 * overlaps a range is found in a few steps each, however many there are. Replaced, never changed:
 * somebody may be walking it.
 */
class EntryIndex {
  readonly entries: readonly Entry[];
  /** Leaves, a power of two. */
  private readonly width: number;
  /** Node n's halves are 2n and 2n + 1; the leaves begin at `width`. */
  private readonly ends: Float64Array;

  constructor(entries: readonly Entry[]) {
    this.entries = entries;
    this.width = entries.length <= 1 ? 1 : 2 ** (32 - Math.clz32(entries.length - 1));
    this.ends = new Float64Array(2 * this.width);
    for (let i = 0; i < entries.length; i++) this.ends[this.width + i] = (entries[i] as Entry).end;
    for (let node = this.width - 1; node > 0; node--) {
      this.ends[node] = Math.max(this.ends[2 * node] as number, this.ends[2 * node + 1] as number);
    }
  }

  /** Calls `visit` for each entry that overlaps [start, end), by start. */
  visit(start: number, end: number, visit: (entry: Entry) => void): void {
    this.visitNode(1, this.width, 0, start, end, visit);
  }

  private visitNode(
    node: number,
    span: number,
    first: number,
    start: number,
    end: number,
    visit: (entry: Entry) => void,
  ): void {
    const { entries } = this;
    if (first >= entries.length || (this.ends[node] as number) <= start) return;
    const entry = entries[first] as Entry;
    if (entry.start >= end) return;
    if (span === 1) {
      visit(entry);
      return;
    }
    const half = span / 2;
    this.visitNode(2 * node, half, first, start, end, visit);
    this.visitNode(2 * node + 1, half, first + half, start, end, visit);
  }
}

export class NotifierList {
  private index = new EntryIndex([]);
  private readonly byNotifier = new Map<RangeNotifier, Entry>();
  /** Starts and ends of invalidations that are under way. */
  private readonly under: number[] = [];
  /**
   * Even, and above the number of every notifier that was removed: one that is added again must not
   * find the number that it looked a page up with, before what it was not told of.
   */
  private sequenceBase = 0;

  get count(): number {
    return this.index.entries.length;
  }

  /** Also from within an invalidation: one that is under way for its range counts for it. */
  add(notifier: RangeNotifier): void {
    assert(!this.byNotifier.has(notifier), "a notifier is added once");
    assert(notifier.start < notifier.end, "a notifier has a range");
    const entry = new Entry(notifier, this.sequenceBase);
    for (let i = 0; i < this.under.length; i += 2) {
      if (entry.start < (this.under[i + 1] as number) && entry.end > (this.under[i] as number)) {
        entry.begin();
      }
    }
    this.byNotifier.set(notifier, entry);
    const { entries } = this.index;
    let at = entries.length;
    while (at > 0 && (entries[at - 1] as Entry).start > entry.start) at--;
    this.index = new EntryIndex([...entries.slice(0, at), entry, ...entries.slice(at)]);
  }

  /** Nothing happens for one that went with its address space. */
  remove(notifier: RangeNotifier): void {
    const entry = this.byNotifier.get(notifier);
    if (entry === undefined) return;
    this.byNotifier.delete(notifier);
    this.sequenceBase = Math.max(this.sequenceBase, entry.sequence + 2 - (entry.sequence % 2));
    this.index = new EntryIndex(this.index.entries.filter((other) => other !== entry));
  }

  /** Number of the range's present state; odd while an invalidation of it is under way. */
  readBegin(notifier: RangeNotifier): number {
    return this.byNotifier.get(notifier)?.sequence ?? 0;
  }

  /**
   * Whether what was looked up since `readBegin` gave `sequence` must be forgotten; always once the
   * notifier is removed.
   */
  readRetry(notifier: RangeNotifier, sequence: number): boolean {
    if (sequence % 2 !== 0) return true;
    const entry = this.byNotifier.get(notifier);
    return entry === undefined || entry.sequence !== sequence;
  }

  /** Tells all whose range overlaps. On return nobody gets at what [start, end) was mapped to. */
  invalidateStart(start: number, end: number, why: InvalidateReason): void {
    assert(start < end, "an invalidation has a range");
    this.under.push(start, end);
    const { index } = this;
    // All numbers first: who is told first can't look up what the others are yet to forget.
    index.visit(start, end, (entry) => entry.begin());
    index.visit(start, end, (entry) => {
      if (this.byNotifier.get(entry.notifier) === entry) {
        entry.notifier.invalidate(start, end, why);
      }
    });
  }

  /** Preconditions: an invalidation of just this range was started and has not ended. */
  invalidateEnd(start: number, end: number): void {
    let at = this.under.length - 2;
    while (at >= 0 && (this.under[at] !== start || this.under[at + 1] !== end)) at -= 2;
    assert(at >= 0, "an invalidation that ends was started");
    this.under.splice(at, 2);
    this.index.visit(start, end, (entry) => entry.finish());
  }

  /** Removes all and tells them that the address space is gone. */
  releaseAll(): void {
    const { entries } = this.index;
    this.index = new EntryIndex([]);
    this.byNotifier.clear();
    for (const entry of entries) entry.notifier.released?.();
  }

  /** Between calls no invalidation is under way. */
  checkInvariants(): void {
    assert(this.under.length === 0, "every invalidation has ended");
    let start = 0;
    for (const entry of this.index.entries) {
      assert(entry.active === 0 && entry.sequence % 2 === 0, "no range is being invalidated");
      assert(entry.start >= start, "notifiers are in order");
      start = entry.start;
    }
  }
}
