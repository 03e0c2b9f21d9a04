// SPDX-License-Identifier: MIT
// A host's memory: an arena of frames (`mm/`) on mappings of the system, or on ordinary buffers
// where there are no foreign calls. A section's `bytes` point at its mapping for as long as that
// lives: nobody may touch them after `free` (the page is gone, the process would die), which is
// what the MemorySource contract says.

import { assert, FarpageError, HeapMemorySource, type Memory } from "../base/index.js";
import { ArenaMemory, ArenaMemorySource, PhysicalMemory, type SectionSource } from "../mm/index.js";
import type { Backend, MemorySourceOptions, OsMemorySource, SystemPages } from "./door.js";
import { readSystemPages } from "./memory-pages.js";
import { choosesNative, loadNative, type NativeBlock } from "./native.js";

const PAGE_BYTES = 4096;
const HUGE_PAGE_BYTES = 2 * 1024 * 1024;
const MAP_POPULATE = 0x8000;
const MAP_HUGETLB = 0x4_0000;
const MADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const MADV_NOHUGEPAGE = 15;
/** Sections of ordinary buffers are smaller: they count as JavaScript's memory from the start. */
const HEAP_SECTION_BYTES = 16 * 1024 * 1024;
/** Freed buffers that are kept aside where FARPAGE_CHECK_FREED says that they are checked. */
const CHECK_FREED_BYTES = 16 * 1024 * 1024;

/** Memory whose `address` is where the kernel sees it. */
export class MappedMemory implements Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: number;
  readonly length: number;
  /** The whole mapping, of which this is a part. */
  readonly block: NativeBlock;

  /** @param offset where in the mapping it begins. */
  constructor(block: NativeBlock, offset: number, length: number) {
    this.bytes = new Uint8Array(block.bytes.buffer, offset, length);
    this.view = new DataView(block.bytes.buffer, offset, length);
    this.address = block.address + offset;
    this.length = length;
    this.block = block;
  }
}

/**
 * Where `memory` is for a system call: its address if it is mapped, else the address of its buffer
 * (whose `address` property is made up).
 */
export function nativeAddressOf(memory: Memory): number {
  const section = memory instanceof ArenaMemory ? memory.section : memory;
  return section instanceof MappedMemory ? memory.address : loadNative().addressOf(memory.bytes);
}

/**
 * Maps memory for system calls' structures.
 * @throws FarpageError ENOMEM.
 */
export function mapBlock(length: number, populate = false): NativeBlock {
  const rounded = Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
  const block = loadNative().map(rounded, populate ? MAP_POPULATE : 0);
  if (block === null) throw new FarpageError("ENOMEM", `no memory for ${length} bytes of buffers`);
  return block;
}

/** Gives a block of `mapBlock` back. Nobody may touch it afterwards. */
export function unmapBlock(block: NativeBlock): void {
  loadNative().libc.munmap(block.address, block.bytes.length);
}

/** Sections of an arena, each a mapping of its own that begins where a huge page may. */
class MappedSections implements SectionSource {
  private readonly native = loadNative();
  private readonly hugePages: boolean;
  private readonly hugetlb: boolean;

  constructor(options: MemorySourceOptions) {
    this.hugePages = options.hugePages ?? true;
    this.hugetlb = options.hugetlb ?? false;
  }

  allocate(length: number): Memory {
    const reserved = this.hugetlb ? this.native.map(length, MAP_HUGETLB) : null;
    if (reserved !== null) return new MappedMemory(reserved, 0, length);
    // The system aligns to its small pages alone. What lies before and after is never touched.
    const block = this.native.map(length + HUGE_PAGE_BYTES, 0);
    if (block === null) {
      throw new FarpageError("ENOMEM", `the system has no ${length} bytes of memory left`);
    }
    const offset = (HUGE_PAGE_BYTES - (block.address % HUGE_PAGE_BYTES)) % HUGE_PAGE_BYTES;
    const section = new MappedMemory(block, offset, length);
    // Advice: a kernel without transparent huge pages says no, and nothing is lost. Either one
    // also keeps the system from joining the section with a neighbour.
    const advice = this.hugePages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
    this.native.libc.madvise(section.address, length, advice);
    return section;
  }

  free(section: Memory): void {
    assert(section instanceof MappedMemory, "a mapped source frees mapped memory");
    this.native.libc.munmap(section.block.address, section.block.bytes.length);
  }

  discard(section: Memory, offset: number, length: number): boolean {
    return this.native.libc.madvise(section.address + offset, length, MADV_DONTNEED) === 0;
  }
}

/** Sections of ordinary buffers. */
class HeapSections extends HeapMemorySource implements SectionSource {
  override allocate(length: number): Memory {
    try {
      return super.allocate(length);
    } catch (cause) {
      throw new FarpageError("ENOMEM", `the system has no ${length} bytes of memory left`, {
        cause,
      });
    }
  }

  /** No: the arena wipes what it gives out again. */
  discard(): boolean {
    return false;
  }
}

/** An arena of its own on the system's memory. */
class ArenaSource extends ArenaMemorySource implements OsMemorySource {
  readonly backend: Backend;
  private readonly populate: boolean;

  constructor(backend: Backend, options: MemorySourceOptions) {
    const isNative = backend === "native";
    super({
      memory: new PhysicalMemory(),
      sections: isNative ? new MappedSections(options) : new HeapSections(),
      limitBytes: options.limitBytes ?? Number.POSITIVE_INFINITY,
      checkFreedBytes: process.env["FARPAGE_CHECK_FREED"] === "1" ? CHECK_FREED_BYTES : 0,
      ...(isNative ? {} : { sectionBytes: HEAP_SECTION_BYTES }),
    });
    this.backend = backend;
    this.populate = options.populate ?? false;
  }

  override allocate(length: number, use?: string): ArenaMemory {
    const memory = super.allocate(length, use);
    if (this.populate) {
      for (let offset = 0; offset < length; offset += PAGE_BYTES) memory.bytes[offset] = 0;
    }
    return memory;
  }

  systemPages(): SystemPages | null {
    if (this.backend !== "native") return null;
    return readSystemPages(this.sectionRanges());
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Makes a memory source: mappings where foreign calls work, or as `options.backend` says. */
export function openMemorySource(options: MemorySourceOptions = {}): OsMemorySource {
  return new ArenaSource(choosesNative(options.backend) ? "native" : "node", options);
}
