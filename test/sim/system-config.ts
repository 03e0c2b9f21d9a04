// SPDX-License-Identifier: MIT
// A seed is a whole configuration: sizes, depths, modes, faults and what goes wrong when.

import { ERRNO, type Random, randomBelow, SeededRandom } from "../../src/base/index.js";
import { RTRS_PATH_POLICIES, type RtrsPathPolicy } from "../../src/rtrs/index.js";
import type { DiskFaults, PathFaults } from "../../src/sim/index.js";

const MICROSECOND = 1_000;
const MILLISECOND = 1_000 * MICROSECOND;
const SECOND = 1_000 * MILLISECOND;

/** Something that happens to the system at a time. */
export interface Mishap {
  readonly kind: "partition" | "half-partition" | "cut" | "half-cut" | "kill" | "crash";
  /** Of a cut: which path; default the first. */
  readonly path?: number;
  /** From the start of the workload. */
  readonly atNs: number;
  /** How long until it is over (the network whole, the server started again). */
  readonly durationNs: number;
}

export interface SystemConfig {
  readonly seed: number;
  readonly family: 4 | 6;
  readonly linkMtu: number;
  readonly gro: "never" | "sometimes" | "always";
  readonly receiveBufferBytes: number;
  readonly stallRate: number;
  readonly pauseRate: number;
  readonly pauseNsMax: number;
  readonly faults: Partial<PathFaults>;
  readonly diskFaults: Partial<DiskFaults>;
  /** What the disks fail with now and then, and requests may; 0 for never. */
  readonly diskErrno: number;
  /** RTRS. */
  readonly queueDepth: number;
  readonly chunkBytes: number;
  readonly connectionCount: number;
  /** Addresses of each host; the session has a path between each two of the same index. */
  readonly pathCount: number;
  readonly policy: RtrsPathPolicy;
  readonly alwaysInvalidate: boolean;
  readonly clientInvalidates: boolean;
  readonly remoteInvalidates: boolean;
  readonly heartbeatIntervalNs: number;
  /** The workload, per volume. */
  readonly volumeCount: number;
  readonly volumeBytes: number;
  readonly requestCount: number;
  readonly depth: number;
  readonly lengthMax: number;
  readonly thinkNsMax: number;
  readonly mishaps: readonly Mishap[];
}

/** How much to do: a few seeds in seconds, or a thousand of them in long runs. */
export interface ConfigScale {
  readonly requestCount: number;
  /** Longest time until the network heals for good. */
  readonly faultyNsMax: number;
}

export const SMOKE_SCALE: ConfigScale = { requestCount: 150, faultyNsMax: 10 * SECOND };
export const LONG_SCALE: ConfigScale = { requestCount: 400, faultyNsMax: 30 * SECOND };

function pick<T>(random: Random, list: readonly T[]): T {
  return list[randomBelow(random, list.length)] as T;
}

/** Everything that a run needs to know; the same for the same seed and scale. */
export function drawConfig(seed: number, scale: ConfigScale): SystemConfig {
  const random = new SeededRandom(seed).fork("config");
  const diskErrno = pick(random.fork("disk"), [0, 0, 0, 0, ERRNO.EIO, ERRNO.ENOSPC]);
  const lengthMax = 512 * pick(random, [8, 16, 64, 256]);
  return {
    seed,
    family: pick(random, [4, 6]),
    linkMtu: pick(random, [352, 600, 1500, 1500, 2200, 4300, 9000]),
    gro: pick(random, ["never", "sometimes", "sometimes", "always"]),
    receiveBufferBytes: pick(random, [64 << 10, 212_992, 1 << 20, 4 << 20]),
    stallRate: pick(random, [0, 0, 0.05]),
    pauseRate: pick(random, [0, 0, 0.0005]),
    pauseNsMax: 5 * MILLISECOND,
    faults: drawFaults(random.fork("faults")),
    diskErrno,
    diskFaults: {
      readErrorRate: diskErrno === ERRNO.EIO ? 0.02 : 0,
      writeErrorRate: diskErrno === ERRNO.EIO ? 0.02 : 0,
      noSpaceRate: diskErrno === ERRNO.ENOSPC ? 0.03 : 0,
      blockRate: pick(random, [0, 0.3, 1]),
      latencyNs: pick(random, [5, 50, 500]) * MICROSECOND,
      jitterNs: pick(random, [10, 100, 2000]) * MICROSECOND,
      shortRate: pick(random, [0, 0, 0.1]),
    },
    queueDepth: pick(random, [1, 4, 16, 64, 100]),
    chunkBytes: pick(random, [8192, 16_384, 131_072]),
    connectionCount: pick(random, [1, 1, 2, 4]),
    pathCount: 1,
    policy: "min-inflight",
    alwaysInvalidate: randomBelow(random, 3) > 0,
    clientInvalidates: randomBelow(random, 3) > 0,
    heartbeatIntervalNs: pick(random, [100 * MILLISECOND, SECOND, 5 * SECOND]),
    volumeCount: pick(random, [1, 1, 2, 3]),
    volumeBytes: 512 * pick(random, [256, 1024, 2048]),
    requestCount: scale.requestCount,
    depth: pick(random, [1, 4, 16, 48]),
    lengthMax,
    thinkNsMax: pick(random, [0, 100 * MICROSECOND, 20 * MILLISECOND]),
    mishaps: drawMishaps(random.fork("mishaps"), scale.faultyNsMax),
    remoteInvalidates: randomBelow(random, 2) === 0,
  };
}

