// SPDX-License-Identifier: MIT
// The PCI room's verdicts as the judge of a host's device memory, on the trees of real machines: a
// NIC that reaches a page in another device's memory gets it there; for one that doesn't the page
// comes to system memory, counted, with the reason.

import { describe, expect, it } from "vitest";
import { HeapMemorySource } from "../../src/base/index.js";
import {
  ACCESS,
  DeviceMemory,
  type DmaDevice,
  FaultQueue,
  MemoryManager,
  PhysicalMemory,
  Pinner,
  PROT,
  ProcessDemand,
  ProcessRegions,
  ZONE,
} from "../../src/mm/index.js";
import { p2pVerdicts, TopologyPaths } from "../../src/pci/index.js";
import { machineOf } from "../support/topologies.js";

const PAGE = 4096;
/** Two functions of one card, and a card behind a port of the switch whose ACS redirects. */
const MACHINE = "arm-n1sdp-pex8749";
const OWNER: DmaDevice = { name: "0000:01:00.1" };
const NEAR: DmaDevice = { name: "0000:01:00.2" };
const FAR: DmaDevice = { name: "0000:06:00.0" };
const STRANGER: DmaDevice = { name: "usb0" };

/** Reading a dump takes longer than all that is done with it here. */
const topology = machineOf(MACHINE);

function host() {
  const placeOf = ({ name }: DmaDevice) => (name.startsWith("0000:") ? name : null);
  const paths = new TopologyPaths(topology, placeOf, { kernel: "6.1" });
  const source = new HeapMemorySource();
  const memory = new PhysicalMemory();
  const sections = [source.allocate(2 ** 21)];
  memory.addZone({ kind: ZONE.NORMAL, name: "ram", bytes: 2 ** 21, sections });
  const manager = new MemoryManager(memory);
  const pinner = new Pinner(manager);
  const devices = new DeviceMemory(manager, paths, pinner);
  const windowBytes = 16 * PAGE;
  const options = { device: OWNER, memory: source.allocate(windowBytes), windowBytes };
  const own = devices.addPrivate(options);
  const space = manager.createSpace({ hugePages: false });
  const address = space.map({ length: 4 * PAGE, prot: PROT.READ | PROT.WRITE });
  space.write(address, Uint8Array.of(7));
  expect(own.migrateIn(space, address, 4 * PAGE).moved).toBe(4);
  const queue = new FaultQueue();
  const regionOf = (client: DmaDevice) => {
    const demand = new ProcessDemand(space, devices, client);
    const regionPinner = pinner.regionPinner(space, { device: client });
    const regions = new ProcessRegions(memory, demand, regionPinner, queue);
    return regions.registerPages(address, 4 * PAGE, true, true);
  };
  const isInDevice = () => own.pagesIn - own.pagesOut;
  return { paths, devices, manager, pinner, own, space, address, queue, regionOf, isInDevice };
}

describe("device memory judged by a machine's PCI tree", () => {
  it("allowed: the page is found where it is, by its BAR; nothing moves", () => {
    const h = host();
    const pages = h.regionOf(NEAR);
    pages.fault(0, 1, true);
    h.queue.pump(0);
    expect(pages.locate(0, true)).toBe(true);
    expect(pages.bytes[pages.offset]).toBe(7);
    expect(h.devices.counters).toMatchObject({ peerFaults: 1, pathMigrations: 0 });
    expect([h.isInDevice(), h.devices.refusals]).toEqual([4, []]);
  });

  it("refused: the page comes to system memory, that one alone, counted with the reason", () => {
    const h = host();
    const pages = h.regionOf(FAR);
    pages.fault(0, 1, true);
    h.queue.pump(0);
    expect(pages.locate(0, true)).toBe(true);
    expect(pages.bytes[pages.offset]).toBe(7);
    expect(h.devices.counters).toMatchObject({ peerFaults: 0, pathMigrations: 1 });
    expect(h.isInDevice()).toBe(3);
    const [refusal] = h.devices.refusals;
    expect(refusal).toMatchObject({ client: FAR.name, provider: OWNER.name, count: 1 });
    expect(refusal?.why).toMatch(
      /^ACS of 0000:02:12\.0 sends it up, and Linux 6\.1 lets nothing pass the host bridge/,
    );
  });

  it("pinned: memory of a BAR by who reaches it alone", () => {
    const h = host();
    const bar = h.devices.addP2p({
      device: OWNER,
      memory: new HeapMemorySource(0x9000_0000_0000).allocate(4 * PAGE),
    });
    const device = { device: bar.allocate(PAGE), offset: 0 };
    const prot = PROT.READ | PROT.WRITE;
    const address = h.space.map({ length: PAGE, prot, shared: true, device });
    const pin = (client: DmaDevice) =>
      h.pinner.pinForShortDma(h.space, address, PAGE, ACCESS.WRITE, { device: client });
    pin(NEAR).release(true);
    expect(() => pin(FAR)).toThrow(/host bridge/);
    expect(() => pin(STRANGER)).toThrow(/nobody knows where in the machine it is/);
  });

  it("it says what p2pVerdicts says of every pair of the machine", () => {
    const { paths } = host();
    const judge = p2pVerdicts(topology, { kernel: "6.1" });
    const names = [...topology.functions.keys()].slice(0, 12);
    let allowed = 0;
    for (const client of names) {
      for (const provider of names) {
        const { isAllowed } = paths.pathBetween({ name: client }, { name: provider });
        expect(isAllowed).toBe(judge(client, provider).isAllowed === true);
        if (isAllowed) allowed++;
      }
    }
    expect(allowed).toBeGreaterThan(names.length);
    expect(allowed).toBeLessThan(names.length ** 2);
  });

  it("what the dump doesn't tell is refused, and says what is missing", () => {
    const unprivileged = machineOf("xeon-2s-nvme-dax-unprivileged-sysfs");
    const paths = new TopologyPaths(unprivileged, ({ name }: DmaDevice) => name);
    const judge = p2pVerdicts(unprivileged);
    const names = [...unprivileged.functions.keys()];
    const isOpen = (client: string) => (provider: string) =>
      judge(client, provider).isAllowed === "unknown";
    const client = names.find((name) => names.some(isOpen(name))) ?? "";
    const provider = names.find(isOpen(client)) ?? "";
    const verdict = paths.pathBetween({ name: client }, { name: provider });
    expect(verdict.isAllowed).toBe(false);
    expect(verdict.why).toMatch(/^whether it may isn't known: ./);
  });
});
