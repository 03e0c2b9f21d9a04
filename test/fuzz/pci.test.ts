// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { PciFuzzer } from "./pci-fuzz.js";

describe("readers of PCI dumps under fuzz", () => {
  it.each([1, 2, 3])(
    "seed %i: read or refused, and nothing is allowed without evidence",
    (seed) => {
      const report = new PciFuzzer(seed).run(500);
      // Marks of coverage: all verdicts came, and the notices of each reader.
      for (const verdict of ["BUS_ADDR", "THRU_HOST_BRIDGE", "NOT_SUPPORTED", "unknown"]) {
        expect([verdict, report.verdicts[verdict] ?? 0]).not.toEqual([verdict, 0]);
      }
      for (const code of ["CONFLICT", "CUT_OFF", "BAD_CONFIG", "BAD_ARCHIVE", "NO_PRIVILEGE"]) {
        expect([code, report.notices[code] ?? 0]).not.toEqual([code, 0]);
      }
      expect(report.refused).toBeGreaterThan(0);
      expect(report.refused).toBeLessThan(report.mutated / 2);
    },
  );
});
