// SPDX-License-Identifier: MIT
// Every verdict that is known of a machine in test/data/topologies: those that a booted Linux 6.1
// gave, and those of its decision function on the dumps of real machines.

import { describe, expect, it } from "vitest";
import {
  type P2pPath,
  p2pPath,
  p2pVerdicts,
  readTopology,
  type Topology,
  UNKNOWN,
} from "../../src/pci/index.js";
import {
  MACHINES,
  machineOf,
  sourceOf,
  type VerdictRow,
  verdictsOf,
} from "../support/topologies.js";

/** Tables whose first line says that ACS words missing in the dump were taken to be off. */
const ASSUMED_OFF = new Set([
  "amd-rome-mi100-switchtec",
  "asus-esc8000a-e12",
  "haswell-ep-2s-connectx",
  "laptop-2x-rtx3090-thunderbolt",
  "power9-arc-b580",
  "icelake-2s-instinct",
]);

/** `facts.tsv` of that machine as a tree: its dump shows another GPU's branch only. */
const ICELAKE = `-+-[0000:16]-+-00.0  Intel Corporation Device 09a2
 |           \\-02.0-[17-19]----00.0-[18-19]----00.0-[19]----00.0  AMD GPU A
 \\-[0000:64]-+-00.0  Intel Corporation Device 09a2
             \\-02.0-[65-67]----00.0-[66-67]----00.0-[67]----00.0  AMD GPU B
`;

function read(machine: string): Topology {
  if (machine !== "icelake-2s-instinct") return machineOf(machine);
  return readTopology([{ name: "facts as a tree", bytes: new TextEncoder().encode(ICELAKE) }]);
}

/** What a row says that the path says otherwise. */
function differences(row: VerdictRow, path: P2pPath): string[] {
  const found: string[] = [];
  if (path.mapType !== row.mapType) found.push(`${path.mapType} instead of ${row.mapType}`);
  if (path.distance !== row.distance) found.push(`distance ${path.distance}, not ${row.distance}`);
  if (row.redirectPorts !== null && path.redirectPorts.join() !== row.redirectPorts.join()) {
    found.push(`ports ${path.redirectPorts.join()}, not ${row.redirectPorts.join()}`);
  }
  const log = path.kernelLog.join("\n");
  if (row.message !== null && /^[0-9a-f]{4}:[0-9a-f]{4}$/.test(row.message)) {
    if (!log.includes(`not in P2PDMA whitelist: ${row.message}`)) found.push(`no ${row.message}`);
  }
  if (row.message?.includes("no-common-bridge") === true) {
    if (!log.includes("do not share an upstream bridge")) found.push("no line in the log");
  }
  if (row.message === "" && log.includes("whitelist:")) found.push(`log: ${log}`);
  return found.map((what) => `${row.provider} for ${row.client}: ${what}`);
}

describe("verdicts of Linux 6.1", () => {
  let rows = 0;
  it.each(MACHINES)("%s: every row of its tables", (machine) => {
    const tables = ["kernel-verdicts.tsv", "expected-verdicts.tsv"];
    const all = tables.flatMap((table) => verdictsOf(machine, table));
    const topology = read(machine);
    const assume = ASSUMED_OFF.has(machine) ? { assume: { acsControl: 0 } } : {};
    const found = all.flatMap((row) =>
      differences(
        row,
        p2pPath(topology, row.client, row.provider, { kernel: row.kernel, ...assume }),
      ),
    );
    expect(found).toEqual([]);
    rows += all.length;
    const hasTable = machine !== "qemu-q35-intel-viommu-stock" && !machine.startsWith("xeon-2s");
    expect(all.length > 0).toBe(hasTable);
  });

  it("all in all: the rows are counted", () => {
    const counted = MACHINES.flatMap((machine) =>
      verdictsOf(machine, "kernel-verdicts.tsv"),
    ).length;
    console.log(`rows reproduced: ${rows}, of them by booted kernels: ${counted}`);
    expect(rows).toBeGreaterThan(3_000);
  });

  it.each([...ASSUMED_OFF])("%s: without the assumption nothing is invented", (machine) => {
    const topology = read(machine);
    const verdicts = verdictsOf(machine, "expected-verdicts.tsv");
    let unknown = 0;
    for (const row of verdicts) {
      const path = p2pPath(topology, row.client, row.provider, { kernel: row.kernel });
      expect(path.assumptions.join()).not.toContain("ACS");
      if (path.mapType === UNKNOWN) {
        unknown++;
        expect(path.possible).toContain(row.mapType);
        expect(path.missing.some((fact) => fact.isDeciding)).toBe(true);
      } else {
        expect(path.mapType).toBe(row.mapType);
      }
    }
    // Pairs below one bridge can't be known without the words; the others are.
    if (machine.startsWith("amd-rome")) expect(unknown).toBeGreaterThan(0);
  });
});

