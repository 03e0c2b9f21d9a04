// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { HeapMemorySource } from "./memory.js";

describe("HeapMemorySource", () => {
  it("gives zeroes, one buffer under bytes and view, page-aligned addresses below 2^48", () => {
    const memory = new HeapMemorySource().allocate(5000);
    expect(memory.bytes).toEqual(new Uint8Array(5000));
    expect(memory.length).toBe(5000);
    memory.view.setUint32(4, 0x01020304);
    expect([...memory.bytes.subarray(4, 8)]).toEqual([1, 2, 3, 4]);
    expect(memory.address % 4096).toBe(0);
    expect(memory.address + memory.length).toBeLessThan(2 ** 48);
  });

  it("ranges never overlap and leave a guard page between them", () => {
    const source = new HeapMemorySource(0x1000);
    const lengths = [1, 4096, 4097, 0, 8192];
    const ranges = lengths.map((length) => source.allocate(length));
    for (let i = 1; i < ranges.length; i++) {
      const before = ranges[i - 1] as (typeof ranges)[number];
      const gap = (ranges[i]?.address as number) - (before.address + before.length);
      expect(gap).toBeGreaterThanOrEqual(4096);
    }
  });
});
