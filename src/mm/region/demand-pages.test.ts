// SPDX-License-Identifier: MIT

import { describe, expect, it } from "vitest";
import { memoryOf, TestSpace } from "../../../test/support/process-space.js";
import { ADVICE, PAGE_FAULT } from "../../base/index.js";
import { FRAME_BYTES, FRAME_FLAG } from "../frames/index.js";
import type { DemandPages } from "./demand-pages.js";
import { FAULT_RETRY, FAULT_SHORT, FAULT_WRONG } from "./demand-space.js";
import { FailedFaults } from "./failed-faults.js";
import { FaultQueue } from "./fault-queue.js";
import { ProcessRegions } from "./process-regions.js";

const VPN = 0x4000_0000;
const ADDRESS = VPN * FRAME_BYTES;

/** A process with `count` pages mapped, `frames` of memory, and an on-demand region on them. */
function demand(count = 4, isWrite = true, frames = 64) {
  const memory = memoryOf(frames);
  const space = new TestSpace(memory);
  space.mapAbsent(VPN, count);
  const queue = new FaultQueue({ faultsPerTurn: 4, depth: 16 });
  const regions = new ProcessRegions(memory, space, space, queue);
  const pages = regions.registerPages(ADDRESS, count * FRAME_BYTES, isWrite, true) as DemandPages;
  let woken = 0;
  pages.attach({ pagesServed: () => woken++ });
  const settle = () => {
    for (let turn = 0; queue.count > 0 && turn < 100; turn++) {
      queue.pump(Math.max(turn * 1000, queue.deadlineNs()));
      queue.checkInvariants();
      pages.checkInvariants();
    }
  };
  return { memory, space, queue, regions, pages, settle, woken: () => woken };
}

