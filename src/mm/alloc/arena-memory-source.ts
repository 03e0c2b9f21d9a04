// SPDX-License-Identifier: MIT
// A host's buffers out of its physical memory: each a range of neighbouring frames. The arena grows
// by sections of the system's memory as it is needed, and gives back what is free altogether.

import { assert, FarpageError, type Memory, type MemorySource } from "../../base/index.js";
import {
  ALLOCATE,
  MIGRATE,
  NO_FRAME,
  PAGE_BLOCK_FRAMES,
  type Pfn,
  ZONE,
} from "../frames/constants.js";
import type { FrameOwner } from "../frames/owner.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";
import type { Zone } from "../frames/zone.js";
import { ContiguousAllocator } from "./contiguous.js";
import { FreedBuffers } from "./freed-buffers.js";

/** Where the arena's sections come from: the system. */
export interface SectionSource extends MemorySource {
  /**
   * Gives pages of a section back to the system, if it can: they read as zeroes afterwards and cost
   * nothing until they are touched. @returns false: nothing has changed.
   */
  discard(section: Memory, offset: number, length: number): boolean;
}

export interface ArenaOptions {
  readonly memory: PhysicalMemory;
  readonly sections: SectionSource;
  /** Bytes that may be allocated in all, in whole frames. */
  readonly limitBytes?: number;
  /** Size of a section, unless a buffer needs a larger one; a multiple of 2 MiB. */
  readonly sectionBytes?: number;
  /**
   * Bytes of freed buffers that are kept aside, to find who uses them still; default 0: none, and
   * nothing is looked for. See freed-buffers.ts.
   */
  readonly checkFreedBytes?: number;
}

const FRAME_BYTES = 4096;
const PAGE_BLOCK_BYTES = PAGE_BLOCK_FRAMES * FRAME_BYTES;
export const SECTION_BYTES = 64 * 1024 * 1024;
/** Buffers from this size on go back to the system when they are freed; smaller ones are wiped. */
const DISCARD_BYTES_MIN = 64 * 1024;
const NO_WATERMARKS = { min: 0, low: 0, high: 0 };

const OTHER_USE = "buffers";

/** What buffers are for, as their frames' owner. They have an address, and so never move. */
class BufferUse implements FrameOwner {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  referencesOf(): number {
    return 0;
  }

  detach(): boolean {
    return false;
  }

  attach(): void {
    assert(false, "what was not detached is not attached");
  }
}

/** A buffer of the arena. */
export class ArenaMemory implements Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: number;
  readonly length: number;
  /** First of its frames. */
  readonly pfn: Pfn;
  readonly frameCount: number;
  /** The section that it lies in, and where. */
  readonly section: Memory;
  readonly offset: number;
  private readonly memory: PhysicalMemory;
  private readonly onFreed: (pfn: Pfn, frameCount: number) => void;

  /** @param onFreed told of frames that the last pin of a buffer that was freed has kept. */
  constructor(
    memory: PhysicalMemory,
    pfn: Pfn,
    length: number,
    onFreed: (pfn: Pfn, frameCount: number) => void,
  ) {
    const section = memory.zoneOf(pfn).sectionOf(pfn);
    const offset = memory.offsetOf(pfn);
    const { buffer, byteOffset } = section.bytes;
    this.bytes = new Uint8Array(buffer, byteOffset + offset, length);
    this.view = new DataView(buffer, byteOffset + offset, length);
    this.address = section.address + offset;
    this.length = length;
    this.pfn = pfn;
    this.frameCount = Math.ceil(length / FRAME_BYTES);
    this.section = section;
    this.offset = offset;
    this.memory = memory;
    this.onFreed = onFreed;
  }

  /** Whole blocks, as pins are counted: those that have some of the range. */
  pin(offset: number, length: number): void {
    this.visitBlocks(offset, length, (head) => {
      this.memory.get(head);
      this.memory.pin(head);
    });
  }

  unpin(offset: number, length: number): void {
    let first: Pfn = NO_FRAME;
    let end = first;
    this.visitBlocks(offset, length, (head, frames) => {
      this.memory.unpin(head);
      if (!this.memory.put(head)) return;
      if (first !== NO_FRAME && end !== head) {
        this.onFreed(first, end - first);
        first = head;
      }
      if (first === NO_FRAME) first = head;
      end = head + frames;
    });
    if (first !== NO_FRAME) this.onFreed(first, end - first);
  }

  private visitBlocks(
    offset: number,
    length: number,
    visit: (head: Pfn, frames: number) => void,
  ): void {
    const isInside = offset >= 0 && length >= 0 && offset + length <= this.length;
    assert(isInside, "what is pinned of a buffer lies in it");
    if (length === 0) return;
    const { memory } = this;
    const end = this.pfn + Math.ceil((offset + length) / FRAME_BYTES);
    for (let pfn = this.pfn + Math.floor(offset / FRAME_BYTES); pfn < end; ) {
      const head = memory.headOf(pfn);
      // Looked at before the visit, which may free it.
      const frames = 2 ** memory.orderOf(head);
      pfn = head + frames;
      visit(head, frames);
    }
  }
}

