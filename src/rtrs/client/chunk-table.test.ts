// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ChunkTable } from "./chunk-table.js";

function region(addressHigh: number, addressLow: number, rkey: number, length: number) {
  return { addressHigh, addressLow, rkey, length };
}

describe("chunk table", () => {
  it("one region per chunk, not adjacent → each its own address and key", () => {
    const regions = [region(1, 0x1000, 7, 8192), region(0, 0xf000, 8, 8192)];
    const table = new ChunkTable(regions, 2, 8192);
    expect([...table.addressHighs]).toEqual([1, 0]);
    expect([...table.addressLows]).toEqual([0x1000, 0xf000]);
    expect([...table.keys]).toEqual([7, 8]);
    expect(table.shift).toBe(27);
  });

  it("one region for all, across 2^32, at the top of all addresses → cut into chunks", () => {
    const table = new ChunkTable([region(0xffff_fffe, 0xffff_e000, 9, 3 * 8192)], 3, 8192);
    expect([...table.addressHighs]).toEqual([0xffff_fffe, 0xffff_ffff, 0xffff_ffff]);
    expect([...table.addressLows]).toEqual([0xffff_e000, 0, 0x2000]);
    expect([...table.keys]).toEqual([9, 9, 9]);
  });

  it.each([
    ["no region", [], 2],
    ["a number of regions that does not divide", [region(0, 0, 1, 8192), region(0, 0, 1, 8192)], 3],
    ["too few chunks", [region(0, 0, 1, 8192)], 2],
    ["too many chunks", [region(0, 0, 1, 3 * 8192)], 2],
    ["a region of no bytes", [region(0, 0, 1, 0), region(0, 0, 1, 2 * 8192)], 2],
    ["a broken chunk", [region(0, 0, 1, 8192), region(0, 0, 1, 8191)], 2],
  ])("%s → refused", (_name, regions, count) => {
    expect(() => new ChunkTable(regions, count, 8192)).toThrow(/INFO_RSP/);
  });
});
