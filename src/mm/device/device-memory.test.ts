// SPDX-License-Identifier: MIT

import { expect, test } from "vitest";
import { HeapMemorySource } from "../../base/index.js";
import { FRAME_FLAG, NO_FRAME, PhysicalMemory, ZONE } from "../frames/index.js";
import { bytes, checkAll, errorOf, PAGE } from "../pin/pin.fixture.js";
import { ACCESS, PAGE as ENTRY, FAULT, PROT } from "../space/index.js";
import { AtomicError, compareSwap64, fetchAdd64 } from "./cpu-atomics.js";
import { deviceHost, FAR, GPU, GPU_PAGES, NEAR, WINDOW_PAGES } from "./device.fixture.js";
import { DMA_FAULT } from "./device-memory.js";

const RW = PROT.READ | PROT.WRITE;

function withPages(count: number) {
  const host = deviceHost();
  const space = host.manager.createSpace({ hugePages: false });
  const address = space.map({ length: count * PAGE, prot: RW });
  for (let i = 0; i < count; i++) space.write(address + i * PAGE, bytes(i + 1));
  return { host, space, address, page: address / PAGE };
}

function firstByte(space: { read(address: number, target: Uint8Array): void }, address: number) {
  const found = new Uint8Array(1);
  space.read(address, found);
  return found[0];
}

test("migration: pages go with their contents, and the CPU's touch brings them back", () => {
  const { host, space, address, page } = withPages(3);
  const result = host.gpu.migrateIn(space, address, 3 * PAGE);
  expect(result.moved).toBe(3);
  expect(space.lookup(page)).toBe(NO_FRAME);
  expect([0, 1, 2].map((i) => host.vram.bytes[i * PAGE])).toEqual([1, 2, 3]);
  const pfn = space.table.frameOf(page);
  expect(() => host.memory.bytesOf(pfn)).toThrow("no bytes for the CPU");
  checkAll(host);
  host.vram.bytes[PAGE] = 77;
  expect(firstByte(space, address + PAGE)).toBe(77);
  expect(host.devices.counters.cpuFaults).toBe(1);
  expect(host.gpu.zone.frameCount - host.gpu.zone.freeFrames).toBe(2);
  checkAll(host);
  space.exit();
  expect(host.gpu.zone.freeFrames).toBe(GPU_PAGES);
  checkAll(host);
});

test("migration: what is pinned, held, shared or too much stays, and it is said why", () => {
  const { host, space, address } = withPages(GPU_PAGES + 4);
  const pin = host.pinner.pinForShortDma(space, address, PAGE, ACCESS.READ);
  const borrow = host.pinner.borrowForCpuCopy(space, address + PAGE, PAGE, ACCESS.READ);
  const shared = space.map({ length: PAGE, prot: RW, shared: true });
  expect([...host.gpu.migrateIn(space, shared, PAGE).stayed]).toEqual([["not-anonymous", 1]]);
  const result = host.gpu.migrateIn(space, address, (GPU_PAGES + 4) * PAGE);
  expect(result.moved).toBe(GPU_PAGES);
  expect(Object.fromEntries(result.stayed)).toEqual({ pinned: 1, busy: 1, "device-full": 2 });
  expect([...host.gpu.migrateIn(space, address + 2 * PAGE, PAGE).stayed]).toEqual([["already", 1]]);
  checkAll(host);
  pin.release();
  borrow.release();
  expect(host.gpu.evacuate()).toBe(0);
  expect(host.gpu.zone.freeFrames).toBe(GPU_PAGES);
  expect(firstByte(space, address + 5 * PAGE)).toBe(6);
  checkAll(host);
});

test("migration: who keeps a page table of a page is told both ways", () => {
  const { host, space, address } = withPages(1);
  const told: number[] = [];
  const invalidate = (start: number) => told.push(start);
  space.notifiers.add({ start: address, end: address + PAGE, invalidate });
  host.gpu.migrateIn(space, address, PAGE);
  firstByte(space, address);
  expect(told).toEqual([address, address]);
});

test("a pin of a page in a device's memory: brings it back", () => {
  const { host, space, address } = withPages(2);
  host.gpu.migrateIn(space, address, 2 * PAGE);
  const pin = host.pinner.pinForLongTermDma(space, address, 2 * PAGE, ACCESS.WRITE);
  for (const run of pin.runs) expect(host.memory.zoneOf(run.pfn).kind).toBe(ZONE.NORMAL);
  expect(firstByte(space, address + PAGE)).toBe(2);
  pin.release(true);
  checkAll(host);
});