describe("an unprivileged sysfs", () => {
  it("64 bytes of configuration: what ACS decides is unknown, the rest isn't", () => {
    const topology = machineOf("xeon-2s-nvme-dax-unprivileged-sysfs");
    expect(topology.report.notices.map(({ code }) => code)).toEqual(["NO_PRIVILEGE"]);
    for (const one of topology.functions.values()) {
      expect([UNKNOWN, null]).toContain(one.acs);
    }
    const first = topology.rootBuses.get("0000:80")?.representative;
    expect(topology.functions.get(String(first))?.deviceId).toBe(0x3c04);
  });
});

describe("later rules on the same machines", () => {
  /** Pairs of a table whose verdict differs between two releases. */
  function changed(machine: string, from: string, to: string): number {
    const topology = read(machine);
    const rows = verdictsOf(machine, "expected-verdicts.tsv");
    return rows.filter(({ client, provider }) => {
      const before = p2pPath(topology, client, provider, { kernel: from });
      return before.mapType !== p2pPath(topology, client, provider, { kernel: to }).mapType;
    }).length;
  }

  it("Ice Lake: refused by 5.14, through the host bridge from 5.18 on", () => {
    const topology = read("icelake-2s-instinct");
    const ask = (kernel: string) =>
      p2pPath(topology, "0000:67:00.0", "0000:19:00.0", { kernel, assume: { acsControl: 0 } });
    const refused = ask("5.14.21");
    expect(refused.mapType).toBe("NOT_SUPPORTED");
    expect(refused.kernelLog[0]).toContain(
      "0000:67:00.0: cannot be used for peer-to-peer DMA as the client and provider " +
        "(0000:19:00.0) do not share an upstream bridge or whitelisted host bridge",
    );
    const newer = refused.remedies.find(({ kind }) => kind === "newer-kernel");
    expect(newer).toMatchObject({ predicted: "THRU_HOST_BRIDGE" });
    expect(newer?.action).toContain("5.18");
    expect(ask("6.1").mapType).toBe("THRU_HOST_BRIDGE");
  });

  it("6.1 to 7.2 changes nothing here, 5.4 to 6.1 does", () => {
    for (const machine of MACHINES)
      expect([machine, changed(machine, "6.1", "7.2")]).toEqual([machine, 0]);
    expect(changed("dell-xe9680-h100", "5.4", "6.1")).toBeGreaterThan(500);
    expect(changed("amd-r1000-pericom-switch", "4.20", "5.9")).toBeGreaterThan(50);
  });
});

describe("nvidia-smi topo -m", () => {
  it("asus-esc8000a-e12: says the same word for each pair of GPUs and RDMA functions", () => {
    const table = new TextDecoder().decode(
      sourceOf("asus-esc8000a-e12", "nvidia-smi-topo.txt").bytes,
    );
    // As `nvidia-smi` numbers them: GPUs, and functions of ConnectX-7, in order of addresses.
    const functions = new Map<string, string>([
      ...["01", "41", "c1", "e1"].map((bus, at) => [`GPU${at}`, `0000:${bus}:00.0`] as const),
      ...["21:00.0", "21:00.1", "81:00.0", "81:00.1"].map(
        (slot, at) => [`NIC${at}`, `0000:${slot}`] as const,
      ),
    ]);
    const judge = p2pVerdicts(machineOf("asus-esc8000a-e12"));
    // The row of titles begins with a blank.
    const rows = table.split("\n").filter((line) => /^(?:GPU|NIC)\d /.test(line));
    let pairs = 0;
    for (const [name, ...words] of rows.map((line) => line.split(/ +/))) {
      for (const [at, other] of [...functions.keys()].entries()) {
        const [client, provider] = [functions.get(String(name)), functions.get(other)];
        const { proximity } = judge(String(client), String(provider));
        expect([name, other, proximity]).toEqual([name, other, words[at]]);
        pairs++;
      }
    }
    expect(pairs).toBe(64);
  });
});
