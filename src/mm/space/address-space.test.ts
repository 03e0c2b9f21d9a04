// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { MIGRATE, MOVE_RESULT, NO_FRAME } from "../frames/index.js";
import {
  ACCESS,
  type DeviceMapping,
  FAULT,
  INVALIDATE,
  type MemoryManager,
  PAGE_BYTES,
  PROT,
  type RangeNotifier,
} from "./index.js";
import {
  codeOf,
  HUGE_BYTES,
  Listener,
  managerOf,
  pageOf,
  RW,
  readByte,
  writeByte,
} from "./space.fixture.js";

function bound(manager: MemoryManager) {
  return { memory: manager.memory, createSpace: () => manager.createSpace() };
}

describe("AddressSpace: mappings", () => {
  it("mapped → zeroes, kept bytes; unmapped → EFAULT; exit → all memory free", () => {
    const manager = managerOf(64);
    const free = manager.memory.freeFrames;
    const space = manager.createSpace();
    const address = space.map({ length: 3 * PAGE_BYTES, prot: RW });
    expect(readByte(space, address)).toBe(0);
    expect(manager.memory.freeFrames).toBe(free);
    const text = Uint8Array.from({ length: PAGE_BYTES + 100 }, (_, i) => i % 251);
    space.write(address + 4000, text);
    const back = new Uint8Array(text.length);
    space.read(address + 4000, back);
    expect(back).toEqual(text);
    expect(manager.memory.freeFrames).toBe(free - 3);
    manager.checkInvariants(new Map());
    space.unmap(address + PAGE_BYTES, PAGE_BYTES);
    expect(space.vmas.count).toBe(2);
    expect(codeOf(() => readByte(space, address + PAGE_BYTES))).toBe("EFAULT");
    expect(readByte(space, address + 2 * PAGE_BYTES)).toBe(text[4192]);
    space.exit();
    expect(manager.memory.freeFrames).toBe(free);
    manager.checkInvariants(new Map());
  });

  it("the next page that is mapped, and that is there, of a range", () => {
    const space = managerOf(64).createSpace();
    const first = 2 ** 18;
    const options = { length: 3 * PAGE_BYTES, prot: RW, fixed: "no-replace" } as const;
    space.map({ ...options, address: first * PAGE_BYTES });
    writeByte(space, (first + 1) * PAGE_BYTES, 1);
    expect(space.nextMapped(0, 2 ** 36)).toBe(first);
    expect(space.nextMapped(first + 2, 2 ** 36)).toBe(first + 2);
    expect(space.nextMapped(first + 3, 2 ** 36)).toBe(-1);
    expect(space.nextMapped(0, first)).toBe(-1);
    expect(space.nextMapped(first + 1, first + 1)).toBe(-1);
    expect(space.nextPresent(0, 2 ** 36)).toBe(first + 1);
    expect(space.nextPresent(first + 2, 2 ** 36)).toBe(-1);
    expect(space.nextPresent(0, first + 1)).toBe(-1);
  });

  it("places keep guard pages; neighbours at given addresses become one area", () => {
    const space = managerOf(64).createSpace();
    const a = space.map({ length: PAGE_BYTES, prot: RW });
    const b = space.map({ length: PAGE_BYTES, prot: RW });
    expect(a - b).toBe(2 * PAGE_BYTES);
    writeByte(space, a, 1);
    writeByte(space, b, 2);
    expect(space.map({ length: PAGE_BYTES, prot: RW, address: b + PAGE_BYTES })).toBe(
      b + PAGE_BYTES,
    );
    // Different groups on either side: one of them takes the page between.
    expect(space.vmas.count).toBe(2);
    expect(space.map({ length: HUGE_BYTES, prot: RW }) % HUGE_BYTES).toBe(0);
    space.manager.checkInvariants(new Map());
  });

  it("neighbours that are 8 TiB together stay two areas, whose pages are found", () => {
    const manager = managerOf(64);
    const space = manager.createSpace();
    const length = (2 ** 31 - 1) * PAGE_BYTES;
    const at = space.map({ length, prot: RW, address: 2 ** 30 });
    const next = space.map({ length, prot: RW, address: at + length });
    expect([next, space.vmas.count]).toEqual([at + length, 2]);
    const last = next + length - PAGE_BYTES;
    writeByte(space, last, 7);
    expect(manager.memory.move(space.lookup(pageOf(last)))).toBe(MOVE_RESULT.DONE);
    expect(readByte(space, last)).toBe(7);
  });

  it("a place has its guard pages on both sides, or is none", () => {
    const space = managerOf(8).createSpace();
    const page = { length: PAGE_BYTES, prot: RW };
    const top = 2 ** 47;
    // From the top: five pages free, a page, four pages free, all the rest.
    space.map({ ...page, address: top - 6 * PAGE_BYTES });
    const low = space.map({ ...page, address: top - 11 * PAGE_BYTES });
    const two = { length: 2 * PAGE_BYTES, prot: RW };
    expect(space.map({ length: 3 * PAGE_BYTES, prot: RW })).toBe(top - 4 * PAGE_BYTES);
    expect(space.map(two)).toBe(top - 9 * PAGE_BYTES);
    expect(space.map(page)).toBe(low - 2 * PAGE_BYTES);
  });

  it("a neighbour that comes before one with pages is one area with it, and finds them", () => {
    const manager = managerOf(64);
    const space = manager.createSpace();
    const at = space.map({ length: PAGE_BYTES, prot: RW, address: 0x100_0000 });
    writeByte(space, at, 5);
    space.map({ length: PAGE_BYTES, prot: RW, address: at - PAGE_BYTES });
    expect(space.vmas.count).toBe(1);
    manager.checkInvariants(new Map());
    expect(manager.memory.move(space.lookup(pageOf(at)))).toBe(MOVE_RESULT.DONE);
    expect(readByte(space, at)).toBe(5);
  });

  it("what nobody maps any more leaves nothing behind, not even an owner's number", () => {
    const { memory, createSpace } = bound(managerOf(64));
    const ids = new Set<number>();
    for (let i = 0; i < 3; i++) {
      const space = createSpace();
      const at = space.map({ length: PAGE_BYTES, prot: RW });
      const shared = space.map({ length: PAGE_BYTES, prot: RW, shared: true });
      for (const address of [at, shared]) writeByte(space, address, 1);
      ids.add(memory.ownerIdOf(space.lookup(pageOf(at))));
      ids.add(memory.ownerIdOf(space.lookup(pageOf(shared))));
      if (i === 1) space.unmap(at, PAGE_BYTES);
      space.exit();
      expect(memory.freeFrames).toBe(63);
    }
    expect(ids.size).toBe(2);
  });

  it("errors are those of mmap, munmap, mremap and mprotect", () => {
    const manager = managerOf(64);
    const space = manager.createSpace({ limits: { addressBytesMax: 8 * PAGE_BYTES } });
    const file = manager.openFile({ name: "f", size: 100 });
    const at = space.map({ length: PAGE_BYTES, prot: RW });
    const page = { length: PAGE_BYTES, prot: RW };
    const readOnly = { file, offset: 0, writable: false };
    expect(codeOf(() => space.map({ ...page, length: 0 }))).toBe("EINVAL");
    expect(codeOf(() => space.map({ ...page, prot: 4 }))).toBe("EINVAL");
    expect(codeOf(() => space.map({ ...page, fixed: "replace" }))).toBe("EINVAL");
    expect(codeOf(() => space.map({ ...page, file: { file, offset: 1 } }))).toBe("EINVAL");
    expect(codeOf(() => space.map({ ...page, shared: true, file: readOnly }))).toBe("EACCES");
    expect(codeOf(() => space.map({ ...page, address: at, fixed: "no-replace" }))).toBe("EEXIST");
    expect(codeOf(() => space.map({ ...page, length: 8 * PAGE_BYTES }))).toBe("ENOMEM");
    expect(codeOf(() => space.unmap(at + 1, PAGE_BYTES))).toBe("EINVAL");
    expect(codeOf(() => space.unmap(at, 0))).toBe("EINVAL");
    expect(codeOf(() => space.protect(at, 2 * PAGE_BYTES, PROT.READ))).toBe("ENOMEM");
    expect(codeOf(() => space.remap(at, 2 * PAGE_BYTES, PAGE_BYTES, true))).toBe("EFAULT");
    expect(codeOf(() => space.remap(at, PAGE_BYTES, 9 * PAGE_BYTES, true))).toBe("ENOMEM");
    const device = { name: "bar", cached: false, frameAt: () => NO_FRAME };
    const bar = space.map({ ...page, shared: true, device: { device, offset: 0 } });
    expect(codeOf(() => space.remap(bar, PAGE_BYTES, 2 * PAGE_BYTES, true))).toBe("EFAULT");
    const read = space.map({ length: PAGE_BYTES, prot: PROT.READ, shared: true, file: readOnly });
    expect(codeOf(() => space.protect(read, PAGE_BYTES, RW))).toBe("EACCES");
    expect(codeOf(() => writeByte(space, read, 1))).toBe("EACCES");
    writeByte(space, at, 3);
    space.protect(at, PAGE_BYTES, PROT.NONE);
    expect(codeOf(() => readByte(space, at))).toBe("EACCES");
    expect(space.lookup(pageOf(at))).toBe(NO_FRAME);
    manager.checkInvariants(new Map());
    space.protect(at, PAGE_BYTES, PROT.READ);
    expect(readByte(space, at)).toBe(3);
    expect(codeOf(() => writeByte(space, at, 4))).toBe("EACCES");
    manager.checkInvariants(new Map());
  });

  it("remap: grows in place, moves with its pages, shrinks", () => {
    const manager = managerOf(64);
    const space = manager.createSpace();
    const at = space.map({ length: 2 * PAGE_BYTES, prot: RW, address: 0x100_0000 });
    writeByte(space, at + PAGE_BYTES, 7);
    expect(space.remap(at, 2 * PAGE_BYTES, 3 * PAGE_BYTES, false)).toBe(at);
    space.map({ length: PAGE_BYTES, prot: PROT.READ, address: at + 3 * PAGE_BYTES });
    const grow = 4 * PAGE_BYTES;
    expect(codeOf(() => space.remap(at, 3 * PAGE_BYTES, grow, false))).toBe("ENOMEM");
    const frame = space.lookup(pageOf(at) + 1);
    const moved = space.remap(at, 3 * PAGE_BYTES, grow, true);
    expect(moved).not.toBe(at);
    expect(readByte(space, moved + PAGE_BYTES)).toBe(7);
    expect(space.lookup(pageOf(moved) + 1)).toBe(frame);
    expect(codeOf(() => readByte(space, at))).toBe("EFAULT");
    // Its group finds it where it is now.
    expect(manager.memory.move(frame)).toBe(MOVE_RESULT.DONE);
    expect(readByte(space, moved + PAGE_BYTES)).toBe(7);
    space.remap(moved, grow, PAGE_BYTES, false);
    expect(codeOf(() => readByte(space, moved + PAGE_BYTES))).toBe("EFAULT");
    manager.checkInvariants(new Map());
  });

  it("a device file is mapped shared alone, and can be taken away", () => {
    const manager = managerOf(64);
    const bar = manager.memory.allocate(0, MIGRATE.UNMOVABLE);
    const device: DeviceMapping = {
      name: "bar 0",
      cached: false,
      frameAt: (index) => (index === 0 ? bar : NO_FRAME),
    };
    const space = manager.createSpace();
    const options = { length: 2 * PAGE_BYTES, prot: RW, device: { device, offset: 0 } };
    expect(codeOf(() => space.map(options))).toBe("EINVAL");
    const at = space.map({ ...options, shared: true });
    expect(space.vmaAt(at)?.isUncached).toBe(true);
    writeByte(space, at, 3);
    expect(space.lookup(pageOf(at))).toBe(bar);
    expect(space.fault(pageOf(at) + 1, ACCESS.READ)).toBe(FAULT.PAST_END);
    const listener = new Listener(at, at + PAGE_BYTES);
    space.notifiers.add(listener);
    manager.unmapDevice(device, 0, 1);
    expect(listener.reasons()).toEqual([INVALIDATE.UNMAP]);
    expect(space.lookup(pageOf(at))).toBe(NO_FRAME);
    expect(manager.memory.referencesOf(bar)).toBe(1);
    space.exit();
  });
});

