// SPDX-License-Identifier: MIT
// A ring of bytes for one writer and one reader, in which every record and everything that is read
// lies in one piece. When it is full the writer is told so; nothing grows.

import { assert } from "../base/index.js";

/** See the head of the file. */
export class ByteRing {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** What can be read: `readLength` bytes at `readOffset`; brought up to date by `peek`. */
  readOffset = 0;
  readLength = 0;

  private head = 0;
  private tail = 0;
  /** Where the bytes before the wrap end; the capacity while there is none. */
  private wrapAt: number;
  /** The writer is behind the reader: it has begun again at 0. */
  private hasWrapped = false;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity);
    this.view = new DataView(this.bytes.buffer);
    this.wrapAt = capacity;
  }

  get isEmpty(): boolean {
    return this.head === this.tail && !this.hasWrapped;
  }

  /** Room for a record of at most `length` bytes. @returns where, or -1 when there is none. */
  reserve(length: number): number {
    if (this.hasWrapped) return this.head + length <= this.tail ? this.head : -1;
    if (this.head + length <= this.bytes.length) return this.head;
    if (length > this.tail) return -1;
    this.wrapAt = this.head;
    this.head = 0;
    this.hasWrapped = true;
    return 0;
  }

  /** Takes the record reserved last, which ends at `end`. */
  commit(end: number): void {
    assert(end >= this.head && end <= this.bytes.length, "a record ends in its room");
    this.head = end;
  }

  /** Finds what can be read in one piece. @returns its length, 0 for nothing. */
  peek(): number {
    if (this.hasWrapped && this.tail === this.wrapAt) {
      this.tail = 0;
      this.hasWrapped = false;
      this.wrapAt = this.bytes.length;
    }
    this.readOffset = this.tail;
    this.readLength = (this.hasWrapped ? this.wrapAt : this.head) - this.tail;
    return this.readLength;
  }

  /** The reader is done with `length` bytes of what `peek` found. */
  consume(length: number): void {
    assert(length <= this.readLength, "no more is consumed than was there");
    this.tail += length;
    this.readOffset += length;
    this.readLength -= length;
    // Begin at the front again, where the memory is warm.
    if (this.head !== this.tail || this.hasWrapped) return;
    this.head = 0;
    this.tail = 0;
  }
}
