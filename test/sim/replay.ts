// SPDX-License-Identifier: MIT
// Replays one seed of the whole-system simulation: `npm run sim -- --seed N [--smoke] [--trace
// FILE] [--pcap FILE]`. (The command hands its options over in the environment.) The trace has a
// line per packet, turn of events and fault; times are nanoseconds of virtual time.

import { closeSync, openSync, writeSync } from "node:fs";
import { expect, it } from "vitest";
import { PcapWriter } from "./pcap-writer.js";
import { System, type SystemReport } from "./system.js";
import { configOf, LONG_SCALE, SMOKE_SCALE } from "./system-config.js";

const options = process.env;
const seed = Number(options["FARPAGE_SIM_SEED"] ?? "1");
const scale = options["FARPAGE_SIM_SCALE"] === "smoke" ? SMOKE_SCALE : LONG_SCALE;
const tracePath = options["FARPAGE_SIM_TRACE"];
const pcapPath = options["FARPAGE_SIM_PCAP"];

/** Runs the seed with whatever recorders are wanted; they don't change the run. */
function replay(): SystemReport {
  const config = configOf(seed, scale);
  console.log(JSON.stringify(config, null, 2));
  const traceFile = tracePath === undefined ? -1 : openSync(tracePath, "w");
  const trace = traceFile < 0 ? {} : { trace: (line: string) => writeSync(traceFile, `${line}\n`) };
  const system = new System(config, { checkEvery: 1, ...trace });
  const pcap = pcapPath === undefined ? null : new PcapWriter(pcapPath, system.world.clock);
  if (pcap !== null) system.world.network.observers.unshift(pcap.observe);
  try {
    return system.run();
  } finally {
    pcap?.close();
    if (traceFile >= 0) closeSync(traceFile);
  }
}

it(`seed ${seed}`, () => {
  const report = replay();
  console.log(JSON.stringify(report, null, 2));
  expect(report.requests).toBeGreaterThan(0);
});
