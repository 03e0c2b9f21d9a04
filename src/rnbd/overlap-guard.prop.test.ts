// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type GuardedRange, OverlapGuard } from "./overlap-guard.js";

const BYTES = 64;

describe("overlap guard against a map of bytes", () => {
  it("ranges come and go: an overlap is told exactly where a byte is taken", () => {
    const step = fc.record({
      offset: fc.nat({ max: BYTES - 1 }),
      length: fc.integer({ min: 1, max: 16 }),
      /** Which of the guarded ranges goes first, if it is there. */
      removed: fc.nat({ max: 20 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const guard = new OverlapGuard();
        const ranges: GuardedRange[] = [];
        for (const { offset, length, removed } of steps) {
          for (const range of ranges.splice(removed, 1)) guard.remove(range);
          const isTaken = ranges.some((range) => {
            const bytes = Array.from({ length: range.length }, (_, i) => range.offset + i);
            return bytes.some((byte) => byte >= offset && byte < offset + length);
          });
          expect(guard.overlaps(offset, length)).toBe(isTaken);
          if (!isTaken) {
            const range = { offset, length, guardIndex: -1 };
            guard.add(range);
            ranges.push(range);
          }
          guard.checkInvariants();
          expect(guard.count).toBe(ranges.length);
        }
      }),
    );
  });

  it("a range that is not guarded → removing it does nothing", () => {
    const guard = new OverlapGuard();
    const range = { offset: 0, length: 8, guardIndex: -1 };
    guard.remove(range);
    guard.add(range);
    guard.remove(range);
    guard.remove(range);
    expect(guard.count).toBe(0);
    expect(guard.overlaps(0, 8)).toBe(false);
  });
});
