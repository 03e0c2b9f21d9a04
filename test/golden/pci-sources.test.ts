// SPDX-License-Identifier: MIT
// One machine read from its several dumps is one machine: words, hex, tree and sysfs agree wherever
// they overlap.

import { describe, expect, it } from "vitest";
import { type FileSource, readTopology, type Topology } from "../../src/pci/index.js";
import { dumpsOf, gunzip, MACHINES, machineOf, sourceOf } from "../support/topologies.js";
import { contradictions, factsOf } from "../support/topology-facts.js";

const HEX = /^[0-9a-f]{2,3}:(?: [0-9a-f]{2})+$/;

function text(source: FileSource): string {
  return new TextDecoder().decode(source.bytes);
}

function read(name: string, lines: string): Topology {
  return readTopology([{ name, bytes: new TextEncoder().encode(lines) }]);
}

/** Only the words of a dump with both, or only its bytes. */
function wordsOnly(source: FileSource): Topology {
  const lines = text(source).split("\n");
  return read("words", lines.filter((line) => !HEX.test(line)).join("\n"));
}

function hexOnly(source: FileSource): Topology {
  const lines = text(source).split("\n");
  // The header as `lspci -x` prints it, without the indented lines.
  return read("hex", lines.filter((line) => !line.startsWith("\t")).join("\n"));
}

const VIRTUAL = MACHINES.filter((machine) => machine.startsWith("qemu-"));

describe("one machine, several dumps", () => {
  it.each(VIRTUAL)("%s: words, bytes and sysfs say the same", (machine) => {
    const dump = sourceOf(machine, "lspci-vvvxxxx.txt");
    const readings = {
      words: factsOf(wordsOnly(dump)),
      hex: factsOf(hexOnly(dump)),
      sysfs: factsOf(readTopology([sourceOf(machine, "sysfs.tar.gz")], { gunzip })),
      tree: factsOf(readTopology([sourceOf(machine, "lspci-t.txt")])),
      names: factsOf(readTopology([sourceOf(machine, "lspci-tv.txt")])),
    };
    const all = Object.entries(readings);
    for (const [name, facts] of all) {
      for (const [other, more] of all) {
        expect([name, other, contradictions(facts, more)]).toEqual([name, other, []]);
      }
    }
    // They overlap in much: an equality of nothing would be no evidence.
    const shared = [...readings.words.keys()].filter((key) => readings.hex.has(key)).length;
    expect(shared).toBeGreaterThan(600);
    const acs = [...readings.words.keys()].filter((key) => key.endsWith("acs control"));
    expect(acs.length).toBeGreaterThan(3);
    for (const key of acs) expect(readings.sysfs.get(key)).toBe(readings.words.get(key));
  });

  it.each(MACHINES)("%s: all its dumps together contradict each other nowhere", (machine) => {
    const topology = machineOf(machine);
    const conflicts = topology.report.notices.filter(({ code }) => code === "CONFLICT");
    expect(conflicts).toEqual([]);
  });

  it("arm-n1sdp-pex8749: 256 bytes agree with the words", () => {
    const dump = sourceOf("arm-n1sdp-pex8749", "lspci-vvvxxx.txt");
    const words = factsOf(wordsOnly(dump));
    const hex = factsOf(hexOnly(dump));
    expect(contradictions(words, hex)).toEqual([]);
    // Extended capabilities aren't in 256 bytes.
    expect([...hex.keys()].filter((key) => key.endsWith("acs control"))).toEqual([]);
    expect([...words.keys()].filter((key) => key.endsWith("acs control")).length).toBe(6);
  });

  it("power9-arc-b580: a bus address is not taken from the CPU's", () => {
    const topology = machineOf("power9-arc-b580");
    const [bar] = topology.functions.get("0030:03:00.0")?.bars === "unknown" ? [] : [0];
    expect(bar).toBeUndefined();
    for (const one of topology.functions.values()) {
      if (one.bridge === "unknown" || one.bridge === null) continue;
      for (const window of one.bridge.windows) {
        if (window.bus === null) continue;
        expect(window.bus).toBe("unknown");
      }
    }
  });

  it("every dump of a folder is taken for what it is", () => {
    for (const machine of MACHINES) {
      const { report } = machineOf(machine);
      const kinds = new Set(report.sources.flatMap((source) => source.kinds));
      for (const name of dumpsOf(machine)) {
        const source = report.sources.find((one) => one.name === name);
        const isEmpty = sourceOf(machine, name).bytes.length <= 1;
        expect([machine, name, (source?.kinds.length ?? 0) > 0]).toEqual([machine, name, !isEmpty]);
      }
      expect(kinds.size).toBeGreaterThan(0);
    }
  });
});
