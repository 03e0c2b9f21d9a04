// SPDX-License-Identifier: MIT
import { expect, it } from "vitest";
import { fuzzSeeds, longCount } from "./long-run.js";
import { NbdFuzzer } from "./nbd-fuzz.js";

it("NBD: four hundred thousand mutated messages", () => {
  const count = longCount(400_000);
  const mutated = fuzzSeeds(count, (seed) => new NbdFuzzer(seed).run(10_000).mutated);
  expect(mutated).toBeGreaterThanOrEqual(count);
});
