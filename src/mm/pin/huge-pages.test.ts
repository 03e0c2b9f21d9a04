// SPDX-License-Identifier: MIT

import { expect, test } from "vitest";
import { MOVE_RESULT } from "../frames/index.js";
import { ACCESS, PROT } from "../space/index.js";
import { checkAll, errorOf, PAGE, smallHost } from "./pin.fixture.js";

const HUGE = 2 ** 21;
const RW = PROT.READ | PROT.WRITE;

/** A process with 4 MiB in two blocks, every page written. */
function hugeProcess(limits = {}) {
  const host = smallHost();
  const space = host.manager.createSpace({ limits });
  const length = 2 * HUGE;
  const address = space.map({ address: 2 ** 30, length, prot: RW, fixed: "no-replace" });
  for (let at = 0; at < length; at += PAGE) space.write(address + at, Uint8Array.of(7));
  expect(host.manager.counters.hugeFaults).toBe(2);
  return { host, space, address };
}

test.each([
  [0, 2 * HUGE],
  [0, HUGE + 3 * PAGE],
  [5 * PAGE, HUGE],
  [HUGE - PAGE, 2 * PAGE],
])("2 MiB pages: from %i on %i bytes, every page once, given back once", (offset, length) => {
  const { host, space, address } = hugeProcess();
  const at = address + offset;
  for (const take of [
    () => host.pinner.pinForShortDma(space, at, length, ACCESS.WRITE),
    () => host.pinner.pinForLongTermDma(space, at, length, ACCESS.WRITE),
  ]) {
    const pin = take();
    expect(pin.frameCount).toBe(length / PAGE);
    const pages = pin.runs.flatMap(({ pfn, count }) =>
      Array.from({ length: count }, (_, i) => pfn + i),
    );
    const first = at / PAGE;
    expect(pages).toEqual(pages.map((_, i) => space.lookup(first + i)));
    checkAll(host);
    pin.release(true);
    checkAll(host);
  }
  expect(host.pinner.chargedBytes(space)).toBe(0);
});

test("2 MiB pages: asked for by block, not by page", () => {
  const { host, space, address } = hugeProcess();
  host.pinner.pinForLongTermDma(space, address, 2 * HUGE, ACCESS.WRITE).release(false);
  const before = host.manager.counters.faults;
  host.pinner.pinForLongTermDma(space, address, 2 * HUGE, ACCESS.WRITE).release(false);
  expect(host.manager.counters.faults - before).toBe(2);
});

test("2 MiB pages over the limit: the error says which page, nothing stays", () => {
  const { host, space, address } = hugeProcess({ lockedBytesMax: HUGE + 7 * PAGE });
  const pin = () => host.pinner.pinForLongTermDma(space, address, 2 * HUGE, ACCESS.WRITE);
  const error = errorOf(pin);
  expect(error).toMatchObject({ reason: "limit", address: address + HUGE + 7 * PAGE });
  expect(host.pinner.chargedBytes(space)).toBe(0);
  checkAll(host);
  // What is pinned already is charged once.
  const some = host.pinner.pinForLongTermDma(space, address, HUGE, ACCESS.WRITE);
  const more = host.pinner.pinForLongTermDma(space, address, HUGE + PAGE, ACCESS.WRITE);
  expect(host.pinner.chargedBytes(space)).toBe(HUGE + PAGE);
  checkAll(host);
  some.release(false);
  more.release(false);
  checkAll(host);
});

test("2 MiB pages of which one area may only be read: no further than the other", () => {
  const { host, space, address } = hugeProcess();
  space.protect(address + 9 * PAGE, PAGE, PROT.READ);
  const pin = () => host.pinner.pinForShortDma(space, address, HUGE, ACCESS.WRITE);
  expect(errorOf(pin)).toMatchObject({ reason: "read-only", address: address + 9 * PAGE });
  const reading = host.pinner.pinForShortDma(space, address, HUGE, ACCESS.READ);
  expect(reading.frameCount).toBe(HUGE / PAGE);
  checkAll(host);
  reading.release();
  checkAll(host);
});

test("2 MiB pages: a long-term pin leaves the block where it is, and movable afterwards", () => {
  const { host, space, address } = hugeProcess();
  const { memory, pinner } = host;
  const head = space.lookup(address / PAGE);
  const pin = pinner.pinForLongTermDma(space, address, HUGE, ACCESS.WRITE);
  expect(pin.runs).toEqual([{ pfn: head, count: HUGE / PAGE }]);
  expect(pinner.framesMoved).toBe(0);
  expect(memory.move(head)).toBe(MOVE_RESULT.PINNED);
  // A second region of a part of it.
  const part = pinner.pinForLongTermDma(space, address + 3 * PAGE, PAGE, ACCESS.WRITE);
  expect(part.runs).toEqual([{ pfn: head + 3, count: 1 }]);
  checkAll(host);
  part.release(false);
  pin.release(true);
  // No other block of 2 MiB is free: but it could go.
  expect(memory.judge(head)).toBe(MOVE_RESULT.DONE);
  checkAll(host);
});

test("2 MiB pages: a part is not pinned for long while a transfer has all of the block", () => {
  const { host, space, address } = hugeProcess();
  const transfer = host.pinner.pinForShortDma(space, address, HUGE, ACCESS.WRITE);
  const pin = () => host.pinner.pinForLongTermDma(space, address + PAGE, PAGE, ACCESS.WRITE);
  expect(errorOf(pin)).toMatchObject({ reason: "migration-busy", address: address + PAGE });
  transfer.release(false);
  const part = pin();
  expect(host.memory.orderOf(space.lookup(address / PAGE))).toBe(0);
  checkAll(host);
  part.release(false);
});

test("2 MiB pages unmapped in part while they are held: free when they are let go", () => {
  const { host, space, address } = hugeProcess();
  const { memory, pinner } = host;
  const head = space.lookup(address / PAGE);
  const free = memory.freeFrames;
  const takes = [
    () => pinner.pinForShortDma(space, address, HUGE, ACCESS.WRITE),
    () => pinner.borrowForCpuCopy(space, address + HUGE, HUGE, ACCESS.WRITE),
  ];
  for (const [i, take] of takes.entries()) {
    const hold = take();
    space.unmap(address + i * HUGE + 5 * PAGE, 3 * PAGE);
    expect(memory.freeFrames).toBe(free + 3 * i);
    hold.release(false);
    expect(memory.freeFrames).toBe(free + 3 * (i + 1));
    checkAll(host);
  }
  expect(space.lookup(address / PAGE)).toBe(head);
  expect(memory.orderOf(head)).toBe(0);
});