test("fork: a page in a device's memory is shared until one writes", () => {
  const { host, space, address } = withPages(1);
  host.gpu.migrateIn(space, address, PAGE);
  const child = space.fork();
  checkAll(host);
  child.write(address, bytes(9));
  expect(firstByte(space, address)).toBe(1);
  expect(firstByte(child, address)).toBe(9);
  checkAll(host);
});

test("DMA fault: the path allows → the page is had where it is, the CPU never sees it", () => {
  const { host, space, address, page } = withPages(1);
  host.gpu.migrateIn(space, address, PAGE);
  const pfn = host.devices.dmaFault(space, page, true, NEAR);
  expect(host.memory.zoneOf(pfn).kind).toBe(ZONE.P2P);
  const at = host.memory.offsetOf(pfn);
  expect(host.memory.bytesOf(pfn)[at]).toBe(1);
  host.memory.bytesOf(pfn)[at] = 42;
  expect(host.devices.counters).toMatchObject({ peerFaults: 1, cpuFaults: 0, pathMigrations: 0 });
  expect(host.gpu.pagesOut).toBe(0);
  expect(host.devices.presentFrame(space, page, true, NEAR)).toBe(pfn);
  expect(firstByte(space, address)).toBe(42);
  expect(host.devices.presentFrame(space, page, true, NEAR)).toBe(space.lookup(page));
});

test("DMA fault: the path forbids → the page comes to system memory, counted, with why", () => {
  const { host, space, address, page } = withPages(2);
  host.gpu.migrateIn(space, address, 2 * PAGE);
  expect(host.devices.presentFrame(space, page, false, FAR)).toBe(DMA_FAULT.RETRY);
  const pfn = host.devices.dmaFault(space, page, false, FAR);
  expect(host.memory.zoneOf(pfn).kind).toBe(ZONE.NORMAL);
  expect(pfn).toBe(space.lookup(page));
  host.devices.dmaFault(space, page + 1, true, null);
  expect(host.devices.counters).toMatchObject({ peerFaults: 0, pathMigrations: 2, cpuFaults: 0 });
  expect(host.devices.refusals).toEqual([
    { client: "far nic", provider: "gpu", why: "ACS redirect at 00:01.0", count: 1 },
    { client: "an unknown device", provider: "gpu", why: "nobody knows where it is", count: 1 },
  ]);
  checkAll(host);
});

test("DMA fault: a page that the BAR doesn't show comes to system memory", () => {
  const { host, space, address, page } = withPages(GPU_PAGES);
  host.gpu.migrateIn(space, address, GPU_PAGES * PAGE);
  const kinds: number[] = [];
  for (let i = 0; i < GPU_PAGES; i++) {
    kinds.push(host.memory.zoneOf(host.devices.dmaFault(space, page + i, false, NEAR)).kind);
  }
  expect(kinds.filter((kind) => kind === ZONE.P2P).length).toBe(WINDOW_PAGES);
  expect(host.devices.counters.windowMigrations).toBe(GPU_PAGES - WINDOW_PAGES);
  checkAll(host);
});

test("DMA fault: a write to a page shared since a fork gets a copy of the process's own", () => {
  const { host, space, address, page } = withPages(1);
  host.gpu.migrateIn(space, address, PAGE);
  const child = space.fork();
  expect(host.memory.zoneOf(host.devices.dmaFault(space, page, false, NEAR)).kind).toBe(ZONE.P2P);
  const pfn = host.devices.dmaFault(space, page, true, NEAR);
  expect(host.memory.zoneOf(pfn).kind).toBe(ZONE.NORMAL);
  expect(host.devices.counters).toMatchObject({ peerFaults: 1, sharedMigrations: 1 });
  expect(child.lookup(page)).not.toBe(pfn);
  checkAll(host);
});

test("DMA fault: the device itself finds the page in its own memory", () => {
  const { host, space, address, page } = withPages(1);
  host.gpu.migrateIn(space, address, PAGE);
  expect(host.devices.dmaFault(space, page, true, GPU)).toBe(space.table.frameOf(page));
  expect(host.asked).toEqual([]);
  expect(host.devices.counters.ownFaults).toBe(1);
});

test("DMA fault: what can't be is told from what can't be now", () => {
  const { host, space, address, page } = withPages(2);
  const { devices } = host;
  expect(devices.dmaFault(space, 99, false, NEAR)).toBe(DMA_FAULT.WRONG);
  space.protect(address, PAGE, PROT.READ);
  expect(devices.dmaFault(space, page, true, NEAR)).toBe(DMA_FAULT.WRONG);
  host.gpu.migrateIn(space, address, PAGE);
  expect(devices.dmaFault(space, page, true, NEAR)).toBe(DMA_FAULT.WRONG);
  const found: number[] = [];
  const invalidate = () => found.push(devices.dmaFault(space, page, false, NEAR));
  space.notifiers.add({ start: address, end: address + PAGE, invalidate });
  space.unmap(address + PAGE, PAGE);
  space.unmap(address, PAGE);
  expect(found).toEqual([DMA_FAULT.RETRY]);
});

