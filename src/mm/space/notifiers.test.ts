// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { randomBelow, SeededRandom } from "../../base/index.js";
import { INVALIDATE, NotifierList, type RangeNotifier } from "./index.js";

const { UNMAP } = INVALIDATE;

function notifier(start: number, end: number, invalidate = () => {}): RangeNotifier {
  return { start, end, invalidate };
}

describe("NotifierList", () => {
  it("whom a range concerns is told, whether they begin before, in or behind others", () => {
    const list = new NotifierList();
    const told: string[] = [];
    const ranges = [
      [0, 100],
      [10, 20],
      [20, 30],
      [30, 40],
      [25, 26],
      [0, 10],
    ] as const;
    const all = ranges.map(([start, end]) => {
      const one = notifier(start, end, () => told.push(`${start}-${end}`));
      list.add(one);
      return one;
    });
    list.invalidateStart(20, 30, UNMAP);
    expect(told.splice(0).sort()).toEqual(["0-100", "20-30", "25-26"]);
    expect(all.map((one) => list.readBegin(one) % 2)).toEqual([1, 0, 1, 0, 1, 0]);
    list.invalidateEnd(20, 30);
    list.checkInvariants();
    list.remove(all[0] as RangeNotifier);
    list.invalidateStart(9, 11, UNMAP);
    expect(told.splice(0).sort()).toEqual(["0-10", "10-20"]);
    list.invalidateEnd(9, 11);
  });

  it("many ranges of all lengths → just those that a loop over all finds", () => {
    const random = new SeededRandom(3);
    for (let round = 0; round < 30; round++) {
      const list = new NotifierList();
      const told = new Set<RangeNotifier>();
      const all: RangeNotifier[] = [];
      for (let i = randomBelow(random, 40); i >= 0; i--) {
        const start = randomBelow(random, 100);
        const length = 1 + randomBelow(random, randomBelow(random, 5) === 0 ? 200 : 10);
        const one: RangeNotifier = notifier(start, start + length, () => told.add(one));
        list.add(one);
        all.push(one);
        if (randomBelow(random, 6) === 0) list.remove(all.splice(0, 1)[0] as RangeNotifier);
      }
      list.checkInvariants();
      for (let start = 0; start < 100; start += 7) {
        const end = start + 1 + randomBelow(random, 20);
        list.invalidateStart(start, end, UNMAP);
        expect(told).toEqual(new Set(all.filter((one) => one.start < end && one.end > start)));
        list.invalidateEnd(start, end);
        told.clear();
      }
    }
  });

  it("who is told first finds the numbers of all others odd already", () => {
    const list = new NotifierList();
    const seen: number[] = [];
    const all: RangeNotifier[] = [0, 1, 2].map((start) =>
      notifier(start, 10, () => seen.push(...all.map((one) => list.readBegin(one) % 2))),
    );
    for (const one of all) list.add(one);
    list.invalidateStart(5, 6, UNMAP);
    list.invalidateEnd(5, 6);
    expect(seen).toEqual(new Array(9).fill(1));
  });

  it("what is looked up while a range changes is forgotten, then and after", () => {
    const list = new NotifierList();
    const one = notifier(0, 10);
    list.add(one);
    list.invalidateStart(0, 5, UNMAP);
    const sequence = list.readBegin(one);
    expect(list.readRetry(one, sequence)).toBe(true);
    // Two changes of it at a time: it is stable when both are over.
    list.invalidateStart(3, 10, UNMAP);
    list.invalidateEnd(0, 5);
    expect(list.readBegin(one) % 2).toBe(1);
    list.invalidateEnd(3, 10);
    expect(list.readRetry(one, sequence)).toBe(true);
    expect(list.readRetry(one, list.readBegin(one))).toBe(false);
    list.checkInvariants();
  });

  it("added while its range changes → odd until that ends, told of nothing before", () => {
    const list = new NotifierList();
    let toldCount = 0;
    const late = notifier(4, 8, () => toldCount++);
    const elsewhere = notifier(20, 30);
    list.add(
      notifier(0, 10, () => {
        list.add(late);
        list.add(elsewhere);
      }),
    );
    list.invalidateStart(0, 5, UNMAP);
    expect([list.readBegin(late) % 2, list.readBegin(elsewhere) % 2]).toEqual([1, 0]);
    expect(list.readRetry(late, list.readBegin(late))).toBe(true);
    list.invalidateEnd(0, 5);
    expect([list.readBegin(late) % 2, toldCount]).toEqual([0, 0]);
    list.checkInvariants();
  });

  it("removed while others are told → not told; what it looked up is forgotten", () => {
    const list = new NotifierList();
    let toldCount = 0;
    const second = notifier(1, 10, () => toldCount++);
    list.add(notifier(0, 10, () => list.remove(second)));
    list.add(second);
    const sequence = list.readBegin(second);
    list.invalidateStart(5, 6, UNMAP);
    list.invalidateEnd(5, 6);
    expect(toldCount).toBe(0);
    expect(list.readRetry(second, sequence)).toBe(true);
    list.remove(second);
    expect(list.count).toBe(1);
  });

  it("removed and added again → no number comes twice: a change in between is noticed", () => {
    const list = new NotifierList();
    const one = notifier(0, 10);
    const seen = new Set<number>();
    for (let i = 0; i < 3; i++) {
      list.add(one);
      const sequence = list.readBegin(one);
      expect(seen.has(sequence)).toBe(false);
      seen.add(sequence);
      list.invalidateStart(0, 1, UNMAP);
      // Also when it goes amid a change.
      if (i === 1) list.remove(one);
      list.invalidateEnd(0, 1);
      list.remove(one);
      expect(list.readRetry(one, sequence)).toBe(true);
    }
    list.add(one);
    for (const sequence of seen) expect(list.readRetry(one, sequence)).toBe(true);
  });
});
