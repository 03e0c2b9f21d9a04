// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { CHANGES, explore } from "./orders.fixture.js";

/** A whole pass through the device's loop within a change. */
const STEPS = 5;

describe("device accesses and changes of mappings in every order, five steps", () => {
  for (const [name, change] of Object.entries(CHANGES)) {
    it(`${name}: no access after the invalidation has returned, none to another's frame`, () => {
      expect(explore(change, STEPS, false).accesses).toBeGreaterThan(0);
    });
  }
});