describe("on-demand pages", () => {
  it("absent; a fault is queued once; served in a turn, and whoever waits is told", () => {
    const { pages, queue, space, woken } = demand();
    expect(pages.locate(1, false)).toBe(false);
    expect(pages.fault(1, 2, true)).toBe(PAGE_FAULT.QUEUED);
    expect(pages.fault(1, 2, true)).toBe(PAGE_FAULT.QUEUED);
    expect(queue.count).toBe(2);
    expect(queue.deadlineNs()).toBe(0);
    expect(space.faultCount).toBe(0);
    queue.pump(5);
    expect(woken()).toBe(1);
    expect(queue.deadlineNs()).toBe(Number.POSITIVE_INFINITY);
    expect(pages.locate(1, true)).toBe(true);
    pages.bytes[pages.offset + 7] = 42;
    expect(space.contents(VPN + 1)[7]).toBe(42);
    expect(pages.locate(2, true)).toBe(true);
    expect(pages.locate(3, false)).toBe(false);
    expect(pages.presentCount).toBe(2);
  });

  it("a turn serves no more than its bound", () => {
    const { pages, queue, space } = demand(10);
    pages.fault(0, 10, false);
    queue.pump(0);
    expect(space.faultCount).toBe(4);
    expect(queue.count).toBe(6);
  });

  it("invalidation → gone when it returns; the frame is dirty if it could be written", () => {
    const { memory, pages, space, settle } = demand();
    pages.fault(0, 2, true);
    settle();
    const frames = [0, 1].map((i) => space.pages.get(VPN + i)?.pfn as number);
    space.protect(VPN + 1, false);
    expect(pages.locate(0, false)).toBe(true);
    expect(pages.locate(1, false)).toBe(false);
    expect(memory.hasFlag(frames[1] as number, FRAME_FLAG.DIRTY)).toBe(true);
    expect(memory.hasFlag(frames[0] as number, FRAME_FLAG.DIRTY)).toBe(false);
    expect(pages.fault(1, 1, true)).toBe(PAGE_FAULT.REFUSED);
    expect(pages.fault(1, 1, false)).toBe(PAGE_FAULT.QUEUED);
    settle();
    expect(pages.locate(1, false)).toBe(true);
    expect(pages.locate(1, true)).toBe(false);
  });

  it("unmapped → refused; mapped again under the region → the new page, at once", () => {
    const { pages, space, settle } = demand();
    pages.fault(0, 1, true);
    settle();
    space.unmap(VPN);
    expect(pages.locate(0, false)).toBe(false);
    expect(pages.fault(0, 1, false)).toBe(PAGE_FAULT.REFUSED);
    space.map(VPN, 1);
    space.contents(VPN)[0] = 99;
    expect(pages.fault(0, 1, true)).toBe(PAGE_FAULT.QUEUED);
    settle();
    expect(pages.locate(0, true)).toBe(true);
    expect(pages.bytes[pages.offset]).toBe(99);
  });

  it("a mapping that changes inside of the fault → looked up again, never the old frame", () => {
    const { pages, space, settle } = demand();
    let left = 2;
    space.inFault = () => {
      if (left-- > 0) space.move(VPN);
    };
    pages.fault(0, 1, true);
    settle();
    expect(space.faultCount).toBe(3);
    expect(pages.locate(0, true)).toBe(true);
    pages.bytes[pages.offset] = 1;
    expect(space.contents(VPN)[0]).toBe(1);
  });

  it("one that always changes is put off, and doesn't hold up the others", () => {
    const { pages, queue, space } = demand();
    space.inFault = () => {
      if (space.pages.get(VPN)?.pfn !== -1) space.move(VPN);
    };
    pages.fault(0, 1, true);
    queue.pump(0);
    expect(queue.count).toBe(1);
    expect(queue.deadlineNs()).toBe(50_000);
    expect(queue.counters.retried).toBe(1);
    queue.pump(40_000);
    expect(queue.counters.retried).toBe(1);
    space.inFault = null;
    queue.pump(50_000);
    expect(pages.locate(0, true)).toBe(true);
  });

  it("no memory → tried for a while, then refused for a while", () => {
    const { pages, queue, space, settle } = demand();
    space.refusals = 100;
    space.refusal = FAULT_SHORT;
    pages.fault(0, 1, true);
    settle();
    expect(queue.counters.short).toBe(15);
    expect(queue.counters.failed).toBe(1);
    expect(pages.fault(0, 1, true)).toBe(PAGE_FAULT.REFUSED);
    space.refusals = 0;
    queue.pump(queue.nowNs + 60_000_000);
    expect(pages.fault(0, 1, true)).toBe(PAGE_FAULT.QUEUED);
  });

  it("a fault that fails where something is mapped → refused, until the mapping changes", () => {
    const { pages, space, settle, woken } = demand();
    space.refusals = 1;
    space.refusal = FAULT_WRONG;
    pages.fault(0, 1, false);
    settle();
    expect(woken()).toBe(1);
    expect(pages.fault(0, 1, false)).toBe(PAGE_FAULT.REFUSED);
    space.protect(VPN, true);
    expect(pages.fault(0, 1, false)).toBe(PAGE_FAULT.QUEUED);
  });

  it("a frame got for a write may be written, whatever the page table says of the page", () => {
    const { pages, space, settle } = demand();
    space.isWritable = () => false;
    pages.fault(0, 1, true);
    pages.fault(1, 1, false);
    settle();
    expect(pages.locate(0, true)).toBe(true);
    expect([pages.locate(1, false), pages.locate(1, true)]).toEqual([true, false]);
  });

  it("a mapping that is just changing → tried later", () => {
    const { pages, queue, space } = demand();
    space.refusals = 1;
    space.refusal = FAULT_RETRY;
    pages.fault(0, 1, false);
    queue.pump(0);
    expect(pages.locate(0, false)).toBe(false);
    queue.pump(50_000);
    expect(pages.locate(0, false)).toBe(true);
  });

  it("the queue is full → counted; whoever asks again later is served", () => {
    const { pages, queue, settle } = demand(20);
    pages.fault(0, 20, false);
    expect(queue.counters.overflowed).toBe(1);
    settle();
    expect(pages.presentCount).toBe(16);
    expect(pages.fault(18, 1, false)).toBe(PAGE_FAULT.QUEUED);
    settle();
    expect(pages.locate(18, false)).toBe(true);
  });

  it("a region that isn't writable: pages enter read-only, whatever the mapping allows", () => {
    const { memory, pages, space, settle } = demand(2, false);
    expect(pages.fault(0, 1, true)).toBe(PAGE_FAULT.REFUSED);
    pages.fault(0, 1, false);
    settle();
    expect(pages.locate(0, false)).toBe(true);
    expect(pages.locate(0, true)).toBe(false);
    const frame = space.pages.get(VPN)?.pfn as number;
    pages.release();
    expect(memory.hasFlag(frame, FRAME_FLAG.DIRTY)).toBe(false);
  });

  it("released → nothing is there, its faults are nobody's, its notifier is gone", () => {
    const { pages, queue, space } = demand();
    pages.touch(0, true);
    pages.fault(1, 3, true);
    pages.release();
    queue.pump(0);
    expect(space.faultCount).toBe(1);
    expect(pages.locate(0, false)).toBe(false);
    expect(pages.fault(0, 1, false)).toBe(PAGE_FAULT.REFUSED);
    expect(space.notifiers).toHaveLength(0);
    pages.checkInvariants();
  });

  it("advice: prefetch, prefetch to write, and what is in memory anyhow", () => {
    const { pages, space, settle } = demand(8);
    space.map(VPN + 1, 1);
    expect(pages.advise(0, 3, ADVICE.PREFETCH_NO_FAULT, false)).toBe(true);
    expect(space.faultCount).toBe(0);
    expect([0, 1, 2].map((page) => pages.locate(page, true))).toEqual([false, true, false]);
    pages.advise(3, 2, ADVICE.PREFETCH_WRITE, false);
    expect(pages.locate(3, true)).toBe(false);
    settle();
    expect([3, 4].every((page) => pages.locate(page, true))).toBe(true);
    expect(pages.advise(5, 2, ADVICE.PREFETCH, true)).toBe(true);
    expect(pages.locate(6, false)).toBe(true);
    space.unmap(VPN + 7);
    expect(pages.advise(6, 2, ADVICE.PREFETCH, true)).toBe(false);
  });

  it("advice about the whole address space: what is mapped, or there, is looked at alone", () => {
    const { regions, space, queue, settle } = demand(2);
    space.map(VPN + 2 ** 20, 3);
    const all = regions.registerAll(true) as DemandPages;
    expect(all.advise(0, all.pageCount, ADVICE.PREFETCH_NO_FAULT, false)).toBe(true);
    expect([space.faultCount, all.presentCount]).toEqual([0, 3]);
    all.advise(0, all.pageCount, ADVICE.PREFETCH_WRITE, false);
    expect(queue.count).toBe(2);
    settle();
    expect([space.faultCount, all.presentCount]).toEqual([2, 5]);
    space.mapAbsent(VPN + 2 ** 21, 2);
    // Not all of it can be had: most is not mapped.
    expect(all.advise(0, all.pageCount, ADVICE.PREFETCH, true)).toBe(false);
    expect(all.presentCount).toBe(7);
    expect(all.advise(VPN + 2 ** 21, 2, ADVICE.PREFETCH, true)).toBe(true);
    expect(queue.counters.failed).toBe(0);
    all.release();
  });

  it("advice at once ends where memory does", () => {
    const { pages, space } = demand(8, true, 2);
    expect(pages.advise(0, 8, ADVICE.PREFETCH, true)).toBe(false);
    expect([space.faultCount, pages.presentCount]).toEqual([3, 2]);
  });

  it("a fault brings in nothing behind the end of a mapping", () => {
    const { pages, queue, space, settle } = demand(8);
    space.unmap(VPN + 3);
    pages.fault(1, 6, true);
    expect(queue.count).toBe(5);
    settle();
    expect([pages.presentCount, queue.counters.failed]).toEqual([5, 0]);
  });
});

