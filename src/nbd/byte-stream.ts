// SPDX-License-Identifier: MIT
// A connected, non-blocking stream socket. `os/` implements it; the NBD connection machine only
// tells it where bytes come from and go to.

import type { Memory } from "../base/index.js";

/** A gather list of fixed capacity, reused. */
export class IoVector {
  readonly memories: (Memory | null)[];
  readonly offsets: Int32Array;
  readonly lengths: Int32Array;
  readonly countMax: number;
  count = 0;
  /** Sum of `lengths`. */
  byteLength = 0;

  constructor(countMax: number) {
    this.countMax = countMax;
    this.memories = new Array<Memory | null>(countMax).fill(null);
    this.offsets = new Int32Array(countMax);
    this.lengths = new Int32Array(countMax);
  }

  /** @returns false when the list is full. */
  push(memory: Memory, offset: number, length: number): boolean {
    if (this.count === this.countMax) return false;
    this.memories[this.count] = memory;
    this.offsets[this.count] = offset;
    this.lengths[this.count] = length;
    this.count++;
    this.byteLength += length;
    return true;
  }

  clear(): void {
    this.memories.fill(null, 0, this.count);
    this.count = 0;
    this.byteLength = 0;
  }
}

export interface ByteStream {
  /**
   * @returns bytes read (1 .. length); 0 at the end of the stream; -errno, -EAGAIN when nothing is
   *   there yet.
   */
  read(memory: Memory, offset: number, length: number): number;
  /** @returns bytes taken (may be short); -errno, -EAGAIN when the socket takes nothing for now. */
  write(vector: IoVector): number;
  /** Ends the stream in both directions and frees it; further calls give -EBADF. */
  close(): void;
  /** Who is at the other end, for messages. */
  readonly peer: string;
}
