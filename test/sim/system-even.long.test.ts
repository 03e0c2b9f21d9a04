// SPDX-License-Identifier: MIT
// The even half of a thousand seeds of the whole system; two files, so that two processors share
// them.

import { describe, expect, it } from "vitest";
import { LONG_SEED_COUNT, runLongSeed } from "./long-seeds.js";

describe("whole system, the even seeds", () => {
  const seeds = Array.from({ length: LONG_SEED_COUNT / 2 }, (_, i) => 1_000 + 2 * i + 0);
  it.each(seeds)("seed %i", (seed) => {
    expect(runLongSeed(seed).requests).toBeGreaterThan(0);
  });
});
