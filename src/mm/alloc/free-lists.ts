// SPDX-License-Identifier: MIT
// Where a buddy allocator keeps its free blocks, by order and type of page block. Two ways: linked
// lists through the frame table, last in first out; and bitmaps, which know the lowest and the
// highest block, for the policy that takes small blocks from below and big ones from above.

import { BLOCK_TYPE_COUNT } from "../frames/constants.js";
import type { FrameTable } from "../frames/frame-table.js";

/** Free blocks, by order and type. All orders are in records of the zone. */
export interface FreeLists {
  /** Blocks of `order` and `type`: `counts[order * BLOCK_TYPE_COUNT + type]`. */
  readonly counts: Int32Array;
  /** Per type a bit for each order that has a block. */
  readonly orderMasks: Int32Array;
  insert(record: number, order: number, type: number): void;
  remove(record: number, order: number, type: number): void;
  /** One block of the list, left in it. Preconditions: there is one. */
  pick(order: number, type: number, isBig: boolean): number;
  /** Whether a block is in the list and its neighbours there agree; for checks. */
  has(record: number, order: number, type: number): boolean;
  readonly byteLength: number;
}

const NOBODY = 0xffff_ffff;

/** Doubly linked through `owners` (next) and `indexes` (previous) of the blocks' first records. */
export class LinkedFreeLists implements FreeLists {
  readonly counts: Int32Array;
  readonly orderMasks = new Int32Array(BLOCK_TYPE_COUNT);
  private readonly heads: Int32Array;
  private readonly next: Int32Array;
  private readonly previous: Uint32Array;

  constructor(table: FrameTable, orderMax: number) {
    this.counts = new Int32Array((orderMax + 1) * BLOCK_TYPE_COUNT);
    this.heads = new Int32Array((orderMax + 1) * BLOCK_TYPE_COUNT).fill(-1);
    this.next = table.owners;
    this.previous = table.indexes;
  }

  get byteLength(): number {
    return this.counts.byteLength + this.heads.byteLength + this.orderMasks.byteLength;
  }

  insert(record: number, order: number, type: number): void {
    const list = order * BLOCK_TYPE_COUNT + type;
    const head = this.heads[list] as number;
    this.next[record] = head;
    this.previous[record] = NOBODY;
    if (head >= 0) this.previous[head] = record;
    this.heads[list] = record;
    this.counts[list] = (this.counts[list] as number) + 1;
    this.orderMasks[type] = (this.orderMasks[type] as number) | (1 << order);
  }

  remove(record: number, order: number, type: number): void {
    const list = order * BLOCK_TYPE_COUNT + type;
    const next = this.next[record] as number;
    const previous = this.previous[record] as number;
    if (previous === NOBODY) this.heads[list] = next;
    else this.next[previous] = next;
    if (next >= 0) this.previous[next] = previous;
    this.next[record] = 0;
    this.previous[record] = 0;
    const count = (this.counts[list] as number) - 1;
    this.counts[list] = count;
    if (count === 0) {
      this.orderMasks[type] = (this.orderMasks[type] as number) & ~(1 << order);
    }
  }

  pick(order: number, type: number): number {
    return this.heads[order * BLOCK_TYPE_COUNT + type] as number;
  }

  has(record: number, order: number, type: number): boolean {
    const next = this.next[record] as number;
    const previous = this.previous[record] as number;
    const isFirst = this.heads[order * BLOCK_TYPE_COUNT + type] === record;
    if (isFirst !== (previous === NOBODY)) return false;
    return (
      (isFirst || this.next[previous] === record) && (next < 0 || this.previous[next] === record)
    );
  }
}

/**
 * A bitmap per order and type with summaries above it, 32 to one: the lowest or highest block is
 * found in as many steps as there are levels, at most 5 for 128 GiB.
 */
export class OrderedFreeLists implements FreeLists {
  readonly counts: Int32Array;
  readonly orderMasks = new Int32Array(BLOCK_TYPE_COUNT);
  private readonly maps: (BitTree | null)[];
  private readonly recordCount: number;

