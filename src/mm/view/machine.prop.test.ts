// SPDX-License-Identifier: MIT

import fc from "fast-check";
import { expect, it } from "vitest";
import { FarpageError } from "../../base/index.js";
import { type MachineFiles, parseMachineMemory } from "./machine.js";
import { machineJson, machineText } from "./machine-report.js";

const PATHS = [
  "proc/buddyinfo",
  "proc/pagetypeinfo",
  "proc/meminfo",
  "proc/vmstat",
  "proc/self/smaps",
  "proc/sys/vm/min_free_kbytes",
  "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
  "sys/kernel/mm/transparent_hugepage/enabled",
];
/** Pieces that such files are made of, and pieces that they are not. */
const piece = fc.constantFrom(
  ..."Node|0|, zone|Normal|, type|Movable| |\n|\n|:| kB|MemFree:|MemTotal:|Hugepagesize:".split(
    "|",
  ),
  ..."[never]|always|Page block order:|Number of blocks type|Number of mixed blocks".split("|"),
  ..."99999999999999|1|512|-3|>100000|1e9|NaN|\0|\u00e9|compact_stall|\r\n|__proto__".split("|"),
);
const text = fc.oneof(
  fc.array(piece, { maxLength: 60 }).map((pieces) => new TextEncoder().encode(pieces.join(" "))),
  fc.array(piece, { maxLength: 60 }).map((pieces) => new TextEncoder().encode(pieces.join(""))),
  fc.uint8Array({ maxLength: 200 }),
);
const file = fc.oneof(
  { weight: 6, arbitrary: text },
  { weight: 1, arbitrary: fc.constant({ code: "EACCES" }) },
);

it("memory of a machine: any bytes give a report or a FarpageError, in finite numbers", () => {
  let reports = 0;
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom(...PATHS), file), { maxLength: 8 }), (all) => {
      const files: MachineFiles = new Map(all);
      try {
        const machine = parseMachineMemory(files);
        const lines = machineText(machine, "copy").join("\n");
        expect(lines).not.toMatch(/NaN|undefined|Infinity/);
        expect(JSON.stringify(machineJson(machine))).not.toMatch(/:null,"usable/);
        reports++;
      } catch (error) {
        if (!(error instanceof FarpageError)) throw error;
      }
    }),
    { numRuns: 300, examples: [[[["proc/meminfo", new TextEncoder().encode("MemFree: 1 kB\n")]]]] },
  );
  expect(reports).toBeGreaterThan(0);
});
