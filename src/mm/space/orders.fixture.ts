// SPDX-License-Identifier: MIT
// Every order of a device's access and a change of mappings. The device is a machine of small steps
// (readBegin, fault, look up, readRetry and install, access); the changes are the real ones, cut at
// every call that they make to somebody else: a notifier, physical memory, a file's store. At each
// cut any number of the device's steps may run. All choices are tried.

import { expect } from "vitest";
import { HeapMemorySource } from "../../base/index.js";
import { MIGRATE, type Pfn, PhysicalMemory, ZONE } from "../frames/index.js";
import {
  ACCESS,
  type AddressSpace,
  type DeviceMapping,
  FAULT,
  HeapFileStore,
  type MappedFile,
  MemoryManager,
  PAGE_BYTES,
  type RangeNotifier,
} from "./index.js";
import { RW, readByte, writeByte } from "./space.fixture.js";

const ADDRESS = 0x100_0000;
const PAGE = ADDRESS / PAGE_BYTES;

/** Says at each cut whether the device takes a step; goes through all answers, run by run. */
class Choices {
  runs = 0;
  private answers: boolean[] = [];
  private position = 0;

  next(): boolean {
    if (this.position === this.answers.length) this.answers.push(false);
    return this.answers[this.position++] as boolean;
  }

  /** @returns false when all have been tried. */
  advance(): boolean {
    this.runs++;
    this.answers.length = this.position;
    this.position = 0;
    while (this.answers.length > 0 && this.answers[this.answers.length - 1] === true) {
      this.answers.pop();
    }
    if (this.answers.length === 0) return false;
    this.answers[this.answers.length - 1] = true;
    return true;
  }
}

/** Physical memory that is cut before each call that changes something. */
export class CutMemory extends PhysicalMemory {
  cut: () => void = () => {};

  override allocate(order: number, migrate: 0 | 1 | 2, flags = 0): Pfn {
    this.cut();
    return super.allocate(order, migrate, flags);
  }

  override put(pfn: Pfn, count = 1): boolean {
    this.cut();
    const isLast = super.put(pfn, count);
    this.cut();
    return isLast;
  }

  override copyBlock(from: Pfn, to: Pfn, count: number): void {
    this.cut();
    super.copyBlock(from, to, count);
    this.cut();
  }
}

/** A device with a page table of one page. */
class Device implements RangeNotifier {
  readonly start = ADDRESS;
  readonly end = ADDRESS + PAGE_BYTES;
  /** Nothing that the entry led to may be used from here on, unless it is installed anew. */
  accesses = 0;
  installed: Pfn = -1;
  private found: Pfn = -1;
  private sequence = 0;
  private stage = 0;
  private readonly space: AddressSpace;
  private readonly isWrite: boolean;
  private readonly skipsRetry: boolean;
  /** Whether the notifier has been told of the change under way, and it is not over. */
  private readonly isForbidden: () => boolean;

  constructor(
    space: AddressSpace,
    isWrite: boolean,
    skipsRetry: boolean,
    isForbidden: () => boolean,
  ) {
    this.space = space;
    this.isWrite = isWrite;
    this.skipsRetry = skipsRetry;
    this.isForbidden = isForbidden;
  }

  invalidate(): void {
    this.installed = -1;
  }

  step(): void {
    const { space, isWrite } = this;
    if (this.stage === 0) {
      this.sequence = space.notifiers.readBegin(this);
      this.stage = 1;
    } else if (this.stage === 1) {
      const result = space.fault(PAGE, isWrite ? ACCESS.WRITE : ACCESS.READ);
      this.stage = result === FAULT.READY ? 2 : 0;
    } else if (this.stage === 2) {
      this.found = space.lookup(PAGE);
      const isUsable = this.found >= 0 && (!isWrite || space.isWritable(PAGE));
      this.stage = isUsable ? 3 : 0;
    } else if (this.stage === 3) {
      const isStale = !this.skipsRetry && space.notifiers.readRetry(this, this.sequence);
      if (!isStale) this.installed = this.found;
      this.stage = isStale ? 0 : 4;
    } else {
      this.access();
    }
  }

  private access(): void {
    if (this.installed < 0) {
      this.stage = 0;
      return;
    }
    this.accesses++;
    if (this.isForbidden()) throw new Violation("an access after the invalidation returned");
    if (this.space.lookup(PAGE) !== this.installed) {
      throw new Violation("an access to a frame that is not the page's");
    }
    if (this.isWrite && !this.space.isWritable(PAGE)) {
      throw new Violation("a write to what may not be written");
    }
  }
}

