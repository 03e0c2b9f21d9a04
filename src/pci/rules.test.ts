// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { encodeUtf8 } from "../base/index.js";
import { p2pPath } from "./path.js";
import { readTopology } from "./read.js";
import { KERNEL_RELEASES, NEWEST_KERNEL } from "./rules.js";
import type { P2pPath } from "./verdict.js";

/** Two root buses, a card below a root port on each; first functions by id and place. */
function machine(first: string, second: string, cpu: string): string {
  const bus = (number: number, host: string): string => {
    const hex = number.toString(16).padStart(2, "0");
    const below = (number + 1).toString(16).padStart(2, "0");
    const [place, id] = host.split(" ") as [string, string];
    const type = place === "00.0" ? "Root Complex Integrated Endpoint" : "Root Port (Slot-)";
    return [
      `${hex}:${place} ${place === "00.0" ? "0600" : "0604"}: ${id}`,
      "\tFlags: fast devsel",
      ...(place === "00.0"
        ? []
        : [`\tBus: primary=${hex}, secondary=f1, subordinate=f1, sec-latency=0`]),
      `\tCapabilities: [40] Express ${type}, MSI 00`,
      "",
      `${hex}:1f.0 0604: 8086:347a`,
      "\tFlags: fast devsel",
      `\tBus: primary=${hex}, secondary=${below}, subordinate=${below}, sec-latency=0`,
      "\tCapabilities: [40] Express Root Port (Slot-), MSI 00",
      "",
      `${below}:00.0 0200: 15b3:1017`,
      "\tFlags: fast devsel",
      "\tCapabilities: [40] Express Endpoint, MSI 00",
      "",
      "",
    ].join("\n");
  };
  return `vendor_id\t: ${cpu}\ncpu family\t: 25\n\n${bus(0, first)}${bus(0x80, second)}`;
}

function ask(first: string, second: string, kernel?: string, cpu = "GenuineIntel"): P2pPath {
  const text = machine(first, second, cpu);
  const topology = readTopology([{ name: "dump", bytes: encodeUtf8(text) }]);
  const options = kernel === undefined ? {} : { kernel };
  return p2pPath(topology, "0000:01:00.0", "0000:81:00.0", options);
}

