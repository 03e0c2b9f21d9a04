// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Timed, TimerHeap } from "./timer-heap.js";

describe("TimerHeap", () => {
  it("fires in the order of deadlines whatever was armed, moved and disarmed before", () => {
    const step = fc.record({
      index: fc.nat(15),
      timerNs: fc.option(fc.nat(1000), { freq: 3 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const heap = new TimerHeap<Timed>();
        const items = Array.from({ length: 16 }, () => ({ timerNs: Infinity, heapIndex: -1 }));
        const model = new Map<number, number>();
        for (const { index, timerNs } of steps) {
          if (timerNs === null) {
            heap.disarm(items[index] as Timed);
            model.delete(index);
          } else {
            heap.arm(items[index] as Timed, timerNs);
            model.set(index, timerNs);
          }
          heap.checkInvariants();
          expect(heap.count).toBe(model.size);
          expect(heap.deadlineNs()).toBe(Math.min(...model.values()));
        }
        const expected = [...model.values()].sort((a, b) => a - b);
        const fired: number[] = [];
        while (heap.count > 0) {
          const dueNs = heap.deadlineNs();
          expect(heap.takeDue(dueNs - 1)).toBeNull();
          expect(heap.takeDue(dueNs)).not.toBeNull();
          fired.push(dueNs);
        }
        expect(fired).toEqual(expected);
      }),
    );
  });
});