describe("a fault that is put off", () => {
  it("for want of memory: others that come meanwhile are served at once", () => {
    const { pages, queue, space } = demand();
    space.refusals = 1;
    space.refusal = FAULT_SHORT;
    pages.fault(0, 1, true);
    queue.pump(0);
    expect(queue.deadlineNs()).toBe(1_000_000);
    pages.fault(2, 1, true);
    expect(queue.deadlineNs()).toBe(0);
    queue.pump(10);
    expect([pages.locate(0, true), pages.locate(2, true)]).toEqual([false, true]);
    expect(queue.deadlineNs()).toBe(1_000_000);
    queue.pump(1_000_000);
    expect(pages.locate(0, true)).toBe(true);
    queue.checkInvariants();
  });

  it("for want of memory: its tries are a millisecond apart, whoever else is served", () => {
    const { pages, queue, space } = demand(600, true, 1024);
    const { deviceFrame } = space;
    space.deviceFrame = (vpn, isWrite) =>
      vpn === VPN ? FAULT_SHORT : deviceFrame.call(space, vpn, isWrite);
    pages.fault(0, 1, true);
    for (let turn = 0; turn < 100; turn++) {
      pages.fault(1 + turn, 1, true);
      queue.pump(turn * 100_000);
    }
    expect(queue.counters.served).toBe(100);
    expect(queue.counters.short).toBe(10);
    expect(pages.fault(0, 1, true)).toBe(PAGE_FAULT.QUEUED);
  });

  it("since the mapping changes: that is no try without memory", () => {
    const { pages, queue, space } = demand();
    space.refusals = 40;
    pages.fault(0, 1, true);
    for (let turn = 0; turn < 40; turn++) queue.pump(queue.deadlineNs());
    expect(queue.counters.retried).toBe(40);
    space.refusals = 2;
    space.refusal = FAULT_SHORT;
    while (queue.count > 0) queue.pump(queue.deadlineNs());
    expect([queue.counters.short, queue.counters.failed]).toEqual([2, 0]);
    expect(pages.locate(0, true)).toBe(true);
  });

  it("to be read and to be written: each in the queue once, until it has had its turn", () => {
    const { pages, queue } = demand();
    pages.fault(0, 1, false);
    pages.fault(0, 1, true);
    pages.fault(0, 1, false);
    expect(queue.count).toBe(2);
    expect(pages.touch(0, false)).toBe(true);
    pages.invalidate(pages.start, pages.end);
    pages.fault(0, 1, true);
    expect(queue.count).toBe(2);
    queue.pump(0);
    expect(queue.count).toBe(0);
  });

  it("that found the queue full: told when there is room, though others were served", () => {
    const { memory, pages, queue, space } = demand(20);
    space.mapAbsent(VPN + 100, 1);
    const regions = new ProcessRegions(memory, space, space, queue);
    const other = regions.registerPages(ADDRESS + 100 * FRAME_BYTES, 1, true, true) as DemandPages;
    let told = 0;
    // Who is told asks at once, and may find it full again.
    other.attach({
      pagesServed: () => {
        told++;
        if (!other.locate(0, true)) other.fault(0, 1, true);
      },
    });
    pages.fault(0, 20, false);
    expect(other.fault(0, 1, true)).toBe(PAGE_FAULT.QUEUED);
    expect(queue.counters.overflowed).toBe(2);
    while (queue.count > 0) queue.pump(0);
    expect(told).toBe(2);
    expect(other.locate(0, true)).toBe(true);
    queue.checkInvariants();
  });

  it("and fails: the newest 1,024 failures are remembered, no more", () => {
    const failures = new FailedFaults();
    for (let page = 0; page < 2000; page++) failures.add(page, page % 2 === 0, 0);
    expect(failures.count).toBe(1024);
    expect([975, 976, 1999].map((page) => failures.has(page, page % 2 === 0, 1))).toEqual([
      false,
      true,
      true,
    ]);
    expect(failures.has(1999, true, 1)).toBe(false);
    expect(failures.has(1999, false, 50_000_000)).toBe(false);
  });
});

