// SPDX-License-Identifier: MIT
import { expect, it } from "vitest";
import { HostileSystem } from "./hostile-system.js";
import { fuzzSeeds, longCount } from "./long-run.js";

it("CM, RTRS and RNBD: a hundred thousand mutated messages", () => {
  const count = longCount(100_000);
  const mutated = fuzzSeeds(count, (seed) => new HostileSystem(seed).run(1_000).mutated);
  expect(mutated).toBeGreaterThanOrEqual(count);
});
