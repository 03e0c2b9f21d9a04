// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { TransportFuzzer } from "./transport-fuzz.js";

describe("transport under fuzz", () => {
  it.each([1, 2, 3, 4, 5, 6])(
    "seed %i: mutated packets break at most their own queue pair, and move no byte without right",
    (seed) => {
      const report = new TransportFuzzer(seed).run(1_500);
      expect(report.succeeded).toBeGreaterThan(100);
    },
  );

  it("the same seed twice → the same run", () => {
    const first = new TransportFuzzer(7).run(500);
    expect(new TransportFuzzer(7).run(500)).toEqual(first);
  });
});
