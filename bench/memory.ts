// SPDX-License-Identifier: MIT
// What registering a process's memory costs, per MiB: by the size of its pages, pinned and on
// demand; and a page's first touch by a device, a fault, beside a pin of it. All by the same
// `registerMr` as everywhere, on memory of the heap: no network, no foreign calls, one thread.

import assert from "node:assert/strict";
import {
  type AddressSpace,
  ACCESS as CPU_ACCESS,
  DeviceMemory,
  type DmaDevice,
  FaultQueue,
  FRAME_BYTES,
  HeapMemorySource,
  MemoryManager,
  PhysicalMemory,
  Pinner,
  PROT,
  ProcessDemand,
  ProcessRegions,
  ZONE,
} from "farpage/mm";
import {
  ACCESS,
  ADVICE,
  Context,
  Device,
  IpAddress,
  type ProtectionDomain,
  type RegisteredPages,
  SeededRandom,
} from "farpage/verbs";
import type { Comparison, Contender } from "./ratio.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const RAM_BYTES = GIB;
/** Of 4 KiB and of 2 MiB pages that are registered at a time. */
const RANGE_BYTES = 64 * MIB;
/** Registered again and again for so long. */
const RUN_MS = 200;
/** Pages whose first touch is measured in one run. */
const TOUCHED_PAGES = 4096;
/** A turn of the host, as far as its machines can tell. */
const TURN_NS = 1_000_000;
const PROT_ALL = PROT.READ | PROT.WRITE;
const NIC: DmaDevice = { name: "rxe0" };

/** A process and the device that it registers with. */
interface Host {
  readonly space: AddressSpace;
  readonly pinner: Pinner;
  readonly regions: ProcessRegions;
  readonly queue: FaultQueue;
  readonly pd: ProtectionDomain;
  readonly devices: DeviceMemory;
}

function makeHost(hugePages: boolean): Host {
  const source = new HeapMemorySource(0x20_0000_0000);
  const memory = new PhysicalMemory();
  const sections = [source.allocate(RAM_BYTES)];
  memory.addZone({ kind: ZONE.NORMAL, name: "ram", bytes: RAM_BYTES, sections });
  const manager = new MemoryManager(memory);
  const pinner = new Pinner(manager);
  const paths = { pathBetween: () => ({ isAllowed: true, why: "one switch" }) };
  const devices = new DeviceMemory(manager, paths, pinner);
  const space = manager.createSpace({ name: "server", hugePages });
  const queue = new FaultQueue();
  const regionPinner = pinner.regionPinner(space, { device: NIC });
  const demand = new ProcessDemand(space, devices, NIC);
  const regions = new ProcessRegions(memory, demand, regionPinner, queue);
  const device = new Device({
    addresses: [IpAddress.parse("192.0.2.1")],
    linkMtus: [9000],
    random: new SeededRandom(1),
    qpCountMax: 8,
    regionCountMax: 8,
  });
  const pd = new Context(device).allocPd();
  return { space, pinner, regions, queue, pd, devices };
}

/** A range of a process's memory, in pages of one size. */
interface Range {
  readonly host: Host;
  readonly address: number;
  readonly length: number;
}

/** All in memory, and no two neighbours next to each other. */
function smallPages(): Range {
  const host = makeHost(false);
  const { space } = host;
  const [address, between] = [0, 1].map(() => space.map({ length: RANGE_BYTES, prot: PROT_ALL }));
  assert.ok(address !== undefined && between !== undefined, "both are mapped");
  const byte = Uint8Array.of(1);
  for (let offset = 0; offset < RANGE_BYTES; offset += FRAME_BYTES) {
    space.write(address + offset, byte);
    space.write(between + offset, byte);
  }
  return settled({ host, address, length: RANGE_BYTES }, FRAME_BYTES);
}

function hugePages(): Range {
  const host = makeHost(true);
  const address = touched(host.space, RANGE_BYTES, 2 * MIB);
  return settled({ host, address, length: RANGE_BYTES }, 2 * MIB);
}

/** A BAR of 1 GiB with a record for all of it. */
function giantPage(): Range {
  const host = makeHost(true);
  const memory = new HeapMemorySource(0x40_0000_0000).allocate(GIB);
  const gpu: DmaDevice = { name: "gpu" };
  const bar = host.devices.addP2p({ device: gpu, name: "bar", memory, granuleShift: 30 });
  const device = bar.allocate(GIB);
  const place = { address: 0x100 * GIB, fixed: "no-replace" } as const;
  const mapping = { length: GIB, prot: PROT_ALL, shared: true, device: { device, offset: 0 } };
  const address = host.space.map({ ...mapping, ...place });
  return settled({ host, address, length: GIB }, GIB);
}

/** Memory that is mapped at a multiple of `alignment`, and that its process has written. */
function touched(space: AddressSpace, length: number, alignment: number): number {
  const place = { address: 0x100 * GIB, fixed: "no-replace" } as const;
  assert.ok(place.address % alignment === 0, "huge pages are mapped where they can be");
  const address = space.map({ length, prot: PROT_ALL, ...place });
  const byte = Uint8Array.of(1);
  for (let offset = 0; offset < length; offset += FRAME_BYTES) space.write(address + offset, byte);
  return address;
}