describe("rules by release", () => {
  it.each([
    // Skylake's port at device 0 since the first list, at any device from 5.19 on.
    ["00.0 8086:2020", "00.0 8086:2020", "5.4", "THRU_HOST_BRIDGE"],
    ["00.0 8086:2020", "02.0 8086:2032", "5.15", "NOT_SUPPORTED"],
    ["00.0 8086:2020", "02.0 8086:2032", "5.19", "THRU_HOST_BRIDGE"],
    // Listed for its own bus only.
    ["00.0 8086:2f00", "00.0 8086:2f00", "7.2", "NOT_SUPPORTED"],
    ["00.0 8086:09a2", "00.0 8086:09a2", "5.14.21-default", "NOT_SUPPORTED"],
    ["00.0 8086:09a2", "00.0 8086:09a2", "6.1.0-18-amd64", "THRU_HOST_BRIDGE"],
    // Any device of a vendor.
    ["00.0 1ae0:0042", "00.0 1ae0:0043", "6.1", "NOT_SUPPORTED"],
    ["00.0 1ae0:0042", "00.0 1ae0:0043", "7.1", "THRU_HOST_BRIDGE"],
    ["00.0 8086:0b25", "00.0 8086:09a2", "7.1", "NOT_SUPPORTED"],
    ["00.0 8086:0b25", "00.0 8086:09a2", "7.2", "THRU_HOST_BRIDGE"],
    ["00.0 10de:2f95", "00.0 10de:2f95", "7.2", "NOT_SUPPORTED"],
    ["00.0 10de:2f95", "00.0 10de:2f95", "next", "THRU_HOST_BRIDGE"],
    ["00.0 8086:09a2", "00.0 8086:09a2", "4.20", "NOT_SUPPORTED"],
  ])("%s and %s under Linux %s: %s", (first, second, kernel, mapType) => {
    expect(ask(first, second, kernel).mapType).toBe(mapType);
  });

  it("the CPU rule: AMD from family 17h on since 5.9; Hygon isn't AuthenticAMD", () => {
    const hosts = ["00.0 1022:14a4", "00.0 1022:14a4"] as const;
    expect(ask(...hosts, "5.9", "AuthenticAMD").mapType).toBe("THRU_HOST_BRIDGE");
    expect(ask(...hosts, "5.8", "AuthenticAMD").mapType).toBe("NOT_SUPPORTED");
    const hygon = ask(...hosts, "6.1", "HygonGenuine");
    expect(hygon.mapType).toBe("NOT_SUPPORTED");
    expect(hygon.notes.join()).toContain("HygonGenuine");
  });

  it("the newest is the default; newer ones get its rules and say so", () => {
    expect(ask("00.0 8086:29c0", "00.0 8086:29c0").kernel).toBe(NEWEST_KERNEL);
    const later = ask("00.0 8086:09a2", "00.0 8086:09a2", "9.9");
    expect(later.mapType).toBe("THRU_HOST_BRIDGE");
    expect(later.assumptions.join()).toContain(NEWEST_KERNEL);
    expect(KERNEL_RELEASES).toContain(NEWEST_KERNEL);
  });

  it.each(["", "4.19", "six", "6", "-1.2"])("%j is no release", (kernel) => {
    expect(() => ask("00.0 8086:29c0", "00.0 8086:29c0", kernel)).toThrow(/no kernel release/);
  });

  it("a refused pair is told which later kernel lists its bridges, and what is no use", () => {
    const path = ask("00.0 8086:0b25", "00.0 8086:09a2", "6.1");
    const newer = path.remedies.find(({ kind }) => kind === "newer-kernel");
    expect(newer?.action).toContain("7.2");
    expect(path.futile[0]?.what).toContain("disable_acs_redir");
    expect(path.hostBridge.roots.map((root) => root.isListed)).toEqual([true, false]);
  });

  it.each([
    ["00.0 1022:14a4", "00.0 1022:14a4", "5.4", "AuthenticAMD", "5.9 or later has a rule for this"],
    ["00.0 8086:2020", "02.0 8086:2032", "5.15", "GenuineIntel", "5.19 or later lets a root port"],
    ["00.0 8086:09a2", "00.0 8086:09a2", "5.4", "GenuineIntel", "5.15 or later lists this host"],
    ["00.0 10de:2f95", "00.0 10de:2f95", "7.2", "GenuineIntel", `newer than ${NEWEST_KERNEL}`],
  ])("%s and %s under Linux %s, %s: what a later one has is %s", (first, second, ...rest) => {
    const [kernel, cpu, text] = rest;
    const { remedies } = ask(first, second, kernel, cpu);
    expect(remedies.find(({ kind }) => kind === "newer-kernel")?.action).toContain(text);
  });

  it("what sits on a root bus itself can't be moved below a switch", () => {
    const text = machine("00.0 8086:6f00", "00.0 8086:6f00", "GenuineIntel");
    const topology = readTopology([{ name: "dump", bytes: encodeUtf8(text) }]);
    const fixed = p2pPath(topology, "0000:00:00.0", "0000:81:00.0");
    expect(fixed.mapType).toBe("NOT_SUPPORTED");
    expect(fixed.remedies).toEqual([]);
    expect(fixed.futile.find(({ what }) => what === "moving a card")?.why).toContain("00:00.0");
    const cards = p2pPath(topology, "0000:01:00.0", "0000:81:00.0");
    expect(cards.remedies.map(({ kind }) => kind)).toEqual(["same-switch"]);
    expect(cards.futile.map(({ what }) => what)).not.toContain("moving a card");
    // Neither is NVIDIA's: its tool has nothing to say of them.
    expect(cards.futile.map(({ what }) => what).join()).not.toContain("nvidia-smi");
  });

  it("the throughput between sockets is told of Skylake, not of later ones", () => {
    const notes = (id: string) => ask(`00.0 8086:${id}`, `00.0 8086:${id}`).notes.join();
    expect(notes("2020")).toContain("between sockets");
    expect(notes("09a2")).toContain("over a host bridge");
    expect(notes("09a2")).not.toContain("between sockets");
  });

  it.each([
    ["13b5:0100", "is not an AMD Zen or later (0000:00:00.0 belongs to an Arm processor)"],
    ["8086:6f00", "is not an AMD Zen or later (0000:00:00.0 belongs to an Intel processor)"],
    ["1022:1450", "is an AMD Zen or later (0000:00:00.0 belongs to an AMD processor of family 17h"],
  ])("the CPU that %s tells of: %s", (id, text) => {
    const dump = `00:00.0 0600: ${id}\n\tFlags: fast devsel\n\n`;
    const topology = readTopology([{ name: "dump", bytes: encodeUtf8(dump) }]);
    const path = p2pPath(topology, "0000:00:00.0", "0000:00:00.0");
    expect(path.hostBridge.cpuReason).toContain(text);
  });

  it("several ports in one kernel parameter: GRUB's quotes are told of, of one port not", () => {
    const port = (slot: string, bus: string, acs: string) =>
      `00:${slot} 0604: 8086:347a\n\tBus: primary=00, secondary=${bus}, subordinate=${bus}, ` +
      `sec-latency=0\n\tCapabilities: [40] Express (v2) Root Port (Slot-), MSI 00\n` +
      `\tCapabilities: [100 v1] Access Control Services\n\t\tACSCtl:\t${acs}\n\n`;
    const on = "SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-";
    const end = (slot: string, acs: string) =>
      `01:00.${slot} 0200: 15b3:1017\n\tCapabilities: [40] Express (v2) Endpoint, MSI 00\n` +
      `\tCapabilities: [100 v1] Access Control Services\n\t\tACSCtl:\t${acs}\n\n`;
    const cost = (acs: string) => {
      const text = port("01.0", "01", on) + end("0", acs) + end("1", acs);
      const topology = readTopology([{ name: "dump", bytes: encodeUtf8(text) }]);
      const { remedies } = p2pPath(topology, "0000:01:00.0", "0000:01:00.1");
      return remedies.find(({ kind }) => kind === "disable-acs-redir")?.cost;
    };
    expect(cost(on)).toContain("single quotes");
    expect(cost(on.replaceAll("+", "-"))).not.toContain("single quotes");
  });

  it("two buses listed for themselves only: moving below one of them would do", () => {
    const path = ask("00.0 8086:2f00", "00.0 8086:2f00", "6.1");
    expect(path.remedies.find(({ kind }) => kind === "same-socket")?.predicted).toBe(
      "THRU_HOST_BRIDGE",
    );
  });

  it("an address that isn't there", () => {
    const topology = readTopology([
      { name: "d", bytes: encodeUtf8(machine("00.0 8086:29c0", "00.0 8086:29c0", "X")) },
    ]);
    expect(() => p2pPath(topology, "0000:01:00.0", "0000:99:00.0")).toThrow(/no function 0000:99/);
  });
});
