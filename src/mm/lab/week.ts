// SPDX-License-Identifier: MIT
// A seeded week of a server's life under one policy, measured hour by hour. The allocator,
// compaction, slabs and counts of pins are the ones that hosts use; only the memory has no bytes.

import { assert, SeededRandom } from "../../base/index.js";
import type { AllocatorPolicy } from "../alloc/index.js";
import {
  ALLOCATE,
  FRAME_BYTES,
  MIGRATE,
  NO_FRAME,
  ORDER_MAX,
  PAGE_BLOCK_FRAMES,
  PAGE_BLOCK_ORDER,
  type Pfn,
  PhysicalMemory,
  ZONE,
  type Zone,
} from "../frames/index.js";
import { FrameSet, NO_SLOT, type Slot } from "./frame-set.js";
import { Server } from "./server.js";

export const WEEK_HOURS = 168;
/** Bytes of the transfer whose descriptors are counted. */
export const TRANSFER_BYTES = 4 * 2 ** 30;
/** Share of memory of the buffer that such a transfer goes through, piece by piece. */
const TRANSFER_BUFFER_SHARE = 1 / 32;

export interface WeekOptions {
  readonly policy: AllocatorPolicy;
  readonly seed: number;
  /** A multiple of 2 MiB; 64 MiB and more. */
  readonly memoryBytes: number;
  /** Hours to play. */
  readonly hours: number;
}

/** The state at the end of an hour, and the work of that hour. Shares are 0 .. 1. */
export interface HourSample {
  /** From 1. */
  readonly hour: number;
  readonly freeShare: number;
  /** Of the free memory: in free blocks of 2 MiB and above, as it lies. */
  readonly hugeShareOfFree: number;
  /** Of all memory: in page blocks without anything that can't move. No work could give more. */
  readonly reachableShare: number;
  /** What can't be moved: its share of the bytes, and of the page blocks. */
  readonly stuckShareOfBytes: number;
  readonly stuckShareOfBlocks: number;
  /** Pieces that a transfer of TRANSFER_BYTES is made of, through a buffer that is taken now. */
  readonly descriptors: number;
  /** Whether one request for 2 MiB was served; null: less than that was free. */
  readonly isServed: boolean | null;
  /** Bytes that compaction and pins have moved in this hour. */
  readonly movedBytes: number;
  /** Bytes that were allocated in this hour. */
  readonly allocatedBytes: number;
  /** Of what was handed out: beyond what was asked for. */
  readonly wasteShare: number;
}

/** What is left at the end. */
export interface WeekEnd {
  /** Blocks of 2 MiB that could be had, of so many as there was free memory for. */
  readonly hugeGot: number;
  readonly hugePossible: number;
  /** Buffers that the policy refused to pin. */
  readonly pinsRefused: number;
  readonly movedBytes: number;
  readonly allocatedBytes: number;
}

export interface WeekResult {
  readonly policy: string;
  readonly hours: readonly HourSample[];
  readonly end: WeekEnd;
}

export class Week {
  readonly options: WeekOptions;
  readonly memory: PhysicalMemory;
  readonly server: Server;
  readonly samples: HourSample[] = [];
  private readonly zone: Zone;
  private readonly probe: FrameSet;
  private movedBefore = 0;
  private allocatedBefore = 0;

  constructor(options: WeekOptions) {
    const { memoryBytes, policy, seed } = options;
    assert(memoryBytes % (PAGE_BLOCK_FRAMES * FRAME_BYTES) === 0, "memory is whole page blocks");
    this.options = options;
    this.memory = new PhysicalMemory({ policy });
    this.zone = this.memory.addZone({ kind: ZONE.NORMAL, name: "lab", bytes: memoryBytes });
    this.probe = new FrameSet(this.memory, "the transfer's buffer");
    this.server = new Server(this.memory, new SeededRandom(seed));
  }

  get isOver(): boolean {
    return this.samples.length >= this.options.hours;
  }

  /** Plays one more hour and measures. */
  playHour(): HourSample {
    for (let minute = 0; minute < 60; minute++) this.server.playMinute();
    const descriptors = this.countDescriptors();
    const isServed = this.tryHuge();
    const sample = this.measure(descriptors, isServed);
    this.samples.push(sample);
    return sample;
  }

