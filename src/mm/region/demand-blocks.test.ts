// SPDX-License-Identifier: MIT
// Entries of 2 MiB in on-demand page tables: when there is one, what is left when part of it goes.

import { describe, expect, it } from "vitest";
import { memoryOf, TestSpace } from "../../../test/support/process-space.js";
import { HeapMemorySource, randomBelow, SeededRandom } from "../../base/index.js";
import { DeviceMemory } from "../device/index.js";
import { FRAME_BYTES, FRAME_FLAG, MIGRATE, NO_FRAME, type Pfn } from "../frames/index.js";
import { checkAll, smallHost } from "../pin/pin.fixture.js";
import { type AddressSpace, PROT } from "../space/index.js";
import type { DemandPages } from "./demand-pages.js";
import { DemandTable, type EntryState, LEAF_PAGES } from "./demand-table.js";
import { FaultQueue } from "./fault-queue.js";
import { ProcessDemand } from "./process-demand.js";
import { ProcessRegions } from "./process-regions.js";

const HUGE = LEAF_PAGES * FRAME_BYTES;
const RW = PROT.READ | PROT.WRITE;

/** A process with 2 MiB pages, and what makes on-demand regions of it. */
function host(megabytes = 16) {
  const h = smallHost(megabytes);
  const nic = { name: "nic" };
  const paths = { pathBetween: () => ({ isAllowed: true, why: "one switch" }) };
  const devices = new DeviceMemory(h.manager, paths, h.pinner);
  const space = h.manager.createSpace();
  const queue = new FaultQueue();
  const demand = new ProcessDemand(space, devices, nic);
  const regions = new ProcessRegions(h.memory, demand, h.pinner.regionPinner(space), queue);
  const region = (address: number, length: number, isWrite = true) =>
    regions.registerPages(address, length, isWrite, true) as DemandPages;
  const settle = () => {
    for (let turn = 0; queue.count > 0 && turn < 100; turn++) queue.pump(queue.deadlineNs());
  };
  return { ...h, devices, space, queue, region, settle };
}

/** Maps at a 2 MiB boundary, with a page before it that is mapped as well. */
function mapAligned(space: AddressSpace, length: number): number {
  const place = 0x4000_0000 - FRAME_BYTES;
  space.map({ length: length + FRAME_BYTES, prot: RW, address: place, fixed: "no-replace" });
  return place + FRAME_BYTES;
}

