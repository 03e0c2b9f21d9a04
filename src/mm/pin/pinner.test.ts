// SPDX-License-Identifier: MIT

import { expect, test } from "vitest";
import { UNDIVIDED_POLICY } from "../alloc/index.js";
import { FRAME_FLAG, MIGRATE, NO_FRAME } from "../frames/index.js";
import * as room from "../index.js";
import { ACCESS, HeapFileStore, PROT } from "../space/index.js";
import { ShortDmaPin } from "./holds.js";
import { checkIntent, INTENT } from "./intent.js";
import { bytes, checkAll, errorOf, PAGE, reasonOf, smallHost } from "./pin.fixture.js";

const RW = PROT.READ | PROT.WRITE;

test("a pin: holds each page once, and gives all back at its release", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 5 * PAGE, prot: RW });
  const pin = host.pinner.pinForShortDma(space, address + 100, 4 * PAGE, ACCESS.WRITE);
  expect(pin.frameCount).toBe(5);
  expect(host.memory.isPinned(space.lookup(address / PAGE))).toBe(true);
  checkAll(host);
  pin.release(true);
  expect(host.memory.isPinned(space.lookup(address / PAGE))).toBe(false);
  expect(host.pinner.pagesReleased).toBe(5);
  checkAll(host);
});

test("a pin that fails in its middle: nothing stays held, the error says where", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ address: 2 ** 30, length: 3 * PAGE, prot: RW, fixed: "no-replace" });
  const error = errorOf(() => host.pinner.pinForLongTermDma(space, address, 5 * PAGE, ACCESS.READ));
  expect(error).toMatchObject({
    reason: "not-mapped",
    code: "EFAULT",
    address: address + 3 * PAGE,
  });
  expect(error.message).toContain("mmap");
  expect(host.pinner.chargedBytes(space)).toBe(0);
  expect(host.pinner.list()).toEqual([]);
  checkAll(host);
});

test("causes: what is against an access is told apart", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const readable = space.map({ length: PAGE, prot: PROT.READ });
  const closed = space.map({ length: PAGE, prot: PROT.NONE });
  const store = new HeapFileStore();
  const file = host.manager.openFile({ name: "/short", size: PAGE, store });
  const short = space.map({ length: 2 * PAGE, prot: RW, shared: true, file: { file, offset: 0 } });
  const pin = (address: number, length: number) => () =>
    host.pinner.pinForShortDma(space, address, length, ACCESS.WRITE);
  expect(reasonOf(pin(readable, PAGE))).toBe("read-only");
  expect(reasonOf(pin(closed, PAGE))).toBe("no-access");
  expect(reasonOf(pin(short, 2 * PAGE))).toBe("past-end");
  expect(reasonOf(pin(-PAGE, PAGE))).toBe("bad-range");
  expect(reasonOf(pin(readable, 0))).toBe("bad-range");
  store.isBroken = true;
  const other = host.manager.openFile({ name: "/broken", size: PAGE, store });
  const broken = space.map({
    length: PAGE,
    prot: RW,
    shared: true,
    file: { file: other, offset: 0 },
  });
  expect(reasonOf(pin(broken, PAGE))).toBe("io-error");
  expect(host.pinner.refusals.get("bad-range")).toBe(2);
  checkAll(host);
});

test("no memory: is told from the limit, and undone", () => {
  const host = smallHost(4);
  const space = host.manager.createSpace({ limits: { lockedBytesMax: 3 * PAGE } });
  const address = space.map({ length: 8 * 2 ** 20, prot: RW });
  expect(
    reasonOf(() => host.pinner.pinForShortDma(space, address, 8 * 2 ** 20, ACCESS.WRITE)),
  ).toBe("out-of-memory");
  checkAll(host);
});