  /** Takes every block of 2 MiB that can be had, and gives them back. Nothing is reclaimed. */
  finish(): WeekResult {
    const possible = Math.floor(
      (this.zone.freeFrames - this.zone.watermarks.min) / PAGE_BLOCK_FRAMES,
    );
    const got: Pfn[] = [];
    for (;;) {
      const pfn = this.memory.allocate(PAGE_BLOCK_ORDER, MIGRATE.MOVABLE, ALLOCATE.NO_RECLAIM);
      if (pfn === NO_FRAME) break;
      got.push(pfn);
    }
    for (const pfn of got) this.memory.put(pfn);
    const { samples } = this;
    return {
      policy: this.options.policy.name,
      hours: samples,
      end: {
        hugeGot: got.length,
        hugePossible: Math.max(0, possible),
        pinsRefused: this.server.buffers.refused,
        movedBytes: samples.reduce((sum, { movedBytes }) => sum + movedBytes, 0),
        allocatedBytes: samples.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0),
      },
    };
  }

  /**
   * Takes the buffer of a transfer and frees it: for each 2 MiB of it a block of that size, or base
   * pages where there is none, as a program's faults would.
   */
  private countDescriptors(): number {
    const blockCount = Math.max(
      1,
      Math.floor((this.zone.frameCount * TRANSFER_BUFFER_SHARE) / PAGE_BLOCK_FRAMES),
    );
    const slots: Slot[] = [];
    let frames = 0;
    for (let block = 0; block < blockCount; block++) {
      const slot = this.probe.take(PAGE_BLOCK_ORDER, MIGRATE.MOVABLE);
      if (slot !== NO_SLOT) {
        slots.push(slot);
        frames += PAGE_BLOCK_FRAMES;
      } else {
        frames += this.takeBasePages(slots);
      }
    }
    for (const slot of slots) this.probe.give(slot);
    const bytes = frames * FRAME_BYTES;
    return bytes === 0 ? 0 : Math.round((slots.length * TRANSFER_BYTES) / bytes);
  }

  /** 2 MiB in base pages. @returns frames taken. */
  private takeBasePages(slots: Slot[]): number {
    const unit = 2 ** (this.memory.policy.baseShift - 12);
    let frames = 0;
    while (frames < PAGE_BLOCK_FRAMES) {
      const slot = this.probe.take(0, MIGRATE.MOVABLE);
      if (slot === NO_SLOT) break;
      slots.push(slot);
      frames += unit;
    }
    return frames;
  }

  private tryHuge(): boolean | null {
    const { freeFrames, watermarks } = this.zone;
    if (freeFrames - watermarks.min < PAGE_BLOCK_FRAMES) return null;
    const slot = this.probe.take(PAGE_BLOCK_ORDER, MIGRATE.MOVABLE, ALLOCATE.NO_RECLAIM);
    if (slot < 0) return false;
    this.probe.give(slot);
    return true;
  }

  private measure(descriptors: number, isServed: boolean | null): HourSample {
    const { zone, memory } = this;
    const { blocks } = zone.buddy;
    let blocksStuck = 0;
    let framesStuck = 0;
    for (let block = 0; block < blocks.count; block++) {
      const stuck = blocks.stuck[block] as number;
      framesStuck += stuck;
      if (stuck > 0) blocksStuck++;
    }
    const { asked, given } = this.server.ledger;
    const moved = memory.counters.bytesMoved;
    const allocated = allocatedBytes(memory);
    const sample: HourSample = {
      hour: this.samples.length + 1,
      freeShare: zone.freeFrames / zone.frameCount,
      hugeShareOfFree: hugeShareOfFree(zone),
      reachableShare: 1 - blocksStuck / blocks.count,
      stuckShareOfBytes: framesStuck / zone.frameCount,
      stuckShareOfBlocks: blocksStuck / blocks.count,
      descriptors,
      isServed,
      movedBytes: moved - this.movedBefore,
      allocatedBytes: allocated - this.allocatedBefore,
      wasteShare: given === 0 ? 0 : 1 - asked / given,
    };
    this.movedBefore = moved;
    this.allocatedBefore = allocated;
    return sample;
  }
}

function hugeShareOfFree(zone: Zone): number {
  const { lists, orderMax } = zone.buddy;
  const types = lists.counts.length / (orderMax + 1);
  let frames = 0;
  for (let order = PAGE_BLOCK_ORDER; order <= orderMax; order++) {
    for (let type = 0; type < types; type++) {
      frames += (lists.counts[order * types + type] as number) * 2 ** order;
    }
  }
  return zone.freeFrames === 0 ? 0 : frames / zone.freeFrames;
}

function allocatedBytes(memory: PhysicalMemory): number {
  const { allocations } = memory.counters;
  const types = allocations.length / (ORDER_MAX + 1);
  let frames = 0;
  for (let at = 0; at < allocations.length; at++) {
    frames += (allocations[at] as number) * 2 ** Math.floor(at / types);
  }
  return frames * FRAME_BYTES;
}
