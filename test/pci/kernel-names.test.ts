// SPDX-License-Identifier: MIT
import { expect, it } from "vitest";
import { type FolderEntry, readTopology } from "../../src/pci/index.js";

/** The names that the kernel gave to a function with these folders below it. */
function namesOf(...folders: readonly string[]): readonly string[] {
  const entries = new Map<string, FolderEntry>([
    ["devices/pci0000:00/0000:00:03.0/vendor", { kind: "file", bytes: encode("0x1af4\n") }],
  ]);
  for (const folder of folders) {
    entries.set(`devices/pci0000:00/0000:00:03.0/${folder}`, { kind: "folder" });
  }
  const topology = readTopology([{ name: "sysfs", entries }]);
  return topology.functions.get("0000:00:03.0")?.names.kernel ?? [];
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

it.each([
  ["right below the function", ["nvme/nvme0", "nvme/nvme0/nvme0n1"], ["nvme0"]],
  ["of several classes", ["net/eth1", "infiniband/mlx5_0"], ["eth1", "mlx5_0"]],
  ["below a virtio device", ["virtio0/net/eth0"], ["eth0"]],
  ["of a SCSI disk", ["ata1/host0/target0:0:0/0:0:0:0/block/sda"], ["sda"]],
  ["of a partition, its disk's", ["virtio1/block/vda/vda1"], ["vda"]],
])("sysfs: kernel names %s", (_, folders, names) => {
  expect([...namesOf(...folders)].sort()).toEqual(names);
});

it("sysfs: folders that name nothing, and names that are none, give no kernel name", () => {
  expect(
    namesOf("power/runtime_status", "net/", "net/..", "virtio0/net/-x", "msi_irqs/24"),
  ).toEqual([]);
});