/** Registered once, so that pages that had to move have; and its pages are what they should be. */
function settled(range: Range, pageBytes: number): Range {
  const { host, address, length } = range;
  const pages = host.regions.registerPages(address, length, true, false);
  // What is in one piece has one page as large as that, or the next power of two.
  const isSo = pages.pageBytes === pageBytes || (pageBytes > FRAME_BYTES && pages.pageCount === 1);
  assert.ok(isSo, `pages of ${pageBytes} bytes, not of ${pages.pageBytes}`);
  pages.release();
  return range;
}

/** @returns microseconds per MiB of registering and deregistering. */
function cost({ host, address, length }: Range, how: "pinned" | "on demand" | "prefetched") {
  const range = { space: host.regions, address, length };
  const begin = performance.now();
  let count = 0;
  let elapsedMs = 0;
  for (; elapsedMs < RUN_MS; elapsedMs = performance.now() - begin) {
    const mr = host.pd.registerMr(range, {
      access: ACCESS.LOCAL_WRITE,
      onDemand: how !== "pinned",
    });
    if (how === "prefetched") mr.advise(ADVICE.PREFETCH_WRITE, address, length, true);
    mr.deregister();
    count++;
  }
  return (elapsedMs * 1000) / count / (length / MIB);
}

function costs(name: string, make: () => Range): Comparison {
  let range: Range | undefined;
  const by = (how: Parameters<typeof cost>[1], title: string = how): Contender => ({
    name: title,
    measure: async () => {
      range ??= make();
      return cost(range, how);
    },
  });
  const peers = [by("prefetched", "on demand, prefetched"), by("on demand", "on demand, empty")];
  return { figure: `register ${name}`, unit: "us/MiB", better: "less", ours: by("pinned"), peers };
}

/** The first registration of what a process has just written. @returns microseconds per MiB. */
function firstCost(isHuge: boolean): number {
  const host = makeHost(isHuge);
  const address = touched(host.space, RANGE_BYTES, 2 * MIB);
  const begin = performance.now();
  const range = { space: host.regions, address, length: RANGE_BYTES };
  host.pd.registerMr(range, { access: ACCESS.LOCAL_WRITE });
  return ((performance.now() - begin) * 1000) / (RANGE_BYTES / MIB);
}

/** How a device comes to one page of a process. */
type Touch = (host: Host, address: number, pages: RegisteredPages, page: number) => void;

/** By the packet path's steps: absent, asked for, served in a turn, there. */
function faultOne({ queue }: Host, _address: number, pages: RegisteredPages, page: number): void {
  if (pages.locate(page, true)) return;
  pages.fault(page, 1, true);
  while (!pages.locate(page, true)) queue.pump(queue.nowNs + TURN_NS);
}

function pinOne({ pinner, space }: Host, address: number): void {
  pinner.pinForShortDma(space, address, FRAME_BYTES, CPU_ACCESS.WRITE).release(true);
}

function pinOneForLong({ pinner, space }: Host, address: number): void {
  pinner.pinForLongTermDma(space, address, FRAME_BYTES, CPU_ACCESS.WRITE).release(true);
}

/** @returns microseconds per page. */
function touchCost(isResident: boolean, touch: Touch): number {
  const host = makeHost(false);
  const length = TOUCHED_PAGES * FRAME_BYTES;
  const { space, regions } = host;
  const address = isResident
    ? touched(space, length, FRAME_BYTES)
    : space.map({ length, prot: PROT_ALL });
  const pages = regions.registerPages(address, length, true, true);
  const begin = performance.now();
  for (let page = 0; page < TOUCHED_PAGES; page++) {
    touch(host, address + page * FRAME_BYTES, pages, page);
  }
  const elapsedMs = performance.now() - begin;
  pages.release();
  return (elapsedMs * 1000) / TOUCHED_PAGES;
}

function touches(name: string, isResident: boolean): Comparison {
  const by = (title: string, touch: Touch): Contender => ({
    name: title,
    measure: async () => touchCost(isResident, touch),
  });
  return {
    figure: `first touch of a 4 KiB page, ${name}`,
    unit: "us",
    better: "less",
    ours: by("fault", faultOne),
    peers: [by("short pin", pinOne), by("long-term pin", pinOneForLong)],
  };
}

function firstRegistration(): Comparison {
  const by = (name: string, isHuge: boolean): Contender => ({
    name,
    measure: async () => firstCost(isHuge),
  });
  return {
    figure: "register for the first time, 2 MiB pages",
    unit: "us/MiB",
    better: "less",
    ours: by("2 MiB pages", true),
    peers: [by("4 KiB pages", false)],
  };
}

export function memoryComparisons(): Comparison[] {
  return [
    costs("64 MiB in 4 KiB pages", smallPages),
    costs("64 MiB in 2 MiB pages", hugePages),
    costs("1 GiB in one page", giantPage),
    firstRegistration(),
    touches("in memory", true),
    touches("nowhere yet", false),
  ];
}
