// SPDX-License-Identifier: MIT

import { FRAME_BYTES, type Pfn } from "../frames/index.js";
import { FrameCounts } from "./frame-counts.js";

/**
 * What one process has pinned for long. Each frame is charged once, however often it is pinned:
 * what the limit is for is memory that the system can't use otherwise. Under a policy with larger
 * base pages that is all of a base page, whatever of it is mapped.
 */
export class PinAccount {
  /** The limit when something was charged last: it may be lower now. */
  bytesMax = Number.POSITIVE_INFINITY;
  /** Long-term pins of each base page. */
  private readonly counts = new FrameCounts();
  /** log2 of the frames of a base page. */
  private readonly order: number;

  /** @param baseShift of the policy. */
  constructor(baseShift: number) {
    this.order = baseShift - 12;
  }

  get chargedBytes(): number {
    return this.counts.frameCount * FRAME_BYTES * 2 ** this.order;
  }

  /**
   * Charges `frames` frames from `pfn` on.
   * @returns false: it would be more than `bytesMax`, and nothing is charged.
   */
  charge(pfn: Pfn, frames: number, bytesMax: number): boolean {
    const isUnlimited = bytesMax === Number.POSITIVE_INFINITY;
    const newBytes = isUnlimited ? 0 : this.missing(pfn, frames) * FRAME_BYTES * 2 ** this.order;
    if (newBytes > 0 && this.chargedBytes + newBytes > bytesMax) return false;
    if (isUnlimited || newBytes > 0) this.bytesMax = bytesMax;
    if (this.order === 0) this.counts.add(pfn, frames);
    else for (let i = pfn; i < pfn + frames; i++) this.counts.add(i >>> this.order);
    return true;
  }

  uncharge(pfn: Pfn, frames: number): void {
    if (this.order === 0) this.counts.remove(pfn, frames);
    else for (let i = pfn; i < pfn + frames; i++) this.counts.remove(i >>> this.order);
  }

  /** Whether some of `frames` frames from `pfn` on is charged: whole base pages. */
  hasSome(pfn: Pfn, frames: number): boolean {
    return this.missing(pfn, frames) < frames / 2 ** this.order;
  }

  /** Base pages that aren't charged, of those with `frames` frames from `pfn` on. */
  private missing(pfn: Pfn, frames: number): number {
    const first = pfn >>> this.order;
    const last = (pfn + frames - 1) >>> this.order;
    return this.counts.missing(first, last - first + 1);
  }
}
