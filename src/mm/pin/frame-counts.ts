// SPDX-License-Identifier: MIT

import { assert } from "../../base/index.js";
import type { Pfn } from "../frames/index.js";

const LEAF_SHIFT = 9;
const LEAF_FRAMES = 1 << LEAF_SHIFT;

interface Leaf {
  readonly counts: Int32Array;
  used: number;
}

/** A number for each frame, most of them 0: 4 bytes a frame where there is another. */
export class FrameCounts {
  /** Frames whose count isn't 0. */
  frameCount = 0;
  private readonly leaves = new Map<number, Leaf>();

  /** Counts each of `frames` frames from `pfn` on once more. */
  add(pfn: Pfn, frames = 1): void {
    for (let first = pfn; first < pfn + frames; ) {
      const leaf = this.makeLeaf(first >>> LEAF_SHIFT);
      const slot = first & (LEAF_FRAMES - 1);
      const end = Math.min(LEAF_FRAMES, slot + pfn + frames - first);
      let added = 0;
      for (let i = slot; i < end; i++) {
        const count = leaf.counts[i] as number;
        leaf.counts[i] = count + 1;
        if (count === 0) added++;
      }
      leaf.used += added;
      this.frameCount += added;
      first += end - slot;
    }
  }

  /** Counts each of `frames` frames from `pfn` on down. Preconditions: none is 0. */
  remove(pfn: Pfn, frames = 1): void {
    for (let first = pfn; first < pfn + frames; ) {
      const number = first >>> LEAF_SHIFT;
      const leaf = this.leaves.get(number);
      assert(leaf !== undefined, "a frame is counted down once");
      const slot = first & (LEAF_FRAMES - 1);
      const end = Math.min(LEAF_FRAMES, slot + pfn + frames - first);
      let removed = 0;
      for (let i = slot; i < end; i++) {
        const count = (leaf.counts[i] as number) - 1;
        assert(count >= 0, "a frame is counted down once");
        leaf.counts[i] = count;
        if (count === 0) removed++;
      }
      leaf.used -= removed;
      this.frameCount -= removed;
      if (leaf.used === 0) this.leaves.delete(number);
      first += end - slot;
    }
  }

  /** How many of `frames` frames from `pfn` on have no count. */
  missing(pfn: Pfn, frames: number): number {
    let missing = 0;
    for (let first = pfn; first < pfn + frames; ) {
      const slot = first & (LEAF_FRAMES - 1);
      const end = Math.min(LEAF_FRAMES, slot + pfn + frames - first);
      const leaf = this.leaves.get(first >>> LEAF_SHIFT);
      if (leaf === undefined) missing += end - slot;
      else for (let i = slot; i < end; i++) missing += leaf.counts[i] === 0 ? 1 : 0;
      first += end - slot;
    }
    return missing;
  }

  countOf(pfn: Pfn): number {
    const leaf = this.leaves.get(pfn >>> LEAF_SHIFT);
    return leaf === undefined ? 0 : (leaf.counts[pfn & (LEAF_FRAMES - 1)] as number);
  }

  private makeLeaf(number: number): Leaf {
    let leaf = this.leaves.get(number);
    if (leaf === undefined) {
      leaf = { counts: new Int32Array(LEAF_FRAMES), used: 0 };
      this.leaves.set(number, leaf);
    }
    return leaf;
  }
}
