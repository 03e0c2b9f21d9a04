// SPDX-License-Identifier: MIT
// One way to register, whatever is mapped: anonymous memory, a file, a BAR's (P2P) and a device's
// own (private), pinned and on demand; local and remote access, faults, invalidation and
// deregistration, by two devices and their packets.

import { describe, expect, it } from "vitest";
import { HeapMemorySource, type Memory } from "../../src/base/index.js";
import {
  type AddressSpace,
  DeviceMemory,
  type DmaDevice,
  FaultQueue,
  type MappedFile,
  MemoryManager,
  PhysicalMemory,
  Pinner,
  PROT,
  ProcessDemand,
  ProcessRegions,
  ZONE,
} from "../../src/mm/index.js";
import { ACCESS, ADVICE, type MemoryRegion, WC_STATUS, WR_OPCODE } from "../../src/verbs/index.js";
import { TwoDevices } from "../support/two-devices.js";

const PAGE = 4096;
const PAGES = 6;
const BYTES = PAGES * PAGE;
const ALL = 15;
const NIC: DmaDevice = { name: "rxe0" };
const GPU: DmaDevice = { name: "gpu" };

/** Host B: memory, a GPU with a BAR and memory of its own, a process; and host A, who uses it. */
function hosts(isAllowed = true) {
  const source = new HeapMemorySource(0x20_0000_0000);
  const memory = new PhysicalMemory();
  const sections = [source.allocate(2 ** 22)];
  memory.addZone({ kind: ZONE.NORMAL, name: "ram", bytes: 2 ** 22, sections });
  const manager = new MemoryManager(memory);
  const pinner = new Pinner(manager);
  const paths = { pathBetween: () => ({ isAllowed, why: isAllowed ? "one switch" : "ACS" }) };
  const devices = new DeviceMemory(manager, paths, pinner);
  const windowBytes = 4 * PAGE;
  const gpu = devices.addPrivate({ device: GPU, memory: source.allocate(2 ** 16), windowBytes });
  const bar = devices.addP2p({ device: GPU, name: "cmb", memory: source.allocate(2 ** 16) });
  const space = manager.createSpace({ name: "server", hugePages: false });
  const queue = new FaultQueue();
  const lease = { name: "lease", covers: () => true, pinned: () => {}, unpinned: () => {} };
  const regionPinner = pinner.regionPinner(space, { lease, device: NIC });
  const demand = new ProcessDemand(space, devices, NIC);
  const regions = new ProcessRegions(memory, demand, regionPinner, queue);
  const two = new TwoDevices((nowNs) => queue.pump(nowNs));
  const near = new HeapMemorySource(0x7_0000_0000).allocate(BYTES);
  const nearMr = two.pdA.registerMr(near, { access: ALL });
  for (let i = 0; i < BYTES; i++) near.bytes[i] = (i * 11) >> 3;
  const check = () => {
    const references = pinner.checkInvariants();
    for (const [pfn, count] of devices.heldFrames()) {
      references.set(pfn, (references.get(pfn) ?? 0) + count);
    }
    manager.checkInvariants(references);
  };
  return { manager, pinner, devices, gpu, bar, space, queue, regions, two, near, nearMr, check };
}
type Hosts = ReturnType<typeof hosts>;

/** What a process can have mapped, each made and its address told. */
const KINDS: Record<string, (h: Hosts) => number> = {
  anonymous: ({ space }) => space.map({ length: BYTES, prot: PROT.READ | PROT.WRITE }),
  file: (h) => mapFile(h.space, h.manager.openFile({ name: "data", size: BYTES })),
  P2P: ({ space, bar }) => {
    const device = bar.allocate(BYTES);
    const prot = PROT.READ | PROT.WRITE;
    return space.map({ length: BYTES, prot, shared: true, device: { device, offset: 0 } });
  },
  private: ({ space, gpu }) => {
    const address = space.map({ length: BYTES, prot: PROT.READ | PROT.WRITE });
    space.write(address, new Uint8Array(BYTES).fill(1));
    expect(gpu.migrateIn(space, address, BYTES).moved).toBe(PAGES);
    return address;
  },
};

function mapFile(space: AddressSpace, file: MappedFile): number {
  const prot = PROT.READ | PROT.WRITE;
  const mapped = { file, offset: 0, writable: true };
  return space.map({ length: BYTES, prot, shared: true, file: mapped });
}

/** WRITE, READ back, an atomic, by A; and what the process itself sees. */
function exchange(h: Hosts, mr: MemoryRegion, address: number): void {
  const { two, near, nearMr, space } = h;
  const there = (offset: number) => ({ address: address + offset, rkey: mr.rkey });
  const here = (offset: number, length: number) => ({
    address: near.address + offset,
    length,
    lkey: nearMr.lkey,
  });
  two.succeed(WR_OPCODE.RDMA_WRITE, here(0, 10_000), there(3000));
  two.succeed(WR_OPCODE.RDMA_READ, here(10_000, 10_000), there(3000));
  expectSame(near, 0, near.bytes.subarray(10_000, 20_000));
  two.succeed(WR_OPCODE.ATOMIC_FETCH_AND_ADD, here(20_000, 8), there(8), 3);
  const seen = new Uint8Array(10_000);
  space.read(address + 3000, seen);
  expectSame(near, 0, seen);
  const [before, after] = [near.view.getUint8(20_000), new Uint8Array(1)];
  space.read(address + 8, after);
  expect(after[0]).toBe((before + 3) & 0xff);
}

