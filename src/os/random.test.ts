// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { SystemRandom } from "./index.js";

describe("SystemRandom", () => {
  it("many words → 32 bits wide, none repeated in a row, streams differ", () => {
    const random = new SystemRandom();
    const fork = random.fork("keys");
    const words = Array.from({ length: 3000 }, () => random.nextU32());
    const others = Array.from({ length: 3000 }, () => fork.nextU32());
    for (const word of words) expect(word >>> 0).toBe(word);
    // Two equal words among 3,000 of 2^32 happen once in a thousand runs; four, never.
    expect(new Set(words).size).toBeGreaterThan(2996);
    expect(new Set([...words, ...others]).size).toBeGreaterThan(5990);
    for (let bit = 0; bit < 32; bit++) {
      const count = words.filter((word) => ((word >>> bit) & 1) === 1).length;
      expect(count).toBeGreaterThan(1300);
      expect(count).toBeLessThan(1700);
    }
  });
});
