// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EventHeap } from "./event-heap.js";

describe("EventHeap", () => {
  it("gives entries by time, equal times in the order they went in", () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 20 })), (times) => {
        const heap = new EventHeap<number>();
        for (const [index, time] of times.entries()) heap.push(time, index);
        const expected = times
          .map((time, index) => ({ time, index }))
          .sort((a, b) => a.time - b.time || a.index - b.index)
          .map((entry) => entry.index);
        const actual: number[] = [];
        for (let next = heap.popDue(100); next !== null; next = heap.popDue(100)) actual.push(next);
        expect(actual).toEqual(expected);
      }),
    );
  });

  it("keeps what is not due", () => {
    const heap = new EventHeap<string>();
    heap.push(10, "later");
    expect(heap.popDue(9)).toBeNull();
    expect(heap.nextNs).toBe(10);
    expect(heap.popDue(10)).toBe("later");
    expect(heap.nextNs).toBe(Number.POSITIVE_INFINITY);
  });
});
