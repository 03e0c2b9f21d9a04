// SPDX-License-Identifier: MIT
// A seed of `lane-system.ts` is a whole configuration, as in `system-config.ts`.

import { type Random, randomBelow, SeededRandom } from "../../src/base/index.js";
import type { DiskFaults, PathFaults } from "../../src/sim/index.js";

const MICROSECOND = 1_000;
const MILLISECOND = 1_000 * MICROSECOND;
const SECOND = 1_000 * MILLISECOND;

export interface LaneMishap {
  /** A lane loses its server; the server's process dies; its machine does. */
  readonly kind: "cut" | "kill" | "crash";
  /** Of a cut: whose. */
  readonly lane: number;
  /** From the start of the workload. */
  readonly atNs: number;
  readonly durationNs: number;
}

export interface LaneConfig {
  readonly seed: number;
  readonly laneCount: number;
  /** Of the server; lanes of the client come to them in turn. */
  readonly serverLaneCount: number;
  readonly linkMtu: number;
  readonly pauseRate: number;
  readonly pauseNsMax: number;
  readonly faults: Partial<PathFaults>;
  readonly diskFaults: Partial<DiskFaults>;
  /** The same of the server's first lane, where it differs. */
  readonly firstDiskFaults?: Partial<DiskFaults>;
  readonly queueDepth: number;
  readonly chunkBytes: number;
  readonly heartbeatIntervalNs: number;
  /** 0: requests wait for ever. */
  readonly ioTimeoutNs: number;
  readonly volumeBytes: number;
  readonly requestCount: number;
  readonly depth: number;
  readonly lengthMax: number;
  readonly thinkNsMax: number;
  /** Flushes go by the last lane, all else by the others. */
  readonly splitsFlushes: boolean;
  readonly mishaps: readonly LaneMishap[];
}

/** Requests of a run that takes a second or two. */
export const LANE_REQUESTS = 150;

function pick<T>(random: Random, list: readonly T[]): T {
  return list[randomBelow(random, list.length)] as T;
}

/**
 * Everything that a run needs to know; the same for the same seed. Of four seeds two are of all
 * kinds of trouble, one has a lane that only flushes, and one a lane that gives requests up while
 * the disk still has them.
 */
export function drawLaneConfig(seed: number, requestCount: number): LaneConfig {
  const config = drawAny(seed, requestCount);
  if (seed % 4 === 1) {
    const mishaps = config.mishaps.map((mishap) => {
      return mishap.kind === "kill" ? { ...mishap, kind: "crash" as const } : mishap;
    });
    return { ...config, splitsFlushes: true, mishaps };
  }
  return seed % 4 === 2 ? withLateWrites(config) : config;
}

/**
 * Writes of the first lane stay in the disk for longer than it takes the lane to lose its server
 * and its patience; the others go on.
 */
function withLateWrites(config: LaneConfig): LaneConfig {
  const random = new SeededRandom(config.seed).fork("late writes");
  const atNs = 1 + randomBelow(random, SECOND);
  return {
    ...config,
    serverLaneCount: 2,
    faults: {},
    diskFaults: { blockRate: 0 },
    firstDiskFaults: { blockRate: 0.5, latencyNs: 3 * SECOND, jitterNs: 12 * SECOND },
    queueDepth: 16,
    heartbeatIntervalNs: 100 * MILLISECOND,
    ioTimeoutNs: 100 * MILLISECOND,
    volumeBytes: 512 * 64,
    depth: 32,
    lengthMax: 512 * 8,
    thinkNsMax: 400 * MILLISECOND,
    mishaps: [{ kind: "cut", lane: 0, atNs, durationNs: 20 * SECOND }],
  };
}

function drawAny(seed: number, requestCount: number): LaneConfig {
  const random = new SeededRandom(seed).fork("lanes");
  const laneCount = pick(random, [2, 2, 3]);
  const lossRate = pick(random, [0, 0, 0.005, 0.01]);
  return {
    seed,
    laneCount,
    serverLaneCount: pick(random, [1, 2]),
    linkMtu: pick(random, [600, 1500, 4300]),
    pauseRate: pick(random, [0, 0, 0.0005]),
    pauseNsMax: 5 * MILLISECOND,
    faults: {
      latencyNs: pick(random, [2, 20, 200]) * MICROSECOND,
      jitterNs: pick(random, [0, 10, 100]) * MICROSECOND,
      lossRate,
      reorderRate: lossRate,
      duplicateRate: lossRate,
    },
    diskFaults: {
      blockRate: pick(random, [0, 0.3, 1]),
      latencyNs: pick(random, [5, 50, 5000]) * MICROSECOND,
      jitterNs: pick(random, [10, 100, 20_000]) * MICROSECOND,
    },
    queueDepth: pick(random, [1, 4, 16, 64]),
    chunkBytes: pick(random, [8192, 131_072]),
    heartbeatIntervalNs: pick(random, [100 * MILLISECOND, SECOND]),
    ioTimeoutNs: pick(random, [0, 0, 0, 500 * MILLISECOND, 3 * SECOND]),
    // Small, so that lanes meet.
    volumeBytes: 512 * pick(random, [64, 256, 1024]),
    requestCount,
    depth: pick(random, [2, 8, 32]),
    lengthMax: 512 * pick(random, [8, 16, 64]),
    thinkNsMax: pick(random, [1, 20, 100]) * MILLISECOND,
    splitsFlushes: false,
    mishaps: drawMishaps(random.fork("mishaps"), laneCount),
  };
}

/** Restarts of the server one after the other; cuts of single lanes at any time. */
function drawMishaps(random: Random, laneCount: number): LaneMishap[] {
  const mishaps: LaneMishap[] = [];
  let atNs = 0;
  for (let count = randomBelow(random, 4); count > 0; count--) {
    atNs += 1 + randomBelow(random, pick(random, [5, 50, 1000]) * MILLISECOND);
    const durationNs = 1 + randomBelow(random, pick(random, [1, 100, 4000]) * MILLISECOND);
    mishaps.push({ kind: pick(random, ["kill", "crash"] as const), lane: 0, atNs, durationNs });
    atNs += durationNs;
  }
  for (let count = randomBelow(random, 3); count > 0; count--) {
    mishaps.push({
      kind: "cut",
      lane: randomBelow(random, laneCount),
      atNs: 1 + randomBelow(random, pick(random, [20, 500, 5000]) * MILLISECOND),
      durationNs: pick(random, [100, 3000, 12_000]) * MILLISECOND,
    });
  }
  return mishaps;
}
