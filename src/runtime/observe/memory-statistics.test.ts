// SPDX-License-Identifier: MIT
// What a running host tells of its memory, by a real control socket.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openMemorySource } from "../../os/index.js";
import { openHost } from "../host.js";
import { loopback } from "../loopback.fixture.js";
import { ControlClient, listInstances } from "./control-client.js";
import { MEMORY_STATISTICS, memoryStatisticsOf, mergeMemory } from "./memory-statistics.js";

it("memory of several lanes: zones of each by its name, pins and counters together", () => {
  const lane = (index: number, isSystem: boolean) => {
    using source = openMemorySource({ backend: "node" });
    const chunks = source.allocate(8192, "RTRS chunks");
    const requests = source.allocate(4096, "NBD requests");
    chunks.pin?.(0, 8192);
    if (index === 1) requests.pin?.(0, 4096);
    const own = memoryStatisticsOf(source, index);
    chunks.unpin?.(0, 8192);
    if (index === 1) requests.unpin?.(0, 4096);
    const pages = { mappedBytes: 8, residentBytes: 4, transparentHugeBytes: 2, hugetlbBytes: 1 };
    const counters = { ...own.counters, bytesMoved: 5 };
    return { ...own, counters, system: isSystem ? pages : null };
  };
  const both = MEMORY_STATISTICS.parse(mergeMemory([lane(0, true), lane(1, false), lane(2, true)]));
  expect(both.laneCount).toBe(3);
  const names = [0, 1, 2].map((index) => `lane ${index}, arena 0`);
  expect(both.zones.map(({ name }) => name)).toEqual(names);
  expect(both.pins).toEqual([
    { owner: "RTRS chunks", bytes: 3 * 8192, pins: 3 },
    { owner: "NBD requests", bytes: 4096, pins: 1 },
  ]);
  expect(both.counters["bytesMoved"]).toBe(15);
  expect(both.system).toEqual({
    mappedBytes: 16,
    residentBytes: 8,
    transparentHugeBytes: 4,
    hugetlbBytes: 2,
  });
});

it("memory: the arena by zone and order, and what the system gave for it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "farpage-memory-"));
  const host = await openHost({ addresses: [loopback(188)], control: { name: "memory", folder } });
  try {
    const memory = host.map({ length: 3 << 20 });
    const mr = host.openDevice().allocPd().registerMr(memory);
    const [instance] = await listInstances(folder);
    const client = await ControlClient.connect(instance?.path ?? "none");
    try {
      const reply = await client.ask({ request: "memory" });
      const arena = MEMORY_STATISTICS.parse(reply["memory"]);
      const used = arena.zones.reduce((sum, zone) => sum + zone.bytes - zone.freeBytes, 0);
      expect(used).toBeGreaterThanOrEqual(3 << 20);
      expect([arena.laneCount, arena.zones[0]?.name]).toEqual([1, "arena 0"]);
      expect(arena.zones[0]?.kind).toBe("normal");
      expect(arena.policy).toBe("grouped");
      const pinned = arena.pins.map(({ owner }) => owner);
      expect(pinned).toEqual(["memory of the program", "management datagrams"]);
      expect(arena.pins[0]?.bytes).toBeGreaterThanOrEqual(3 << 20);
      mr.deregister();
      const { memory: later } = await client.ask({ request: "memory" });
      expect(MEMORY_STATISTICS.parse(later).pins).toHaveLength(1);
    } finally {
      client.close();
    }
  } finally {
    await host.close();
    rmSync(folder, { recursive: true });
  }
});