test("bytes that the CPU wrote through a hold are dirty at its release, else it asserts", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: PAGE, prot: RW });
  const borrow = host.pinner.borrowForCpuCopy(space, address, PAGE, ACCESS.WRITE);
  borrow.write(0, bytes(1));
  expect(() => borrow.release(false)).toThrow("what was written is dirty");
  borrow.release(true);
  checkAll(host);
});

test("a long-term pin: pages leave movable memory first, with their contents", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 3 * PAGE, prot: RW });
  space.write(address + PAGE, bytes(1, 2, 3));
  const before = space.lookup(address / PAGE + 1);
  expect(host.memory.mobilityOf(before)).toBe(MIGRATE.MOVABLE);
  const pin = host.pinner.pinForLongTermDma(space, address, 3 * PAGE, ACCESS.WRITE);
  for (const run of pin.runs) expect(host.memory.mobilityOf(run.pfn)).toBe(MIGRATE.UNMOVABLE);
  const found = new Uint8Array(3);
  space.read(address + PAGE, found);
  expect([...found]).toEqual([1, 2, 3]);
  expect(host.pinner.framesMoved).toBe(3);
  pin.release(true);
  checkAll(host);
});

test("a long-term pin: stays where it is under a policy without that rule", () => {
  const host = smallHost(8, UNDIVIDED_POLICY);
  const space = host.manager.createSpace();
  const address = space.map({ length: PAGE, prot: RW });
  const pin = host.pinner.pinForLongTermDma(space, address, PAGE, ACCESS.WRITE);
  expect(host.pinner.framesMoved).toBe(0);
  pin.release(false);
});

test("a long-term pin: a page that a transfer has pinned can't leave", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 2 * PAGE, prot: RW });
  const transfer = host.pinner.pinForShortDma(space, address + PAGE, PAGE, ACCESS.WRITE);
  const take = () => host.pinner.pinForLongTermDma(space, address, 2 * PAGE, ACCESS.WRITE);
  expect(errorOf(take)).toMatchObject({ reason: "migration-busy", address: address + PAGE });
  checkAll(host);
  transfer.release(true);
  take().release(false);
  checkAll(host);
});

test("a long-term pin of a part of 2 MiB: the rest is not pinned along", () => {
  const host = smallHost(16);
  const space = host.manager.createSpace();
  const length = 4 * 2 ** 20;
  const address = space.map({ length, prot: RW });
  const huge = Math.ceil(address / 2 ** 21) * 2 ** 21;
  space.write(huge, bytes(7));
  expect(host.memory.orderOf(space.lookup(huge / PAGE))).toBe(9);
  const pin = host.pinner.pinForLongTermDma(space, huge + 8 * PAGE, 2 * PAGE, ACCESS.WRITE);
  expect(host.memory.isPinned(space.lookup(huge / PAGE))).toBe(false);
  expect(host.memory.isPinned(space.lookup(huge / PAGE + 8))).toBe(true);
  checkAll(host);
  pin.release(false);
  const whole = host.pinner.pinForLongTermDma(space, huge, 2 ** 21, ACCESS.WRITE);
  expect(whole.frameCount).toBe(512);
  whole.release(false);
  checkAll(host);
});

test("a long-term pin of a whole 2 MiB block: one piece of memory", () => {
  const host = smallHost(16);
  const space = host.manager.createSpace();
  const address = space.map({ length: 4 * 2 ** 20, prot: RW });
  const huge = Math.ceil(address / 2 ** 21) * 2 ** 21;
  const pin = host.pinner.pinForLongTermDma(space, huge, 2 ** 21, ACCESS.WRITE);
  expect(pin.runs.length).toBe(1);
  pin.release(true);
  checkAll(host);
});

test("fork: a pinned page is copied for the child, and the parent's stays under the pin", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 2 * PAGE, prot: RW });
  const pin = host.pinner.pinForLongTermDma(space, address, PAGE, ACCESS.WRITE);
  const frame = pin.runs[0]?.pfn ?? NO_FRAME;
  const child = space.fork();
  expect(child.lookup(address / PAGE)).not.toBe(frame);
  space.write(address, bytes(9));
  expect(space.lookup(address / PAGE)).toBe(frame);
  expect(host.pinner.chargedBytes(child)).toBe(0);
  checkAll(host);
  child.exit();
  pin.release(true);
  checkAll(host);
});

