// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { encodeUtf8 } from "../base/index.js";
import { p2pPath, p2pVerdicts } from "./path.js";
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
    // Skylake's DMI port is listed since 5.6, its others since 5.7, of use there from 5.19 on.
    ["00.0 8086:2020", "00.0 8086:2020", "5.5", "NOT_SUPPORTED"],
    ["00.0 8086:2020", "00.0 8086:2030", "5.6", "THRU_HOST_BRIDGE"],
    ["00.0 8086:2020", "00.0 8086:2032", "5.6", "NOT_SUPPORTED"],
    ["00.0 8086:2020", "00.0 8086:2032", "5.7", "THRU_HOST_BRIDGE"],
    ["00.0 8086:2020", "02.0 8086:2032", "5.18", "NOT_SUPPORTED"],
    ["00.0 8086:2020", "02.0 8086:2032", "5.19", "THRU_HOST_BRIDGE"],
    // Listed for its own bus only.
    ["00.0 8086:2f00", "00.0 8086:2f00", "7.2", "NOT_SUPPORTED"],
    ["00.0 8086:09a2", "00.0 8086:09a2", "5.17.15-default", "NOT_SUPPORTED"],
    ["00.0 8086:09a2", "00.0 8086:09a2", "5.18", "THRU_HOST_BRIDGE"],
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
    // Before that some root complexes were listed by id.
    const raven = ["00.0 1022:1450", "00.0 1022:15d0"] as const;
    expect(ask(...raven, "5.7", "AuthenticAMD").mapType).toBe("NOT_SUPPORTED");
    expect(ask(...raven, "5.8", "AuthenticAMD").mapType).toBe("THRU_HOST_BRIDGE");
    expect(ask(...raven, "5.9", "AuthenticAMD").hostBridge.listRule).toBe(false);
    const hygon = ask(...hosts, "6.1", "HygonGenuine");
    expect(hygon.mapType).toBe("NOT_SUPPORTED");
    expect(hygon.notes.join()).toContain("HygonGenuine");
    // Zhaoxin's processors say "  Shanghai  ".
    expect(ask(...hosts, "6.1", " Shanghai  ").hostBridge.cpuRule).toBe(false);
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
    ["00.0 8086:09a2", "00.0 8086:09a2", "5.4", "GenuineIntel", "5.18 or later lists this host"],
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

const INTEL = "vendor_id\t: GenuineIntel\n\n";
const ON = "SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-";

/**
 * A root port, a switch and two cards below it, words as `lspci -vvv` prints them.
 * @param acs ACSCtl lines by address; of functions without one there is no ACS.
 */
function switched(acs: Readonly<Record<string, string>>, host = "8086:09a2", cpu = INTEL): string {
  const block = (address: string, id: string, port: string, bus: string | null): string => {
    const control = acs[address];
    const lines = [`${address} ${bus === null ? "0200" : "0604"}: ${id}`, "\tStatus: Cap+"];
    if (bus !== null) lines.push(`\tBus: ${bus}, sec-latency=0`);
    lines.push(`\tCapabilities: [40] Express (v2) ${port}, MSI 00`);
    if (control !== undefined) {
      lines.push("\tCapabilities: [100 v1] Access Control Services", `\t\tACSCtl:\t${control}`);
    }
    return `${lines.join("\n")}\n\n`;
  };
  const bridge = (primary: string, secondary: string, subordinate: string) =>
    `primary=${primary}, secondary=${secondary}, subordinate=${subordinate}`;
  return [
    cpu,
    `00:00.0 0600: ${host}\n\tStatus: Cap-\n\n`,
    block("00:01.0", "8086:347a", "Root Port (Slot-)", bridge("00", "01", "04")),
    block("01:00.0", "10b5:8749", "Upstream Port", bridge("01", "02", "04")),
    block("02:00.0", "10b5:8749", "Downstream Port (Slot+)", bridge("02", "03", "03")),
    block("02:01.0", "10b5:8749", "Downstream Port (Slot+)", bridge("02", "04", "04")),
    block("03:00.0", "15b3:1017", "Endpoint", null),
    block("04:00.0", "15b3:1017", "Endpoint", null),
  ].join("");
}

