// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { monotonicNs } from "./index.js";

describe("monotonicNs", () => {
  it("called again and again → integers that never fall", () => {
    let last = monotonicNs();
    for (let i = 0; i < 10_000; i++) {
      const now = monotonicNs();
      expect(Number.isSafeInteger(now) && now >= last).toBe(true);
      last = now;
    }
  });
});