test("DMA fault: no memory to bring the page back to is told, and counted", () => {
  const { host, space, address, page } = withPages(1);
  host.gpu.migrateIn(space, address, PAGE);
  while (host.memory.allocate(0, 0) !== NO_FRAME);
  expect(host.devices.dmaFault(space, page, false, FAR)).toBe(DMA_FAULT.SHORT);
  expect(space.fault(page, ACCESS.READ)).toBe(FAULT.NO_MEMORY);
  expect(host.devices.counters.migrationFailures).toBe(2);
  expect(space.table.flagsOf(page) & ENTRY.PRIVATE).not.toBe(0);
});

test("paths: asked once for each pair, until they are forgotten", () => {
  const { host, space, address, page } = withPages(2);
  host.gpu.migrateIn(space, address, 2 * PAGE);
  host.devices.dmaFault(space, page, false, NEAR);
  host.devices.dmaFault(space, page + 1, false, NEAR);
  expect(host.asked).toEqual(["near nic gpu"]);
  host.devices.forgetPaths();
  host.devices.dmaFault(space, page, false, NEAR);
  expect(host.asked.length).toBe(2);
});

test("a BAR: mapped from its device file, shared, uncached; never private, never anonymous", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const file = host.bar.allocate(2 * PAGE);
  const device = { device: file, offset: 0 };
  expect(() => space.map({ length: PAGE, prot: RW, device })).toThrow();
  const address = space.map({ length: 2 * PAGE, prot: RW, shared: true, device });
  space.write(address + PAGE, bytes(3));
  expect(space.vmaAt(address)?.isUncached).toBe(true);
  const pfn = space.lookup(address / PAGE + 1);
  expect(pfn).toBe(file.pfn + 1);
  expect(host.memory.hasFlag(pfn, FRAME_FLAG.ANON)).toBe(false);
  expect([...host.gpu.migrateIn(space, address, PAGE).stayed]).toEqual([["not-anonymous", 1]]);
  const child = space.fork();
  expect(firstByte(child, address + PAGE)).toBe(3);
  checkAll(host);
});

test("a BAR: CPU atomics are refused, and work on system memory", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const device = { device: host.bar.allocate(PAGE), offset: 0 };
  const mapped = space.map({ length: PAGE, prot: RW, shared: true, device });
  const atomic = () => fetchAdd64(space, mapped, 0, 1);
  expect(atomic).toThrow(AtomicError);
  expect(atomic).toThrow("mapped uncached");
  const one = { high: 0, low: 1 };
  expect(() => compareSwap64(space, mapped, one, one)).toThrow(AtomicError);
  const address = space.map({ length: PAGE, prot: RW });
  expect(() => fetchAdd64(space, address + 4, 0, 1)).toThrow("aligned");
  expect(fetchAdd64(space, address, 0, 0xffff_ffff)).toEqual({ high: 0, low: 0 });
  expect(fetchAdd64(space, address, 0, 2)).toEqual({ high: 0, low: 0xffff_ffff });
  expect(compareSwap64(space, address, one, one)).toEqual({ high: 1, low: 1 });
  expect(compareSwap64(space, address, { high: 1, low: 1 }, one)).toEqual({ high: 1, low: 1 });
  expect(compareSwap64(space, address, one, one)).toEqual(one);
});

test("pins of a BAR: for the device that reaches it; for long by who gives it back", () => {
  const host = deviceHost();
  const { pinner } = host;
  const space = host.manager.createSpace();
  const device = { device: host.bar.allocate(2 * PAGE), offset: 0 };
  const address = space.map({ length: 2 * PAGE, prot: RW, shared: true, device });
  const short = (options = {}) =>
    pinner.pinForShortDma(space, address, PAGE, ACCESS.WRITE, options);
  expect(errorOf(() => short())).toMatchObject({ reason: "device-path-refused" });
  const refused = errorOf(() => short({ device: FAR }));
  expect(refused).toMatchObject({ reason: "device-path-refused", code: "EREMOTEIO" });
  expect(refused.message).toContain("ACS redirect at 00:01.0");
  short({ device: NEAR }).release(true);
  const long = () => pinner.pinForLongTermDma(space, address, PAGE, ACCESS.WRITE);
  expect(errorOf(long).reason).toBe("device-not-revocable");
  const copy = () => pinner.borrowForCpuCopy(space, address, PAGE, ACCESS.READ);
  expect(errorOf(copy).reason).toBe("device-memory");
  checkAll(host);
});