test("fork: a pin to read takes the page as the process's own, too", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: PAGE, prot: RW });
  space.write(address, bytes(5));
  const child = space.fork();
  const pin = host.pinner.pinForShortDma(space, address, PAGE, ACCESS.READ);
  const frame = pin.runs[0]?.pfn ?? NO_FRAME;
  expect(child.lookup(address / PAGE)).not.toBe(frame);
  space.write(address, bytes(6));
  expect(space.lookup(address / PAGE)).toBe(frame);
  pin.release();
  checkAll(host);
});

test("exit: what is pinned lives, and is charged, until it is unpinned", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: PAGE, prot: RW });
  const pin = host.pinner.pinForLongTermDma(space, address, PAGE, ACCESS.WRITE);
  space.exit();
  checkAll(host);
  expect(host.pinner.chargedBytes(space)).toBe(PAGE);
  const free = host.memory.freeFrames;
  pin.release(true);
  expect(host.memory.freeFrames).toBe(free + 1);
  checkAll(host);
});

test("files: shared pages need a lease to be pinned for long; private ones become own", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const file = host.manager.openFile({ name: "/pool", size: 4 * PAGE, store: new HeapFileStore() });
  const map = (shared: boolean) =>
    space.map({ length: 4 * PAGE, prot: RW, shared, file: { file, offset: 0 } });
  const shared = map(true);
  const { pinner } = host;
  const take = (address: number, options = {}) =>
    pinner.pinForLongTermDma(space, address, 2 * PAGE, ACCESS.WRITE, options);
  const error = errorOf(() => take(shared));
  expect(error).toMatchObject({ reason: "file-lease-missing", code: "EOPNOTSUPP" });
  expect(error.message).toContain("/pool");
  const own = take(map(false));
  for (const { pfn } of own.runs) expect(host.memory.hasFlag(pfn, FRAME_FLAG.FILE)).toBe(false);
  own.release(true);
  const seen: string[] = [];
  const lease = {
    name: "lease 1",
    covers: (_file: unknown, index: number) => index < 2,
    pinned: () => seen.push("pinned"),
    unpinned: () => seen.push("unpinned"),
  };
  const leased = take(shared, { lease });
  leased.release(true);
  expect(seen).toEqual(["pinned", "unpinned"]);
  expect(errorOf(() => take(shared + PAGE, { lease })).reason).toBe("file-lease-missing");
  checkAll(host);
});

test("files: a page that a pin has let be written is dirty at its unpin", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const store = new HeapFileStore();
  const file = host.manager.openFile({ name: "/data", size: PAGE, store });
  const address = space.map({ length: PAGE, prot: RW, shared: true, file: { file, offset: 0 } });
  const pin = host.pinner.pinForShortDma(space, address, PAGE, ACCESS.WRITE);
  const pfn = pin.runs[0]?.pfn ?? NO_FRAME;
  host.memory.bytesOf(pfn)[host.memory.offsetOf(pfn)] = 1;
  file.writeback();
  expect(host.memory.hasFlag(pfn, FRAME_FLAG.DIRTY)).toBe(true);
  host.memory.clearFlag(pfn, FRAME_FLAG.DIRTY);
  pin.release(true);
  expect(host.memory.hasFlag(pfn, FRAME_FLAG.DIRTY)).toBe(true);
  file.writeback();
  expect(host.memory.hasFlag(pfn, FRAME_FLAG.DIRTY)).toBe(false);
});

test("truncate: a pinned page stays the pin's, and nobody else's", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const file = host.manager.openFile({ name: "/cut", size: 2 * PAGE, store: new HeapFileStore() });
  const address = space.map({ length: PAGE, prot: RW, shared: true, file: { file, offset: 0 } });
  const pin = host.pinner.pinForShortDma(space, address, PAGE, ACCESS.WRITE);
  file.truncate(0);
  checkAll(host);
  pin.release(true);
  checkAll(host);
});

