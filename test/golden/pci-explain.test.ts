// SPDX-License-Identifier: MIT
// What is known of each real machine (the README of test/data/topologies) is what `explain` says.

import { describe, expect, it } from "vitest";
import {
  explainText,
  Inventory,
  makeTree,
  type P2pOptions,
  PciIds,
  p2pPath,
  treeText,
} from "../../src/pci/index.js";
import { machineOf } from "../support/topologies.js";

const IDS = new PciIds("");

function explain(machine: string, client: string, provider: string, options: P2pOptions = {}) {
  const topology = machineOf(machine);
  const path = p2pPath(topology, client, provider, options);
  return explainText(new Inventory(topology, IDS), path).join("\n");
}

function redirectingPorts(machine: string): number {
  const tree = makeTree(new Inventory(machineOf(machine), IDS));
  return treeText(tree).filter((line) => line.endsWith("  REDIRECTS")).length;
}

describe("dell-xe9680-h100", () => {
  it("redirects nothing at the GPUs' switches", () => {
    const text = explain("dell-xe9680-h100", "0000:1a:00.0", "0000:19:00.0");
    expect(text).toMatch(/works, straight through a switch/);
    expect(text).toMatch(/0000:17:01\.0 .*ACS is all off/);
    expect(text).toContain("No function of the way redirects");
  });

  it("redirects at four ports of the backplane", () => {
    expect(redirectingPorts("dell-xe9680-h100")).toBe(4);
    const text = explain("dell-xe9680-h100", "0000:83:00.0", "0000:84:00.0");
    expect(text).toContain("ACS redirects at 2 functions of the way (0000:82:01.0, 0000:82:00.0)");
    expect(text).toMatch(/8086:09a2, which the kernel lists as Intel Ice Lake/);
    expect(text).toContain("pci=disable_acs_redir=0000:82:01.0;0000:82:00.0");
  });
});

it("asus-esc8000a-e12: every pair of GPUs works, by the rule for the processor", () => {
  const gpus = ["0000:01:00.0", "0000:41:00.0", "0000:c1:00.0", "0000:e1:00.0"];
  for (const client of gpus) {
    for (const provider of gpus.filter((gpu) => gpu !== client)) {
      const text = explain("asus-esc8000a-e12", client, provider);
      expect(text).toMatch(/works, through the host bridge/);
      expect(text).toContain("by the rule for this processor");
    }
  }
});

it("amd-r1000-pericom-switch: functions of one card go by the root port that redirects", () => {
  const text = explain("amd-r1000-pericom-switch", "0000:01:00.0", "0000:01:00.1");
  expect(text).toMatch(/0000:00:01\.1 .*where the two ways meet: ACS REDIRECTS/);
  expect(text).toContain("by the rule for this processor");
});

it("microtca-e3-pex8748: 16 ports redirect, the host bridge isn't listed, the PCH differs", () => {
  expect(redirectingPorts("microtca-e3-pex8748")).toBe(16);
  const text = explain("microtca-e3-pex8748", "0000:15:00.0", "0000:0c:00.0");
  expect(text).toMatch(/refused/);
  expect(text).toMatch(/8086:5918, which the kernel does not list/);
  expect(text).toMatch(/0000:00:1c\.0 is a PCH port/);
});

it("arm-n1sdp-pex8749: redirected to a host bridge that is not listed", () => {
  const text = explain("arm-n1sdp-pex8749", "0000:06:00.0", "0000:07:00.0");
  expect(text).toMatch(/refused/);
  expect(text).toContain("ACS redirects at 2 functions of the way (0000:02:13.0, 0000:02:12.0)");
  expect(text).toMatch(/13b5:0100, which the kernel does not list/);
});

it("dell-broadwell-ep-p100: 8086:6f00 is not listed", () => {
  const text = explain("dell-broadwell-ep-p100", "0000:04:00.0", "0000:02:00.0");
  expect(text).toMatch(/refused/);
  expect(text).toMatch(/8086:6f00, which the kernel does not list/);
});

describe("haswell-ep-2s-connectx", () => {
  it("socket 0's pairs pass, by an entry for one root bus", () => {
    const text = explain("haswell-ep-2s-connectx", "0000:04:00.0", "0000:05:00.0");
    expect(text).toMatch(/works, through the host bridge/);
    expect(text).toMatch(/8086:2f00, which the kernel lists .*same root bus only/);
  });

  it("pairs with socket 1 are refused: what stands first there is 8086:2f02", () => {
    const text = explain("haswell-ep-2s-connectx", "0000:82:00.0", "0000:04:00.0");
    expect(text).toMatch(/refused/);
    expect(text).toMatch(/8086:2f02, which the kernel does not list/);
  });
});

it("power9-arc-b580: host bridges that are not listed", () => {
  const text = explain("power9-arc-b580", "0030:03:00.0", "0001:01:00.0");
  expect(text).toMatch(/refused/);
  expect(text).toMatch(/root bus 0030:00 .*, which the kernel does not list/);
});

it("laptop-2x-rtx3090-thunderbolt: a bridge in common, ACS not in the dump", () => {
  const pair = ["laptop-2x-rtx3090-thunderbolt", "0000:09:00.0", "0000:2f:00.0"] as const;
  const text = explain(...pair);
  expect(text).toMatch(/unknown \(BUS_ADDR or NOT_SUPPORTED\)/);
  expect(text).toMatch(/distance 8/);
  expect(text).toMatch(/DECIDES: 0000:05:01\.0/);
  expect(explain(...pair, { assume: { acsControl: 0 } })).toMatch(/works, straight through/);
});

it("amd-rome-mi100-switchtec: one switch, ACS known at the root port alone", () => {
  const pair = ["amd-rome-mi100-switchtec", "0000:4a:00.0", "0000:52:00.0"] as const;
  expect(explain(...pair)).toMatch(/works, but by which way is unknown/);
  const text = explain(...pair, { assume: { acsControl: 0 } });
  expect(text).toMatch(/works, straight through a switch/);
  expect(text).toMatch(/distance 8/);
});

it("icelake-2s-instinct: refused before 8086:09a2 was listed, works since", () => {
  const pair = ["icelake-2s-instinct", "0000:16:00.1", "0000:e5:00.0"] as const;
  const before = explain(...pair, { kernel: "5.14" });
  expect(before).toMatch(/refused/);
  expect(before).toMatch(/8086:09a2, which the kernel does not list \(kernel 5\.18 and later do\)/);
  expect(before).toContain("do not share an upstream bridge or whitelisted host bridge");
  expect(explain(...pair, { kernel: "6.1" })).toMatch(/works, through the host bridge/);
});

it("xeon-2s-nvme-dax-unprivileged-sysfs: ACS unknown; socket 1 begins with 8086:3c04", () => {
  const machine = "xeon-2s-nvme-dax-unprivileged-sysfs";
  const text = explain(machine, "0000:82:00.0", "0000:02:00.0");
  expect(text).toMatch(/8086:3c04, which the kernel does not list/);
  expect(text).toMatch(/whether its ACS redirects is unknown/);
  expect(explain(machine, "0000:02:00.0", "0000:02:00.3")).toMatch(/DECIDES: .*ACS/);
});
