// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, it } from "vitest";
import { POLICIES } from "./index.js";
import { modelLaw } from "./model.fixture.js";

describe("memory beside a naive model", () => {
  it.each(POLICIES)("$name: no frame lost, none owned twice, none moved while pinned", (policy) => {
    fc.assert(modelLaw(policy, 40), { numRuns: 2 });
  });
});
