// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { HostileSystem } from "./hostile-system.js";

describe("RNBD server and client under fuzz", () => {
  it.each([1, 2])(
    "seed %i: changed CM, RTRS and RNBD messages hurt the victim's session alone",
    (seed) => {
      const report = new HostileSystem(seed).run(200);
      expect(report.bystander).toBeGreaterThan(20);
      expect(report.victim).toBeGreaterThan(50);
    },
  );

  it("the same seed twice → the same run", () => {
    const first = new HostileSystem(5).run(100);
    expect(new HostileSystem(5).run(100)).toEqual(first);
  });
});