/** From this seed on sessions have several paths. */
export const PATHS_SEED_FIRST = 10_000;

/** The configuration that a seed stands for, whatever kind of run it belongs to. */
export function configOf(seed: number, scale: ConfigScale): SystemConfig {
  const config = drawConfig(seed, scale);
  return seed < PATHS_SEED_FIRST ? config : withPaths(config, scale);
}

/**
 * Two paths or three; one is cut while requests are in flight, and in every other run that is not
 * all that happens.
 */
function withPaths(config: SystemConfig, scale: ConfigScale): SystemConfig {
  const random = new SeededRandom(config.seed).fork("paths");
  const pathCount = pick(random, [2, 2, 2, 3]);
  const cut = (atNs: number): Mishap => ({
    kind: pick(random, ["cut", "cut", "half-cut"] as const),
    path: randomBelow(random, pathCount),
    atNs,
    durationNs: pick(random, [1, 1000, 8000, 8000, 20_000]) * MILLISECOND,
  });
  const first = cut(1 + randomBelow(random, pick(random, [2, 20, 200]) * MILLISECOND));
  const mishaps = [first];
  let atNs = first.atNs + first.durationNs;
  for (let count = config.seed % 2 === 0 ? 0 : 1 + randomBelow(random, 3); count > 0; count--) {
    atNs += 1 + randomBelow(random, pick(random, [5, 500, 5000]) * MILLISECOND);
    const kind = pick(random, ["cut", "cut", "partition", "kill", "crash"] as const);
    const durationNs = 1 + randomBelow(random, pick(random, [1, 100, 4000]) * MILLISECOND);
    const mishap = kind === "cut" ? cut(atNs) : { kind, atNs, durationNs };
    if (atNs + mishap.durationNs > 2 * scale.faultyNsMax) break;
    mishaps.push(mishap);
    atNs += mishap.durationNs;
  }
  return {
    ...config,
    pathCount,
    policy: pick(random, RTRS_PATH_POLICIES),
    thinkNsMax: pick(random, [100 * MICROSECOND, 2 * MILLISECOND, 20 * MILLISECOND]),
    mishaps,
  };
}

/** One per cent loss with everything else is the standard; some runs are milder, a few worse. */
function drawFaults(random: Random): Partial<PathFaults> {
  const rate = () => pick(random, [0, 0.001, 0.01, 0.01, 0.02]);
  const limited = randomBelow(random, 4) === 0;
  return {
    latencyNs: pick(random, [2, 20, 200, 2000]) * MICROSECOND,
    jitterNs: pick(random, [0, 10, 100]) * MICROSECOND,
    lossRate: pick(random, [0, 0.01, 0.01, 0.01, 0.03]),
    reorderRate: rate(),
    reorderNs: pick(random, [10, 100, 1000]) * MICROSECOND,
    duplicateRate: rate(),
    corruptRate: rate(),
    truncateRate: rate() / 4,
    ...(limited ? { bitsPerSecond: 1e9, queueBytes: pick(random, [32, 256]) * 1024 } : {}),
  };
}

function drawMishaps(random: Random, faultyNsMax: number): Mishap[] {
  const mishaps: Mishap[] = [];
  let atNs = 0;
  for (let count = randomBelow(random, 4); count > 0; count--) {
    atNs += 1 + randomBelow(random, pick(random, [5, 50, 1000]) * MILLISECOND);
    const kind = pick(random, ["partition", "half-partition", "kill", "kill", "crash"] as const);
    const durationNs = 1 + randomBelow(random, pick(random, [1, 100, 4000]) * MILLISECOND);
    if (atNs + durationNs > faultyNsMax) break;
    mishaps.push({ kind, atNs, durationNs });
    atNs += durationNs;
  }
  return mishaps;
}
