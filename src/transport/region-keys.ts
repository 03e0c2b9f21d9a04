// SPDX-License-Identifier: MIT
// The keys of memory regions: which of them a region has, which region one leads to.

import { assert, type Random, randomBelow } from "../base/index.js";
import { KeyTable } from "./key-table.js";

/** Keys that a region can have at once: the current one and those reserved for coming REG_MRs. */
const KEYS_PER_REGION = 4;
/** No region ever has key 0, so that a zeroed header names nothing. */
export const NO_KEY = 0;

export class RegionKeys {
  /** Every key, current or reserved, to its region. */
  readonly indexByKey: KeyTable;
  private readonly random: Random;
  /** KEYS_PER_REGION slots each: current key first, then reservations, oldest first; 0 is none. */
  private readonly keys: Uint32Array;

  constructor(regionCountMax: number, random: Random) {
    this.random = random;
    this.keys = new Uint32Array(regionCountMax * KEYS_PER_REGION);
    this.indexByKey = new KeyTable(regionCountMax * KEYS_PER_REGION);
  }

  /** The current key of a region, 0 for none. */
  current(index: number): number {
    return this.keys[index * KEYS_PER_REGION] as number;
  }

  /** Gives a region without a key one. */
  draw(index: number): void {
    const key = this.drawKey();
    this.keys[index * KEYS_PER_REGION] = key;
    this.indexByKey.insert(key, index);
  }

  /** Reserves a key; the fourth takes the place of the oldest. */
  reserve(index: number): number {
    const first = index * KEYS_PER_REGION + 1;
    const end = first + KEYS_PER_REGION - 1;
    let at = first;
    while (at < end && this.keys[at] !== NO_KEY) at++;
    if (at === end) {
      this.indexByKey.remove(this.keys[first] as number);
      this.keys.copyWithin(first, first + 1, end);
      at = end - 1;
    }
    const key = this.drawKey();
    this.keys[at] = key;
    this.indexByKey.insert(key, index);
    return key;
  }

  isReserved(index: number, key: number): boolean {
    return this.reservationSlot(index, key) >= 0;
  }

  /** A reserved key becomes the current one. Preconditions: it is reserved; there is none now. */
  use(index: number, key: number): void {
    const slot = this.reservationSlot(index, key);
    assert(slot >= 0 && this.current(index) === NO_KEY, "a reserved key becomes the current one");
    // Reservations made before this one have been skipped and stay reserved.
    const end = (index + 1) * KEYS_PER_REGION;
    this.keys.copyWithin(slot, slot + 1, end);
    this.keys[end - 1] = NO_KEY;
    this.keys[index * KEYS_PER_REGION] = key;
  }

  /** Takes a region's current key away; reservations stay. */
  removeCurrent(index: number): void {
    const slot = index * KEYS_PER_REGION;
    this.indexByKey.remove(this.keys[slot] as number);
    this.keys[slot] = NO_KEY;
  }

  removeAll(index: number): void {
    const first = index * KEYS_PER_REGION;
    for (let at = first; at < first + KEYS_PER_REGION; at++) {
      const key = this.keys[at] as number;
      if (key !== NO_KEY) this.indexByKey.remove(key);
      this.keys[at] = NO_KEY;
    }
  }

  checkInvariants(): void {
    let keyed = 0;
    for (let slot = 0; slot < this.keys.length; slot++) {
      const key = this.keys[slot] as number;
      if (key === NO_KEY) continue;
      keyed++;
      const index = Math.floor(slot / KEYS_PER_REGION);
      assert(this.indexByKey.get(key) === index, "every key leads to its region");
    }
    assert(keyed === this.indexByKey.count, "the table holds exactly the keys of the regions");
  }

  private reservationSlot(index: number, key: number): number {
    if (key === NO_KEY) return -1;
    const first = index * KEYS_PER_REGION;
    for (let slot = first + 1; slot < first + KEYS_PER_REGION; slot++) {
      if (this.keys[slot] === key) return slot;
    }
    return -1;
  }

  private drawKey(): number {
    for (;;) {
      const key = randomBelow(this.random, 0x1_0000_0000);
      if (key !== NO_KEY && this.indexByKey.get(key) < 0) return key;
    }
  }
}
