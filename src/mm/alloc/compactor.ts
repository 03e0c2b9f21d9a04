// SPDX-License-Identifier: MIT
// Compaction: makes free blocks out of free frames that lie scattered, by moving what lies between.
// Read first: Linux `mm/compaction.c`. As there, a migrate scanner goes up from the bottom of a
// zone and a free scanner down from its top, until they meet; that is what the background does, in
// turns of bounded work. A request that waits is served in another way: the page block with the
// least in it is emptied, which costs at most as many moved bytes as the request is large.
//
// What can't move is known beforehand, from counts per page block, so blocks with an unmovable or
// pinned frame cost nothing. Pinned frames never move.

import { assert, type Machine } from "../../base/index.js";
import {
  BLOCK_TYPE_COUNT,
  FRAME_STATE,
  MIGRATE,
  type MigrateType,
  MOBILITY_MASK,
  MOBILITY_SHIFT,
  MOVE_RESULT,
  PAGE_BLOCK_FRAMES,
  PAGE_BLOCK_ORDER,
} from "../frames/constants.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";
import type { Zone } from "../frames/zone.js";
import { Evacuator, IMPOSSIBLE } from "./evacuation.js";
import { ScannerPass } from "./scanner-pass.js";
import { FragmentFinder, HomeFinder } from "./targets.js";

/** Blocks that a waiting request has emptied at most, when the first ones didn't work out. */
const ATTEMPTS_MAX = 4;
/** Page blocks that a request below 2 MiB looks into. */
const BLOCKS_LOOKED_AT_MAX = 32;
/** Movable frames that leave unmovable blocks at a time. */
const EVICTED_MAX = 64;

/** Frames moved, and page blocks looked at, in a turn of the background. */
const TURN_FRAMES = 256;
const TURN_BLOCKS = 1024;
/** Time between two turns of a pass, and between two looks at whether one is needed. */
const TURN_INTERVAL_NS = 1_000_000;
const LOOK_INTERVAL_NS = 500_000_000;
/** After passes that gained nothing the next look comes later, up to 64 times. */
const DEFER_SHIFT_MAX = 6;
/** Share of free memory outside 2 MiB blocks at which a pass begins, and down to which it goes. */
const UNUSABLE_HIGH = 0.2;
const UNUSABLE_LOW = 0.1;
/** With less free memory than this nothing is gained. */
const FREE_FRAMES_MIN = 2 * PAGE_BLOCK_FRAMES;

