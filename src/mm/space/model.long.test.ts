// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, it } from "vitest";
import { HUGE, modelLaw, SMALL } from "./model.fixture.js";

describe("address spaces against a model, 10,000 runs", () => {
  it("any steps → the bytes of the model, every reference accounted for, none left", () => {
    fc.assert(modelLaw(SMALL, 120), { numRuns: 10_000, seed: 1 });
  });

  it("the same with blocks of 2 MiB, mapped, cut, shared and moved", () => {
    fc.assert(modelLaw(HUGE, 60), { numRuns: 500, seed: 1 });
  });
});
