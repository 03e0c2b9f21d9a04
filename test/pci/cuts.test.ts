// SPDX-License-Identifier: MIT
// Dumps of real machines with a piece missing: at the end, at the beginning, in the middle, or
// lines of one kind. A verdict of the rest may say less than that of the whole, never otherwise.

import { describe, expect, it } from "vitest";
import { randomBelow, SeededRandom } from "../../src/base/index.js";
import { p2pPath, readTopology, type Topology, UNKNOWN } from "../../src/pci/index.js";
import { sourceOf } from "../support/topologies.js";

const DUMPS = [
  ["amd-r1000-pericom-switch", "lspci-vv.txt"],
  ["arm-n1sdp-pex8749", "lspci-vvvxxx.txt"],
  ["microtca-e3-pex8748", "lspci-vvvnn.txt"],
  ["haswell-ep-2s-connectx", "lspci-vn.txt"],
  ["laptop-2x-rtx3090-thunderbolt", "lspci-v.txt"],
] as const;
const CUTS = 32;
const PAIRS = 30;
const LOSABLE = /ACSCtl|Bus: |LnkSta|Express/;

function read(text: string): Topology | null {
  try {
    return readTopology([{ name: "rest", bytes: new TextEncoder().encode(text) }]);
  } catch (error) {
    expect((error as { code?: string }).code).toBe("PCI_NOT_A_DUMP");
    return null;
  }
}

describe("real dumps with a piece missing", () => {
  it.each(DUMPS)("%s, %s: less is known, nothing else", (machine, name) => {
    const random = new SeededRandom(17).fork(machine);
    const below = (bound: number) => randomBelow(random, bound);
    const text = new TextDecoder().decode(sourceOf(machine, name).bytes);
    const cuts: readonly (() => string)[] = [
      () => text.slice(0, below(text.length)),
      () => text.slice(below(text.length)),
      // Two pastes: the second begins with a function's first line.
      () => {
        const next = text.indexOf("\n\n", below(text.length));
        return text.slice(0, below(text.length)) + text.slice(next < 0 ? text.length : next + 2);
      },
      () => {
        const isKept = (line: string) => !LOSABLE.test(line) || below(3) > 0;
        return text.split("\n").filter(isKept).join("\n");
      },
    ];
    const whole = read(text) as Topology;
    const addresses = [...whole.functions.keys()];
    let asked = 0;
    for (let cut = 0; cut < CUTS; cut++) {
      const rest = read((cuts[cut % cuts.length] as () => string)());
      if (rest === null) continue;
      for (let pair = 0; pair < PAIRS; pair++) {
        const client = addresses[below(addresses.length)] as string;
        const provider = addresses[below(addresses.length)] as string;
        if (!rest.functions.has(client) || !rest.functions.has(provider)) continue;
        const part = p2pPath(rest, client, provider, { kernel: "6.1" });
        // A listing without its first blocks may look whole: then the answer says so.
        if (part.assumptions.length > 0) continue;
        asked++;
        const all = p2pPath(whole, client, provider, { kernel: "6.1" });
        expect([client, provider, ...part.possible]).toEqual(
          expect.arrayContaining([client, provider, ...all.possible]),
        );
        if (part.distance !== UNKNOWN) expect(part.distance).toBe(all.distance);
      }
    }
    expect(asked).toBeGreaterThan(50);
  });
});
