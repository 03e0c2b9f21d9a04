// SPDX-License-Identifier: MIT
import { describe, it } from "vitest";
import { checkPromises } from "./policy.fixture.js";

describe("the default policy, 10,000 seeds", () => {
  it("2 MiB are to be had whenever they are free, for at most 2 MiB moved", () => {
    for (let seed = 0; seed < 10_000; seed++) {
      try {
        checkPromises(seed);
      } catch (cause) {
        throw new Error(`seed ${seed}`, { cause });
      }
    }
  });
});
