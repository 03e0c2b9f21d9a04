// SPDX-License-Identifier: MIT
// A host's memory: anonymous mappings with their real addresses, or ordinary buffers where there
// are no foreign calls. A mapping's `bytes` point at it for as long as it lives: they must not be
// touched after `free` (the page is gone, the process would die), which is what the MemorySource
// contract says.

import { assert, FarpageError, HeapMemorySource, type Memory } from "../base/index.js";
import type { Backend, MemorySourceOptions, OsMemorySource } from "./door.js";
import { choosesNative, loadNative, type NativeBlock } from "./native.js";

const PAGE_BYTES = 4096;
const HUGE_PAGE_BYTES = 2 * 1024 * 1024;
const MAP_POPULATE = 0x8000;
const MADV_HUGEPAGE = 14;

/** Memory whose `address` is where the kernel sees it. */
export class MappedMemory implements Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: number;
  readonly length: number;
  /** Bytes mapped: `length` in whole pages. */
  readonly mappedBytes: number;

  constructor(block: NativeBlock, length: number) {
    this.bytes = new Uint8Array(block.bytes.buffer, 0, length);
    this.view = new DataView(block.bytes.buffer, 0, length);
    this.address = block.address;
    this.length = length;
    this.mappedBytes = block.bytes.length;
  }
}

/**
 * Where `memory` is for a system call: its address if it is mapped, else the address of its buffer
 * (whose `address` property is made up).
 */
export function nativeAddressOf(memory: Memory): number {
  return memory instanceof MappedMemory ? memory.address : loadNative().addressOf(memory.bytes);
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

abstract class BoundedSource implements OsMemorySource {
  abstract readonly backend: Backend;
  allocatedBytes = 0;
  private readonly limitBytes: number;
  private readonly allocated = new Map<Memory, number>();

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  allocate(length: number): Memory {
    if (!Number.isSafeInteger(length) || length < 1) {
      throw new FarpageError("EINVAL", `can't allocate ${length} bytes of memory`);
    }
    const rounded = Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
    if (this.allocatedBytes + rounded > this.limitBytes) {
      throw new FarpageError(
        "ENOMEM",
        `${length} bytes more than the ${this.allocatedBytes} in use exceed the limit of ` +
          `${this.limitBytes} bytes`,
      );
    }
    const memory = this.take(length, rounded);
    this.allocated.set(memory, rounded);
    this.allocatedBytes += rounded;
    return memory;
  }

  free(memory: Memory): void {
    const rounded = this.allocated.get(memory);
    assert(rounded !== undefined, "memory is freed once, by the source that allocated it");
    this.allocated.delete(memory);
    this.allocatedBytes -= rounded;
    this.give(memory);
  }

  close(): void {
    for (const memory of [...this.allocated.keys()]) this.free(memory);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  protected abstract take(length: number, rounded: number): Memory;
  protected abstract give(memory: Memory): void;
}

class MappedSource extends BoundedSource {
  readonly backend = "native";
  private readonly native = loadNative();
  private readonly mapFlags: number;
  private readonly hugePages: boolean;

  constructor(options: MemorySourceOptions) {
    super(options.limitBytes ?? Number.POSITIVE_INFINITY);
    this.hugePages = options.hugePages ?? true;
    // With huge pages the touching comes after the advice, else it would fault small ones in.
    this.mapFlags = options.populate === true ? MAP_POPULATE : 0;
  }

  protected override take(length: number, rounded: number): Memory {
    const huge = this.hugePages && rounded >= HUGE_PAGE_BYTES;
    const block = this.native.map(rounded, huge ? 0 : this.mapFlags);
    if (block === null) {
      throw new FarpageError("ENOMEM", `the system has no ${length} bytes of memory left`);
    }
    if (huge) {
      // Advice: a kernel without transparent huge pages says no, and nothing is lost.
      this.native.libc.madvise(block.address, rounded, MADV_HUGEPAGE);
      if (this.mapFlags !== 0) {
        for (let offset = 0; offset < rounded; offset += PAGE_BYTES) block.bytes[offset] = 0;
      }
    }
    return new MappedMemory(block, length);
  }

  protected override give(memory: Memory): void {
    assert(memory instanceof MappedMemory, "a mapped source frees mapped memory");
    this.native.libc.munmap(memory.address, memory.mappedBytes);
  }
}

class HeapSource extends BoundedSource {
  readonly backend = "node";
  private readonly heap = new HeapMemorySource();

  protected override take(length: number): Memory {
    try {
      return this.heap.allocate(length);
    } catch (cause) {
      throw new FarpageError("ENOMEM", `the system has no ${length} bytes of memory left`, {
        cause,
      });
    }
  }

  protected override give(memory: Memory): void {
    this.heap.free(memory);
  }
}

/** Makes a memory source: mappings where foreign calls work, or as `options.backend` says. */
export function openMemorySource(options: MemorySourceOptions = {}): OsMemorySource {
  return choosesNative(options.backend)
    ? new MappedSource(options)
    : new HeapSource(options.limitBytes ?? Number.POSITIVE_INFINITY);
}