describe("AddressSpace: fork", () => {
  it("parent and child share until one writes; the last user keeps the page", () => {
    const manager = managerOf(64);
    const parent = manager.createSpace();
    const at = parent.map({ length: PAGE_BYTES, prot: RW });
    writeByte(parent, at, 1);
    const frame = parent.lookup(pageOf(at));
    const child = parent.fork();
    expect(child.lookup(pageOf(at))).toBe(frame);
    expect(parent.isWritable(pageOf(at))).toBe(false);
    expect(manager.memory.move(frame)).toBe(MOVE_RESULT.DONE);
    const moved = parent.lookup(pageOf(at));
    expect(child.lookup(pageOf(at))).toBe(moved);
    writeByte(child, at, 2);
    expect([readByte(parent, at), readByte(child, at)]).toEqual([1, 2]);
    manager.checkInvariants(new Map());
    writeByte(parent, at, 3);
    expect(parent.lookup(pageOf(at))).toBe(moved);
    expect(manager.counters.cowReuses).toBe(1);
    parent.exit();
    expect(readByte(child, at)).toBe(2);
    manager.checkInvariants(new Map());
  });

  it("a pinned page is the child's as a copy; the parent's writes stay under the pin", () => {
    const manager = managerOf(64);
    const { memory } = manager;
    const parent = manager.createSpace();
    const at = parent.map({ length: 2 * PAGE_BYTES, prot: RW });
    writeByte(parent, at, 1);
    const frame = parent.lookup(pageOf(at));
    memory.get(frame);
    memory.pin(frame);
    const child = parent.fork();
    expect(child.lookup(pageOf(at))).not.toBe(frame);
    expect(parent.isWritable(pageOf(at))).toBe(true);
    writeByte(parent, at, 9);
    expect(parent.lookup(pageOf(at))).toBe(frame);
    expect([readByte(parent, at), readByte(child, at)]).toEqual([9, 1]);
    // Also when the right to write was away for a while.
    parent.protect(at, PAGE_BYTES, PROT.READ);
    parent.protect(at, PAGE_BYTES, RW);
    writeByte(parent, at, 10);
    expect(parent.lookup(pageOf(at))).toBe(frame);
    manager.checkInvariants(new Map([[frame, 1]]));
    parent.exit();
    child.exit();
    expect(memory.ownerOf(frame)).toBe(null);
    expect(memory.bytesOf(frame)[memory.offsetOf(frame)]).toBe(10);
    memory.unpin(frame);
    expect(memory.put(frame)).toBe(true);
  });

  it("too little memory for pinned copies → ENOMEM, and nothing is left", () => {
    const manager = managerOf(8);
    const parent = manager.createSpace();
    const at = parent.map({ length: 7 * PAGE_BYTES, prot: RW, populate: true });
    const frame = parent.lookup(pageOf(at));
    manager.memory.get(frame);
    manager.memory.pin(frame);
    expect(codeOf(() => parent.fork())).toBe("ENOMEM");
    expect(manager.spaces.size).toBe(1);
    manager.checkInvariants(new Map([[frame, 1]]));
    writeByte(parent, at + PAGE_BYTES, 1);
  });

  it("a read for a pin gets a page of its own where a plain read shares", () => {
    const manager = managerOf(64);
    const space = manager.createSpace();
    const at = space.map({ length: PAGE_BYTES, prot: PROT.READ });
    space.fault(pageOf(at), ACCESS.READ);
    expect(space.lookup(pageOf(at))).toBe(manager.zeroFrame);
    expect(space.fault(pageOf(at), ACCESS.READ, true)).toBe(FAULT.READY);
    expect(space.lookup(pageOf(at))).not.toBe(manager.zeroFrame);
    expect(space.isWritable(pageOf(at))).toBe(false);
    manager.checkInvariants(new Map());
  });
});

