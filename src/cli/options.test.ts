// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { seconds } from "./options.js";

describe("options", () => {
  it("seconds beyond what a timer holds → refused, not over at once", () => {
    expect(seconds.parse("1999999.5")).toBe(1_999_999.5);
    for (const text of ["2147484", "1e3", "-1", "", "9".repeat(400)]) {
      expect(seconds.safeParse(text).success, text).toBe(false);
    }
  });
});
