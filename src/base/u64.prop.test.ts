// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { carryOf, highOf, joinHalves, lowOf, offsetFrom } from "./u64.js";

const u32 = fc.nat({ max: 0xffff_ffff });
const safe = fc.nat({ max: Number.MAX_SAFE_INTEGER });
/** Numbers near powers of two, where halves meet. */
const edge = fc
  .tuple(fc.integer({ min: 0, max: 63 }), fc.integer({ min: -2, max: 2 }))
  .map(([bit, by]) => BigInt.asUintN(64, (1n << BigInt(bit)) + BigInt(by)));
const u64 = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), edge);

const high = (n: bigint) => Number(n >> 32n);
const low = (n: bigint) => Number(n & 0xffff_ffffn);

describe("64-bit halves: laws", () => {
  it("joinHalves(highOf(n), lowOf(n)) is n", () => {
    fc.assert(
      fc.property(safe, (n) => {
        expect(joinHalves(highOf(n), lowOf(n))).toBe(n);
        expect(highOf(n)).toBe(high(BigInt(n)));
        expect(lowOf(n)).toBe(low(BigInt(n)));
      }),
    );
  });

  it("carryOf is the carry of the exact sum", () => {
    fc.assert(
      fc.property(u32, u32, (a, b) => {
        expect(carryOf(a, b)).toBe(Number((BigInt(a) + BigInt(b)) >> 32n));
      }),
    );
  });

  it("offsetFrom is the exact difference when a double holds it, -1 otherwise", () => {
    fc.assert(
      fc.property(u64, u64, (a, b) => {
        const exact = a - b;
        const expected = exact >= 0n && exact < 2n ** 53n ? Number(exact) : -1;
        expect(offsetFrom(high(a), low(a), high(b), low(b))).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });

  it("offsetFrom of nearby addresses, at every place of the 64 bits", () => {
    fc.assert(
      fc.property(u64, fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }), (b, by) => {
        fc.pre(b + by < 2n ** 64n);
        const a = b + by;
        expect(offsetFrom(high(a), low(a), high(b), low(b))).toBe(Number(by));
        expect(offsetFrom(high(b), low(b), high(a), low(a))).toBe(by === 0n ? 0 : -1);
      }),
    );
  });
});
