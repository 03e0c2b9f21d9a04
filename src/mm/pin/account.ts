// SPDX-License-Identifier: MIT

import { FRAME_BYTES, type Pfn } from "../frames/index.js";
import { FrameCounts } from "./frame-counts.js";

/**
 * What one process has pinned for long. Each frame is charged once, however often it is pinned:
 * what the limit is for is memory that the system can't use otherwise.
 */
export class PinAccount {
  /** Long-term pins of each frame. */
  readonly counts = new FrameCounts();

  get chargedBytes(): number {
    return this.counts.frameCount * FRAME_BYTES;
  }

  /**
   * Charges `frames` frames from `pfn` on.
   * @returns false: it would be more than `bytesMax`, and nothing is charged.
   */
  charge(pfn: Pfn, frames: number, bytesMax: number): boolean {
    const isUnlimited = bytesMax === Number.POSITIVE_INFINITY;
    const newBytes = isUnlimited ? 0 : this.counts.missing(pfn, frames) * FRAME_BYTES;
    if (newBytes > 0 && this.chargedBytes + newBytes > bytesMax) return false;
    this.counts.add(pfn, frames);
    return true;
  }

  uncharge(pfn: Pfn, frames: number): void {
    this.counts.remove(pfn, frames);
  }
}
