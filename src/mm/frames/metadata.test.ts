// SPDX-License-Identifier: MIT
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { POLICIES } from "../alloc/index.js";
import { measureMetadata, metadataTable, PhysicalMemory, ZONE } from "./index.js";

const GIB = 2 ** 30;

describe("metadata", () => {
  it.each(POLICIES)("$name: at most 24 bytes a frame of a normal zone", (policy) => {
    const memory = new PhysicalMemory({ policy });
    memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes: GIB / 4 });
    const frames = 65_536;
    // Small requests, so that lists that are made when they are needed are there.
    for (let i = 0; i < 1000; i++) memory.allocate(i % 4, 1);
    expect(memory.metadataBytes / frames).toBeGreaterThanOrEqual(20);
    expect(memory.metadataBytes / frames).toBeLessThanOrEqual(24);
  });

  it("16 devices of 24 GiB of BAR: kilobytes at 1 GiB, the table of docs/memory.md", () => {
    const costs = measureMetadata(16, 24 * GIB);
    expect(costs.map((cost) => cost.recordCount)).toEqual([100_663_296, 196_608, 384]);
    expect(costs[2]?.metadataBytes).toBeLessThan(32 * 1024);
    const docs = readFileSync(new URL("../../../docs/memory.md", import.meta.url), "utf8");
    expect(docs).toContain(metadataTable(costs));
  });
});
