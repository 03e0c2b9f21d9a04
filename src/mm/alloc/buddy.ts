// SPDX-License-Identifier: MIT
// The buddy allocator of one zone: blocks of 2^order records, split and merged with their buddies;
// free lists per order and per type of page block; a request whose own type has nothing left takes
// from another type, whole page blocks where it can. Read first: Linux `mm/page_alloc.c` for the
// rules of the field (there `__rmqueue`, `find_suitable_fallback`); where it differs it says so.
//
// All numbers are records of the zone's table, all orders in records. Nothing here knows bytes.

import { assert } from "../../base/index.js";
import {
  BLOCK_TYPE,
  BLOCK_TYPE_COUNT,
  FRAME_STATE,
  ORDER_MAX,
  PAGE_BLOCK_ORDER,
} from "../frames/constants.js";
import type { FrameTable } from "../frames/frame-table.js";
import { PageBlocks } from "../frames/page-blocks.js";
import type { AllocatorCounters } from "./counters.js";
import { type FreeLists, LinkedFreeLists, OrderedFreeLists } from "./free-lists.js";
import type { AllocatorPolicy } from "./policy.js";

/** Where a type looks when it has nothing of its own, best first. */
const FALLBACKS: readonly (readonly number[])[] = [
  [BLOCK_TYPE.RECLAIMABLE, BLOCK_TYPE.MOVABLE],
  [BLOCK_TYPE.RECLAIMABLE, BLOCK_TYPE.UNMOVABLE],
  [BLOCK_TYPE.UNMOVABLE, BLOCK_TYPE.MOVABLE],
];
const NOTHING = -1;

export class BuddyAllocator {
  readonly table: FrameTable;
  readonly blocks: PageBlocks;
  readonly lists: FreeLists;
  /** Largest order, in records. */
  readonly orderMax: number;
  /** Records in free blocks. */
  freeCount = 0;
  private readonly grouping: boolean;
  private readonly splitsEnds: boolean;
  private readonly counters: AllocatorCounters;

  /** @param granuleOrder log2 of the frames of a record. */
  constructor(
    table: FrameTable,
    granuleOrder: number,
    policy: AllocatorPolicy,
    counters: AllocatorCounters,
  ) {
    this.table = table;
    this.orderMax = ORDER_MAX - granuleOrder;
    this.blocks = new PageBlocks(table.recordCount, granuleOrder === 0 ? PAGE_BLOCK_ORDER : 31);
    this.grouping = policy.groupByMobility;
    this.splitsEnds = policy.placement === "split-ends";
    this.lists = this.splitsEnds
      ? new OrderedFreeLists(table.recordCount, this.orderMax)
      : new LinkedFreeLists(table, this.orderMax);
    this.counters = counters;
  }

  /** Bytes of metadata beside the table. */
  get byteLength(): number {
    return this.blocks.byteLength + this.lists.byteLength;
  }

  /** Hands records that were absent to the allocator. */
  addRange(first: number, count: number): void {
    this.table.states.fill(FRAME_STATE.FREE_TAIL, first, first + count);
    this.insertRange(first, count);
  }

  /**
   * Takes a block off the free lists and marks it used; its counts, owner and index are 0.
   * @returns its first record, -1 when no list has one.
   */
  allocate(order: number, type: number): number {
    let record = NOTHING;
    if (order >= this.blocks.shift) record = this.takeFrom(order, BLOCK_TYPE.HUGE);
    if (record < 0) record = this.takeFrom(order, this.listTypeOf(type));
    if (record < 0 && this.grouping) record = this.takeFromOthers(order, type);
    if (record >= 0) this.markUsed(record, order);
    return record;
  }

  /** Whether the type's own lists, or the reserve, have a block of `order`. */
  hasOwn(order: number, type: number): boolean {
    const masks = this.lists.orderMasks;
    const mask = masks[this.listTypeOf(type)] as number;
    const reserve = order >= this.blocks.shift ? (masks[BLOCK_TYPE.HUGE] as number) : 0;
    return ((mask | reserve) & (-1 << order)) !== 0;
  }

  /**
   * Like `allocate`, from blocks below 2 MiB alone and wherever they are: room for something that
   * is moved so that a whole page block becomes free. @returns -1 when there is none.
   */
  allocateFragment(order: number, type: number): number {
    const below = (1 << Math.min(this.blocks.shift, this.orderMax + 1)) - 1;
    const own = this.listTypeOf(type);
    let record = this.takeFragment(order, own, below);
    for (let other = BLOCK_TYPE.RECLAIMABLE; record < 0 && other >= 0; other--) {
      if (other !== own) record = this.takeFragment(order, other, below);
    }
    if (record >= 0) this.markUsed(record, order);
    return record;
  }

  /** Takes the block of 2^order records at `record`, all of it free, and marks it used. */
  takeExactly(record: number, order: number): void {
    this.takeRange(record, 1 << order);
    this.markUsed(record, order);
  }

