// SPDX-License-Identifier: MIT

import { expect, test } from "vitest";
import { runModel, SEEN_AT_LEAST } from "./model.fixture.js";

test("pins, forks, faults, moves, truncates and exits: 10,000 runs", { timeout: 1_800_000 }, () => {
  const seen = runModel(1, 10_000, 50);
  for (const what of SEEN_AT_LEAST) expect(seen.get(what) ?? 0, what).toBeGreaterThan(0);
});