test("present only: nothing is faulted in", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: PAGE, prot: RW });
  const take = () =>
    host.pinner.pinForShortDma(space, address, PAGE, ACCESS.WRITE, { presentOnly: true });
  expect(reasonOf(take)).toBe("not-present");
  space.write(address, bytes(1));
  take().release(false);
  const child = space.fork();
  expect(reasonOf(take)).toBe("not-present");
  child.exit();
  checkAll(host);
});

test("pieces: refused when there are too many, and moved together for a long-term pin", () => {
  const host = smallHost();
  const space = host.manager.createSpace({ hugePages: false });
  const address = space.map({ length: 16 * PAGE, prot: RW });
  for (let i = 15; i >= 0; i--) space.write(address + i * PAGE, bytes(i));
  const short = () =>
    host.pinner.pinForShortDma(space, address, 16 * PAGE, ACCESS.READ, { runsMax: 1 });
  expect(errorOf(short)).toMatchObject({ reason: "fragmented", code: "EMSGSIZE" });
  checkAll(host);
  const pin = host.pinner.pinForLongTermDma(space, address, 16 * PAGE, ACCESS.READ, { runsMax: 1 });
  expect(pin.runs.length).toBe(1);
  const found = new Uint8Array(1);
  space.read(address + 11 * PAGE, found);
  expect(found[0]).toBe(11);
  checkAll(host);
  pin.release();
  checkAll(host);
});

test("the CPU's copies: across pages, by reference to read and by pin to write", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 3 * PAGE, prot: RW });
  const writer = host.pinner.borrowForCpuCopy(space, address + PAGE - 2, PAGE + 4, ACCESS.WRITE);
  expect(writer.isPinned).toBe(true);
  writer.write(0, bytes(1, 2, 3, 4));
  writer.write(PAGE, bytes(5, 6, 7, 8));
  writer.release(true);
  const reader = host.pinner.borrowForCpuCopy(space, address, 3 * PAGE, ACCESS.READ);
  expect(reader.isPinned).toBe(false);
  checkAll(host);
  const found = new Uint8Array(4);
  reader.read(PAGE - 2, found);
  expect([...found]).toEqual([1, 2, 3, 4]);
  reader.read(2 * PAGE - 2, found);
  expect([...found]).toEqual([5, 6, 7, 8]);
  reader.release();
  checkAll(host);
});

test("another process's memory: with the right to it, and what the process itself may do", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: PAGE, prot: PROT.READ });
  const caller = (may: boolean) => ({ name: "gdb", mayAccess: () => may });
  const take = (may: boolean) => () =>
    host.pinner.borrowRemote(caller(may), space, address, PAGE, ACCESS.WRITE);
  expect(errorOf(take(false))).toMatchObject({ reason: "not-permitted", code: "EPERM" });
  expect(reasonOf(take(true))).toBe("read-only");
  const borrow = host.pinner.borrowRemote(caller(true), space, address, PAGE, ACCESS.READ);
  expect(host.pinner.list()).toMatchObject([{ holder: "gdb", purpose: "remote", frames: 1 }]);
  borrow.release();
});

test("who is told of a change of mappings: takes no pages meanwhile", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 2 * PAGE, prot: RW });
  space.write(address, bytes(1));
  const found: string[] = [];
  const take = () => host.pinner.pinForShortDma(space, address + PAGE, PAGE, ACCESS.READ);
  space.notifiers.add({
    start: address,
    end: address + PAGE,
    invalidate: () => found.push(reasonOf(take)),
  });
  space.unmap(address, PAGE);
  expect(found).toEqual(["busy"]);
});

