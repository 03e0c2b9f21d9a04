// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { NbdFuzzer } from "./nbd-fuzz.js";

describe("NBD endpoint under fuzz", () => {
  it.each([1, 2])("seed %i: mutated conversations hurt nobody but their own connection", (seed) => {
    const report = new NbdFuzzer(seed).run(3_000);
    expect(report.requests).toBeGreaterThan(500);
    // Marks of coverage: the interesting ways to end were all taken.
    for (const reason of ["BAD_REQUEST_MAGIC", "BAD_OPTION_MAGIC", "TRUNCATED", "DISCONNECTED"]) {
      expect([reason, report.closed[reason] ?? 0]).not.toEqual([reason, 0]);
    }
  });
});