/** See the top of the file. Its buffers are zeroes when they are handed out, whoever had them. */
export class ArenaMemorySource implements MemorySource {
  readonly memory: PhysicalMemory;
  readonly limitBytes: number;
  /** Bytes of buffers, in whole frames. */
  allocatedBytes = 0;
  private readonly contiguous: ContiguousAllocator;
  private readonly sections: SectionSource;
  private readonly sectionBytes: number;
  private readonly buffers = new Set<ArenaMemory>();
  private readonly freed: FreedBuffers | null;
  /** Owner of the frames of each use. */
  private readonly ownerIds = new Map<string, number>();
  private readonly zones: Zone[] = [];
  private readonly onFreed = (pfn: Pfn, frameCount: number) => this.giveBack(pfn, frameCount);

  constructor(options: ArenaOptions) {
    this.memory = options.memory;
    this.sections = options.sections;
    this.limitBytes = options.limitBytes ?? Number.POSITIVE_INFINITY;
    this.sectionBytes = options.sectionBytes ?? SECTION_BYTES;
    assert(this.sectionBytes % PAGE_BLOCK_BYTES === 0, "sections are made of whole page blocks");
    this.contiguous = new ContiguousAllocator(options.memory);
    const checkedBytes = options.checkFreedBytes ?? 0;
    const release = (buffer: ArenaMemory) => this.release(buffer);
    this.freed = checkedBytes > 0 ? new FreedBuffers(this.memory, checkedBytes, release) : null;
  }

  /** Bytes of the sections that the arena has now. */
  get sectionBytesTotal(): number {
    let bytes = 0;
    for (const zone of this.zones) bytes += zone.frameCount * FRAME_BYTES;
    return bytes;
  }

  /** Addresses of the sections that the arena has now. */
  sectionRanges(): { readonly start: number; readonly end: number }[] {
    return this.zones.flatMap((zone) =>
      zone.sections.map(({ address, length }) => ({ start: address, end: address + length })),
    );
  }

  allocate(length: number, use = OTHER_USE): ArenaMemory {
    if (!Number.isSafeInteger(length) || length < 1) {
      throw new FarpageError("EINVAL", `can't allocate ${length} bytes of memory`);
    }
    const frameCount = Math.ceil(length / FRAME_BYTES);
    const rounded = frameCount * FRAME_BYTES;
    if (this.allocatedBytes + rounded > this.limitBytes) {
      throw new FarpageError(
        "ENOMEM",
        `${length} bytes more than the ${this.allocatedBytes} in use exceed the limit of ` +
          `${this.limitBytes} bytes`,
      );
    }
    const pfn = this.takeFrames(length, frameCount);
    const buffer = new ArenaMemory(this.memory, pfn, length, this.onFreed);
    this.setOwner(buffer, use);
    this.buffers.add(buffer);
    this.allocatedBytes += rounded;
    this.freed?.begin(buffer);
    return buffer;
  }

  free(memory: Memory): void {
    const buffer = memory as ArenaMemory;
    assert(this.buffers.delete(buffer), "memory is freed once, by the source that allocated it");
    this.allocatedBytes -= buffer.frameCount * FRAME_BYTES;
    if (this.freed === null) this.release(buffer);
    else this.freed.add(buffer);
  }

  private release(buffer: ArenaMemory): void {
    const { pfn, frameCount } = buffer;
    // Who else holds a frame of it (a pin asserts) keeps that frame, not the buffer.
    if (this.contiguous.freeRange(pfn, frameCount)) this.giveBack(pfn, frameCount);
  }