  /** Free records that a request of `order` could be given: the reserve is not for small ones. */
  freeFor(order: number): number {
    let reserved = 0;
    if (order < this.blocks.shift && this.lists.orderMasks[BLOCK_TYPE.HUGE] !== 0) {
      for (let size = 0; size <= this.orderMax; size++) {
        const count = this.lists.counts[size * BLOCK_TYPE_COUNT + BLOCK_TYPE.HUGE] as number;
        reserved += count * 2 ** size;
      }
    }
    return this.freeCount - reserved;
  }

  /** Whether some list has a block of `order`. */
  hasAny(order: number): boolean {
    const masks = this.lists.orderMasks;
    let mask = 0;
    for (let type = 0; type <= BLOCK_TYPE.RECLAIMABLE; type++) mask |= masks[type] as number;
    if (order >= this.blocks.shift) mask |= masks[BLOCK_TYPE.HUGE] as number;
    return (mask & (-1 << order)) !== 0;
  }

  /** Gives a used block back and merges it with its free buddies. */
  free(record: number, order: number): void {
    const { states } = this.table;
    const count = 1 << order;
    this.table.references[record] = 0;
    this.table.owners[record] = 0;
    this.table.indexes[record] = 0;
    if (order > 0) states.fill(FRAME_STATE.FREE_TAIL, record, record + count);
    this.blocks.addFree(record, count, 1);
    this.freeCount += count;
    this.merge(record, order);
  }

  /**
   * Takes exactly the records [first, first + count) off the free lists. They are isolated then:
   * `markUsed` or `insertRange` must follow. Preconditions: all are free.
   */
  takeRange(first: number, count: number): void {
    const end = first + count;
    let record = first;
    while (record < end) {
      const head = this.headOfFree(record);
      assert(head >= 0, "a range that is taken is free");
      const order = this.table.orders[head] as number;
      this.takeOut(head, order);
      const headEnd = head + (1 << order);
      if (head < first) this.insertRange(head, first - head);
      if (headEnd > end) this.insertRange(end, headEnd - end);
      record = headEnd;
    }
    this.table.states.fill(FRAME_STATE.ISOLATED, first, end);
  }

  /** First record of the free block that `record` lies in, -1 when it isn't free. */
  headOfFree(record: number): number {
    const { states, orders } = this.table;
    if (states[record] === FRAME_STATE.FREE) return record;
    if (states[record] !== FRAME_STATE.FREE_TAIL) return NOTHING;
    for (let order = 1; order <= this.orderMax; order++) {
      const head = (record >>> order) << order;
      if (states[head] === FRAME_STATE.FREE) {
        return (orders[head] as number) >= order ? head : NOTHING;
      }
    }
    return NOTHING;
  }

  /** Marks a block that is on no list as used. */
  markUsed(record: number, order: number): void {
    const { states, orders } = this.table;
    if (order > 0) {
      states.fill(FRAME_STATE.TAIL, record + 1, record + (1 << order));
      orders.fill(order, record, record + (1 << order));
    } else {
      orders[record] = 0;
    }
    states[record] = FRAME_STATE.USED;
  }

  /** Puts records that are on no list back as free blocks, the largest that alignment allows. */
  insertRange(first: number, count: number): void {
    const { states } = this.table;
    states.fill(FRAME_STATE.FREE_TAIL, first, first + count);
    this.freeCount += count;
    let record = first;
    let left = count;
    while (left > 0) {
      const aligned = record === 0 ? this.orderMax : 31 - Math.clz32(record & -record);
      const order = Math.min(aligned, 31 - Math.clz32(left), this.orderMax);
      this.blocks.addFree(record, 1 << order, 1);
      this.merge(record, order);
      record += 1 << order;
      left -= 1 << order;
    }
  }

  /**
   * Sets a page block apart for `type`; its free blocks go to that type's lists. A block that is
   * free altogether is nobody's: it stays movable, unless it is for the reserve.
   */
  setBlockType(block: number, type: number): void {
    const { blocks } = this;
    const before = blocks.types[block] as number;
    if (before === type) return;
    const first = block << blocks.shift;
    const end = Math.min(first + 2 ** blocks.shift, this.table.recordCount);
    const head = this.headOfFree(first);
    if (head >= 0 && (this.table.orders[head] as number) >= blocks.shift) {
      // Out of a larger block perhaps, and merged anew.
      this.takeRange(first, end - first);
      blocks.types[block] = type;
      this.insertRange(first, end - first);
      return;
    }
    this.moveLists(first, end, before, type);
    blocks.types[block] = type;
  }

