// SPDX-License-Identifier: MIT
// What a running host tells of its memory, by a real control socket.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openHost } from "../host.js";
import { loopback } from "../loopback.fixture.js";
import { ControlClient, listInstances } from "./control-client.js";
import { MEMORY_STATISTICS } from "./memory-statistics.js";

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
