// SPDX-License-Identifier: MIT
// What a sysfs that is here in parts tells, and what it doesn't.

import { describe, expect, it } from "vitest";
import { encodeUtf8 } from "../base/index.js";
import { p2pPath } from "./path.js";
import { readTopology } from "./read.js";
import type { FolderEntry } from "./source.js";
import type { PciFunction, Topology } from "./topology.js";

const PORT = "devices/pci0000:00/0000:00:01.0";
const CARD = `${PORT}/0000:01:00.0`;

function file(text: string): FolderEntry {
  return { kind: "file", bytes: encodeUtf8(text) };
}

function link(target: string): FolderEntry {
  return { kind: "link", target };
}

function read(entries: Readonly<Record<string, FolderEntry>>, isWhole = false): Topology {
  return readTopology([{ name: "sysfs", entries: new Map(Object.entries(entries)), isWhole }]);
}

function card(topology: Topology): PciFunction {
  return topology.functions.get("0000:01:00.0") as PciFunction;
}

const VENDORS = { [`${PORT}/vendor`]: file("0x8086\n"), [`${CARD}/vendor`]: file("0x15b3\n") };

describe("what isn't packed isn't known to be absent", () => {
  it("files alone: VF, IOMMU group and peer memory are unknown", () => {
    const topology = read(VENDORS);
    expect(card(topology)).toMatchObject({
      physicalFunction: "unknown",
      iommuGroup: "unknown",
      p2pMemory: "unknown",
      parent: "0000:00:01.0",
    });
    expect(topology.iommu.isEnabled).toBe("unknown");
  });

  it("links too, as `subsystem` shows: there is no physfn, and groups are others'", () => {
    const topology = read({
      ...VENDORS,
      [`${CARD}/subsystem`]: link("../../../../bus/pci"),
      [`${PORT}/iommu_group`]: link("../../../kernel/iommu_groups/3"),
    });
    expect(card(topology)).toMatchObject({ physicalFunction: null, iommuGroup: null });
    // The port's links may not be here.
    const port = topology.functions.get("0000:00:01.0");
    expect(port).toMatchObject({ physicalFunction: "unknown", iommuGroup: 3 });
    expect(topology.iommu.isEnabled).toBe(true);
  });

  it("a function that only a path names has no known lack of anything", () => {
    const topology = read({
      [`${CARD}/vendor`]: file("0x15b3\n"),
      [`${CARD}/iommu_group`]: link("../../../../kernel/iommu_groups/7"),
    });
    expect(topology.functions.get("0000:00:01.0")?.iommuGroup).toBe("unknown");
  });

  it("peer memory of one: the others have none", () => {
    const topology = read({ ...VENDORS, [`${PORT}/p2pmem/size`]: file("4096\n") });
    expect(card(topology).p2pMemory).toBeNull();
  });

  it("a live sysfs is whole: all of this is absent, and no IOMMU driver runs", () => {
    const topology = read(VENDORS, true);
    expect(card(topology)).toMatchObject({
      physicalFunction: null,
      iommuGroup: null,
      p2pMemory: null,
    });
    expect(topology.iommu).toEqual({ isEnabled: false, isTranslating: false });
  });
});

describe("without root", () => {
  it("the link's files tell of the link, though its capability isn't readable", () => {
    const topology = read({
      ...VENDORS,
      [`${PORT}/config`]: { kind: "file", bytes: config(1) },
      [`${CARD}/config`]: { kind: "file", bytes: config(0) },
      [`${CARD}/current_link_speed`]: file("16.0 GT/s PCIe\n"),
      [`${CARD}/current_link_width`]: file("8\n"),
      [`${CARD}/max_link_speed`]: file("32.0 GT/s PCIe\n"),
      [`${CARD}/max_link_width`]: file("8\n"),
    });
    expect(card(topology).pcie).toEqual({
      portType: "unknown",
      slot: "unknown",
      link: { gigatransfers: 16, lanes: 8 },
      linkMax: { gigatransfers: 32, lanes: 8 },
    });
    const path = p2pPath(topology, "0000:01:00.0", "0000:00:01.0");
    expect(path.narrowestLink).toMatchObject({ address: "0000:01:00.0", isDegraded: true });
    expect(path.mapType).toBe("unknown");
  });
});

/** 64 bytes of configuration space, with capabilities that follow them. */
function config(header: number): Uint8Array {
  const bytes = new Uint8Array(64);
  bytes.set([0x86, 0x80, 0x01, 0x00, 0, 0, 0x10, 0]);
  bytes[0x0e] = header;
  bytes[0x34] = 0x40;
  if (header === 1) bytes.set([0, 1, 1], 0x18);
  else bytes.set([0xb3, 0x15]);
  return bytes;
}
