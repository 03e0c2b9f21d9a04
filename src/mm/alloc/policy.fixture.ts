// SPDX-License-Identifier: MIT
// A server's memory under load for a while: a file cache that fills what is free and gives way,
// kernel objects and long-term pins that come and go, buffers of several sizes, slabs. Small, so
// that many seeds can be played; the week of `mm/lab` is the large one.

import { expect } from "vitest";
import { randomBelow, SeededRandom } from "../../base/index.js";
import {
  ALLOCATE,
  type FrameOwner,
  MIGRATE,
  MOVE_RESULT,
  NO_FRAME,
  PAGE_BLOCK_FRAMES,
  PAGE_BLOCK_ORDER,
  type Pfn,
  PhysicalMemory,
  type Reclaimer,
  ZONE,
} from "../frames/index.js";
import { type AllocatorPolicy, DEFAULT_POLICY } from "./index.js";

const ZONE_BYTES = 64 * 2 ** 20;
const STEPS = 100;
/** Frames that can't move, at most: a third of memory. */
const FIXED_MAX = ZONE_BYTES / 4096 / 3;

/** Cached pages: each movable, each dropped when memory runs short. */
class Cache implements FrameOwner, Reclaimer {
  readonly name = "cache";
  readonly pages: (Pfn | null)[] = [];
  readonly ownerId: number;
  count = 0;
  private readonly memory: PhysicalMemory;
  private readonly random: SeededRandom;
  private readonly freeIndexes: number[] = [];

  constructor(memory: PhysicalMemory, random: SeededRandom) {
    this.memory = memory;
    this.random = random;
    this.ownerId = memory.registerOwner(this);
    memory.registerReclaimer(this);
  }

  add(): boolean {
    const pfn = this.memory.allocate(0, MIGRATE.MOVABLE);
    if (pfn === NO_FRAME) return false;
    const index = this.freeIndexes.pop() ?? this.pages.length;
    this.pages[index] = pfn;
    this.memory.setOwner(pfn, this.ownerId, index);
    this.count++;
    return true;
  }

  /** Drops a page at random. */
  drop(): void {
    if (this.count === 0) return;
    let index = randomBelow(this.random, this.pages.length);
    while (this.pages[index] === null) index = (index + 1) % this.pages.length;
    this.forget(index);
  }

  /** Takes a page out of the cache, which somebody else uses from now on. */
  take(index: number): Pfn {
    const pfn = this.pages[index] as Pfn;
    this.pages[index] = null;
    this.freeIndexes.push(index);
    this.count--;
    this.memory.setOwner(pfn, 0, 0);
    return pfn;
  }

  reclaim(frameCount: number): number {
    const dropped = Math.min(frameCount, this.count);
    for (let i = 0; i < dropped; i++) this.drop();
    return dropped;
  }

  referencesOf(): number {
    return 1;
  }

  detach(): boolean {
    return true;
  }

  attach(_from: Pfn, to: Pfn, index: number): void {
    this.pages[index] = to;
  }

  private forget(index: number): void {
    this.memory.put(this.take(index));
  }
}

/** What a run ends with. */
export interface LoadResult {
  readonly memory: PhysicalMemory;
  /** Most frames that could not move, at any moment. */
  readonly fixedPeak: number;
  /** Requests of 2 MiB while so much was free, and those that were refused. */
  readonly requests: number;
  readonly refusals: number;
}

export function playLoad(policy: AllocatorPolicy, seed: number): LoadResult {
  const load = new Load(policy, seed);
  for (let step = 0; step < STEPS; step++) load.step();
  const { memory, fixedPeak, requests, refusals } = load;
  return { memory, fixedPeak, requests, refusals };
}

class Load {
  readonly memory: PhysicalMemory;
  fixedPeak = 0;
  requests = 0;
  refusals = 0;
  private readonly random: SeededRandom;
  private readonly cache: Cache;
  /** Blocks that can't move: kernel objects and long-term pins. */
  private readonly fixed: { readonly pfn: Pfn; readonly isPin: boolean }[] = [];
  private fixedFrames = 0;