  private moveLists(first: number, end: number, from: number, to: number): void {
    const { states, orders } = this.table;
    let record = first;
    while (record < end) {
      const state = states[record] as number;
      // The order of what is isolated is that of a block that is no more.
      const isBlock = state !== FRAME_STATE.ABSENT && state !== FRAME_STATE.ISOLATED;
      const order = isBlock ? (orders[record] as number) : 0;
      if (state === FRAME_STATE.FREE) {
        this.lists.remove(record, order, from);
        this.lists.insert(record, order, to);
      }
      record += 1 << order;
    }
  }

  private listTypeOf(type: number): number {
    return this.grouping ? type : BLOCK_TYPE.MOVABLE;
  }

  private takeFrom(order: number, type: number): number {
    return this.takeFragment(order, type, -1);
  }

  /** @param orders bits of the orders of free blocks that may be taken from. */
  private takeFragment(order: number, type: number, orders: number): number {
    const mask = (this.lists.orderMasks[type] as number) & (-1 << order) & orders;
    if (mask === 0) return NOTHING;
    const found = 31 - Math.clz32(mask & -mask);
    const record = this.lists.pick(found, type, this.isBig(order));
    this.takeOut(record, found);
    return this.split(record, found, order);
  }

  /** Gives what a block that is on no list has beyond `order` back. @returns what is left. */
  private split(record: number, found: number, order: number): number {
    const keepsUpper = this.isBig(order);
    const { states, orders } = this.table;
    for (let size = found - 1; size >= order; size--) {
      let rest = record + (1 << size);
      if (keepsUpper) {
        rest = record;
        record += 1 << size;
      }
      states[rest] = FRAME_STATE.FREE;
      orders[rest] = size;
      this.lists.insert(rest, size, this.blocks.typeOf(rest));
      this.blocks.addFree(rest, 1 << size, 1);
      this.freeCount += 1 << size;
    }
    return record;
  }

  /** Whether a request is served from the top. */
  private isBig(order: number): boolean {
    return this.splitsEnds && order >= this.blocks.shift;
  }

  /** Takes a free block off its list, with the counts that go with it. */
  private takeOut(head: number, order: number): void {
    this.lists.remove(head, order, this.blocks.typeOf(head));
    this.table.states[head] = FRAME_STATE.FREE_TAIL;
    this.blocks.addFree(head, 1 << order, -1);
    this.freeCount -= 1 << order;
  }

  /**
   * Takes from another type. For unmovable and reclaimable requests the page block changes hands
   * with all that is free in it, so that the next ones go there too. (Linux gives up a block only
   * when half of it is free or alike: a block with one unmovable frame is lost to 2 MiB requests
   * either way, so it may as well take the next ones.) A movable request leaves blocks as they are.
   */
  private takeFromOthers(order: number, type: number): number {
    const { lists, blocks, counters } = this;
    for (const other of FALLBACKS[type] as readonly number[]) {
      const mask = (lists.orderMasks[other] as number) & (-1 << order);
      if (mask === 0) continue;
      counters.fallbacks[type] = (counters.fallbacks[type] as number) + 1;
      if (type === BLOCK_TYPE.MOVABLE) return this.takeFrom(order, other);
      const largest = 31 - Math.clz32(mask);
      const record = lists.pick(largest, other, false);
      counters.blocksClaimed++;
      if (largest < blocks.shift) {
        this.setBlockType(record >>> blocks.shift, type);
        return this.takeFrom(order, type);
      }
      this.takeOut(record, largest);
      const first = record >>> blocks.shift;
      blocks.types.fill(type, first, first + 2 ** Math.max(0, order - blocks.shift));
      return this.split(record, largest, order);
    }
    return NOTHING;
  }

  private merge(record: number, order: number): void {
    const { states, orders, recordCount } = this.table;
    const { blocks, lists } = this;
    if (order >= blocks.shift) this.disown(record, order);
    while (order < this.orderMax) {
      const buddy = record ^ (1 << order);
      if (buddy + (1 << order) > recordCount) break;
      if (states[buddy] !== FRAME_STATE.FREE || orders[buddy] !== order) break;
      const buddyType = blocks.typeOf(buddy);
      if (order >= blocks.shift && buddyType !== blocks.typeOf(record)) break;
      lists.remove(buddy, order, buddyType);
      states[buddy] = FRAME_STATE.FREE_TAIL;
      states[record] = FRAME_STATE.FREE_TAIL;
      if (buddy < record) record = buddy;
      order++;
      if (order === blocks.shift) this.disown(record, order);
    }
    states[record] = FRAME_STATE.FREE;
    orders[record] = order;
    lists.insert(record, order, blocks.typeOf(record));
  }

  /** Page blocks that are free altogether belong to nobody: what comes next decides. */
  private disown(record: number, order: number): void {
    const { types, shift } = this.blocks;
    const first = record >>> shift;
    const end = first + (1 << (order - shift));
    for (let block = first; block < end; block++) {
      if ((types[block] as number) < BLOCK_TYPE.HUGE) types[block] = BLOCK_TYPE.MOVABLE;
    }
  }
}