test("release: only as it was taken, once, and dirty only what could be written", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: PAGE, prot: RW });
  const long = host.pinner.pinForLongTermDma(space, address, PAGE, ACCESS.READ);
  const mismatch = () => ShortDmaPin.prototype.release.call(long as never, false as never);
  expect(mismatch).toThrow("released as that");
  const dirty = long.release as (isDirty: boolean) => void;
  expect(() => dirty.call(long, true)).toThrow("was not written");
  long.release();
  expect(() => long.release()).toThrow("once");
});

test("options without types: those of other purposes, and conflicts, are refused", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: PAGE, prot: RW });
  const { pinner } = host;
  const any = (options: object) => options as never;
  const takes = [
    () => pinner.pinForShortDma(space, address, PAGE, ACCESS.READ, any({ lease: {} })),
    () => pinner.pinForLongTermDma(space, address, PAGE, ACCESS.READ, any({ presentOnly: true })),
    () => pinner.pinForLongTermDma(space, address, PAGE, ACCESS.READ, any({ device: {} })),
    () => pinner.borrowForCpuCopy(space, address, PAGE, ACCESS.READ, any({ runsMax: 1 })),
    () => pinner.borrowForCpuCopy(space, address, PAGE, ACCESS.READ, any({ flags: 1 })),
  ];
  for (const take of takes) {
    expect(errorOf(take)).toMatchObject({ reason: "bad-option", code: "EINVAL" });
  }
  checkAll(host);
});

test("what the walk may be told: conflicts assert, and the door doesn't show it", () => {
  const conflicts = [
    INTENT.LONG_TERM,
    INTENT.PEER,
    INTENT.PIN | INTENT.LONG_TERM | INTENT.PRESENT_ONLY,
    INTENT.PIN | INTENT.LONG_TERM | INTENT.REMOTE,
    INTENT.PIN | INTENT.PEER | INTENT.REMOTE,
  ];
  for (const intent of conflicts) expect(() => checkIntent(intent)).toThrow("assertion failed");
  const names = Object.keys(room);
  for (const hidden of ["INTENT", "checkIntent", "PageTaker", "PinAccount", "gather", "breakUp"]) {
    expect(names).not.toContain(hidden);
  }
  expect(names.filter((name) => /pin|borrow/i.test(name)).sort()).toEqual([
    "CpuBorrow",
    "LongTermPin",
    "PinError",
    "PinnedPages",
    "Pinner",
    "RemoteBorrow",
    "ShortDmaPin",
  ]);
});

test("who pins what: by hold and by process", () => {
  const host = smallHost();
  const space = host.manager.createSpace({ name: "app", limits: { lockedBytesMax: 10 * PAGE } });
  const address = space.map({ length: 4 * PAGE, prot: RW });
  const { pinner } = host;
  const options = { holder: "mr 0x1100" };
  const a = pinner.pinForLongTermDma(space, address, 2 * PAGE, ACCESS.WRITE, options);
  const b = pinner.pinForLongTermDma(space, address, PAGE, ACCESS.READ);
  expect(pinner.list()).toMatchObject([
    { process: "app", holder: "mr 0x1100", purpose: "long-term-dma", frames: 2, isWrite: true },
    { process: "app", holder: "app", frames: 1, isWrite: false },
  ]);
  expect(pinner.byProcess()).toEqual([
    {
      process: "app",
      holds: 2,
      pinnedFrames: 2,
      chargedBytes: 2 * PAGE,
      lockedBytesMax: 10 * PAGE,
    },
  ]);
  a.release(true);
  b.release();
});

test("a region's pins: released dirty only where it lets somebody write", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 2 * PAGE, prot: RW });
  const pinner = host.pinner.regionPinner(space, { holder: "mr" });
  pinner.pinForRegion(address, PAGE, false).release(false);
  const pinned = pinner.pinForRegion(address, 2 * PAGE, true);
  expect(host.pinner.list()).toMatchObject([{ holder: "mr", frames: 2 }]);
  pinned.release(true);
  checkAll(host);
});