describe("2 MiB of a process in one block", () => {
  it("one fault → one entry, all 512 pages there, and one range of bytes", () => {
    const { queue, region, settle, space } = host();
    const address = mapAligned(space, HUGE);
    const pages = region(address, HUGE);
    pages.fault(300, 1, true);
    settle();
    expect([pages.blockCount, pages.presentCount]).toEqual([1, LEAF_PAGES]);
    expect(queue.counters.served).toBe(1);
    expect(pages.locate(0, true)).toBe(true);
    expect(pages.span).toBe(HUGE);
    pages.bytes.set([1, 2, 3], pages.offset + 5 * FRAME_BYTES - 1);
    expect(pages.locate(511, true)).toBe(true);
    expect(pages.span).toBe(FRAME_BYTES);
    const seen = new Uint8Array(3);
    space.read(address + 5 * FRAME_BYTES - 1, seen);
    expect([...seen]).toEqual([1, 2, 3]);
    pages.checkInvariants();
  });

  it("a part is unmapped → that part is gone on return, the rest stays as pages, dirty", () => {
    const h = host();
    const { memory, region, space } = h;
    const address = mapAligned(space, HUGE);
    const pages = region(address, HUGE);
    expect(pages.touch(0, true)).toBe(true);
    const frame = space.lookup(address / FRAME_BYTES);
    memory.clearFlag(frame, FRAME_FLAG.DIRTY);
    space.unmap(address + 7 * FRAME_BYTES, 2 * FRAME_BYTES);
    expect([6, 7, 8, 9].map((page) => pages.locate(page, true))).toEqual([
      true,
      false,
      false,
      true,
    ]);
    expect([pages.blockCount, pages.presentCount]).toEqual([0, LEAF_PAGES - 2]);
    expect(pages.invalidatedCount).toBe(2);
    expect(memory.hasFlag(frame, FRAME_FLAG.DIRTY)).toBe(true);
    expect(pages.locate(9, true) && pages.span).toBe(FRAME_BYTES);
    expect(pages.bytes).toBe(memory.bytesOf(frame + 9));
    expect(pages.offset).toBe(memory.offsetOf(frame + 9));
    pages.checkInvariants();
    pages.release();
    checkAll(h);
  });

  it("all of it is protected → nothing is there; read again → one entry, to be read alone", () => {
    const { region, space } = host();
    const address = mapAligned(space, HUGE);
    const pages = region(address, HUGE);
    pages.touch(0, true);
    space.protect(address, HUGE, PROT.READ);
    expect([pages.blockCount, pages.presentCount]).toEqual([0, 0]);
    expect(pages.touch(3, false)).toBe(true);
    expect([pages.locate(4, false), pages.locate(4, true)]).toEqual([true, false]);
    expect(pages.blockCount).toBe(1);
  });

  it("fork → not to be written as it is; the page that is written is the process's own", () => {
    const h = host();
    const { region, space } = h;
    const address = mapAligned(space, HUGE);
    const pages = region(address, HUGE);
    pages.touch(0, true);
    const child = space.fork();
    expect(pages.locate(9, true)).toBe(false);
    expect(pages.touch(9, true)).toBe(true);
    pages.bytes[pages.offset] = 77;
    const seen = new Uint8Array(1);
    child.read(address + 9 * FRAME_BYTES, seen);
    expect(seen[0]).toBe(0);
    space.read(address + 9 * FRAME_BYTES, seen);
    expect(seen[0]).toBe(77);
    pages.checkInvariants();
    pages.release();
    checkAll(h);
  });

  it("a region that has a part of the 2 MiB alone → pages; whole ones inside → entries", () => {
    const { region, space } = host();
    const address = mapAligned(space, 3 * HUGE);
    const pages = region(address + FRAME_BYTES, 3 * HUGE - 2 * FRAME_BYTES);
    for (const page of [0, 511, 600, 1023]) expect(pages.touch(page, true)).toBe(true);
    expect(pages.blockCount).toBe(1);
    expect(pages.presentCount).toBe(LEAF_PAGES + 2);
    expect(pages.touch(pages.pageCount - 1, true)).toBe(true);
    expect(pages.blockCount).toBe(1);
    space.unmap(address, FRAME_BYTES);
    expect(pages.locate(0, true)).toBe(true);
    pages.checkInvariants();
  });

  it("the block moves → gone; asked for again → the new place", () => {
    const { memory, region, space } = host();
    const address = mapAligned(space, HUGE);
    const pages = region(address, HUGE);
    pages.touch(0, true);
    const from = memory.headOf(space.lookup(address / FRAME_BYTES));
    expect(memory.move(from)).toBe(0);
    expect(pages.presentCount).toBe(0);
    expect(pages.touch(1, true)).toBe(true);
    expect(pages.offset).toBe(memory.offsetOf(space.lookup(address / FRAME_BYTES) + 1));
    expect(pages.blockCount).toBe(1);
  });

  it("prefetch of what is there anyhow enters the block, and never takes a right away", () => {
    const { region, space } = host();
    const address = mapAligned(space, HUGE);
    space.write(address, Uint8Array.of(1));
    const pages = region(address, HUGE);
    pages.advise(0, LEAF_PAGES, 2, false);
    expect([pages.blockCount, pages.locate(5, true)]).toEqual([1, true]);
    space.isWritable = () => false;
    pages.advise(0, LEAF_PAGES, 2, false);
    expect(pages.locate(5, true)).toBe(true);
  });

  it("a BAR's 2 MiB → one entry, and nothing becomes dirty", () => {
    const { devices, memory, region, space } = host();
    const bar = devices.addP2p({
      device: { name: "gpu" },
      memory: new HeapMemorySource(0x7000_0000_0000).allocate(2 * HUGE),
    });
    const device = bar.allocate(HUGE);
    const address = space.map({
      length: HUGE,
      prot: RW,
      shared: true,
      address: 0x4000_0000,
      device: { device, offset: 0 },
    });
    // Pages of a BAR come one by one to the process too.
    for (let page = 0; page < LEAF_PAGES; page++) {
      space.write(address + page * FRAME_BYTES, Uint8Array.of(1));
    }
    const pages = region(address, HUGE);
    expect(pages.touch(100, true)).toBe(true);
    expect(pages.blockCount).toBe(1);
    pages.invalidate(pages.start, pages.end);
    expect(memory.hasFlag(device.pfn, FRAME_FLAG.DIRTY)).toBe(false);
    pages.touch(100, true);
    device.revoke();
    expect(pages.presentCount).toBe(0);
  });
});

