// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, it } from "vitest";
import { MS } from "./script.fixture.js";
import { checkConvergence, type Faults } from "./two-hosts.fixture.js";

const WEATHERS: [string, Faults][] = [
  ["10 % loss and duplication", { lossRate: 0.1, duplicateRate: 0.1, delayNsMax: 100 * MS }],
  ["half of everything lost", { lossRate: 0.5, duplicateRate: 0.3, delayNsMax: 50 * MS }],
  ["up to 2 s late, any order", { lossRate: 0.05, duplicateRate: 0.3, delayNsMax: 2_000 * MS }],
];

describe("two connection managers over a bad pipe", () => {
  it.each(WEATHERS)(
    "%s → both sides agree on what is up, each exchange ends once, nothing is left",
    (_weather, faults) => {
      const law = fc.property(fc.nat(1_000_000), (seed) => checkConvergence(seed, faults));
      fc.assert(law, { numRuns: 3_000 });
    },
    600_000,
  );
});
