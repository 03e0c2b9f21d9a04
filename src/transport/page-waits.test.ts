// SPDX-License-Identifier: MIT

import { expect, it } from "vitest";
import { PageWaits } from "./page-waits.js";
import type { QpCore } from "./queue-pair.js";

/** A queue pair that waits again `more` times when it is asked to go on. */
function waiter(index: number, waits: () => PageWaits, more = 0) {
  const device = { counters: { pageFaults: 0 } };
  const counters = { pageFaults: 0 };
  let asked = 0;
  const qp = {
    index,
    device,
    counters,
    onPagesServed: () => {
      asked++;
      if (asked <= more) waits().wait(qp as unknown as QpCore);
    },
  };
  return { qp: qp as unknown as QpCore, counters, asked: () => asked };
}

it("waiting twice is once, and counted once; who waits again is asked next time", () => {
  const qps: (QpCore | null)[] = [];
  const waits = new PageWaits(2, qps);
  const one = waiter(0, () => waits, 1);
  const other = waiter(1, () => waits);
  qps.push(one.qp, other.qp);
  for (let i = 0; i < 5; i++) waits.wait(one.qp);
  waits.wait(other.qp);
  expect([one.counters.pageFaults, other.counters.pageFaults]).toEqual([1, 1]);
  waits.pagesServed();
  expect([one.asked(), other.asked()]).toEqual([1, 1]);
  waits.pagesServed();
  expect([one.asked(), other.asked()]).toEqual([2, 1]);
  waits.pagesServed();
  expect(one.asked()).toBe(2);
});

it("a queue pair that is gone is not asked", () => {
  const qps: (QpCore | null)[] = [null];
  const waits = new PageWaits(1, qps);
  waits.wait(waiter(0, () => waits).qp);
  expect(() => waits.pagesServed()).not.toThrow();
});
