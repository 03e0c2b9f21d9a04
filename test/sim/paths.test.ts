// SPDX-License-Identifier: MIT
// Sessions of several paths on a bad network, one of which is cut at a random moment: a few seeds
// here, a thousand in paths-*.long.test.ts. `npm run sim -- --smoke --seed N` replays one.

import { describe, expect, it } from "vitest";
import { System, type SystemReport } from "./system.js";
import { configOf, PATHS_SEED_FIRST, SMOKE_SCALE, type SystemConfig } from "./system-config.js";

const SEEDS = Array.from({ length: 12 }, (_, i) => PATHS_SEED_FIRST + i);

describe("one of several paths is cut: no error, nothing lost, no write behind a later one", () => {
  const reports = new Map<number, SystemReport>();

  it.each(SEEDS)("seed %i", (seed) => {
    const config = configOf(seed, SMOKE_SCALE);
    const report = new System(config).run();
    reports.set(seed, report);
    expect(report.requests).toBeGreaterThan(config.requestCount * config.volumeCount);
    // Errors are the disk's, or a crashed machine's.
    const isSound = config.diskErrno === 0 && !config.mishaps.some(({ kind }) => kind === "crash");
    if (isSound) expect(report.failed).toBe(0);
  });

  it("in most of them requests were in flight on the path that was cut, and went on", () => {
    const moved = [...reports.values()].filter(({ failedOver }) => failedOver > 0);
    expect(moved.length).toBeGreaterThan(SEEDS.length / 3);
  });
});

/** A wire of 100 Mbit/s each way per path, and nothing else that could be the bottleneck. */
function rateConfig(pathCount: number, policy: SystemConfig["policy"]): SystemConfig {
  const bitsPerSecond = 100e6;
  return {
    ...configOf(1, SMOKE_SCALE),
    seed: 7,
    linkMtu: 4300,
    faults: { latencyNs: 50_000, bitsPerSecond, queueBytes: 4 << 20 },
    diskFaults: { latencyNs: 5_000, jitterNs: 0 },
    diskErrno: 0,
    stallRate: 0,
    pauseRate: 0,
    receiveBufferBytes: 4 << 20,
    mishaps: [],
    volumeCount: 1,
    volumeBytes: 4 << 20,
    chunkBytes: 131_072,
    queueDepth: 64,
    connectionCount: 1,
    depth: 32,
    lengthMax: 65_536,
    thinkNsMax: 0,
    requestCount: 600,
    pathCount,
    policy,
  };
}

describe("two paths where the rate of one is the bottleneck", () => {
  const seconds = (pathCount: number, policy: SystemConfig["policy"]) =>
    new System(rateConfig(pathCount, policy)).run().virtualNs / 1e9;

  it.each(["round-robin", "min-inflight"] as const)(
    "%s → more than 1.6 times as fast",
    (policy) => {
      const [one, two] = [seconds(1, policy), seconds(2, policy)];
      console.log(
        `${policy}: one path ${one.toFixed(3)} s, two ${two.toFixed(3)} s of virtual time`,
      );
      expect(one / two).toBeGreaterThan(1.6);
    },
  );
});
