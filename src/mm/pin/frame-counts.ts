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

  /** @returns the count now. */
  add(pfn: Pfn): number {
    const number = pfn >>> LEAF_SHIFT;
    let leaf = this.leaves.get(number);
    if (leaf === undefined) {
      leaf = { counts: new Int32Array(LEAF_FRAMES), used: 0 };
      this.leaves.set(number, leaf);
    }
    const slot = pfn & (LEAF_FRAMES - 1);
    const count = (leaf.counts[slot] as number) + 1;
    leaf.counts[slot] = count;
    if (count === 1) {
      leaf.used++;
      this.frameCount++;
    }
    return count;
  }

  /** @returns the count now. Preconditions: it isn't 0. */
  remove(pfn: Pfn): number {
    const number = pfn >>> LEAF_SHIFT;
    const leaf = this.leaves.get(number);
    const slot = pfn & (LEAF_FRAMES - 1);
    assert(leaf !== undefined && leaf.counts[slot] !== 0, "a frame is counted down once");
    const count = (leaf.counts[slot] as number) - 1;
    leaf.counts[slot] = count;
    if (count === 0) {
      leaf.used--;
      this.frameCount--;
      if (leaf.used === 0) this.leaves.delete(number);
    }
    return count;
  }

  countOf(pfn: Pfn): number {
    const leaf = this.leaves.get(pfn >>> LEAF_SHIFT);
    return leaf === undefined ? 0 : (leaf.counts[pfn & (LEAF_FRAMES - 1)] as number);
  }
}
