// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { DROP_REASON_NAMES } from "../../src/transport/index.js";
import { TransportFuzzer } from "./transport-fuzz.js";

/** Drops that a mutation has no way to bring about here: no reason at all, and hardware's. */
const OUT_OF_REACH = ["NONE", "CONGESTION_NOTIFICATION"];

describe("transport under fuzz", () => {
  it.each([1, 2, 3])(
    "seed %i: mutated packets break at most their own queue pair, and move no byte without right",
    (seed) => {
      const report = new TransportFuzzer(seed).run(1_500);
      expect(report.succeeded).toBeGreaterThan(100);
    },
  );

  it("the fuzzer reaches every reason to drop a packet and every NAK", () => {
    const reports = [21, 22, 23, 24].map((seed) => new TransportFuzzer(seed).run(1_500));
    const missed = DROP_REASON_NAMES.filter((name) => reports.every(({ drops }) => !drops[name]));
    expect(missed).toEqual(OUT_OF_REACH);
    for (const kind of [0, 1, 2, 3]) {
      expect(reports.some(({ naks }) => (naks[kind] as number) > 0)).toBe(true);
    }
  });

  it("the same seed twice → the same run", () => {
    const first = new TransportFuzzer(7).run(500);
    expect(new TransportFuzzer(7).run(500)).toEqual(first);
  });
});