describe("single frames that lie together", () => {
  /** A process whose 512 pages are frames of their own, in order. */
  function lined(frames: (memory: ReturnType<typeof memoryOf>) => Pfn) {
    const memory = memoryOf(2048);
    const space = new TestSpace(memory);
    const vpn = 0x4000_0000 / FRAME_BYTES;
    const head = frames(memory);
    space.map(vpn, LEAF_PAGES, true, head);
    const queue = new FaultQueue();
    const regions = new ProcessRegions(memory, space, space, queue);
    const pages = regions.registerPages(vpn * FRAME_BYTES, HUGE, true, true) as DemandPages;
    return { memory, space, vpn, pages, head };
  }

  const splitBlock = (memory: ReturnType<typeof memoryOf>): Pfn => {
    const head = memory.allocate(9, MIGRATE.MOVABLE);
    memory.split(head);
    return head;
  };

  it("the last of them comes → one entry; one goes → pages again", () => {
    const { pages, space, vpn } = lined(splitBlock);
    for (let page = 0; page < LEAF_PAGES; page++) {
      expect(pages.blockCount).toBe(0);
      pages.touch((page * 5) % LEAF_PAGES, true);
    }
    expect(pages.blockCount).toBe(1);
    space.move(vpn + 17);
    expect([pages.blockCount, pages.presentCount]).toEqual([0, LEAF_PAGES - 1]);
    pages.touch(17, true);
    expect([pages.blockCount, pages.presentCount]).toEqual([0, LEAF_PAGES]);
    pages.checkInvariants();
    pages.release();
  });

  it("one of them may be read alone → no entry for all; written later → there is one", () => {
    const { pages, space, vpn } = lined(splitBlock);
    space.protect(vpn + 3, false);
    for (let page = 0; page < LEAF_PAGES; page++) pages.touch(page, false);
    expect([pages.blockCount, pages.presentCount]).toEqual([0, LEAF_PAGES]);
    space.protect(vpn + 3, true);
    pages.touch(3, true);
    expect(pages.blockCount).toBe(1);
  });

  it("they begin at another place than a 2 MiB boundary → pages", () => {
    const { pages } = lined((memory) => {
      const head = memory.allocate(10, MIGRATE.MOVABLE);
      memory.split(head);
      return head + 1;
    });
    for (let page = 0; page < LEAF_PAGES; page++) pages.touch(page, true);
    expect([pages.blockCount, pages.presentCount]).toEqual([0, LEAF_PAGES]);
  });

  it.each([
    ["of one frame each", true],
    ["of one block", false],
  ])("%s, in two sections → pages", (_what, isSplit) => {
    const memory = memoryOf(512 + 100, 2048 - 612);
    const space = new TestSpace(memory);
    const vpn = 0x4000_0000 / FRAME_BYTES;
    let head: Pfn = NO_FRAME;
    while (head % 1024 !== 512) head = memory.allocate(9, MIGRATE.MOVABLE);
    if (isSplit) memory.split(head);
    space.map(vpn, LEAF_PAGES, true, head);
    const regions = new ProcessRegions(memory, space, space, new FaultQueue());
    const pages = regions.registerPages(vpn * FRAME_BYTES, HUGE, true, true) as DemandPages;
    for (let page = 0; page < LEAF_PAGES; page++) {
      pages.touch(page, true);
      pages.bytes[pages.offset] = page;
    }
    expect(pages.blockCount).toBe(0);
    expect([99, 100, 511].map((page) => space.contents(vpn + page)[0])).toEqual([99, 100, 255]);
  });
});

describe("the table against a naive one", () => {
  const PAGES = 3 * LEAF_PAGES;

  /** Takes pages out of both. @returns whether each was told of once, with what it allowed. */
  function takeOut(table: DemandTable, states: Uint8Array, from: number, end: number): boolean {
    let isRight = true;
    const count = table.takeOut(from, end, (frame, frames, was) => {
      for (let at = frame; at < frame + frames; at++) {
        if (at < from || at >= end || states[at] !== was) isRight = false;
        states[at] = 0;
      }
    });
    const left = states.subarray(from, end).some((state) => state !== 0);
    return isRight && !left && count <= end - from;
  }

  it.each([1, 2, 3])("seed %i: entered, taken out, joined, taken apart", (seed) => {
    const random = new SeededRandom(seed);
    const below = (count: number) => randomBelow(random, count);
    const table = new DemandTable(PAGES);
    /** What each page allows; its frame has its number. */
    const states = new Uint8Array(PAGES);
    let joined = 0;
    for (let step = 0; step < 120; step++) {
      const page = below(PAGES);
      const state = (1 + below(2)) as EntryState;
      const first = page - (page % LEAF_PAGES);
      const kind = below(8);
      if (kind === 0) {
        states.fill(state, first, first + LEAF_PAGES);
        table.enterBlock(page, state, first, 0, first * FRAME_BYTES, 1);
      } else if (kind < 5) {
        // Some enter a whole leaf, page by page.
        const [from, end] = kind === 1 ? [first, first + LEAF_PAGES] : [page, page + 1];
        states.fill(state, from, end);
        const before = table.blockCount;
        for (let at = from; at < end; at++) table.enter(at, state, at, 0, at * FRAME_BYTES, 1);
        if (table.blockCount > before) joined++;
      } else {
        const end = Math.min(PAGES, page + 1 + below(kind === 5 ? 1100 : 4));
        expect(takeOut(table, states, page, end)).toBe(true);
      }
      table.checkInvariants();
      const isSame = states.every((known, at) => {
        const isThere = table.locate(at, 1);
        const canWrite = table.locate(at, 2);
        if (isThere !== known > 0 || canWrite !== (known === 2)) return false;
        return !isThere || (table.locate(at, 1) && table.offset === at * FRAME_BYTES);
      });
      expect(isSame).toBe(true);
    }
    expect(joined).toBeGreaterThan(1);
  });
});