/** The card at 03 reads and writes the memory of the one at 04. */
function askSwitched(dump: string, kernel: string): P2pPath {
  const topology = readTopology([{ name: "dump", bytes: encodeUtf8(dump) }]);
  return p2pPath(topology, "0000:03:00.0", "0000:04:00.0", { kernel });
}

describe("Linux before 5.4", () => {
  const zen = "1022:1450";
  const cpu = "vendor_id\t: AuthenticAMD\ncpu family\t: 23\n\n";
  const listed = (kernel: string, commandLine: string) => {
    const text = `Command line: ${commandLine}\n\n${switched({ "02:00.0": ON }, zen, cpu)}`;
    return askSwitched(text, kernel);
  };

  it("what ACS redirects passes no host bridge, also a listed one", () => {
    const refused = listed("5.2", "iommu=off");
    expect(refused).toMatchObject({ mapType: "NOT_SUPPORTED", hostBridge: { listRule: true } });
    expect(refused.kernelLog[0]).toContain(
      "cannot be used for peer-to-peer DMA as ACS redirect is set between the client and provider",
    );
    expect(refused.kernelLog).toHaveLength(2);
    const newer = refused.remedies.find(({ kind }) => kind === "newer-kernel");
    expect(newer?.action).toBe("Linux 5.4 or later lets what ACS redirects pass the host bridge");
    expect(listed("5.4", "iommu=off").mapType).toBe("THRU_HOST_BRIDGE");
    expect(listed("5.2", "iommu=off").remedies[0]).toMatchObject({
      kind: "disable-acs-redir",
      predicted: "BUS_ADDR",
    });
  });

  it("nothing passes while an IOMMU driver runs; where that is unknown, so is the answer", () => {
    const pair = (commandLine: string, kernel: string) => {
      const text = machine(`00.0 ${zen}`, `00.0 ${zen}`, "AuthenticAMD");
      const bytes = encodeUtf8(`${commandLine}${text}`);
      const topology = readTopology([{ name: "dump", bytes }]);
      return p2pPath(topology, "0000:01:00.0", "0000:81:00.0", { kernel });
    };
    expect(pair("Command line: amd_iommu=off\n\n", "5.3").mapType).toBe("THRU_HOST_BRIDGE");
    const open = pair("", "5.3");
    expect(open.possible).toEqual(["THRU_HOST_BRIDGE", "NOT_SUPPORTED"]);
    expect(open.missing.filter(({ isDeciding }) => isDeciding).map(({ fact }) => fact)).toEqual([
      "iommu",
    ]);
    expect(pair("", "5.4").mapType).toBe("THRU_HOST_BRIDGE");
    const old = pair("Command line: amd_iommu=off\n\n", "5.1");
    expect(old.kernelLog.join()).toMatch(/do not share an upstream bridge$/);
  });
});

describe("the kernel's log by release", () => {
  const dump = switched({ "02:01.0": ON }, "8086:29c0");
  const log = (kernel: string) => askSwitched(dump, kernel).kernelLog;

  it("names the host bridge from 5.14 on", () => {
    expect(log("5.13").join()).not.toContain("Host bridge not in");
    expect(log("5.14").join()).toContain("Host bridge not in P2PDMA whitelist: 8086:29c0");
    expect(log("5.13").at(-1)).toMatch(/upstream bridge or whitelisted host bridge$/);
  });

  it("with a port of which nobody knows: no list of ports, for it might lack one", () => {
    const denied = "subordinate=03, sec-latency=0\n\tCapabilities: <access denied>\n";
    const [head, port, ...rest] = dump.split(/(?<=\n)(?=02:0)/);
    const doubtful = [head, port?.replace(/subordinate=03[\s\S]*/, `${denied}\n`), ...rest].join(
      "",
    );
    const lines = askSwitched(doubtful, "6.1").kernelLog.join("\n");
    expect(lines).toContain("ACS redirect is set between the client and provider");
    expect(lines).not.toContain("disable_acs_redir");
  });
});

