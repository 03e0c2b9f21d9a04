// SPDX-License-Identifier: MIT

import { assert, type Memory } from "../../base/index.js";
import { BuddyAllocator } from "../alloc/buddy.js";
import type { AllocatorCounters } from "../alloc/counters.js";
import type { AllocatorPolicy } from "../alloc/policy.js";
import { ORDER_MAX, type Pfn, ZONE, type ZoneKind } from "./constants.js";
import { FrameTable } from "./frame-table.js";

/** Granule of a zone's records: 4 KiB, 2 MiB or 1 GiB. */
export type GranuleShift = 12 | 21 | 30;

/** Free frames at which something happens. */
export interface Watermarks {
  /** Below it only atomic requests are served. */
  readonly min: number;
  /** Below it memory is reclaimed in the background, ... */
  readonly low: number;
  /** ... up to this. */
  readonly high: number;
}

export interface ZoneOptions {
  readonly kind: ZoneKind;
  /** For people. */
  readonly name: string;
  /** A multiple of the granule. */
  readonly bytes: number;
  readonly granuleShift?: GranuleShift;
  /**
   * Where the bytes are, in order, `bytes` in all, each a multiple of the granule. Without them the
   * frames have no contents: a device's own memory, or a study of allocation alone.
   */
  readonly sections?: readonly Memory[];
  /** Default: as Linux computes them for a normal zone of 16 MiB and more, else 0. */
  readonly watermarks?: Watermarks;
}

const WATERMARK_FRAMES_MIN = 4096;
const NO_WATERMARKS: Watermarks = { min: 0, low: 0, high: 0 };

/** A range of physical memory of one kind: frames [basePfn, basePfn + frameCount). */
export class Zone {
  readonly kind: ZoneKind;
  readonly name: string;
  readonly basePfn: Pfn;
  readonly frameCount: number;
  readonly granuleShift: GranuleShift;
  /** log2 of the frames of a record. */
  readonly granuleOrder: number;
  readonly table: FrameTable;
  readonly buddy: BuddyAllocator;
  readonly watermarks: Watermarks;
  readonly sections: readonly Memory[];
  /** First frame of each section, relative to the zone. */
  private readonly sectionStarts: readonly number[];

  constructor(
    options: ZoneOptions,
    basePfn: Pfn,
    policy: AllocatorPolicy,
    counters: AllocatorCounters,
  ) {
    const granuleShift = options.granuleShift ?? 12;
    const granuleBytes = 2 ** granuleShift;
    assert(options.bytes > 0, "a zone has bytes");
    assert(options.bytes % granuleBytes === 0, "a zone is made of whole granules");
    assert(granuleShift === 12 || options.kind !== ZONE.NORMAL, "normal zones have 4 KiB frames");
    this.kind = options.kind;
    this.name = options.name;
    this.basePfn = basePfn;
    this.frameCount = options.bytes / 4096;
    this.granuleShift = granuleShift;
    this.granuleOrder = granuleShift - 12;
    this.table = new FrameTable(options.bytes / granuleBytes);
    this.buddy = new BuddyAllocator(this.table, this.granuleOrder, policy, counters);
    this.watermarks = options.watermarks ?? watermarksOf(options.kind, this.frameCount);
    this.sections = options.sections ?? [];
    const starts: number[] = [];
    let start = 0;
    for (const section of this.sections) {
      assert(section.length % granuleBytes === 0, "a section is made of whole granules");
      starts.push(start / 4096);
      start += section.length;
    }
    assert(start === 0 || start === options.bytes, "sections are as long as their zone");
    this.sectionStarts = starts;
    this.buddy.addRange(0, this.table.recordCount);
  }

  /** First frame after the zone. */
  get endPfn(): Pfn {
    return this.basePfn + this.frameCount;
  }

  get freeFrames(): number {
    return this.buddy.freeCount * 2 ** this.granuleOrder;
  }

  /** Bytes of all its metadata. */
  get metadataBytes(): number {
    return this.table.byteLength + this.buddy.byteLength;
  }

  recordOf(pfn: Pfn): number {
    return (pfn - this.basePfn) >>> this.granuleOrder;
  }

  pfnOf(record: number): Pfn {
    return this.basePfn + record * 2 ** this.granuleOrder;
  }

  /** The section that a frame's bytes are in. Preconditions: the zone has sections. */
  sectionOf(pfn: Pfn): Memory {
    const { sections, sectionStarts } = this;
    assert(sections.length > 0, `memory of zone ${this.name} has no bytes for the CPU`);
    let number = sections.length - 1;
    while ((sectionStarts[number] as number) > pfn - this.basePfn) number--;
    return sections[number] as Memory;
  }

  /** Offset of a frame's bytes in its section. */
  offsetOf(pfn: Pfn): number {
    const { sectionStarts } = this;
    let number = sectionStarts.length - 1;
    while (number > 0 && (sectionStarts[number] as number) > pfn - this.basePfn) number--;
    return (pfn - this.basePfn - (sectionStarts[number] ?? 0)) * 4096;
  }
}

/** As Linux does: min is 4 x sqrt(KiB), low a quarter and high a half above it. */
function watermarksOf(kind: ZoneKind, frameCount: number): Watermarks {
  if (kind !== ZONE.NORMAL || frameCount < WATERMARK_FRAMES_MIN) return NO_WATERMARKS;
  const min = Math.ceil(Math.sqrt(frameCount * 4 * 16) / 4);
  return { min, low: min + (min >> 2), high: min + (min >> 1) };
}

/** Zones begin where the largest block is aligned. */
export const ZONE_ALIGN_FRAMES = 2 ** ORDER_MAX;
