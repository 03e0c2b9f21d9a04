// SPDX-License-Identifier: MIT

import { describe, expect, it } from "vitest";
import { DEFAULT_POLICY } from "../alloc/index.js";
import { WEEK_HOURS, Week } from "./week.js";
import { refusedHours } from "./week-table.js";

const SEED_COUNT = 40;
/** A small server is the hardest: it has 64 page blocks. */
const MEMORY_BYTES = 128 * 2 ** 20;
/** Bytes that may be moved for each byte that is allocated. */
const WORK_MAX = 0.5;

describe("the default policy needs no reboot on Friday", () => {
  it.each(Array.from({ length: SEED_COUNT }, (_, i) => i + 1))(
    "seed %d: 2 MiB whenever so much is free, for half a byte moved a byte at most",
    { timeout: 600_000 },
    (seed) => {
      const week = new Week({
        policy: DEFAULT_POLICY,
        seed,
        memoryBytes: MEMORY_BYTES,
        hours: WEEK_HOURS,
      });
      while (!week.isOver) week.playHour();
      week.memory.checkInvariants();
      const result = week.finish();
      expect(refusedHours(result)).toBe(0);
      expect(result.hours).toHaveLength(WEEK_HOURS);
      expect(result.end.movedBytes / result.end.allocatedBytes).toBeLessThan(WORK_MAX);
      if (result.end.hugePossible > 0) expect(result.end.hugeGot).toBeGreaterThan(0);
    },
  );
});
