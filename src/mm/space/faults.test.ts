// SPDX-License-Identifier: MIT
// A fault within a fault: what an allocation or a store asks touches the same page itself.

import { expect, test } from "vitest";
import { HeapMemorySource } from "../../base/index.js";
import { ZONE } from "../frames/index.js";
import { ACCESS, FAULT, HeapFileStore, MemoryManager, PAGE_BYTES } from "./index.js";
import { CutMemory } from "./orders.fixture.js";
import { RW, readByte, writeByte } from "./space.fixture.js";

const ADDRESS = 0x100_0000;
const PAGE = ADDRESS / PAGE_BYTES;
const BLOCK_BYTES = 512 * PAGE_BYTES;

function makeSpace(hugePages = false) {
  const memory = new CutMemory();
  const bytes = 4 * BLOCK_BYTES;
  const sections = [new HeapMemorySource().allocate(bytes)];
  memory.addZone({ kind: ZONE.NORMAL, name: "test", bytes, sections });
  const manager = new MemoryManager(memory);
  return { memory, manager, space: manager.createSpace({ hugePages }) };
}

type Made = ReturnType<typeof makeSpace>;

/** The first allocation from here on finds that somebody writes the page first. */
function writtenMeanwhile({ memory, space }: Made): void {
  memory.cut = () => {
    memory.cut = () => {};
    expect(space.fault(PAGE, ACCESS.WRITE)).toBe(FAULT.READY);
  };
}

/** No frame is lost: after the end of all that has memory the zone is as it was. */
function expectAllFreed({ memory, manager, space }: Made, freeBefore: number): void {
  manager.checkInvariants(null);
  space.exit();
  expect(memory.zones[0]?.freeFrames).toBe(freeBefore);
}

test.each([false, true])(
  "of a missing page, blocks of 2 MiB %s → one of the two frames",
  (huge) => {
    const made = makeSpace(huge);
    const { memory, space } = made;
    const free = memory.zones[0]?.freeFrames ?? 0;
    space.map({ length: BLOCK_BYTES, prot: RW, address: ADDRESS });
    writtenMeanwhile(made);
    writeByte(space, ADDRESS, 7);
    expect(readByte(space, ADDRESS)).toBe(7);
    expectAllFreed(made, free);
  },
);

test("of a page shared since a fork → copied once", () => {
  const made = makeSpace();
  const { memory, manager, space } = made;
  const free = memory.zones[0]?.freeFrames ?? 0;
  space.map({ length: PAGE_BYTES, prot: RW, address: ADDRESS });
  writeByte(space, ADDRESS, 5);
  const child = space.fork();
  writtenMeanwhile(made);
  writeByte(space, ADDRESS, 7);
  expect([readByte(space, ADDRESS), readByte(child, ADDRESS)]).toEqual([7, 5]);
  expect(manager.counters.cowCopies).toBe(1);
  child.exit();
  expectAllFreed(made, free);
});

test.each([true, false])("of a file's page, shared %s → read into one frame", (shared) => {
  const made = makeSpace();
  const { memory, manager, space } = made;
  const free = memory.zones[0]?.freeFrames ?? 0;
  const store = new HeapFileStore();
  const file = manager.openFile({ name: "f", size: PAGE_BYTES, store });
  space.map({ length: PAGE_BYTES, prot: RW, address: ADDRESS, shared, file: { file, offset: 0 } });
  writtenMeanwhile(made);
  writeByte(space, ADDRESS, 7);
  expect(readByte(space, ADDRESS)).toBe(7);
  expect(manager.counters.pagesRead).toBe(1);
  space.unmap(ADDRESS, PAGE_BYTES);
  file.close();
  expectAllFreed(made, free);
});

test("of a file that is cut meanwhile → behind its end", () => {
  const { memory, manager, space } = makeSpace();
  const store = new HeapFileStore();
  const file = manager.openFile({ name: "f", size: PAGE_BYTES, store });
  const range = { length: PAGE_BYTES, prot: RW, address: ADDRESS };
  space.map({ ...range, shared: true, file: { file, offset: 0 } });
  memory.cut = () => {
    memory.cut = () => {};
    file.truncate(0);
  };
  expect(space.fault(PAGE, ACCESS.WRITE)).toBe(FAULT.PAST_END);
  expect(file.cachedFrame(0)).toBe(-1);
  manager.checkInvariants(null);
});