describe("next: ACS is judged where the ways part", () => {
  const CASES: readonly (readonly [string, string, string, string])[] = [
    // The client hangs on 02:00.0, the provider on 02:01.0.
    ["requests, at the client's port", "02:00.0", "ReqRedir", "THRU_HOST_BRIDGE"],
    ["completions, at the client's port", "02:00.0", "CmpltRedir", "BUS_ADDR"],
    ["requests, at the provider's port", "02:01.0", "ReqRedir", "BUS_ADDR"],
    ["completions, at the provider's port", "02:01.0", "CmpltRedir", "THRU_HOST_BRIDGE"],
    ["both, above where they part", "01:00.0", "ReqRedir CmpltRedir", "BUS_ADDR"],
    ["both, at the client itself", "03:00.0", "ReqRedir CmpltRedir", "BUS_ADDR"],
  ];

  it.each(CASES)("redirects %s (%s %s): %s", (_name, address, bits, mapType) => {
    const off = ON.replaceAll("+", "-");
    const control = bits.split(" ").reduce((word, bit) => word.replace(`${bit}-`, `${bit}+`), off);
    const dump = switched({ [address]: control });
    expect(askSwitched(dump, "next").mapType).toBe(mapType);
    // Releases so far take each of these for a redirection, and are told where it is idle.
    const released = askSwitched(dump, "7.2");
    expect(released.mapType).toBe("THRU_HOST_BRIDGE");
    expect(released.notes.join().includes("§6.12")).toBe(mapType === "BUS_ADDR");
    // The common port is the switch's: a link is above it.
    expect(released.notes.join()).toContain("twice, up and down");
  });

  it("egress control at the client's port: its vector decides, which isn't read", () => {
    const control = ON.replaceAll("+", "-").replace("EgressCtrl-", "EgressCtrl+");
    const path = askSwitched(switched({ "02:00.0": control }), "next");
    expect(path.possible).toEqual(["BUS_ADDR", "THRU_HOST_BRIDGE", "NOT_SUPPORTED"]);
    const deciding = path.missing.filter(({ isDeciding }) => isDeciding);
    expect(deciding.map(({ message }) => message).join()).toContain("egress control");
    expect(askSwitched(switched({ "02:01.0": control }), "next").mapType).toBe("BUS_ADDR");
  });

  it("a port of which nothing is known may have egress control on, whose vector may block", () => {
    const dump = switched({ "02:00.0": ON }).replace(
      / *\tCapabilities: \[100 v1\] Access Control Services\n\t\tACSCtl.*\n/,
      "\tCapabilities: <access denied>\n",
    );
    const all = ["BUS_ADDR", "THRU_HOST_BRIDGE", "NOT_SUPPORTED"];
    expect(askSwitched(dump, "next").possible).toEqual(all);
    expect(askSwitched(dump, "7.2").possible).toEqual(all.slice(0, 2));
  });

  it("functions of one card: the port above both doesn't count", () => {
    const card = (number: number) =>
      `01:00.${number} 0200: 15b3:1017\n\tStatus: Cap+\n` +
      "\tCapabilities: [40] Express (v2) Endpoint, MSI 00\n\n";
    const port =
      "00:01.0 0604: 8086:347a\n\tStatus: Cap+\n" +
      "\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0\n" +
      "\tCapabilities: [40] Express (v2) Root Port (Slot-), MSI 00\n" +
      `\tCapabilities: [100 v1] Access Control Services\n\t\tACSCtl:\t${ON}\n\n`;
    const host = `${INTEL}00:00.0 0600: 8086:29c0\n\tStatus: Cap-\n\n`;
    const dump = host + port + card(0) + card(1);
    const topology = readTopology([{ name: "dump", bytes: encodeUtf8(dump) }]);
    const ask = (kernel: string) => p2pPath(topology, "0000:01:00.0", "0000:01:00.1", { kernel });
    expect([ask("7.2").mapType, ask("next").mapType]).toEqual(["NOT_SUPPORTED", "BUS_ADDR"]);
    expect(ask("7.2").notes.join()).toContain("§6.12");
    // Nor is a link above a root port, that bytes could cross twice.
    expect(ask("7.2").notes.join()).not.toContain("twice");
  });
});

