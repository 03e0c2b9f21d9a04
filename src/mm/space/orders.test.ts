// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { CHANGES, explore, Violation } from "./orders.fixture.js";

/** Steps of the device during a change; more in the long run. */
const STEPS = 2;

describe("device accesses and changes of mappings in every order", () => {
  for (const [name, change] of Object.entries(CHANGES)) {
    it(`${name}: no access after the invalidation has returned, none to another's frame`, () => {
      const { runs, accesses } = explore(change, STEPS, false);
      expect(runs).toBeGreaterThan(10);
      expect(accesses).toBeGreaterThan(0);
    });
  }

  it("planted: a device that doesn't ask readRetry → found, for every change", () => {
    const found = Object.entries(CHANGES).map(([, change]) => {
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