export class Violation extends Error {}

export interface World {
  /** Shows one page of normal memory. */
  readonly device: DeviceMapping;
  readonly memory: CutMemory;
  readonly manager: MemoryManager;
  readonly space: AddressSpace;
  readonly file: MappedFile;
  readonly store: HeapFileStore;
}

export interface Change {
  /** A page of the file, or anonymous. */
  readonly isFile: boolean;
  readonly isWrite: boolean;
  /** The page is the first of a block of 2 MiB. */
  readonly isHuge?: boolean;
  /** Both fault the same page in: no entry of the device's goes stale. */
  readonly isFault?: boolean;
  /** Before the device begins. */
  prepare?(world: World): void;
  run(world: World): void;
}

export const CHANGES: Readonly<Record<string, Change>> = {
  unmap: { isFile: false, isWrite: true, run: ({ space }) => space.unmap(ADDRESS, PAGE_BYTES) },
  "unmap of a file": {
    isFile: true,
    isWrite: true,
    run: ({ space }) => space.unmap(ADDRESS, PAGE_BYTES),
  },
  protect: { isFile: false, isWrite: true, run: ({ space }) => space.protect(ADDRESS, 4096, 1) },
  "protect from reads": {
    isFile: false,
    isWrite: false,
    run: ({ space }) => space.protect(ADDRESS, 4096, 0),
  },
  "copy on write": {
    isFile: false,
    isWrite: false,
    prepare: ({ space }) => void space.fork(),
    run: ({ space }) => writeByte(space, ADDRESS, 2),
  },
  fork: { isFile: false, isWrite: true, run: ({ space }) => void space.fork() },
  remap: {
    isFile: false,
    isWrite: true,
    run: ({ space }) => space.remap(ADDRESS, 4096, 8192, true),
  },
  truncate: { isFile: true, isWrite: true, run: ({ file }) => file.truncate(0) },
  writeback: { isFile: true, isWrite: true, run: ({ file }) => void file.writeback() },
  reclaim: {
    isFile: true,
    isWrite: true,
    run: ({ manager }) => expect(manager.reclaim(1)).toBeLessThanOrEqual(1),
  },
  move: {
    isFile: false,
    isWrite: true,
    run: ({ memory, space }) => void memory.move(space.lookup(PAGE)),
  },
  "move of a file's page": {
    isFile: true,
    isWrite: true,
    run: ({ memory, file }) => void memory.move(file.cachedFrame(0)),
  },
  exit: { isFile: false, isWrite: true, run: ({ space }) => space.exit() },
  "map over it": {
    isFile: false,
    isWrite: true,
    run: ({ space }) => {
      space.map({ length: PAGE_BYTES, prot: RW, address: ADDRESS, fixed: "replace" });
      writeByte(space, ADDRESS, 3);
    },
  },
  "write of what nobody has touched": {
    isFault: true,
    isFile: false,
    isWrite: true,
    prepare: ({ space }) =>
      void space.map({ length: PAGE_BYTES, prot: RW, address: ADDRESS, fixed: "replace" }),
    run: ({ space }) => writeByte(space, ADDRESS, 3),
  },
  "write of a file's page that is not in memory": {
    isFault: true,
    isFile: true,
    isWrite: true,
    prepare: ({ file }) => {
      file.truncate(0);
      file.truncate(PAGE_BYTES);
    },
    run: ({ space }) => writeByte(space, ADDRESS, 3),
  },
  "copy on write, by both": {
    isFault: true,
    isFile: false,
    isWrite: true,
    prepare: ({ space }) => void space.fork(),
    run: ({ space }) => writeByte(space, ADDRESS, 2),
  },
  "fork of a pinned page": {
    isFile: false,
    isWrite: true,
    prepare: ({ memory, space }) => {
      memory.get(space.lookup(PAGE));
      memory.pin(space.lookup(PAGE));
    },
    run: ({ space }) => {
      const frame = space.lookup(PAGE);
      const child = space.fork();
      expect([space.lookup(PAGE), space.isWritable(PAGE)]).toEqual([frame, true]);
      expect(child.lookup(PAGE)).not.toBe(frame);
    },
  },
  "a device's memory is taken back": {
    isFile: false,
    isWrite: true,
    prepare: ({ device, space }) => {
      const range = { length: PAGE_BYTES, prot: RW, address: ADDRESS };
      space.map({ ...range, fixed: "replace", shared: true, device: { device, offset: 0 } });
      writeByte(space, ADDRESS, 1);
    },
    run: ({ device, manager }) => manager.unmapDevice(device, 0, 1),
  },
  "unmap of a page of 2 MiB": {
    isFile: false,
    isWrite: true,
    isHuge: true,
    run: ({ space }) => space.unmap(ADDRESS, PAGE_BYTES),
  },
  "copy on write of a page of 2 MiB": {
    isFile: false,
    isWrite: false,
    isHuge: true,
    prepare: ({ space }) => void space.fork(),
    run: ({ space }) => writeByte(space, ADDRESS, 2),
  },
  "move of 2 MiB": {
    isFile: false,
    isWrite: true,
    isHuge: true,
    run: ({ memory, space }) => void memory.move(space.lookup(PAGE)),
  },
};

