// SPDX-License-Identifier: MIT
// Processes of a host: each has addresses of its own, mapped as mmap(2) does, which it registers
// pinned or on demand, and uverbs files of its own, which end with it.

import { FarpageError, type RegionSpace } from "../base/index.js";
import { type AddressSpace, type MapOptions, PROT } from "../mm/index.js";
import { type AddressRange, Context } from "../verbs/index.js";
import { checkObject, checkText, checkWhole } from "./check-options.js";
import { ProcessMemory } from "./process-memory.js";
import type { Stack } from "./stack.js";

export interface ProcessOptions {
  /** Bytes that its regions may keep pinned (RLIMIT_MEMLOCK). Default: no limit. */
  readonly lockedBytesMax?: number;
  /** Bytes of addresses that it may map (RLIMIT_AS). Default: no limit. */
  readonly addressBytesMax?: number;
}

/** As mmap(2); `prot` is READ and WRITE if absent. */
export type ProcessMapOptions = Omit<MapOptions, "prot"> & { readonly prot?: number };

const PROCESS_BYTES_MIN = 2 ** 21;

/** Addresses that a process has mapped. Whatever is mapped there later is meant, too. */
export class ProcessRange implements AddressRange {
  readonly space: RegionSpace;
  readonly address: number;
  readonly length: number;
  private readonly own: AddressSpace;

  /** @internal */
  constructor(regions: RegionSpace, space: AddressSpace, address: number, length: number) {
    this.space = regions;
    this.own = space;
    this.address = address;
    this.length = length;
  }

  /**
   * The process reads its memory.
   * @throws FarpageError EFAULT, EACCES, ENOMEM, EIO; EAGAIN where a fault would have to wait;
   *   ESRCH when it has exited.
   */
  read(offset: number, target: Uint8Array): void {
    mustLive(this.own);
    this.own.read(this.address + offset, target);
  }

  /** The process writes its memory. Errors as `read`. */
  write(offset: number, source: Uint8Array): void {
    mustLive(this.own);
    this.own.write(this.address + offset, source);
  }

  /** As munmap(2). Regions on demand stay, and find what is mapped there next. */
  unmap(): void {
    mustLive(this.own);
    this.own.unmap(this.address, this.length);
  }
}

/** One process. It ends with `exit`, or with its host. */
export class Process implements Disposable {
  readonly name: string;
  /** All of its addresses: unmap, remap, protect and the like, under their own names. */
  readonly space: AddressSpace;
  /** The same as `registerMr` takes them: `{ space: process.regions, address, length }`. */
  readonly regions: RegionSpace;
  private readonly host: Processes;
  private readonly contexts: Context[] = [];

  /** @internal */
  constructor(host: Processes, space: AddressSpace, regions: RegionSpace) {
    this.host = host;
    this.space = space;
    this.regions = regions;
    this.name = space.name;
  }

  /**
   * Maps memory: anonymous, of a file of `space.manager.openFile`, or a device's.
   * @throws FarpageError as `AddressSpace.map`; ESRCH when it has exited.
   */
  map(options: ProcessMapOptions): ProcessRange {
    checkObject("options", options);
    mustLive(this.space);
    const prot = options.prot ?? PROT.READ | PROT.WRITE;
    const address = this.space.map({ ...options, prot });
    return new ProcessRange(this.regions, this.space, address, options.length);
  }

  /**
   * Opens the device: a uverbs file that is closed when the process ends.
   * @throws FarpageError ESRCH when it has.
   */
  openDevice(): Context {
    mustLive(this.space);
    const context = this.host.openContext();
    this.contexts.push(context);
    return context;
  }

  /**
   * A child with a copy of all memory, as fork(2). Pinned pages stay this process's own.
   * @throws FarpageError EINVAL, ENOMEM; ESRCH when it has exited.
   */
  fork(name: string): Process {
    checkText("name", name);
    mustLive(this.space);
    return this.host.adopt(this.space.fork({ name }));
  }

  /**
   * Its uverbs files are closed, and so are the connections of their queue pairs; its memory is
   * freed. What others have pinned stays theirs.
   */
  exit(): void {
    if (this.space.hasExited) return;
    for (const context of this.contexts) context.close();
    this.space.exit();
    this.host.forget(this);
  }

  [Symbol.dispose](): void {
    this.exit();
  }
}

/** @throws FarpageError ESRCH */
function mustLive({ hasExited, name }: AddressSpace): void {
  if (hasExited) throw new FarpageError("ESRCH", `${name} has exited`);
}

/** The processes of one host. Costs nothing before the first one. */
export class Processes {
  private readonly stack: Stack;
  private readonly memoryBytes: number;
  private memory: ProcessMemory | null = null;
  private isClosed = false;
  private readonly all = new Set<Process>();

  /** @param memoryBytes physical memory of all processes together. */
  constructor(stack: Stack, memoryBytes: number) {
    this.stack = stack;
    this.memoryBytes = Math.ceil(memoryBytes / PROCESS_BYTES_MIN) * PROCESS_BYTES_MIN;
  }

  /**
   * @throws FarpageError EINVAL; ENOMEM when the host has no memory for the first process;
   *   ESHUTDOWN when it is closed.
   */
  spawn(name: string, options: ProcessOptions): Process {
    if (this.isClosed) throw new FarpageError("ESHUTDOWN", "the host is closed");
    checkText("name", name);
    checkObject("options", options);
    const { lockedBytesMax, addressBytesMax } = options;
    for (const [key, value] of Object.entries({ lockedBytesMax, addressBytesMax })) {
      if (value !== undefined) checkWhole(key, value, 0, Number.MAX_SAFE_INTEGER);
    }
    const limits = {
      ...(lockedBytesMax === undefined ? {} : { lockedBytesMax }),
      ...(addressBytesMax === undefined ? {} : { addressBytesMax }),
    };
    return this.adopt(this.begin().manager.createSpace({ name, limits }));
  }

  adopt(space: AddressSpace): Process {
    const process = new Process(this, space, this.begin().regionsOf(space));
    this.all.add(process);
    return process;
  }

  openContext(): Context {
    return new Context(this.stack.device);
  }

  forget(process: Process): void {
    this.all.delete(process);
    // For its connections.
    this.stack.lane.wake();
  }

  /** All processes end. */
  close(): void {
    this.isClosed = true;
    for (const process of this.all) process.exit();
    this.memory?.close();
  }

  private begin(): ProcessMemory {
    if (this.memory === null) {
      const { lane, memory } = this.stack;
      const section = memory.allocate(this.memoryBytes, "memory of processes");
      this.memory = new ProcessMemory(lane, section);
      this.stack.processMemory = this.memory.memory;
    }
    return this.memory;
  }
}
