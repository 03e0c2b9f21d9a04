// SPDX-License-Identifier: MIT
// The odd half of a thousand seeds of sessions of several paths: behind the first cut come others,
// of one path or of all, and the server is killed or crashes.

import { describe, expect, it } from "vitest";
import { LONG_SEED_COUNT, runLongSeed } from "./long-seeds.js";
import { PATHS_SEED_FIRST } from "./system-config.js";

describe("one of several paths is cut, the odd seeds", () => {
  const seeds = Array.from({ length: LONG_SEED_COUNT / 2 }, (_, i) => PATHS_SEED_FIRST + 2 * i + 1);
  it.each(seeds)("seed %i", (seed) => {
    expect(runLongSeed(seed).requests).toBeGreaterThan(0);
  });
});
