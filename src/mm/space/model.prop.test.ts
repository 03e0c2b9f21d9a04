// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, it } from "vitest";
import { HUGE, modelLaw, SMALL } from "./model.fixture.js";

describe("address spaces against a model", () => {
  it("any steps → the bytes of the model, every reference accounted for, none left", () => {
    fc.assert(modelLaw(SMALL, 60), { numRuns: 25, seed: 5 });
  });

  it("the same with blocks of 2 MiB, mapped, cut, shared and moved", () => {
    fc.assert(modelLaw(HUGE, 40), { numRuns: 3, seed: 5 });
  });
});