describe("AddressSpace: 2 MiB", () => {
  it("an aligned 2 MiB is one block; unmapping a part gives that part back", () => {
    const manager = managerOf(2048);
    const { memory } = manager;
    const free = memory.freeFrames;
    const space = manager.createSpace();
    const at = space.map({ length: HUGE_BYTES, prot: RW });
    writeByte(space, at + 5 * PAGE_BYTES, 5);
    const head = space.lookup(pageOf(at));
    expect(memory.orderOf(head)).toBe(9);
    expect(memory.referencesOf(head)).toBe(512);
    expect(space.lookup(pageOf(at) + 511)).toBe(head + 511);
    manager.checkInvariants(new Map());
    space.unmap(at, 4 * PAGE_BYTES);
    expect(memory.freeFrames).toBe(free - 508);
    expect(memory.orderOf(head + 5)).toBe(0);
    expect(readByte(space, at + 5 * PAGE_BYTES)).toBe(5);
    manager.checkInvariants(new Map());
    space.exit();
    expect(memory.freeFrames).toBe(free);
  });

  it("some of it is there already → single pages; held by somebody → stays whole", () => {
    const manager = managerOf(2048);
    const { memory } = manager;
    const space = manager.createSpace();
    const at = space.map({ length: 2 * HUGE_BYTES, prot: RW });
    expect(readByte(space, at)).toBe(0);
    writeByte(space, at + PAGE_BYTES, 1);
    expect(memory.orderOf(space.lookup(pageOf(at) + 1))).toBe(0);
    expect(space.lookup(pageOf(at))).toBe(manager.zeroFrame);
    manager.checkInvariants(new Map());
    const second = at + HUGE_BYTES;
    writeByte(space, second, 1);
    const block = space.lookup(pageOf(second));
    memory.get(block + 3);
    space.unmap(second + 8 * PAGE_BYTES, 8 * PAGE_BYTES);
    expect([memory.orderOf(block), memory.referencesOf(block)]).toEqual([9, 505]);
    manager.checkInvariants(new Map([[block, 1]]));
    memory.put(block + 3);
    space.exit();
    expect(memory.freeFrames).toBe(2047);
  });

  it("shared by fork, then written → one page is copied; a pinned block stays whole", () => {
    const manager = managerOf(2048);
    const { memory } = manager;
    const free = memory.freeFrames;
    const parent = manager.createSpace();
    const at = parent.map({ length: HUGE_BYTES, prot: RW });
    writeByte(parent, at, 1);
    const head = parent.lookup(pageOf(at));
    const child = parent.fork();
    expect(memory.referencesOf(head)).toBe(1024);
    writeByte(child, at, 2);
    expect([readByte(parent, at), readByte(child, at)]).toEqual([1, 2]);
    expect(memory.freeFrames).toBe(free - 513);
    manager.checkInvariants(new Map());
    child.exit();
    writeByte(parent, at + PAGE_BYTES, 3);
    const second = parent.map({ length: HUGE_BYTES, prot: RW });
    writeByte(parent, second, 1);
    const block = parent.lookup(pageOf(second));
    expect(memory.orderOf(block)).toBe(9);
    memory.get(block);
    memory.pin(block);
    parent.unmap(second, HUGE_BYTES - PAGE_BYTES);
    expect(memory.orderOf(block)).toBe(9);
    manager.checkInvariants(new Map([[block, 1]]));
    memory.unpin(block);
    memory.put(block);
    parent.exit();
    expect(memory.freeFrames).toBe(free);
  });
});

