// SPDX-License-Identifier: MIT
// Bytes that were read from a stream and not yet understood: many small requests come with one
// read.

import { assert } from "../base/index.js";
import type { RequestPool } from "./request-pool.js";

/** How far the staged bytes got. */
export const INTAKE = {
  /** One step is done, there may be more to do. */
  TAKEN: 0,
  /** What is staged is not enough. */
  NEEDS_MORE: 1,
  /** What is staged has to wait: for a slot, a segment, or for a reply to be sent. */
  BLOCKED: 2,
  /** Nothing more will be taken. */
  STOPPED: 3,
} as const;
export type Intake = (typeof INTAKE)[keyof typeof INTAKE];

/** The first `stagingBytes` of a pool's memory. */
export class Staging {
  readonly capacity: number;
  private readonly bytes: Uint8Array;
  private readonly base: number;
  /** Staged bytes are `head` .. `tail` - 1, offsets into the pool's memory. */
  private head: number;
  private tail: number;

  constructor(pool: RequestPool, capacity: number) {
    this.bytes = pool.memory.bytes;
    this.base = pool.layout.stagingOffset;
    this.capacity = capacity;
    this.head = this.base;
    this.tail = this.base;
  }

  get count(): number {
    return this.tail - this.head;
  }

  /** Where the first staged byte lies in the pool's memory. */
  get offset(): number {
    return this.head;
  }

  /** Where the next byte goes, `room` of them at most. */
  get end(): number {
    return this.tail;
  }

  get room(): number {
    return this.base + this.capacity - this.tail;
  }

  reset(): void {
    this.head = this.base;
    this.tail = this.base;
  }

  /** `count` bytes have been read to `end`. */
  add(count: number): void {
    assert(count <= this.room, "staged bytes stay in their buffer");
    this.tail += count;
  }

  /** Drops the first `count` bytes. */
  take(count: number): void {
    assert(count <= this.count, "only staged bytes are taken");
    this.head += count;
    if (this.head === this.tail) this.reset();
  }

  /** Makes all room that there is: moves the staged bytes to the front. */
  compact(): void {
    if (this.head === this.base) return;
    this.bytes.copyWithin(this.base, this.head, this.tail);
    this.tail -= this.head - this.base;
    this.head = this.base;
  }
}
