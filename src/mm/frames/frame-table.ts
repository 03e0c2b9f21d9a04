// SPDX-License-Identifier: MIT
// Metadata of frames: one typed array per field, no object per frame. 20 bytes a record.

import { SOILED } from "./constants.js";

/**
 * One record per granule of a zone. Counts, flags, owner and index of an allocated block are those
 * of its first record. While a block is free, `owners` and `indexes` of its first record are the
 * links of its free list.
 *
 * The arrays start as zeroes that nobody has touched: a table costs address space until its frames
 * are used.
 */
export class FrameTable {
  readonly recordCount: number;
  /** FRAME_STATE of each record. */
  readonly states: Uint8Array;
  /** Of first records, used or free, and of tails of used blocks: the block's order. */
  readonly orders: Uint8Array;
  /** FRAME_FLAG, the mobility, and SOILED. */
  readonly flags: Uint16Array;
  /** Who keeps it alive; 0 when free. */
  readonly references: Int32Array;
  /** Who reads or writes its bytes from outside the CPU's page tables; 0 when free. */
  readonly pins: Int32Array;
  /** Id of the owner, 0 for nobody. */
  readonly owners: Int32Array;
  /** What the owner calls this frame: a page's number, say. */
  readonly indexes: Uint32Array;

  constructor(recordCount: number) {
    this.recordCount = recordCount;
    this.states = new Uint8Array(recordCount);
    this.orders = new Uint8Array(recordCount);
    this.flags = new Uint16Array(recordCount);
    this.references = new Int32Array(recordCount);
    this.pins = new Int32Array(recordCount);
    this.owners = new Int32Array(recordCount);
    this.indexes = new Uint32Array(recordCount);
  }

  /** Bytes of the arrays. */
  get byteLength(): number {
    return (
      this.states.byteLength +
      this.orders.byteLength +
      this.flags.byteLength +
      this.references.byteLength +
      this.pins.byteLength +
      this.owners.byteLength +
      this.indexes.byteLength
    );
  }

  /** Marks the bytes of `count` records as other than zero, and takes every other flag away. */
  soil(record: number, count: number): void {
    if (count === 1) this.flags[record] = SOILED;
    else this.flags.fill(SOILED, record, record + count);
  }
}
