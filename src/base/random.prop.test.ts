// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { randomBelow, SeededRandom } from "./random.js";

const seed = fc.integer();

function take(random: SeededRandom, count: number): number[] {
  return Array.from({ length: count }, () => random.nextU32());
}

describe("SeededRandom: laws", () => {
  it("the same seed → the same numbers, all of 32 unsigned bits", () => {
    fc.assert(
      fc.property(seed, (s) => {
        const numbers = take(new SeededRandom(s), 50);
        expect(take(new SeededRandom(s), 50)).toEqual(numbers);
        for (const n of numbers) {
          expect(Number.isInteger(n) && n >= 0 && n <= 0xffff_ffff).toBe(true);
        }
      }),
    );
  });

  it("different seeds and different labels → different streams", () => {
    fc.assert(
      fc.property(seed, seed, fc.string(), fc.string(), (a, b, label, other) => {
        fc.pre(a >>> 0 !== b >>> 0 && label !== other);
        expect(take(new SeededRandom(a), 8)).not.toEqual(take(new SeededRandom(b), 8));
        const random = new SeededRandom(a);
        expect(take(random.fork(label), 8)).not.toEqual(take(random, 8));
      }),
    );
  });

  it("fork depends on seed and label only: a consumer more or less shifts nobody", () => {
    fc.assert(
      fc.property(seed, fc.string(), fc.nat({ max: 20 }), (s, label, drawn) => {
        const fresh = take(new SeededRandom(s).fork(label), 8);
        const used = new SeededRandom(s);
        take(used, drawn);
        used.fork("another");
        expect(take(used.fork(label), 8)).toEqual(fresh);
      }),
    );
  });

  it("randomBelow stays below its bound", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 1, max: 2 ** 32 }), (s, bound) => {
        const n = randomBelow(new SeededRandom(s), bound);
        expect(Number.isInteger(n) && n >= 0 && n < bound).toBe(true);
      }),
    );
  });

  it("each bit is set about half of the time", () => {
    const random = new SeededRandom(1);
    const ones = new Array<number>(32).fill(0);
    for (let i = 0; i < 20_000; i++) {
      const n = random.nextU32();
      for (let bit = 0; bit < 32; bit++) ones[bit] = (ones[bit] as number) + ((n >>> bit) & 1);
    }
    // Five standard deviations of a fair coin (71 each).
    for (const count of ones) expect(Math.abs(count - 10_000)).toBeLessThan(355);
  });
});
