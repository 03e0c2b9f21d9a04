// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { PciIds } from "../ids.js";
import { Inventory } from "./inventory.js";
import { makeTopology } from "./machine.fixture.js";
import { select, selectDefault, selectOne, selectPairs } from "./select.js";

const IDS = new PciIds("10de  NVIDIA Corporation\n\t2330  GH100 [H100 SXM5 80GB]\n");

/** Two GPUs, a NIC of two functions with a VF, a drive, a display of a service processor. */
const inventory = new Inventory(
  makeTopology([
    { address: "0000:00:01.0", secondary: 1, name: "Intel Corporation Root Port" },
    { address: "0000:01:00.0", parent: "0000:00:01.0", class: 0x0302, id: [0x10de, 0x2330] },
    {
      address: "0000:02:00.0",
      class: 0x0200,
      id: [0x15b3, 0x1021],
      name: "Mellanox Technologies MT2910 Family [ConnectX-7]",
      kernel: ["mlx5_0", "eth1"],
      driver: "mlx5_core",
    },
    { address: "0000:02:00.1", class: 0x0200, id: [0x15b3, 0x1021], kernel: ["mlx5_1"] },
    { address: "0000:02:01.0", class: 0x0200, physicalFunction: "0000:02:00.0" },
    { address: "0000:03:00.0", class: 0x0108, kernel: ["nvme0"], name: "Micron 7450" },
    { address: "0000:04:00.0", class: 0x0300, name: "ASPEED Technology, Inc. ASPEED Graphics" },
    { address: "0001:01:00.0", class: 0x0302, id: [0x10de, 0x2330] },
  ]),
  IDS,
);

describe("a device's name", () => {
  it.each([
    ["0000:02:00.1", ["0000:02:00.1"]],
    ["02:00.1", ["0000:02:00.1"]],
    ["02:00", ["0000:02:00.0", "0000:02:00.1"]],
    // A bus number that two domains have.
    ["01:00.0", ["0000:01:00.0", "0001:01:00.0"]],
    ["0001:01:00.0", ["0001:01:00.0"]],
    ["GPU1", ["0001:01:00.0"]],
    ["nic1", ["0000:02:00.1"]],
    ["mlx5_0", ["0000:02:00.0"]],
    ["eth1", ["0000:02:00.0"]],
    ["nvme0", ["0000:03:00.0"]],
    ["nvme0n1p2", ["0000:03:00.0"]],
    ["gpu", ["0000:01:00.0", "0001:01:00.0"]],
    ["10de", ["0000:01:00.0", "0001:01:00.0"]],
    ["15b3:1021", ["0000:02:00.0", "0000:02:00.1"]],
    ["mlx5_core", ["0000:02:00.0"]],
    ["nvidia h100", ["0000:01:00.0", "0001:01:00.0"]],
    ["ConnectX-7", ["0000:02:00.0"]],
    ["aspeed", ["0000:04:00.0"]],
    ["mt29 connect", ["0000:02:00.0"]],
    ["root port", ["0000:00:01.0"]],
  ])("%s means %j", (text, addresses) => {
    expect(select(inventory, text)).toEqual(addresses);
  });

  it("that means nothing is ENODEV, with where to look", () => {
    expect(() => select(inventory, "nvme7")).toThrow(/"nvme7" is no device here/);
    expect(() => select(inventory, "0000:77:00.0")).toThrow(/no device here$/);
    expect(() => select(inventory, "")).toThrow(/no device/);
    // Parts within words: "Mellanox", "ConnectX-7", "[H100".
    for (const text of ["nox", "tx-7", "100", "gpu99"]) {
      expect(() => select(inventory, text)).toThrow(/no device/);
    }
    const bare = new Inventory(makeTopology([{ address: "0000:03:00.0", class: 0x0108 }]), IDS);
    expect(() => select(bare, "nvme0")).toThrow(/no names of the kernel's/);
  });

  it("that means several is EINVAL where one is wanted, and they are told", () => {
    expect(() => selectOne(inventory, "gpu")).toThrow(/several: GPU0 \(0000:01:00\.0\), GPU1/);
    expect(selectOne(inventory, "GPU0")).toBe("0000:01:00.0");
  });

  it("left out means GPUs, NICs and drives, without VFs and service displays", () => {
    expect(selectDefault(inventory)).toEqual([
      "0000:01:00.0",
      "0000:02:00.0",
      "0000:02:00.1",
      "0000:03:00.0",
      "0001:01:00.0",
    ]);
  });
});

describe("a pair", () => {
  it.each([
    ["nvme0:mlx5_0", "0000:03:00.0", "0000:02:00.0"],
    ["0000:03:00.0:0000:02:00.0", "0000:03:00.0", "0000:02:00.0"],
    ["03:00.0:GPU1", "0000:03:00.0", "0001:01:00.0"],
    ["GPU1:02:00.1", "0001:01:00.0", "0000:02:00.1"],
    ["GPU0..nvme0", "0000:01:00.0", "0000:03:00.0"],
    ["02:00.1:02:00.0", "0000:02:00.1", "0000:02:00.0"],
  ])("%s is read as it was meant", (text, client, provider) => {
    expect(selectPairs(inventory, text)).toEqual([{ client, provider }]);
  });

  it("of kinds is every pair of two different devices", () => {
    expect(selectPairs(inventory, "gpu:nvme")).toHaveLength(2);
    expect(selectPairs(inventory, "gpu:gpu")).toEqual([
      { client: "0000:01:00.0", provider: "0001:01:00.0" },
      { client: "0001:01:00.0", provider: "0000:01:00.0" },
    ]);
  });

  it("that no colon parts in two devices is EINVAL", () => {
    expect(() => selectPairs(inventory, "nvme0")).toThrow(/no colon parts it/);
    expect(() => selectPairs(inventory, "nvme0:nvme9")).toThrow(/no colon parts it/);
  });
});
