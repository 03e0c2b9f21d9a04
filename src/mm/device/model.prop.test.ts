// SPDX-License-Identifier: MIT

import { expect, test } from "vitest";
import { runModel, SEEN_OFTEN } from "./model-runs.fixture.js";

test("seeds 1-15: no frame is moved or reused while it is pinned; counts are what is held", () => {
  const seen = runModel(1, 15, 50);
  for (const what of SEEN_OFTEN) expect(seen.get(what) ?? 0, what).toBeGreaterThan(0);
});