test("a BAR that is taken back: nobody has it mapped or pinned for long afterwards", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const file = host.bar.allocate(2 * PAGE);
  const device = { device: file, offset: 0 };
  const address = space.map({ length: 2 * PAGE, prot: RW, shared: true, device });
  let revoked = 0;
  const leased: string[] = [];
  const lease = {
    name: "lease",
    covers: () => true,
    pinned: () => leased.push("pinned"),
    unpinned: () => leased.push("unpinned"),
  };
  const pin = host.pinner.pinForLongTermDma(space, address, 2 * PAGE, ACCESS.WRITE, {
    device: NEAR,
    lease,
    onRevoke: () => revoked++,
  });
  const transfer = host.pinner.pinForShortDma(space, address, PAGE, ACCESS.READ, { device: NEAR });
  expect(host.devices.dmaFault(space, address / PAGE, true, NEAR)).toBe(file.pfn);
  expect(host.devices.dmaFault(space, address / PAGE, true, FAR)).toBe(DMA_FAULT.WRONG);
  expect(host.devices.counters.pathRefusals).toBe(1);
  const free = host.bar.zone.freeFrames;
  file.revoke();
  expect(revoked).toBe(1);
  expect(leased).toEqual(["pinned", "unpinned"]);
  expect(pin.isReleased).toBe(true);
  expect(host.pinner.chargedBytes(space)).toBe(0);
  expect(space.fault(address / PAGE, ACCESS.READ)).toBe(FAULT.PAST_END);
  expect(host.bar.zone.freeFrames).toBe(free);
  transfer.release();
  expect(host.bar.zone.freeFrames).toBe(free + 2);
  checkAll(host);
});

test("a region of a BAR's memory: is stopped when it is taken back, others aren't", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const file = host.bar.allocate(PAGE);
  const device = { device: file, offset: 0 };
  const address = space.map({ length: PAGE, prot: RW, shared: true, device });
  const system = space.map({ length: PAGE, prot: RW });
  const pinner = host.pinner.regionPinner(space, { holder: "mr", device: NEAR });
  const own: object = pinner.pinForRegion(system, PAGE, true);
  expect("revocation" in own).toBe(false);
  const region = pinner.pinForRegion(address, PAGE, true);
  const { revocation } = region as { revocation?: { onRevoke: (() => void) | null } };
  let isStopped = false;
  if (revocation !== undefined) {
    revocation.onRevoke = () => {
      isStopped = true;
    };
  }
  file.revoke();
  expect(isStopped).toBe(true);
  expect(host.pinner.list()).toMatchObject([{ holder: "mr", address: system }]);
  checkAll(host);
});

test("metadata: 16 BARs of 24 GiB take kilobytes at 2 MiB a record, and bytes at 1 GiB", () => {
  const total = (granuleShift: 21 | 30) => {
    const memory = new PhysicalMemory();
    for (let i = 0; i < 16; i++) {
      memory.addZone({ kind: ZONE.P2P, name: `bar ${i}`, bytes: 24 * 2 ** 30, granuleShift });
    }
    return memory.metadataBytes;
  };
  expect(total(21)).toBeLessThan(8 * 2 ** 20);
  expect(total(30)).toBeLessThan(64 * 2 ** 10);
});

test("a BAR: a piece that isn't there any more is refused with what is left", () => {
  const host = deviceHost();
  host.bar.allocate(4 * PAGE);
  expect(() => host.bar.allocate(8 * PAGE)).toThrow("16384 are free");
  const source = new HeapMemorySource(0x30_0000_0000);
  const large = host.devices.addP2p({ device: NEAR, memory: source.allocate(4 * 2 ** 20) });
  expect(large.zone.granuleShift).toBe(21);
  expect(large.allocate(PAGE).pfn % 512).toBe(0);
});

test("P2P memory that was another process's is handed out as zeroes", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const write = (value: number) => {
    const device = host.bar.allocate(8 * PAGE);
    const mapped = { device, offset: 0 };
    const address = space.map({ length: 8 * PAGE, prot: RW, shared: true, device: mapped });
    const before = firstByte(space, address + 5 * PAGE);
    space.write(address + 5 * PAGE, bytes(value));
    device.revoke();
    space.unmap(address, 8 * PAGE);
    return before;
  };
  expect([write(1), write(2), write(3)]).toEqual([0, 0, 0]);
  checkAll(host);
});
