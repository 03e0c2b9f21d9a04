// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, it } from "vitest";
import { POLICIES } from "./index.js";
import { modelLaw } from "./model.fixture.js";

const RUNS = 10_000;

describe("memory beside a naive model, 10,000 runs", () => {
  it.each(POLICIES)("$name: no frame lost, none owned twice, none moved while pinned", (policy) => {
    const numRuns = Math.ceil(RUNS / POLICIES.length);
    fc.assert(modelLaw(policy, 100), { numRuns, endOnFailure: true });
  });
});
