// SPDX-License-Identifier: MIT
// Recomputes a zone's totals from its records, and asserts that everything agrees.

import { assert } from "../../base/index.js";
import {
  BLOCK_TYPE,
  BLOCK_TYPE_COUNT,
  FRAME_STATE,
  MIGRATE,
  MOBILITY_MASK,
  MOBILITY_SHIFT,
} from "./constants.js";
import type { OwnerTable } from "./owner.js";
import type { Zone } from "./zone.js";

/** Totals of a zone as its records give them. */
class Totals {
  free = 0;
  readonly blockFree: Uint32Array;
  readonly blockStuck: Uint32Array;
  readonly listCounts: Int32Array;

  constructor(zone: Zone) {
    this.blockFree = new Uint32Array(zone.buddy.blocks.count);
    this.blockStuck = new Uint32Array(zone.buddy.blocks.count);
    this.listCounts = new Int32Array((zone.buddy.orderMax + 1) * BLOCK_TYPE_COUNT);
  }
}

/** Asserts that a zone's records are blocks without a gap or an overlap, and its totals theirs. */
export function checkZone(zone: Zone, owners: OwnerTable): void {
  const { table, buddy } = zone;
  const totals = new Totals(zone);
  let record = 0;
  while (record < table.recordCount) record += checkBlock(zone, record, totals, owners);
  assert(record === table.recordCount, "blocks end where their zone does");
  assert(buddy.freeCount === totals.free, "the free count is that of the free blocks");
  for (let block = 0; block < buddy.blocks.count; block++) {
    assert(buddy.blocks.free[block] === totals.blockFree[block], "a page block's free count");
    assert(buddy.blocks.stuck[block] === totals.blockStuck[block], "a page block's stuck count");
    const { types, size } = buddy.blocks;
    const isOwned = types[block] !== BLOCK_TYPE.MOVABLE && types[block] !== BLOCK_TYPE.HUGE;
    assert(!isOwned || totals.blockFree[block] !== size, "a free page block belongs to nobody");
  }
  for (let list = 0; list < totals.listCounts.length; list++) {
    assert(buddy.lists.counts[list] === totals.listCounts[list], "a free list's count");
    const order = Math.floor(list / BLOCK_TYPE_COUNT);
    const mask = buddy.lists.orderMasks[list % BLOCK_TYPE_COUNT] as number;
    const isMarked = (mask & (1 << order)) !== 0;
    assert(isMarked === (totals.listCounts[list] as number) > 0, "a free list's mark");
  }
}

/** @returns records of the block that begins at `record`. */
function checkBlock(zone: Zone, record: number, totals: Totals, owners: OwnerTable): number {
  const { states, orders } = zone.table;
  const state = states[record];
  if (state === FRAME_STATE.ABSENT) return 1;
  const order = orders[record] as number;
  const count = 2 ** order;
  assert(record % count === 0, "a block is aligned to its size");
  if (state === FRAME_STATE.FREE) {
    for (let i = 1; i < count; i++) {
      assert(states[record + i] === FRAME_STATE.FREE_TAIL, "a free block's frames are free");
    }
    checkFree(zone, record, order, totals);
    return count;
  }
  assert(state === FRAME_STATE.USED, "between calls a block is free or used");
  for (let i = 1; i < count; i++) {
    assert(states[record + i] === FRAME_STATE.TAIL, "a used block's frames are used");
    assert(orders[record + i] === order, "a used block's frames know its order");
  }
  checkUsed(zone, record, order, totals, owners);
  return count;
}

function checkFree(zone: Zone, record: number, order: number, totals: Totals): void {
  const { references, pins } = zone.table;
  const { blocks } = zone.buddy;
  const count = 2 ** order;
  for (let i = record; i < record + count; i++) {
    assert(references[i] === 0, "a free frame has no references");
    assert(pins[i] === 0, "a free frame has no pins");
  }
  if (order < Math.min(blocks.shift, zone.buddy.orderMax)) {
    const buddy = record ^ count;
    const isFree = zone.table.states[buddy] === FRAME_STATE.FREE;
    assert(!isFree || zone.table.orders[buddy] !== order, "free buddies are one block");
  }
  totals.free += count;
  addPerBlock(totals.blockFree, blocks.shift, record, count);
  const type = blocks.typeOf(record);
  assert(zone.buddy.lists.has(record, order, type), "a free block is in its list");
  const list = order * BLOCK_TYPE_COUNT + type;
  totals.listCounts[list] = (totals.listCounts[list] as number) + 1;
}

function checkUsed(
  zone: Zone,
  record: number,
  order: number,
  totals: Totals,
  owners: OwnerTable,
): void {
  const { table, buddy } = zone;
  assert((table.references[record] as number) > 0, "a used block has references");
  assert((table.pins[record] as number) >= 0, "pins are never below zero");
  const owner = table.owners[record] as number;
  assert(owner === 0 || owners.get(owner) !== null, "a used block's owner is registered");
  const mobility = ((table.flags[record] as number) & MOBILITY_MASK) >>> MOBILITY_SHIFT;
  if (mobility !== MIGRATE.MOVABLE || (table.pins[record] as number) > 0) {
    addPerBlock(totals.blockStuck, buddy.blocks.shift, record, 2 ** order);
  }
}

function addPerBlock(counts: Uint32Array, shift: number, record: number, count: number): void {
  for (let i = record; i < record + count; i++) {
    const block = i >>> shift;
    counts[block] = (counts[block] as number) + 1;
  }
}
