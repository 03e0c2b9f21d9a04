// SPDX-License-Identifier: MIT
// What the address spaces and files of one host share: physical memory, the page of zeroes, the
// clock that finds file pages to reclaim, and the rule that changes of mappings don't nest.

import { assert } from "../../base/index.js";
import {
  ALLOCATE,
  FRAME_FLAG,
  MIGRATE,
  NO_FRAME,
  type Pfn,
  type PhysicalMemory,
  type Reclaimer,
} from "../frames/index.js";
import { AddressSpace, type AddressSpaceOptions } from "./address-space.js";
import { AnonGroup } from "./anon-group.js";
import { checkManager } from "./check.js";
import type { Access, FaultResult } from "./constants.js";
import { DeviceAreas } from "./device-areas.js";
import type { DeviceMapping } from "./device-mapping.js";
import { MappedFile, type MappedFileOptions } from "./mapped-file.js";
import { PAGES_END } from "./page-tree.js";

/** Called when the CPU, or a device by way of a fault, touches a page in a device's memory. */
export type PrivateFault = (space: AddressSpace, page: number, access: Access) => FaultResult;

/** What has happened since the host began. All only grow. */
export interface SpaceCounters {
  faults: number;
  /** Faults that got 2 MiB at once. */
  hugeFaults: number;
  zeroFaults: number;
  cowCopies: number;
  /** Shared pages that turned out to be one process's alone. */
  cowReuses: number;
  /** Pinned pages copied for a child. */
  forkCopies: number;
  pagesRead: number;
  pagesWritten: number;
  /** Pages written as a stable copy, since they are pinned; they stay dirty. */
  pinnedWrites: number;
  pagesReclaimed: number;
}

export class MemoryManager implements Reclaimer {
  readonly memory: PhysicalMemory;
  readonly spaces = new Set<AddressSpace>();
  readonly files: MappedFile[] = [];
  readonly devices = new DeviceAreas();
  /** Mapped, to be read, wherever nothing has been written yet. Nobody owns it. */
  readonly zeroFrame: Pfn;
  privateFault: PrivateFault | null = null;
  readonly counters: SpaceCounters = {
    faults: 0,
    hugeFaults: 0,
    zeroFaults: 0,
    cowCopies: 0,
    cowReuses: 0,
    forkCopies: 0,
    pagesRead: 0,
    pagesWritten: 0,
    pinnedWrites: 0,
    pagesReclaimed: 0,
  };
  private nextSpaceId = 1;
  private changeDepth = 0;
  /** Files that have nothing left to wait for but the end of the change under way. */
  private readonly ending = new Set<MappedFile>();
  /** Hand of the clock: file and page that are looked at next. */
  private handFile = 0;
  private handIndex = 0;

  /** Preconditions: a normal zone has a free frame. */
  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    this.zeroFrame = memory.allocate(0, MIGRATE.UNMOVABLE, ALLOCATE.ZERO);
    assert(this.zeroFrame !== NO_FRAME, "there is memory to begin with");
    memory.setFlag(this.zeroFrame, FRAME_FLAG.KERNEL);
    memory.registerReclaimer(this);
  }

  /** The memory of a new process. */
  createSpace(options: AddressSpaceOptions = {}): AddressSpace {
    const space = new AddressSpace(this, this.nextSpaceId++, options);
    this.spaces.add(space);
    return space;
  }

  /** A file that can be mapped; the caller closes it. */
  openFile(options: MappedFileOptions): MappedFile {
    const file = new MappedFile(this, options);
    this.files.push(file);
    return file;
  }

  /**
   * A change of mappings is under way: between its invalidations' starts and ends. Faults answer
   * BUSY, no other change begins, nothing is reclaimed or moved.
   */
  get isChanging(): boolean {
    return this.changeDepth > 0;
  }

  beginChange(): void {
    assert(this.changeDepth === 0, "mappings aren't changed by those who are told of a change");
    this.changeDepth++;
  }

  endChange(): void {
    assert(this.changeDepth > 0, "a change ends once");
    this.changeDepth--;
    if (this.ending.size > 0) this.endFiles();
  }

  /** File only: its last pin is gone. It ends now, or after the change that is under way. */
  endSoon(file: MappedFile): void {
    this.ending.add(file);
    if (!this.isChanging) this.endFiles();
  }

  private endFiles(): void {
    const files = [...this.ending];
    this.ending.clear();
    for (const file of files) file.endIfUnused();
  }

  /** `count` entries that held frames of one block, `pfn` and up, hold nothing any more. */
  dropEntries(pfn: Pfn, count: number): void {
    const { memory } = this;
    if (memory.put(pfn, count)) return;
    if (!memory.hasFlag(pfn, FRAME_FLAG.ANON)) return;
    const head = memory.headOf(pfn);
    const owner = memory.ownerOf(head);
    if (owner instanceof AnonGroup) owner.noteUnmapped(head);
  }

  /** Takes pages of a device file out of every process: the device goes, or revokes them. */
  unmapDevice(device: DeviceMapping, index: number, count: number): void {
    this.devices.unmap(this, device, index, count);
  }

  /**
   * Second chance over all file pages: one that was used since the hand passed last stays; others
   * leave every page table, are written if they are dirty, and are freed. Pinned ones are passed.
   */
  reclaim(frameCount: number): number {
    if (this.isChanging) return 0;
    let left = this.cachedPages * 2;
    let freed = 0;
    // Each file's end is passed on the way too.
    for (let turns = this.files.length * 3; left > 0 && turns > 0 && freed < frameCount; ) {
      const file = this.files[this.handFile % Math.max(1, this.files.length)];
      if (file === undefined) return freed;
      const index = file.cache.next(this.handIndex, PAGES_END);
      if (index < 0) {
        this.handFile = (this.handFile + 1) % this.files.length;
        this.handIndex = 0;
        turns--;
        continue;
      }
      this.handIndex = index + 1;
      left--;
      if (file.reclaimPage(index)) freed++;
    }
    this.counters.pagesReclaimed += freed;
    return freed;
  }

  /** Pages of all files that are in memory. */
  get cachedPages(): number {
    let count = 0;
    for (const file of this.files) count += file.cache.held;
    return count;
  }

  /** File only: the last mapping and handle are gone. */
  forgetFile(file: MappedFile): void {
    const at = this.files.indexOf(file);
    assert(at >= 0, "a file ends once");
    this.files.splice(at, 1);
    // The hand stays where it is: from the start again, it would never get beyond the first files
    // of a host that closes some now and then.
    if (at < this.handFile) this.handFile--;
    else if (at === this.handFile) this.handIndex = 0;
  }

  /**
   * Counts every reference anew and asserts that all agree.
   * @param others references beside page tables and caches, by first frame of the block; with it
   *   the counts must be equal, without they may be larger.
   */
  checkInvariants(others: ReadonlyMap<Pfn, number> | null = null): void {
    assert(this.changeDepth === 0, "no change is under way between calls");
    checkManager(this, others);
  }
}
