// SPDX-License-Identifier: MIT
// A hash table from 32-bit numbers to small integers in typed arrays: open addressing with linear
// probing, at most half full, no tombstones. The keys must be uniformly random and not of a peer's
// choosing (R_Keys and QPNs that the device has drawn), so their low bits are the hash; looking up
// a key that a peer has made up costs a probe or two.

import { assert } from "../base/index.js";

const EMPTY = 0;

export class KeyTable {
  private readonly mask: number;
  private readonly countMax: number;
  private readonly keys: Uint32Array;
  /** Value + 1 of the key in the same slot; 0 is an empty slot. */
  private readonly entries: Int32Array;
  private used = 0;

  /** @param countMax keys that fit, 1 .. 2^26. */
  constructor(countMax: number) {
    assert(countMax >= 1 && countMax <= 1 << 26, "key count in range");
    let slots = 16;
    while (slots < countMax * 2) slots *= 2;
    this.countMax = countMax;
    this.mask = slots - 1;
    this.keys = new Uint32Array(slots);
    this.entries = new Int32Array(slots);
  }

  /** Keys in the table. */
  get count(): number {
    return this.used;
  }

  /** The value of `key` (unsigned 32 bits), or -1. */
  get(key: number): number {
    for (let slot = key & this.mask; ; slot = (slot + 1) & this.mask) {
      const entry = this.entries[slot] as number;
      if (entry === EMPTY) return -1;
      if (this.keys[slot] === key) return entry - 1;
    }
  }

  /** Preconditions: `key` is not in the table, fewer than `countMax` are, `value` >= 0. */
  insert(key: number, value: number): void {
    assert(this.used < this.countMax, "the table has room");
    assert(this.get(key) < 0, "a key is inserted once");
    let slot = key & this.mask;
    while (this.entries[slot] !== EMPTY) slot = (slot + 1) & this.mask;
    this.keys[slot] = key;
    this.entries[slot] = value + 1;
    this.used++;
  }

  /** Preconditions: `key` is in the table. */
  remove(key: number): void {
    let hole = key & this.mask;
    while (this.keys[hole] !== key || this.entries[hole] === EMPTY) {
      assert(this.entries[hole] !== EMPTY, "a key that is removed is there");
      hole = (hole + 1) & this.mask;
    }
    // Moves back the keys that this one had pushed on, so that no search ends at the hole too
    // early.
    for (let slot = (hole + 1) & this.mask; ; slot = (slot + 1) & this.mask) {
      if (this.entries[slot] === EMPTY) break;
      const home = (this.keys[slot] as number) & this.mask;
      // Its home lies between the hole and its slot: it must stay.
      if (((slot - home) & this.mask) < ((slot - hole) & this.mask)) continue;
      this.keys[hole] = this.keys[slot] as number;
      this.entries[hole] = this.entries[slot] as number;
      hole = slot;
    }
    this.entries[hole] = EMPTY;
    this.used--;
  }
}
