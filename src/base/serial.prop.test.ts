// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PSN_MASK, psnAdd, psnDiff, u16Diff, u32Diff } from "./serial.js";

const psn = fc.nat({ max: PSN_MASK });
const u32 = fc.nat({ max: 0xffff_ffff });
const HALF = 1 << 23;

describe("PSN arithmetic: laws", () => {
  it("psnDiff(psnAdd(a, n), a) is n for every n that 24 signed bits hold", () => {
    fc.assert(
      fc.property(psn, fc.integer({ min: -HALF, max: HALF - 1 }), (a, n) => {
        expect(psnDiff(psnAdd(a, n), a)).toBe(n);
      }),
    );
  });

  it("psnAdd stays in 24 bits and is addition modulo 2^24", () => {
    fc.assert(
      fc.property(psn, fc.integer({ min: -(2 ** 30), max: 2 ** 30 }), (a, n) => {
        const modulo = 2 ** 24;
        expect(psnAdd(a, n)).toBe((((a + n) % modulo) + modulo) % modulo);
      }),
    );
  });

  it("of two different PSNs one is after the other, but for the two that are 2^23 apart", () => {
    fc.assert(
      fc.property(psn, psn, (a, b) => {
        const opposite = psnAdd(a, HALF) === b;
        const sum = psnDiff(a, b) + psnDiff(b, a);
        expect(sum).toBe(opposite ? -2 * HALF : 0);
      }),
    );
  });

  it("examples at the wrap", () => {
    expect(psnAdd(0xffffff, 1)).toBe(0);
    expect(psnAdd(0, -1)).toBe(0xffffff);
    expect(psnDiff(0, 0xffffff)).toBe(1);
    expect(psnDiff(0xfffffc, 2)).toBe(-6);
    // The facts page's bound: expected + 2^23 - 1 is still in the future, + 2^23 is a duplicate.
    expect(psnDiff(psnAdd(5, HALF - 1), 5)).toBe(HALF - 1);
    expect(psnDiff(psnAdd(5, HALF), 5)).toBe(-HALF);
  });

  it("u16Diff is the signed difference modulo 2^16", () => {
    fc.assert(
      fc.property(fc.nat(0xffff), fc.integer({ min: -0x8000, max: 0x7fff }), (a, n) => {
        expect(u16Diff((a + n) & 0xffff, a)).toBe(n);
      }),
    );
  });

  it("u32Diff is the signed difference modulo 2^32", () => {
    fc.assert(
      fc.property(u32, fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (a, n) => {
        expect(u32Diff((a + n) >>> 0, a)).toBe(n);
      }),
    );
  });
});
