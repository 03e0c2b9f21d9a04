// SPDX-License-Identifier: MIT
// A large file at the source: which block is next, what the sink has of it already, and what the
// whole is. Holes are not read and not sent.

import { BlockSums, crc32OfZeroes } from "./block-sums.js";
import { type CopyFile, CopyStat } from "./tree.js";
import type { CopyItem } from "./walk.js";

/** CRCs that one SUMS asks for. */
export const SUMS_PER_REQUEST = 1024;

/**
 * - `OPENING`: OPEN is under way.
 * - `MOVING`: blocks are read and sent, CRCs of the sink's asked for.
 * - `FINISHING`: FINISH is under way.
 */
export type BigFileStage = "OPENING" | "MOVING" | "FINISHING";

export class BigFile {
  readonly item: CopyItem;
  readonly file: CopyFile;
  /** Its number at the sink. */
  readonly slot: number;
  readonly size: number;
  stage: BigFileStage = "OPENING";
  /** Requests of this file under way. */
  inflight = 0;
  /** Why it will not be finished; 0. */
  errno = 0;
  /** Whether the sink said so. */
  isRefused = false;
  /** SUMS is under way. */
  isAsking = false;
  /** Bytes that are at the sink by now. */
  movedBytes = 0;
  /** The file changed while it was read: begin again. */
  isChanged = false;
  readonly sums: BlockSums;
  private readonly blockBytes: number;
  /** Blocks below this are at the sink in some form. */
  private leftCount = 0;
  /** What the sink has told of blocks there. */
  private readonly theirs: BlockSums;
  private cursor = 0;
  /** The data that the cursor is in or before. */
  private dataStart = 0;
  private dataEnd = 0;

  constructor(item: CopyItem, file: CopyFile, slot: number, blockBytes: number) {
    this.item = item;
    this.file = file;
    this.slot = slot;
    this.size = item.stat.size;
    this.blockBytes = blockBytes;
    this.sums = new BlockSums(blockBytes);
    this.theirs = new BlockSums(blockBytes);
  }

  private get blockCount(): number {
    return Math.ceil(this.size / this.blockBytes);
  }

  /** OPEN has been answered: the sink has `leftBytes` of an earlier attempt. */
  opened(leftBytes: number): void {
    this.leftCount = Math.ceil(Math.min(leftBytes, this.size) / this.blockBytes);
    this.stage = "MOVING";
  }

  get isSpoilt(): boolean {
    return this.isChanged || this.errno !== 0;
  }

  lengthOf(index: number): number {
    return Math.min(this.blockBytes, this.size - index * this.blockBytes);
  }

  /** Whether the CRCs of blocks at the sink must be had before the next block: from where. */
  get sumsWanted(): { readonly first: number; readonly count: number } | null {
    if (this.cursor >= this.leftCount || this.isKnown(this.cursor)) return null;
    const count = Math.min(SUMS_PER_REQUEST, this.leftCount - this.cursor);
    return { first: this.cursor, count };
  }

  /** The sink has told the CRC of a block. */
  takeSum(index: number, crc: number): void {
    this.theirs.set(index, crc);
  }

  /**
   * The next block to read. Holes are passed over, but where the sink has something there.
   * @returns its index, -1 at the end, or -2 when CRCs are wanted first.
   */
  nextBlock(): number {
    const { blockCount } = this;
    while (this.cursor < blockCount) {
      if (this.cursor < this.leftCount && !this.isKnown(this.cursor)) return -2;
      const start = this.cursor * this.blockBytes;
      if (this.hasData(start, start + this.lengthOf(this.cursor))) return this.cursor++;
      if (this.cursor < this.leftCount) {
        // The sink has written here: it must be zeroes.
        if (this.theirs.get(this.cursor) !== crc32OfZeroes(this.lengthOf(this.cursor))) {
          return this.cursor++;
        }
        this.cursor++;
        continue;
      }
      // Straight to the block that data begins in.
      const next = Math.floor(this.dataStart / this.blockBytes);
      this.cursor = this.dataStart >= this.size ? blockCount : Math.max(this.cursor + 1, next);
    }
    return -1;
  }

  /** The block has been read. @returns whether the sink has it as it is. */
  isThere(index: number, crc: number): boolean {
    this.sums.set(index, crc);
    return index < this.leftCount && this.theirs.get(index) === crc;
  }

  /** Everything has been sent and answered. */
  get isComplete(): boolean {
    return this.stage === "MOVING" && this.inflight === 0 && this.cursor >= this.blockCount;
  }

  /** Whether the file is still as it was found. */
  isUnchanged(): boolean {
    const now = new CopyStat();
    return this.file.stat(now) >= 0 && now.changed === this.item.stat.changed;
  }

  private isKnown(index: number): boolean {
    return this.theirs.get(index) >= 0;
  }

  private hasData(start: number, end: number): boolean {
    if (start >= this.dataEnd && this.dataStart < this.size) {
      this.dataStart = this.file.nextData(start);
      this.dataEnd = this.dataStart >= this.size ? this.size : this.file.nextHole(this.dataStart);
    }
    return this.dataStart < end && this.dataStart < this.size;
  }
}
