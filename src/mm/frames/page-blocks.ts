// SPDX-License-Identifier: MIT
// Page blocks: what mobility 2 MiB of memory are set apart for, and how much of each is free.

import { BLOCK_TYPE } from "./constants.js";

/**
 * Counts of each page block of a zone, in records. A zone with granules of 2 MiB or more is a
 * single page block, since nothing is set apart there.
 *
 * Identities: free + used = records of the block that are present; stuck <= used.
 */
export class PageBlocks {
  /** log2 of the records of a page block. */
  readonly shift: number;
  /** 2^shift: a power costs more than all else that is done with it. */
  readonly size: number;
  readonly count: number;
  readonly types: Uint8Array;
  /** Records in free blocks. */
  readonly free: Uint32Array;
  /** Used records that can't be moved now: not asked for as movable, or pinned. */
  readonly stuck: Uint32Array;

  constructor(recordCount: number, shift: number) {
    this.shift = shift;
    this.size = 2 ** shift;
    this.count = Math.max(1, Math.ceil(recordCount / 2 ** shift));
    this.types = new Uint8Array(this.count).fill(BLOCK_TYPE.MOVABLE);
    this.free = new Uint32Array(this.count);
    this.stuck = new Uint32Array(this.count);
  }

  get byteLength(): number {
    return this.types.byteLength + this.free.byteLength + this.stuck.byteLength;
  }

  typeOf(record: number): number {
    return this.types[record >>> this.shift] as number;
  }

  /** Adds `delta` records to the free count of the blocks that a range of `count` lies in. */
  addFree(record: number, count: number, sign: 1 | -1): void {
    addTo(this.free, this, record, count, sign);
  }

  addStuck(record: number, count: number, sign: 1 | -1): void {
    addTo(this.stuck, this, record, count, sign);
  }
}

/** A range is inside one page block or made of whole ones, save at the end of the zone. */
function addTo(
  counts: Uint32Array,
  blocks: PageBlocks,
  record: number,
  count: number,
  sign: 1 | -1,
): void {
  const { size } = blocks;
  let block = record >>> blocks.shift;
  if (count <= size) {
    counts[block] = (counts[block] as number) + sign * count;
    return;
  }
  for (let left = count; left > 0; left -= size) {
    counts[block] = (counts[block] as number) + sign * Math.min(size, left);
    block++;
  }
}
