// SPDX-License-Identifier: MIT
import { assert } from "../../base/index.js";

/**
 * The permits of a session: numbers 0 .. capacity - 1, handed out lowest first (facts page, section
 * 6), so that a lightly loaded session keeps using the same few chunks.
 */
export class PermitPool {
  readonly capacity: number;
  /** Permits not taken. Idle: freeCount === capacity. */
  freeCount: number;
  /** One bit per permit, set while it is free. */
  private readonly words: Uint32Array;
  /** No word below this one has a free permit. */
  private firstWord = 0;

  /** @param capacity 1 .. 65,535. */
  constructor(capacity: number) {
    assert(capacity >= 1 && capacity <= 65_535, "permit count in range");
    this.capacity = capacity;
    this.freeCount = capacity;
    this.words = new Uint32Array((capacity + 31) >>> 5).fill(0xffff_ffff);
    const rest = capacity & 31;
    if (rest !== 0) this.words[this.words.length - 1] = 2 ** rest - 1;
  }

  /** Takes the lowest free permit, or -1 when all are taken. */
  take(): number {
    const permit = this.lowest();
    if (permit >= 0) this.takeThis(permit);
    return permit;
  }

  /** The lowest free permit, or -1 when all are taken. */
  lowest(): number {
    if (this.freeCount === 0) return -1;
    let word = this.firstWord;
    while (this.words[word] === 0) word++;
    this.firstWord = word;
    const bits = this.words[word] as number;
    return (word << 5) + 31 - Math.clz32(bits & -bits);
  }

  /** Takes a certain one. Preconditions: `permit` is free. */
  takeThis(permit: number): void {
    assert(!this.isTaken(permit), "permit is free");
    const word = permit >>> 5;
    this.words[word] = (this.words[word] as number) & ~(1 << (permit & 31));
    this.freeCount--;
  }

  /** Preconditions: `permit` is taken. */
  give(permit: number): void {
    assert(this.isTaken(permit), "permit is taken");
    const word = permit >>> 5;
    this.words[word] = (this.words[word] as number) | (1 << (permit & 31));
    if (word < this.firstWord) this.firstWord = word;
    this.freeCount++;
  }

  isTaken(permit: number): boolean {
    assert(permit >= 0 && permit < this.capacity, "permit number in range");
    return (((this.words[permit >>> 5] as number) >>> (permit & 31)) & 1) === 0;
  }
}