describe("pages that drive each other out", () => {
  it("a fault asks for less and less, and for more again when that is over", () => {
    const { pages, queue, settle } = demand(600, true, 1024);
    const asked = (page: number): number => {
      const before = queue.count;
      pages.fault(page, 600, false);
      return queue.count - before;
    };
    expect(asked(0)).toBe(16);
    settle();
    for (const expected of [16, 16, 16, 16, 8, 4, 2, 2]) {
      pages.invalidate(pages.start, pages.end);
      expect(asked(0)).toBe(expected);
      settle();
    }
    expect([asked(100), settle(), asked(200)]).toEqual([10, undefined, 16]);
  });
});

describe("implicit on-demand pages", () => {
  it("the whole address space costs nothing before it is used, and ends with it", () => {
    const { memory, regions, queue, space } = demand();
    const all = regions.registerAll(true) as DemandPages;
    const high = 2 ** 36 - 1;
    space.mapAbsent(high, 1);
    for (const page of [VPN, high]) {
      expect(all.fault(page, 4, true)).toBe(PAGE_FAULT.QUEUED);
      expect(all.locate(page, true)).toBe(false);
    }
    queue.pump(0);
    queue.pump(1);
    expect(all.locate(high, true)).toBe(true);
    all.bytes[all.offset + 1] = 5;
    expect(space.contents(high)[1]).toBe(5);
    expect(all.locate(VPN + 3, true)).toBe(true);
    expect(all.fault(0, 1, false)).toBe(PAGE_FAULT.REFUSED);
    space.evict(high);
    expect(all.locate(high, false)).toBe(false);
    expect(all.presentCount).toBe(4);
    const frame = space.pages.get(VPN)?.pfn as number;
    all.release();
    expect(memory.hasFlag(frame, FRAME_FLAG.DIRTY)).toBe(true);
    all.checkInvariants();
  });
});
