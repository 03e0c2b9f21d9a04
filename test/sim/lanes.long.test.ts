// SPDX-License-Identifier: MIT
// Many seeds of several lanes on one volume; `FARPAGE_SIM_SEEDS` asks for another number of them.

import { describe, expect, it } from "vitest";
import { drawLaneConfig, LANE_REQUESTS } from "./lane-config.js";
import { LaneSystem } from "./lane-system.js";

const SEED_COUNT = Math.min(Number(process.env["FARPAGE_SIM_SEEDS"] ?? "200"), 1000);

describe("lanes that write one volume are one disk to its users, many seeds", () => {
  const seeds = Array.from({ length: SEED_COUNT }, (_, i) => 1_000 + i);
  it.each(seeds)("seed %i", (seed) => {
    const report = new LaneSystem(drawLaneConfig(seed, 2 * LANE_REQUESTS)).run();
    expect(report.requests).toBeGreaterThan(LANE_REQUESTS);
  });
});
