// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IntRing, ObjectRing } from "./ring.js";

type Step = { readonly do: "push"; readonly value: number } | { readonly do: "shift" | "clear" };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.integer().map((value) => ({ do: "push" as const, value })) },
  { weight: 4, arbitrary: fc.constant({ do: "shift" as const }) },
  { weight: 1, arbitrary: fc.constant({ do: "clear" as const }) },
);

/** Powers of two at or above the asked-for capacity. */
function rounded(capacity: number): number {
  return 2 ** Math.ceil(Math.log2(capacity));
}

/** Rings whose counters are about to pass 2^31 and 2^32, reached here without that many pushes. */
function aged<R extends object>(ring: R, count: number): R {
  return Object.assign(ring, { head: count | 0, tail: count | 0 });
}

const start = fc.constantFrom(0, 0x7fff_fffe, 0xffff_fffe);

describe("IntRing against an array", () => {
  it("every sequence of pushes, shifts and clears → the same values, counts and refusals", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), start, fc.array(step), (capacity, age, steps) => {
        const ring = aged(new IntRing(capacity), age);
        let model: number[] = [];
        for (const s of steps) {
          if (s.do === "push") {
            const fits = model.length < rounded(capacity);
            expect(ring.push(s.value)).toBe(fits);
            if (fits) model.push(s.value);
          } else if (s.do === "clear") {
            ring.clear();
            model = [];
          } else if (model.length > 0) {
            expect(ring.peek()).toBe(model[0]);
            expect(ring.shift()).toBe(model.shift());
          }
          expect(ring.count).toBe(model.length);
        }
      }),
    );
  });

  it("shift and peek of an empty ring → assertions", () => {
    expect(() => new IntRing(4).shift()).toThrow("ring is not empty");
    expect(() => new IntRing(4).peek()).toThrow("ring is not empty");
  });

  it("a capacity out of range → an assertion", () => {
    expect(() => new IntRing(0)).toThrow("ring capacity");
    expect(() => new ObjectRing(2 ** 31)).toThrow("ring capacity");
  });
});

describe("ObjectRing against an array", () => {
  it("every sequence of pushes and shifts → the same objects, null when empty", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), start, fc.array(step), (capacity, age, steps) => {
        const ring = aged(new ObjectRing<{ value: number }>(capacity), age);
        const model: { value: number }[] = [];
        for (const s of steps) {
          if (s.do === "push") {
            const object = { value: s.value };
            const fits = model.length < rounded(capacity);
            expect(ring.push(object)).toBe(fits);
            if (fits) model.push(object);
          } else {
            expect(ring.peek()).toBe(model[0] ?? null);
            expect(ring.shift()).toBe(model.shift() ?? null);
          }
          expect(ring.count).toBe(model.length);
        }
      }),
    );
  });

  it("a slot that was taken keeps nothing alive", () => {
    const ring = new ObjectRing<object>(2);
    ring.push({});
    ring.push({});
    ring.shift();
    ring.shift();
    expect((ring as unknown as { slots: unknown[] }).slots).toEqual([null, null]);
  });
});
