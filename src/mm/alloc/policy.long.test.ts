// SPDX-License-Identifier: MIT
import { describe, it } from "vitest";
import { checkPromises } from "./policy.fixture.js";

const STEP = 1000;

describe("the default policy, 10,000 seeds", () => {
  for (let first = 0; first < 10_000; first += STEP) {
    it(`from ${first}: 2 MiB are to be had whenever they are free, for at most 2 MiB moved`, () => {
      for (let seed = first; seed < first + STEP; seed++) {
        try {
          checkPromises(seed);
        } catch (cause) {
          throw new Error(`seed ${seed}`, { cause });
        }
      }
    });
  }
});