  constructor(recordCount: number, orderMax: number) {
    this.counts = new Int32Array((orderMax + 1) * BLOCK_TYPE_COUNT);
    this.maps = new Array((orderMax + 1) * BLOCK_TYPE_COUNT).fill(null);
    this.recordCount = recordCount;
  }

  get byteLength(): number {
    let bytes = this.counts.byteLength + this.orderMasks.byteLength;
    for (const map of this.maps) bytes += map === null ? 0 : map.byteLength;
    return bytes;
  }

  insert(record: number, order: number, type: number): void {
    const list = order * BLOCK_TYPE_COUNT + type;
    let map = this.maps[list] ?? null;
    if (map === null) {
      // Lists that are never used cost nothing: a policy without grouping has one type.
      map = new BitTree(Math.ceil(this.recordCount / 2 ** order));
      this.maps[list] = map;
    }
    map.set(record >>> order);
    this.counts[list] = (this.counts[list] as number) + 1;
    this.orderMasks[type] = (this.orderMasks[type] as number) | (1 << order);
  }

  remove(record: number, order: number, type: number): void {
    const list = order * BLOCK_TYPE_COUNT + type;
    (this.maps[list] as BitTree).clear(record >>> order);
    const count = (this.counts[list] as number) - 1;
    this.counts[list] = count;
    if (count === 0) {
      this.orderMasks[type] = (this.orderMasks[type] as number) & ~(1 << order);
    }
  }

  pick(order: number, type: number, isBig: boolean): number {
    const map = this.maps[order * BLOCK_TYPE_COUNT + type] as BitTree;
    return (isBig ? map.highest() : map.lowest()) << order;
  }

  has(record: number, order: number, type: number): boolean {
    return this.maps[order * BLOCK_TYPE_COUNT + type]?.has(record >>> order) === true;
  }
}

/** A set of small numbers that knows its lowest and its highest. */
class BitTree {
  /** `levels[0]` has a bit per number, each level above a bit per word of the one below. */
  private readonly levels: Int32Array[] = [];

  constructor(size: number) {
    let words = size;
    do {
      words = Math.ceil(words / 32);
      this.levels.push(new Int32Array(words));
    } while (words > 1);
  }

  get byteLength(): number {
    let bytes = 0;
    for (const level of this.levels) bytes += level.byteLength;
    return bytes;
  }

  /** Whether it is in every level. */
  has(number: number): boolean {
    let at = number;
    for (const level of this.levels) {
      if (((level[at >>> 5] as number) & (1 << (at & 31))) === 0) return false;
      at >>>= 5;
    }
    return true;
  }

  set(number: number): void {
    for (let depth = 0; depth < this.levels.length; depth++) {
      const level = this.levels[depth] as Int32Array;
      const word = number >>> 5;
      const before = level[word] as number;
      level[word] = before | (1 << (number & 31));
      if (before !== 0) return;
      number = word;
    }
  }

  clear(number: number): void {
    for (let depth = 0; depth < this.levels.length; depth++) {
      const level = this.levels[depth] as Int32Array;
      const word = number >>> 5;
      const after = (level[word] as number) & ~(1 << (number & 31));
      level[word] = after;
      if (after !== 0) return;
      number = word;
    }
  }

  /** Preconditions: not empty. */
  lowest(): number {
    let number = 0;
    for (let depth = this.levels.length - 1; depth >= 0; depth--) {
      const word = (this.levels[depth] as Int32Array)[number] as number;
      number = (number << 5) + 31 - Math.clz32(word & -word);
    }
    return number;
  }

  /** Preconditions: not empty. */
  highest(): number {
    let number = 0;
    for (let depth = this.levels.length - 1; depth >= 0; depth--) {
      const word = (this.levels[depth] as Int32Array)[number] as number;
      number = (number << 5) + 31 - Math.clz32(word);
    }
    return number;
  }
}