export class Compactor implements Machine {
  readonly evacuator: Evacuator;
  private readonly memory: PhysicalMemory;
  private readonly fragments: FragmentFinder;
  private readonly homes: HomeFinder;
  /** Where the last request below 2 MiB, and the last eviction, stopped looking. */
  private lookCursor = 0;
  private evictCursor = 0;
  private pass: ScannerPass | null = null;
  private nextNs = 0;
  private deferShift = 0;
  /** Frees at the last look: without new ones nothing has changed for the worse. */
  private changesSeen = -1;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    this.evacuator = new Evacuator(memory);
    this.fragments = new FragmentFinder(memory);
    this.homes = new HomeFinder(memory);
  }

  /**
   * Makes a free block of 2^order frames now, if the policy has direct compaction.
   * @returns whether there is one. Preconditions: order > 0.
   */
  makeBlock(order: number): boolean {
    const mode = this.memory.policy.compaction;
    if (mode !== "direct" && mode !== "both") return false;
    const { counters } = this.memory;
    counters.compactions++;
    for (const zone of this.memory.normalZones) {
      const isMade =
        order >= PAGE_BLOCK_ORDER
          ? this.emptyPageBlocks(zone, 2 ** (order - PAGE_BLOCK_ORDER))
          : this.emptyWindow(zone, order);
      if (isMade || this.passFor(zone, order)) {
        counters.compactionSuccesses++;
        return true;
      }
    }
    return false;
  }

  /**
   * Moves movable frames out of page blocks of an unmovable type, so that a request of the type
   * finds room there. @returns whether a block of 2^order frames is free among them.
   */
  makeRoom(order: number, migrate: MigrateType): boolean {
    for (const zone of this.memory.normalZones) {
      const { blocks } = zone.buddy;
      for (let looked = 0; looked < blocks.count; looked++) {
        const block = (this.evictCursor + looked) % blocks.count;
        if (blocks.types[block] !== migrate || !hasMovable(zone, block)) continue;
        this.evictCursor = block;
        this.memory.counters.blocksScanned += looked;
        if (this.evict(zone, block, order, migrate)) return true;
      }
      this.memory.counters.blocksScanned += blocks.count;
    }
    return false;
  }

  /** A turn of the background: bounded work of a pass, or a look whether one is needed. */
  pump(nowNs: number): void {
    if (nowNs < this.nextNs || !this.isBackground()) return;
    if (this.pass === null) {
      this.look(nowNs);
      return;
    }
    const { counters } = this.memory;
    const movedBefore = counters.framesMoved;
    const isOver = this.pass.step(TURN_FRAMES, TURN_BLOCKS);
    if (counters.framesMoved > movedBefore) counters.backgroundTurns++;
    this.nextNs = nowNs + TURN_INTERVAL_NS;
    if (!isOver && unusableShare(this.pass.zone) > UNUSABLE_LOW) return;
    this.deferShift =
      this.pass.blocksEmptied > 0 ? 0 : Math.min(this.deferShift + 1, DEFER_SHIFT_MAX);
    this.pass = null;
    this.changesSeen = this.changes();
    this.nextNs = nowNs + LOOK_INTERVAL_NS * 2 ** this.deferShift;
  }

  deadlineNs(): number {
    if (!this.isBackground()) return Number.POSITIVE_INFINITY;
    const isIdle = this.pass === null && this.changesSeen === this.changes();
    return isIdle ? Number.POSITIVE_INFINITY : this.nextNs;
  }

  /** A zone is taken out of memory: a pass over it is over. */
  forgetZone(zone: Zone): void {
    if (this.pass?.zone === zone) this.pass = null;
  }

  checkInvariants(): void {
    assert(this.pass === null || this.isBackground(), "a pass is the background's");
    const isKnown = this.pass === null || this.memory.normalZones.includes(this.pass.zone);
    assert(isKnown, "a pass is over a zone that is there");
  }

  private isBackground(): boolean {
    const mode = this.memory.policy.compaction;
    return mode === "background" || mode === "both";
  }

  private changes(): number {
    return this.memory.counters.freeCount;
  }

  private look(nowNs: number): void {
    this.nextNs = nowNs + LOOK_INTERVAL_NS * 2 ** this.deferShift;
    this.changesSeen = this.changes();
    for (const zone of this.memory.normalZones) {
      if (zone.buddy.freeCount < FREE_FRAMES_MIN || unusableShare(zone) < UNUSABLE_HIGH) continue;
      this.pass = new ScannerPass(this.memory, this.evacuator, zone);
      this.nextNs = nowNs;
      return;
    }
  }

  /** Empties the `count` neighbouring page blocks, aligned, that have the least in them. */
  private emptyPageBlocks(zone: Zone, count: number): boolean {
    const tried: number[] = [];
    while (tried.length < ATTEMPTS_MAX) {
      const block = this.cheapestBlocks(zone, count, tried);
      if (block < 0) return false;
      tried.push(block);
      const first = block * PAGE_BLOCK_FRAMES;
      if (this.emptyAndRelease(zone, first, count * PAGE_BLOCK_FRAMES)) {
        this.memory.counters.blocksEmptied += count;
        return true;
      }
    }
    return false;
  }

  private emptyAndRelease(zone: Zone, first: number, count: number): boolean {
    if (this.evacuator.cost(zone, first, count) === IMPOSSIBLE) return false;
    if (!this.evacuator.empty(zone, first, count, this.fragments)) return false;
    this.evacuator.release(zone, first, count);
    return true;
  }

  /** @returns the first of the cheapest page blocks, -1 when none can be emptied. */
  private cheapestBlocks(zone: Zone, count: number, tried: readonly number[]): number {
    const { blocks, freeCount } = zone.buddy;
    this.memory.counters.blocksScanned += blocks.count;
    const size = count * PAGE_BLOCK_FRAMES;
    let best = -1;
    // Also a block that is full is a gain, if all in it fits into the gaps of others.
    let bestUsed = size + 1;
    for (let block = 0; block + count <= blocks.count; block += count) {
      if ((block + count) * PAGE_BLOCK_FRAMES > zone.frameCount) break;
      let used = size;
      let stuck = 0;
      for (let i = block; i < block + count; i++) {
        used -= blocks.free[i] as number;
        stuck += blocks.stuck[i] as number;
      }
      if (stuck > 0 || used >= bestUsed || used > freeCount - (size - used)) continue;
      if (tried.includes(block) || (used === size && holdsLarge(zone, block))) continue;
      best = block;
      bestUsed = used;
    }
    return best;
  }

  /** Empties an aligned window of 2^order frames within some page block. */
  private emptyWindow(zone: Zone, order: number): boolean {
    const { blocks } = zone.buddy;
    const size = 2 ** order;
    let best = -1;
    let bestCost = size;
    let looked = 0;
    for (let i = 0; i < blocks.count && looked < BLOCKS_LOOKED_AT_MAX && bestCost > size / 2; i++) {
      const block = (this.lookCursor + i) % blocks.count;
      const free = blocks.free[block] as number;
      if (free === 0 || (blocks.stuck[block] as number) + size > PAGE_BLOCK_FRAMES) continue;
      looked++;
      const start = block * PAGE_BLOCK_FRAMES;
      const end = Math.min(start + PAGE_BLOCK_FRAMES, zone.frameCount);
      for (let first = start; first + size <= end; first += size) {
        const cost = this.evacuator.cost(zone, first, size);
        if (cost === IMPOSSIBLE || cost >= bestCost) continue;
        best = first;
        bestCost = cost;
      }
    }
    if (best < 0) return false;
    this.lookCursor = Math.floor(best / PAGE_BLOCK_FRAMES);
    return this.emptyAndRelease(zone, best, size);
  }

  /** A whole pass of both scanners, until there is a block of 2^order frames. */
  private passFor(zone: Zone, order: number): boolean {
    const pass = new ScannerPass(this.memory, this.evacuator, zone);
    while (!zone.buddy.hasAny(order)) if (pass.step(PAGE_BLOCK_FRAMES, TURN_BLOCKS)) break;
    return zone.buddy.hasAny(order);
  }

  /** Moves movable frames out of one page block, to wherever they may be instead. */
  private evict(zone: Zone, block: number, order: number, migrate: MigrateType): boolean {
    const { states, orders } = zone.table;
    const { counters } = this.memory;
    const end = Math.min((block + 1) * PAGE_BLOCK_FRAMES, zone.frameCount);
    let moved = 0;
    for (let record = block * PAGE_BLOCK_FRAMES; record < end; ) {
      counters.framesScanned++;
      const size = states[record] === FRAME_STATE.ABSENT ? 1 : 2 ** (orders[record] as number);
      if (states[record] === FRAME_STATE.USED && this.isEvictable(zone, record)) {
        if (!this.evacuator.moveOut(zone, record, this.homes)) return false;
        moved += size;
        counters.framesEvicted += size;
        if (moved >= Math.max(EVICTED_MAX, 2 ** order) && zone.buddy.hasOwn(order, migrate)) break;
      }
      record += size;
    }
    return zone.buddy.hasOwn(order, migrate);
  }

  private isEvictable(zone: Zone, record: number): boolean {
    const flags = zone.table.flags[record] as number;
    if ((flags & MOBILITY_MASK) >>> MOBILITY_SHIFT !== MIGRATE.MOVABLE) return false;
    return this.memory.judge(zone.pfnOf(record)) === MOVE_RESULT.DONE;
  }
}