  constructor(policy: AllocatorPolicy, seed: number) {
    this.memory = new PhysicalMemory({ policy });
    this.memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes: ZONE_BYTES });
    this.random = new SeededRandom(seed);
    this.cache = new Cache(this.memory, this.random);
  }

  step(): void {
    const { random } = this;
    const count = 1 + randomBelow(random, 800);
    const kind = randomBelow(random, 8);
    for (let i = 0; i < count; i++) {
      if (kind < 3) this.cache.add();
      else if (kind === 3) this.cache.drop();
      else if (kind === 4) this.addKernel();
      else if (kind === 5) this.addPin();
      else this.dropFixed();
    }
    this.fixedPeak = Math.max(this.fixedPeak, this.fixedFrames);
    this.request();
  }

  /** Somebody asks for 2 MiB, for a moment. */
  private request(): void {
    if (this.memory.freeFrames - minOf(this.memory) < PAGE_BLOCK_FRAMES) return;
    this.requests++;
    const pfn = this.memory.allocate(PAGE_BLOCK_ORDER, MIGRATE.MOVABLE, ALLOCATE.NO_RECLAIM);
    if (pfn === NO_FRAME) this.refusals++;
    else this.memory.put(pfn);
  }

  private addKernel(): void {
    const order = randomBelow(this.random, 8) === 0 ? 1 + randomBelow(this.random, 3) : 0;
    if (this.fixedFrames + 2 ** order > FIXED_MAX) return;
    const pfn = this.memory.allocate(order, MIGRATE.UNMOVABLE);
    if (pfn === NO_FRAME) return;
    this.fixed.push({ pfn, isPin: false });
    this.fixedFrames += 2 ** order;
  }

  /** A page of the cache becomes a buffer that a device uses for long. */
  private addPin(): void {
    if (this.fixedFrames >= FIXED_MAX || this.cache.count === 0) return;
    let index = randomBelow(this.random, this.cache.pages.length);
    while (this.cache.pages[index] === null) index = (index + 1) % this.cache.pages.length;
    if (this.memory.policy.migrateBeforeLongTermPin) {
      const to = this.memory.allocate(0, MIGRATE.UNMOVABLE);
      if (to === NO_FRAME) return;
      // Finding room may have dropped or moved the page.
      const from = this.cache.pages[index] ?? null;
      if (from === null || this.memory.move(from, to) !== MOVE_RESULT.DONE) {
        this.memory.put(to);
        return;
      }
    }
    const pfn = this.cache.take(index);
    this.memory.pin(pfn);
    this.fixed.push({ pfn, isPin: true });
    this.fixedFrames++;
  }

  private dropFixed(): void {
    if (this.fixed.length === 0) return;
    const at = randomBelow(this.random, this.fixed.length);
    const last = this.fixed.pop() as { readonly pfn: Pfn; readonly isPin: boolean };
    const gone = at < this.fixed.length ? (this.fixed[at] as typeof last) : last;
    if (gone !== last) this.fixed[at] = last;
    this.fixedFrames -= 2 ** this.memory.orderOf(gone.pfn);
    if (gone.isPin) this.memory.unpin(gone.pfn);
    this.memory.put(gone.pfn);
  }
}

function minOf(memory: PhysicalMemory): number {
  return memory.normalZones[0]?.watermarks.min ?? 0;
}

/** Page blocks with something in them that can't move. */
export function stuckBlocks(memory: PhysicalMemory): number {
  let count = 0;
  for (const zone of memory.normalZones) {
    for (const stuck of zone.buddy.blocks.stuck) if (stuck > 0) count++;
  }
  return count;
}

/** Page blocks in which everything could move, save those that are one block of 2 MiB. */
export function cleanBlocks(memory: PhysicalMemory): number {
  let count = 0;
  for (const zone of memory.normalZones) {
    for (const [block, stuck] of zone.buddy.blocks.stuck.entries()) {
      const order = zone.table.orders[block * PAGE_BLOCK_FRAMES] as number;
      const isFree = zone.buddy.blocks.free[block] === PAGE_BLOCK_FRAMES;
      if (stuck === 0 && (isFree || order < PAGE_BLOCK_ORDER)) count++;
    }
  }
  return count;
}

/** What requests of 2 MiB get until memory has none left, and at what price. */
export interface HugeRequests {
  readonly got: number;
  /** Frames free when the first one failed, beyond the watermark. */
  readonly freeLeft: number;
  /** Most frames that one request had moved. */
  readonly movedMax: number;
  /** Most frames and page blocks that one request had looked at. */
  readonly scannedMax: number;
}

/** Asks for 2 MiB, without reclaim, until it is refused. */
export function drainHuge(memory: PhysicalMemory): HugeRequests {
  const { counters } = memory;
  let got = 0;
  let movedMax = 0;
  let scannedMax = 0;
  for (;;) {
    const moved = counters.framesMoved;
    const scanned = counters.framesScanned + counters.blocksScanned;
    const pfn = memory.allocate(PAGE_BLOCK_ORDER, MIGRATE.MOVABLE, ALLOCATE.NO_RECLAIM);
    movedMax = Math.max(movedMax, counters.framesMoved - moved);
    scannedMax = Math.max(scannedMax, counters.framesScanned + counters.blocksScanned - scanned);
    if (pfn === NO_FRAME) break;
    got++;
  }
  return { got, freeLeft: memory.freeFrames - minOf(memory), movedMax, scannedMax };
}

export const BLOCK_COUNT = ZONE_BYTES / 4096 / PAGE_BLOCK_FRAMES;

/** The default policy's promises, for one seed. */
export function checkPromises(seed: number): void {
  const { memory, fixedPeak, requests, refusals } = playLoad(DEFAULT_POLICY, seed);
  expect(requests).toBeGreaterThan(0);
  expect(refusals).toBe(0);
  // What can't move lies in no more page blocks than its worst moment needed.
  expect(stuckBlocks(memory)).toBeLessThanOrEqual(Math.ceil(fixedPeak / PAGE_BLOCK_FRAMES) + 1);
  const result = drainHuge(memory);
  memory.checkInvariants();
  // Refused when less is free, or when every page block has something that can't move.
  if (cleanBlocks(memory) > 0) expect(result.freeLeft).toBeLessThan(PAGE_BLOCK_FRAMES);
  expect(result.movedMax).toBeLessThanOrEqual(PAGE_BLOCK_FRAMES);
  expect(result.scannedMax).toBeLessThanOrEqual(2 * (BLOCK_COUNT + PAGE_BLOCK_FRAMES));
}