  /** To the system: frames of one section that are free. */
  private giveBack(pfn: Pfn, frameCount: number): void {
    const zone = this.memory.zoneOf(pfn);
    if (this.zones.length > 1 && zone.freeFrames === zone.frameCount) {
      this.dropZone(zone);
      return;
    }
    const bytes = frameCount * FRAME_BYTES;
    if (bytes < DISCARD_BYTES_MIN) return;
    if (this.sections.discard(zone.sectionOf(pfn), zone.offsetOf(pfn), bytes)) {
      this.memory.markZero(pfn, frameCount);
    }
  }

  /**
   * Frees every buffer and gives every section back.
   * @throws FarpageError EBUSY when a device has some of it: it is registered. Nothing has changed
   *   then.
   */
  close(): void {
    this.refusePinned();
    this.freed?.drain();
    for (const buffer of this.buffers) this.contiguous.freeRange(buffer.pfn, buffer.frameCount);
    this.buffers.clear();
    this.allocatedBytes = 0;
    for (const zone of [...this.zones]) this.dropZone(zone);
    for (const id of this.ownerIds.values()) this.memory.unregisterOwner(id);
    this.ownerIds.clear();
  }

  private refusePinned(): void {
    const uses = new Set<string>();
    for (const zone of this.zones) {
      const { pins, owners } = zone.table;
      for (let record = 0; record < zone.table.recordCount; record++) {
        if ((pins[record] as number) === 0) continue;
        uses.add(this.memory.ownerById(owners[record] as number)?.name ?? OTHER_USE);
      }
    }
    if (uses.size === 0) return;
    const what = `memory of the arena is pinned (${[...uses].join(", ")})`;
    throw new FarpageError("EBUSY", `${what}: deregister the regions on it first`);
  }

  /** Says of a buffer's blocks what they are for. */
  private setOwner({ pfn, frameCount }: ArenaMemory, use: string): void {
    const { memory } = this;
    const id = this.ownerIds.get(use) ?? memory.registerOwner(new BufferUse(use));
    this.ownerIds.set(use, id);
    for (let at = pfn; at < pfn + frameCount; at += 2 ** memory.orderOf(at)) {
      memory.setOwner(at, id, 0);
    }
  }

  private takeFrames(length: number, frameCount: number): Pfn {
    const align = frameCount >= PAGE_BLOCK_FRAMES ? PAGE_BLOCK_FRAMES : 1;
    const { contiguous } = this;
    const flags = ALLOCATE.ZERO | ALLOCATE.NO_RECLAIM;
    const free = flags | ALLOCATE.NO_COMPACT;
    let pfn = contiguous.allocateRange(frameCount, align, MIGRATE.UNMOVABLE, free);
    if (pfn !== NO_FRAME) return pfn;
    if (this.addSection(frameCount * FRAME_BYTES)) {
      pfn = contiguous.allocateRange(frameCount, align, MIGRATE.UNMOVABLE, free);
      assert(pfn !== NO_FRAME, "a new section holds what it was made for");
      return pfn;
    }
    // The system has no more.
    if (this.freed?.drain() === true) return this.takeFrames(length, frameCount);
    // What others have here may give way.
    pfn = contiguous.allocateRange(frameCount, align, MIGRATE.UNMOVABLE, ALLOCATE.ZERO);
    if (pfn !== NO_FRAME) return pfn;
    throw new FarpageError("ENOMEM", `the system has no ${length} bytes of memory left`);
  }

  /** Adds a section for a buffer of `bytes`. @returns false when the system has none. */
  private addSection(bytes: number): boolean {
    const needed = Math.ceil(bytes / PAGE_BLOCK_BYTES) * PAGE_BLOCK_BYTES;
    const wanted = Math.max(needed, this.sectionBytes);
    const section = this.mapSection(wanted) ?? (wanted > needed ? this.mapSection(needed) : null);
    if (section === null) return false;
    const name = `arena ${this.zones.length}`;
    const { length } = section;
    const zone = this.memory.addZone({
      kind: ZONE.NORMAL,
      name,
      bytes: length,
      sections: [section],
      watermarks: NO_WATERMARKS,
    });
    this.zones.push(zone);
    return true;
  }

  private mapSection(bytes: number): Memory | null {
    try {
      return this.sections.allocate(bytes);
    } catch (error) {
      if (error instanceof FarpageError && error.code === "ENOMEM") return null;
      throw error;
    }
  }

  private dropZone(zone: Zone): void {
    this.memory.removeZone(zone);
    this.zones.splice(this.zones.indexOf(zone), 1);
    for (const section of zone.sections) this.sections.free(section);
  }
}
