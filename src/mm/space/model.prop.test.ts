// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, it } from "vitest";
import { SpaceModel } from "./model.fixture.js";

const step = fc.record({ kind: fc.nat(18), a: fc.nat(1000), b: fc.nat(1000) });

describe("address spaces against a model", () => {
  it("any steps → the bytes of the model, every reference accounted for, none left", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const model = new SpaceModel();
        model.run(steps);
        model.finish();
      }),
      { numRuns: 25, seed: 5 },
    );
  });
});
