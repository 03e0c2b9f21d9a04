// SPDX-License-Identifier: MIT

import { expect } from "vitest";

const MEBIBYTE = 1 << 20;
/** What a process may grow by once it is warm. */
const GROWTH_BYTES_MAX = 512 * MEBIBYTE;

/** The first seed of long runs; `npm run fuzz -- --seed N` chooses. */
export const FIRST_SEED = Number(process.env["FARPAGE_FUZZ_SEED"] ?? "10000");

/** Messages for one target: its own share of the million, or what `--count` says. */
export function longCount(share: number): number {
  return Number(process.env["FARPAGE_FUZZ_COUNT"] ?? share);
}

/**
 * Fuzzes with one seed after another until `count` messages have been mutated, and sees to it that
 * the process doesn't grow meanwhile. A failure names its seed.
 * @param run mutates at least one message. @returns how many.
 */
export function fuzzSeeds(count: number, run: (seed: number) => number): number {
  let mutated = 0;
  let seed = FIRST_SEED;
  let warmBytes = 0;
  while (mutated < count) {
    mutated += runSeed(seed++, run);
    if (warmBytes === 0 && mutated > count / 10) warmBytes = process.memoryUsage.rss();
  }
  expect(process.memoryUsage.rss()).toBeLessThan(warmBytes + GROWTH_BYTES_MAX);
  return mutated;
}

function runSeed(seed: number, run: (seed: number) => number): number {
  try {
    return run(seed);
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error);
    throw new Error(`fuzz seed ${seed}: ${what}`, { cause: error });
  }
}
