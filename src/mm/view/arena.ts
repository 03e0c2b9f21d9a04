// SPDX-License-Identifier: MIT
// A host's own memory as plain data: what is free, by order and by type, how it lies, and who pins
// it. It walks every record once, so it is for people who ask and not for a loop.

import type { AllocatorCounters } from "../alloc/counters.js";
import {
  BLOCK_TYPE_COUNT,
  BLOCK_TYPE_NAMES,
  FRAME_BYTES,
  FRAME_STATE,
  PAGE_BLOCK_FRAMES,
  ZONE,
} from "../frames/constants.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";
import type { Zone } from "../frames/zone.js";
import { type OrderView, orderViews } from "./fragmentation.js";

export interface ArenaZone {
  readonly name: string;
  /** `"normal"`, `"pmem"`, `"p2p"`, `"private"`. */
  readonly kind: string;
  readonly bytes: number;
  readonly freeBytes: number;
  /** Bytes of a record of its frame table: 4 KiB, 2 MiB, 1 GiB. */
  readonly granuleBytes: number;
  readonly metadataBytes: number;
  /** By order in granules. */
  readonly orders: readonly OrderView[];
  /** Free bytes and page blocks of each type that has any. */
  readonly types: readonly { readonly type: string; readonly freeBytes: number; blocks: number }[];
  /** Page blocks with something in them that can't move now, of how many, and its bytes. */
  readonly blocks: number;
  readonly blocksStuck: number;
  readonly bytesStuck: number;
}

export interface ArenaPins {
  /** Who uses the frames, `"nobody named"` where they have no owner. */
  readonly owner: string;
  readonly bytes: number;
  readonly pins: number;
}

export interface ArenaView {
  readonly policy: string;
  readonly zones: readonly ArenaZone[];
  /** Most bytes first. */
  readonly pins: readonly ArenaPins[];
  /** Owners beyond those that are listed. */
  readonly pinsLeftOut: number;
  readonly counters: Readonly<Record<string, number>>;
}

const KIND_NAMES: readonly string[] = Object.entries(ZONE)
  .sort(([, a], [, b]) => a - b)
  .map(([name]) => name.toLowerCase());
/** A host with more owners of pinned memory has some left out of the list. */
const PIN_OWNER_COUNT_MAX = 64;

export function arenaView(memory: PhysicalMemory): ArenaView {
  const pins = pinsByOwner(memory);
  return {
    policy: memory.policy.name,
    zones: memory.zones.map(zoneView),
    pins: pins.slice(0, PIN_OWNER_COUNT_MAX),
    pinsLeftOut: Math.max(0, pins.length - PIN_OWNER_COUNT_MAX),
    counters: countersOf(memory.counters),
  };
}

function zoneView(zone: Zone): ArenaZone {
  const { lists, blocks, orderMax } = zone.buddy;
  const granuleBytes = 2 ** zone.granuleShift;
  const counts: number[] = new Array(orderMax + 1).fill(0);
  const types = BLOCK_TYPE_NAMES.map((type) => ({ type, freeBytes: 0, blocks: 0 }));
  for (let order = 0; order <= orderMax; order++) {
    for (let type = 0; type < BLOCK_TYPE_COUNT; type++) {
      const count = lists.counts[order * BLOCK_TYPE_COUNT + type] as number;
      counts[order] = (counts[order] as number) + count;
      const row = types[type];
      if (row !== undefined) row.freeBytes += count * 2 ** order * granuleBytes;
    }
  }
  let blocksStuck = 0;
  let recordsStuck = 0;
  for (let block = 0; block < blocks.count; block++) {
    const stuck = blocks.stuck[block] as number;
    recordsStuck += stuck;
    if (stuck > 0) blocksStuck++;
    const row = types[blocks.types[block] as number];
    if (row !== undefined) row.blocks++;
  }
  return {
    name: zone.name,
    kind: KIND_NAMES[zone.kind] ?? String(zone.kind),
    bytes: zone.frameCount * FRAME_BYTES,
    freeBytes: zone.freeFrames * FRAME_BYTES,
    granuleBytes,
    metadataBytes: zone.metadataBytes,
    orders: orderViews(counts),
    types: types.filter(({ freeBytes, blocks: count }) => freeBytes > 0 || count > 0),
    blocks: blocks.count,
    blocksStuck,
    bytesStuck: recordsStuck * granuleBytes,
  };
}

function pinsByOwner(memory: PhysicalMemory): ArenaPins[] {
  const byOwner = new Map<number, { bytes: number; pins: number }>();
  for (const zone of memory.zones) {
    const { states, orders, pins, owners, recordCount } = zone.table;
    const granuleBytes = 2 ** zone.granuleShift;
    for (let record = 0; record < recordCount; ) {
      const state = states[record] as number;
      const isBlock = state === FRAME_STATE.USED || state === FRAME_STATE.FREE;
      const size = isBlock ? 2 ** (orders[record] as number) : 1;
      const count = pins[record] as number;
      if (state === FRAME_STATE.USED && count > 0) {
        const id = owners[record] as number;
        const sum = byOwner.get(id) ?? { bytes: 0, pins: 0 };
        sum.bytes += size * granuleBytes;
        sum.pins += count;
        byOwner.set(id, sum);
      }
      record += size;
    }
  }
  return [...byOwner]
    .map(([id, sum]) => ({ owner: memory.ownerById(id)?.name ?? "nobody named", ...sum }))
    .sort((a, b) => b.bytes - a.bytes || (a.owner < b.owner ? -1 : 1));
}

/** Those that tell of the work that memory has made. */
function countersOf(counters: AllocatorCounters): Record<string, number> {
  return {
    framesMoved: counters.framesMoved,
    bytesMoved: counters.bytesMoved,
    compactions: counters.compactions,
    compactionSuccesses: counters.compactionSuccesses,
    blocksEmptied: counters.blocksEmptied,
    framesEvicted: counters.framesEvicted,
    framesReclaimed: counters.framesReclaimed,
    slowPaths: counters.slowPaths,
    hugeAllocations: sumFrom(counters.allocations),
    hugeFailures: sumFrom(counters.failures),
  };
}

/** Of 2 MiB and above. */
function sumFrom(counts: Float64Array): number {
  const first = Math.log2(PAGE_BLOCK_FRAMES) * BLOCK_TYPE_COUNT;
  return counts.subarray(first).reduce((sum, count) => sum + count, 0);
}
