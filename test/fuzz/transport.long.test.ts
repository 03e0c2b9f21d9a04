// SPDX-License-Identifier: MIT
import { expect, it } from "vitest";
import { fuzzSeeds, longCount } from "./long-run.js";
import { TransportFuzzer } from "./transport-fuzz.js";

it("transport: half a million mutated packets", () => {
  const count = longCount(500_000);
  const mutated = fuzzSeeds(count, (seed) => new TransportFuzzer(seed).run(5_000).mutated);
  expect(mutated).toBeGreaterThanOrEqual(count);
});
