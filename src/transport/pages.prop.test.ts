// SPDX-License-Identifier: MIT

import fc from "fast-check";
import { describe, it } from "vitest";
import { Paging, step } from "./paging.fixture.js";

describe("any work on memory that comes and goes", () => {
  it("arrives as between pinned memories, and touches no page that is away", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 10, minLength: 1 }), fc.nat(), (steps, seed) => {
        new Paging(seed).play(steps);
      }),
      { numRuns: 6 },
    );
  });
});