describe("the narrowest link", () => {
  const link = (dump: string, uplink = "5GT/s, Width x1") => {
    const rates = new Map([
      ["01:00.0", uplink],
      ["03:00.0", "16GT/s, Width x4"],
      ["04:00.0", "16GT/s, Width x8"],
    ]);
    let text = dump;
    for (const [address, rate] of rates) {
      const at = text.indexOf("Capabilities: [40]", text.indexOf(`\n${address} `));
      const end = text.indexOf("\n", at) + 1;
      text = `${text.slice(0, end)}\t\tLnkSta:\tSpeed ${rate}, TrErr-\n${text.slice(end)}`;
    }
    return askSwitched(text, "6.1").narrowestLink;
  };

  it("is below the turn where switches route it, above it too where ACS sends it up", () => {
    expect(link(switched({}))).toMatchObject({ address: "0000:03:00.0" });
    expect(link(switched({ "02:00.0": ON }))).toMatchObject({ address: "0000:01:00.0" });
  });

  it("is unknown where the way is, unless it is the same by either", () => {
    const hidden = switched({ "02:00.0": ON }).replace(/\t\tACSCtl.*\n/, "");
    expect(link(hidden)).toBe("unknown");
    expect(link(hidden, "16GT/s, Width x16")).toMatchObject({ address: "0000:03:00.0" });
  });
});

describe("many pairs at once", () => {
  it("p2pVerdicts says what p2pPath says", () => {
    const dump = switched({ "02:00.0": ON }) + machine("00.0 8086:09a2", "00.0 8086:29c0", "X");
    const topology = readTopology([{ name: "dump", bytes: encodeUtf8(dump) }]);
    const all = [...topology.functions.keys()];
    for (const kernel of KERNEL_RELEASES) {
      const judge = p2pVerdicts(topology, { kernel });
      for (const client of all) {
        for (const provider of all) {
          const verdict = judge(client, provider);
          expect(p2pPath(topology, client, provider, { kernel })).toMatchObject(verdict);
        }
      }
    }
  });
});

describe("the NUMA node of what has none of its own", () => {
  const pair = (first: string, second: string): string => {
    const text = machine("00.0 8086:09a2", "00.0 8086:09a2", "GenuineIntel")
      .replace("\n00:1f.0 0604: 8086:347a\n\tFlags: fast devsel", `$&${first}`)
      .replace("\n80:1f.0 0604: 8086:347a\n\tFlags: fast devsel", `$&${second}`);
    const topology = readTopology([{ name: "dump", bytes: encodeUtf8(text) }]);
    return p2pPath(topology, "0000:01:00.0", "0000:81:00.0").proximity;
  };

  it("is that of the others below its root bus; without one there nobody knows", () => {
    expect(pair(", NUMA node 0", ", NUMA node 0")).toBe("NODE");
    expect(pair(", NUMA node 0", ", NUMA node 1")).toBe("SYS");
    expect(pair(", NUMA node 0", "")).toBe("unknown");
  });

  it("told to be none (-1) it is one with another such, and unknown beside a number", () => {
    const entries = (nodes: readonly string[]) =>
      new Map(
        nodes.map((node, at) => {
          const path = `devices/pci0000:${at}0/0000:${at}0:00.0/numa_node`;
          return [path, { kind: "file", bytes: encodeUtf8(`${node}\n`) }] as const;
        }),
      );
    const proximity = (...nodes: readonly string[]) => {
      const topology = readTopology([{ name: "sysfs", entries: entries(nodes) }]);
      return p2pPath(topology, "0000:00:00.0", "0000:10:00.0").proximity;
    };
    expect(proximity("-1", "-1")).toBe("NODE");
    expect(proximity("-1", "0")).toBe("unknown");
    expect(proximity("1", "0")).toBe("SYS");
  });
});