function expectSame(near: Memory, offset: number, bytes: Uint8Array): void {
  expect(Buffer.compare(near.bytes.subarray(offset, offset + bytes.length), bytes)).toBe(0);
}

describe.each(Object.keys(KINDS))("%s memory", (kind) => {
  const mapped = KINDS[kind] as (h: Hosts) => number;

  it.each([false, true])("registered, on demand: %s", (onDemand) => {
    const h = hosts();
    const address = mapped(h);
    const range = { space: h.regions, address, length: BYTES };
    const mr = h.two.pdB.registerMr(range, { access: ALL, onDemand });
    exchange(h, mr, address);
    mr.deregister();
    h.check();
    expect(h.pinner.list()).toHaveLength(0);
    expect(h.space.notifiers.count).toBe(0);
    h.space.exit();
    h.check();
  });

  it("on demand: unmapped and mapped again under the region", () => {
    const h = hosts();
    const address = mapped(h);
    const range = { space: h.regions, address, length: BYTES };
    const mr = h.two.pdB.registerMr(range, { access: ALL, onDemand: true });
    exchange(h, mr, address);
    h.space.unmap(address, BYTES);
    h.check();
    const prot = PROT.READ | PROT.WRITE;
    h.space.map({ length: BYTES, prot, address, fixed: "no-replace" });
    exchange(h, mr, address);
    h.space.unmap(address, BYTES);
    const here = { address: h.near.address, length: 8, lkey: h.nearMr.lkey };
    const status = h.two.run(WR_OPCODE.RDMA_WRITE, here, { address, rkey: mr.rkey });
    expect(status).toBe(WC_STATUS.REM_ACCESS_ERR);
    mr.deregister();
    h.check();
  });
});

describe("one address space, all on demand", () => {
  it("every kind by one region, prefetched or not; gone with the process", () => {
    const h = hosts();
    const mr = h.two.pdB.registerMr({ space: h.regions }, { access: ALL, onDemand: true });
    for (const mapped of Object.values(KINDS)) {
      const address = mapped(h);
      mr.advise(ADVICE.PREFETCH_WRITE, address, BYTES);
      exchange(h, mr, address);
    }
    const last = KINDS["anonymous"]?.(h) as number;
    exchange(h, mr, last);
    h.space.exit();
    const here = { address: h.near.address, length: 8, lkey: h.nearMr.lkey };
    const status = h.two.run(WR_OPCODE.RDMA_READ, here, { address: last, rkey: mr.rkey });
    expect(status).toBe(WC_STATUS.REM_ACCESS_ERR);
    mr.deregister();
    h.check();
  });
});

describe("what stands between", () => {
  it("fork: the child's write and the peer's go to pages of their own", () => {
    const h = hosts();
    const address = KINDS["anonymous"]?.(h) as number;
    const range = { space: h.regions, address, length: BYTES };
    const pinned = h.two.pdB.registerMr(range, { access: ALL });
    const demand = h.two.pdB.registerMr(range, { access: ALL, onDemand: true });
    exchange(h, demand, address);
    const child = h.space.fork();
    const before = new Uint8Array(BYTES);
    child.read(address, before);
    h.near.bytes.fill(0x33, 0, 10_000);
    exchange(h, pinned, address);
    h.near.bytes.fill(0x44, 0, 10_000);
    exchange(h, demand, address);
    const after = new Uint8Array(BYTES);
    child.read(address, after);
    expect(Buffer.compare(before, after)).toBe(0);
    h.check();
  });

  it("a path that is forbidden: private pages come to system memory, a BAR's are refused", () => {
    const h = hosts(false);
    const own = KINDS["private"]?.(h) as number;
    const range = { space: h.regions, address: own, length: BYTES };
    const mr = h.two.pdB.registerMr(range, { access: ALL, onDemand: true });
    exchange(h, mr, own);
    expect(h.devices.counters.pathMigrations).toBeGreaterThan(0);
    const bar = KINDS["P2P"]?.(h) as number;
    const refused = () => h.two.pdB.registerMr({ space: h.regions, address: bar, length: BYTES });
    expect(refused).toThrow();
    const demand = { space: h.regions, address: bar, length: BYTES };
    const far = h.two.pdB.registerMr(demand, { access: ACCESS.LOCAL_WRITE | 6, onDemand: true });
    const here = { address: h.near.address, length: 8, lkey: h.nearMr.lkey };
    const status = h.two.run(WR_OPCODE.RDMA_WRITE, here, { address: bar, rkey: far.rkey });
    expect(status).toBe(WC_STATUS.REM_ACCESS_ERR);
    h.check();
  });
});
