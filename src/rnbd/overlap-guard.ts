// SPDX-License-Identifier: MIT
// Keeps changes of the same bytes apart.
//
// A request whose connection is lost may have been executed, though its answer never came; it is
// executed again after the reconnect. That is harmless (a write of the same data is idempotent) as
// long as no other change of the same bytes got in between: then the second execution would bring
// old data back behind newer, acknowledged data. Callers may have overlapping changes in flight at
// once, in any order they don't care about; one after the other *twice* is not such an order. So a
// change that overlaps one in flight is held back until that one has its answer, over however many
// reconnects that takes. Reads are not held: they have no effect that could come twice.

import { assert } from "../base/index.js";

/** A range of a device, bytes; while guarded, its fields do not change. */
export interface GuardedRange {
  offset: number;
  length: number;
  /** The guard's own; -1 while not guarded. */
  guardIndex: number;
}

/**
 * The ranges of one device that changes in flight cover, disjoint by construction. As many as there
 * are commands in flight, so a scan is cheaper than a tree that must be kept.
 */
export class OverlapGuard {
  private readonly ranges: GuardedRange[] = [];

  get count(): number {
    return this.ranges.length;
  }

  /** Whether a change of these bytes must wait. */
  overlaps(offset: number, length: number): boolean {
    const end = offset + length;
    for (let i = 0; i < this.ranges.length; i++) {
      const range = this.ranges[i] as GuardedRange;
      if (range.offset < end && offset < range.offset + range.length) return true;
    }
    return false;
  }

  /** Preconditions: `range` overlaps none that is guarded. */
  add(range: GuardedRange): void {
    assert(range.guardIndex < 0, "the range is not guarded yet");
    range.guardIndex = this.ranges.length;
    this.ranges.push(range);
  }

  /** Does nothing where `range` is not guarded. */
  remove(range: GuardedRange): void {
    const index = range.guardIndex;
    if (index < 0) return;
    assert(this.ranges[index] === range, "the range is where it says");
    const last = this.ranges.pop() as GuardedRange;
    if (last !== range) {
      this.ranges[index] = last;
      last.guardIndex = index;
    }
    range.guardIndex = -1;
  }

  checkInvariants(): void {
    const sorted = [...this.ranges].sort((a, b) => a.offset - b.offset);
    for (let i = 1; i < sorted.length; i++) {
      const before = sorted[i - 1] as GuardedRange;
      const after = sorted[i] as GuardedRange;
      assert(before.offset + before.length <= after.offset, "guarded ranges are disjoint");
    }
    assert(
      this.ranges.every((range, index) => range.guardIndex === index),
      "every range knows its index",
    );
  }
}