/** Whether a page block is, or is a part of, a used block of 2 MiB and more. */
function holdsLarge(zone: Zone, block: number): boolean {
  const { states, orders } = zone.table;
  const first = block * PAGE_BLOCK_FRAMES;
  if (states[first] === FRAME_STATE.TAIL) return true;
  return states[first] === FRAME_STATE.USED && (orders[first] as number) >= PAGE_BLOCK_ORDER;
}

/** Whether a page block has used frames that could leave it. */
function hasMovable(zone: Zone, block: number): boolean {
  const { free, stuck } = zone.buddy.blocks;
  const present = Math.min(PAGE_BLOCK_FRAMES, zone.frameCount - block * PAGE_BLOCK_FRAMES);
  return present - (free[block] as number) - (stuck[block] as number) > 0;
}

/** What share of a zone's free memory a request of 2 MiB can't get. */
export function unusableShare(zone: Zone): number {
  const { lists, orderMax, freeCount } = zone.buddy;
  if (freeCount === 0) return 0;
  let usable = 0;
  for (let order = PAGE_BLOCK_ORDER; order <= orderMax; order++) {
    for (let type = 0; type < BLOCK_TYPE_COUNT; type++) {
      usable += (lists.counts[order * BLOCK_TYPE_COUNT + type] as number) * 2 ** order;
    }
  }
  return 1 - usable / freeCount;
}
