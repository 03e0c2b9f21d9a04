// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { CHANGES, explore, Violation } from "./orders.fixture.js";

/** Steps of the device during a change; more in the long run, which has blocks of 2 MiB too. */
const STEPS = 2;
const SMALL_CHANGES = Object.entries(CHANGES).filter(([, change]) => change.isHuge !== true);

describe("device accesses and changes of mappings in every order", () => {
  for (const [name, change] of SMALL_CHANGES) {
    it(`${name}: no access after the invalidation has returned, none to another's frame`, () => {
      const { runs, accesses } = explore(change, STEPS, false);
      expect(runs).toBeGreaterThan(10);
      expect(accesses).toBeGreaterThan(0);
    });
  }

  it("planted: a device that doesn't ask readRetry → found, for every change", () => {
    const changes = SMALL_CHANGES.filter(([, change]) => change.isFault !== true);
    const found = changes.map(([, change]) => {
      try {
        explore(change, STEPS, true);
        return false;
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        return true;
      }
    });
    expect(found).toEqual(found.map(() => true));
  });
});
