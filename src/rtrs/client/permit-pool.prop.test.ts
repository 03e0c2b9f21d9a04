// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PermitPool } from "./permit-pool.js";

describe("permit pool", () => {
  it("hands out the lowest free permit, each to one holder at a time", () => {
    const commands = fc.array(fc.oneof(fc.constant("take" as const), fc.nat()), { maxLength: 300 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), commands, (capacity, steps) => {
        const pool = new PermitPool(capacity);
        const taken = new Set<number>();
        for (const step of steps) {
          if (step === "take") {
            let lowest = 0;
            while (taken.has(lowest)) lowest++;
            const permit = pool.take();
            expect(permit).toBe(lowest < capacity ? lowest : -1);
            if (permit >= 0) taken.add(permit);
          } else if (taken.size > 0) {
            const permit = [...taken][step % taken.size] as number;
            pool.give(permit);
            taken.delete(permit);
          }
          expect(pool.freeCount).toBe(capacity - taken.size);
        }
        for (let permit = 0; permit < capacity; permit++) {
          expect(pool.isTaken(permit)).toBe(taken.has(permit));
        }
      }),
    );
  });

  it("a permit given back twice, or never taken → a bug, said so", () => {
    const pool = new PermitPool(33);
    expect(() => pool.give(32)).toThrow(/taken/);
    expect(pool.take()).toBe(0);
    pool.give(0);
    expect(() => pool.give(0)).toThrow(/taken/);
    expect(() => pool.give(33)).toThrow(/range/);
  });
});
