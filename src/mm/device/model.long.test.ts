// SPDX-License-Identifier: MIT

import { expect, test } from "vitest";
import { HUGE } from "./model.fixture.js";
import { runModel, SEEN_AT_LEAST, SEEN_IN_BLOCKS } from "./model-runs.fixture.js";

test("pins, forks, faults, moves, truncates and exits: 10,000 runs", { timeout: 1_800_000 }, () => {
  const seen = runModel(1, 10_000, 50);
  for (const what of SEEN_AT_LEAST) expect(seen.get(what) ?? 0, what).toBeGreaterThan(0);
});

test("the same in blocks of 2 MiB: 200 runs", { timeout: 1_800_000 }, () => {
  const seen = runModel(1, 200, 50, HUGE);
  for (const what of SEEN_IN_BLOCKS) expect(seen.get(what) ?? 0, what).toBeGreaterThan(0);
});
