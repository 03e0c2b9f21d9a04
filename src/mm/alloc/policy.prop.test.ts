// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { POLICIES } from "./index.js";
import { BLOCK_COUNT, checkPromises, drainHuge, playLoad, stuckBlocks } from "./policy.fixture.js";

/** A seed under which what can't move gets everywhere, if nobody sees to it. */
const HARD_SEED = 6;

describe("the default policy", () => {
  it("2 MiB are to be had whenever they are free, for at most 2 MiB moved", () => {
    fc.assert(fc.property(fc.nat(), checkPromises), { numRuns: 3 });
  });
});

describe("the policies under the same load", () => {
  it.each(POLICIES)("$name: nothing is lost", (policy) => {
    const { memory } = playLoad(policy, HARD_SEED);
    memory.checkInvariants();
  });

  it("undivided, or long-term pins anywhere: most page blocks are lost to 2 MiB requests", () => {
    for (const name of ["undivided", "grouped-pins-anywhere"]) {
      const policy = POLICIES.find((one) => one.name === name) as (typeof POLICIES)[number];
      const { memory, fixedPeak } = playLoad(policy, HARD_SEED);
      expect(fixedPeak / 512).toBeLessThan(BLOCK_COUNT / 2);
      expect(stuckBlocks(memory)).toBeGreaterThan(BLOCK_COUNT / 2);
      expect(drainHuge(memory).freeLeft).toBeGreaterThan(2 * 512);
    }
  });
});