describe("AddressSpace: notifiers", () => {
  it("each change tells whom it concerns, with odd numbers until it ends", () => {
    const manager = managerOf(64);
    const space = manager.createSpace();
    const at = space.map({ length: 2 * PAGE_BYTES, prot: RW, populate: true });
    const listener = new Listener(at, at + PAGE_BYTES);
    const other = new Listener(at + PAGE_BYTES, at + 2 * PAGE_BYTES);
    space.notifiers.add(listener);
    space.notifiers.add(other);
    const first = space.notifiers.readBegin(listener);
    expect(space.notifiers.readRetry(listener, first)).toBe(false);
    const probe: RangeNotifier = {
      start: at,
      end: at + PAGE_BYTES,
      invalidate: () => {
        expect(space.notifiers.readBegin(listener) % 2).toBe(1);
        expect(space.fault(pageOf(at), ACCESS.READ)).toBe(FAULT.BUSY);
        expect(() => space.unmap(at, PAGE_BYTES)).toThrow("told of a change");
      },
    };
    space.notifiers.add(probe);
    const child = space.fork();
    writeByte(space, at, 1);
    space.protect(at, PAGE_BYTES, PROT.READ);
    expect(manager.memory.move(space.lookup(pageOf(at)))).toBe(MOVE_RESULT.DONE);
    const to = space.remap(at, PAGE_BYTES, 3 * PAGE_BYTES, true);
    expect(listener.reasons()).toEqual([
      INVALIDATE.FORK,
      INVALIDATE.COW,
      INVALIDATE.PROTECT,
      INVALIDATE.MOVE,
      INVALIDATE.REMAP,
    ]);
    expect(other.reasons()).toEqual([INVALIDATE.FORK]);
    expect(space.notifiers.readRetry(listener, first)).toBe(true);
    expect(space.notifiers.readBegin(listener) % 2).toBe(0);
    space.unmap(to, PAGE_BYTES);
    expect(listener.reasons()).toEqual([]);
    space.exit();
    expect(listener.reasons()).toEqual([INVALIDATE.EXIT]);
    child.exit();
    expect(space.notifiers.count).toBe(0);
    expect(space.notifiers.readRetry(listener, 0)).toBe(true);
  });
});
