// SPDX-License-Identifier: MIT

import { assert } from "./assert.js";

/**
 * A bounded first-in first-out queue of integers in a typed array; nothing is allocated after
 * construction. Overflow is refused, not silently dropped: `push` returns false.
 */
export class IntRing {
  private readonly slots: Int32Array;
  private readonly mask: number;
  /** Number ever taken, modulo 2^32. Idle: head === tail. */
  private head = 0;
  /** Number ever pushed, modulo 2^32. */
  private tail = 0;

  /** @param capacityMin at least this many fit; rounded up to a power of two, 1 .. 2^30. */
  constructor(capacityMin: number) {
    assert(capacityMin >= 1 && capacityMin <= 1 << 30, "ring capacity in range");
    let capacity = 1;
    while (capacity < capacityMin) capacity *= 2;
    this.slots = new Int32Array(capacity);
    this.mask = capacity - 1;
  }

  get count(): number {
    return (this.tail - this.head) >>> 0;
  }

  push(value: number): boolean {
    if ((this.tail - this.head) >>> 0 > this.mask) return false;
    this.slots[this.tail & this.mask] = value;
    this.tail = (this.tail + 1) | 0;
    return true;
  }

  /** Preconditions: `count` > 0. */
  shift(): number {
    assert(this.head !== this.tail, "ring is not empty");
    const value = this.slots[this.head & this.mask] as number;
    this.head = (this.head + 1) | 0;
    return value;
  }

  /** The oldest value, left in place. Preconditions: `count` > 0. */
  peek(): number {
    assert(this.head !== this.tail, "ring is not empty");
    return this.slots[this.head & this.mask] as number;
  }

  clear(): void {
    this.head = this.tail;
  }
}

/** The same for object references; slots are cleared as they are taken. */
export class ObjectRing<T> {
  private readonly slots: (T | null)[];
  private readonly mask: number;
  private head = 0;
  private tail = 0;

  /** @param capacityMin at least this many fit; rounded up to a power of two, 1 .. 2^30. */
  constructor(capacityMin: number) {
    assert(capacityMin >= 1 && capacityMin <= 1 << 30, "ring capacity in range");
    let capacity = 1;
    while (capacity < capacityMin) capacity *= 2;
    this.slots = new Array<T | null>(capacity).fill(null);
    this.mask = capacity - 1;
  }

  get count(): number {
    return (this.tail - this.head) >>> 0;
  }

  push(value: T): boolean {
    if ((this.tail - this.head) >>> 0 > this.mask) return false;
    this.slots[this.tail & this.mask] = value;
    this.tail = (this.tail + 1) | 0;
    return true;
  }

  /** The oldest value, or null when the ring is empty. */
  shift(): T | null {
    if (this.head === this.tail) return null;
    const index = this.head & this.mask;
    const value = this.slots[index] as T;
    this.slots[index] = null;
    this.head = (this.head + 1) | 0;
    return value;
  }

  peek(): T | null {
    return this.head === this.tail ? null : (this.slots[this.head & this.mask] as T);
  }
}