function makeWorld(change: Change): World {
  const memory = new CutMemory();
  const isHuge = change.isHuge === true;
  const bytes = (isHuge ? 2048 : 32) * PAGE_BYTES;
  const sections = [new HeapMemorySource().allocate(bytes)];
  memory.addZone({ kind: ZONE.NORMAL, name: "test", bytes, sections });
  const manager = new MemoryManager(memory);
  const store = new HeapFileStore();
  const file = manager.openFile({ name: "f", size: PAGE_BYTES, store });
  const space = manager.createSpace({ hugePages: isHuge });
  const bar = memory.allocate(0, MIGRATE.UNMOVABLE);
  const device = { name: "bar", cached: false, frameAt: () => bar };
  const length = isHuge ? 512 * PAGE_BYTES : PAGE_BYTES;
  const range = { length, prot: RW, address: ADDRESS };
  if (change.isFile) space.map({ ...range, shared: true, file: { file, offset: 0 } });
  else space.map(range);
  // What the remapped page can't grow into.
  space.map({ length: PAGE_BYTES, prot: 0, address: ADDRESS + length });
  writeByte(space, ADDRESS, 1);
  readByte(space, ADDRESS);
  const world = { memory, manager, space, file, store, device };
  change.prepare?.(world);
  return world;
}

/** A notifier of the same page that cuts the change where it is told, and notes when all were. */
function makeProbe(cut: () => void, told: () => void): RangeNotifier {
  return {
    start: ADDRESS,
    end: ADDRESS + PAGE_BYTES,
    invalidate: () => {
      cut();
      told();
    },
  };
}

/** One order. @returns accesses of the device. */
function runOrder(change: Change, choices: Choices, steps: number, skipsRetry: boolean): number {
  const world = makeWorld(change);
  const { memory, space, store, manager } = world;
  let isTold = false;
  let left = steps;
  const device = new Device(space, change.isWrite, skipsRetry, () => isTold && manager.isChanging);
  const cut = () => {
    while (left > 0 && choices.next()) {
      left--;
      device.step();
    }
  };
  // The first is told before the device, the last after it: on return from its call all were.
  const before = makeProbe(cut, () => {});
  const after = makeProbe(cut, () => {
    isTold = true;
  });
  space.notifiers.add(before);
  space.notifiers.add(device);
  space.notifiers.add(after);
  // The device may have its page before anything else happens.
  for (let i = 0; i < 4 && choices.next(); i++) device.step();
  memory.cut = cut;
  const { readPage, writePage } = store;
  store.readPage = (index, target) => {
    cut();
    return readPage.call(store, index, target);
  };
  store.writePage = (index, source) => {
    cut();
    return writePage.call(store, index, source);
  };
  change.run(world);
  memory.cut = () => {};
  isTold = false;
  for (let i = 0; i < 6; i++) device.step();
  manager.checkInvariants(null);
  return device.accesses;
}

/** @param steps that the device takes during the change, beside those before and after. */
export function explore(
  change: Change,
  steps: number,
  skipsRetry: boolean,
): { runs: number; accesses: number } {
  const choices = new Choices();
  let accesses = 0;
  do accesses += runOrder(change, choices, steps, skipsRetry);
  while (choices.advance());
  return { runs: choices.runs, accesses };
}
