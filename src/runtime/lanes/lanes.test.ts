// SPDX-License-Identifier: MIT
// A server of two lanes: what is counted is seen together, and it comes up and ends as a whole.
// More takes longer: lanes.long.test.ts.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { foreignCallsUnavailable } from "../../os/index.js";
import {
  attach,
  attachToBoth,
  beginTest,
  connectionsOf,
  endTest,
  hosts,
  memory,
  serve,
  statistics,
} from "./lanes.fixture.js";

beforeEach(beginTest);
afterEach(endTest);

describe.skipIf(foreignCallsUnavailable() !== null)("a server of two lanes", () => {
  it("sessions on both, each whole on one; what is counted is seen together", async () => {
    const server = await serve();
    expect(server.laneCount).toBe(2);
    await attachToBoth();
    const statistic = await statistics();
    const { queuePairs, lanes, device, link } = statistic;
    // A service connection and one for requests.
    for (const count of connectionsOf(statistic)) expect(count % 2).toBe(0);
    for (const { lane, qpn, type } of queuePairs) if (type === "RC") expect(qpn % 2).toBe(lane);
    expect(lanes.map(({ lane }) => lane)).toEqual([0, 1]);
    const { packetsReceived } = device.counters;
    const parts = lanes.map((lane) => lane.device.counters["packetsReceived"] ?? 0);
    expect(parts[0]).toBeGreaterThan(0);
    expect(parts[1]).toBeGreaterThan(0);
    expect((parts[0] ?? 0) + (parts[1] ?? 0)).toBe(packetsReceived);
    expect(link).toMatchObject({ handedOn: 0, handedOnLost: 0 });
    const arena = await memory();
    expect(arena.laneCount).toBe(2);
    for (const lane of [0, 1]) {
      expect(arena.zones.some(({ name }) => name === `lane ${lane}, arena 0`)).toBe(true);
    }
    const chunks = arena.pins.find(({ owner }) => owner === "RTRS chunks");
    const lane0 = arena.zones.filter(({ name }) => name.startsWith("lane 0"));
    const stuck = lane0.reduce((sum, zone) => sum + zone.bytesStuck, 0);
    expect(chunks?.bytes).toBeGreaterThan(0);
    expect(stuck).toBeGreaterThan(0);
  });

  it("a lane's thread that ends → the server has failed, and closes what is left", async () => {
    const server = await serve();
    await attach();
    const { group } = server as unknown as {
      group: { threads: { worker: { terminate(): Promise<number> } }[] };
    };
    await group.threads[0]?.worker.terminate();
    await expect(server.failed).rejects.toThrow("the thread of a lane ended");
    await server.close();
    hosts.splice(hosts.indexOf(server), 1);
    // All of it is free again.
    await serve();
  });

  it("something that a lane can't have → told, and nothing is left open", async () => {
    const bad = serve({ lanes: 65 });
    await expect(bad).rejects.toMatchObject({ code: "EINVAL" });
    const taken = await serve({ lanes: 2 });
    await expect(serve({ lanes: 2 })).rejects.toMatchObject({ code: "EADDRINUSE" });
    await expect(serve({ lanes: 1 })).rejects.toMatchObject({ code: "EADDRINUSE" });
    await taken.close();
  });
});
