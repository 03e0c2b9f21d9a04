// SPDX-License-Identifier: MIT
// The even half of a thousand seeds of sessions of several paths, one of which is cut while
// requests are in flight; in the even half nothing else happens.

import { describe, expect, it } from "vitest";
import { LONG_SEED_COUNT, runLongSeed } from "./long-seeds.js";
import { PATHS_SEED_FIRST } from "./system-config.js";

describe("one of several paths is cut, the even seeds", () => {
  const seeds = Array.from({ length: LONG_SEED_COUNT / 2 }, (_, i) => PATHS_SEED_FIRST + 2 * i);
  it.each(seeds)("seed %i", (seed) => {
    expect(runLongSeed(seed).requests).toBeGreaterThan(0);
  });
});
