// SPDX-License-Identifier: MIT
import { constants } from "node:os";
import { describe, expect, it } from "vitest";
import { ERRNO, errnoName } from "./errno.js";

describe("ERRNO", () => {
  it("names and numbers are each used once", () => {
    const numbers = Object.values(ERRNO);
    expect(new Set(numbers).size).toBe(numbers.length);
  });

  it.runIf(process.platform === "linux")("agrees with the system's numbers", () => {
    const system: Readonly<Record<string, number>> = constants.errno;
    const shared = Object.entries(ERRNO).filter(([name]) => system[name] !== undefined);
    expect(shared.length).toBeGreaterThan(40);
    for (const [name, number] of shared) expect(number, name).toBe(system[name]);
  });

  it("errnoName: known → its name, unknown → its number", () => {
    expect(errnoName(ERRNO.EIO)).toBe("EIO");
    expect(errnoName(5000)).toBe("errno 5000");
  });
});
