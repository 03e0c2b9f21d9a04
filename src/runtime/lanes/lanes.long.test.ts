// SPDX-License-Identifier: MIT
// What takes longer of a server of two lanes: sessions that meet, traces, coming back.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { readPcapng } from "../../../test/support/pcapng-reader.js";
import { foreignCallsUnavailable } from "../../os/index.js";
import { RnbdClient } from "../../rnbd/index.js";
import { listInstances, parseAccessRule, receiveTrace } from "../index.js";
import { SILENT_LOG } from "../log.js";
import {
  attach,
  attachToBoth,
  beginTest,
  connectionsOf,
  endTest,
  folder,
  hosts,
  SERVER,
  serve,
  sessions,
  statistics,
} from "./lanes.fixture.js";

beforeEach(beginTest);
afterEach(endTest);

describe.skipIf(foreignCallsUnavailable() !== null)("a server of two lanes", () => {
  it("names are one list, and so is who writes a volume, whatever the lane", async () => {
    await serve();
    await attachToBoth();
    const writer = await attach({ readOnly: false, sessionName: "writer" });
    const target = { addresses: [SERVER], port: 1234, volume: writer.volume };
    const impatient = { connectTimeoutMs: 700 };
    // Each new session has a lane by chance.
    for (let i = 0; i < 6; i++) {
      const other = attach({ ...impatient, target, readOnly: false });
      await expect(other).rejects.toMatchObject({ code: "EPERM" });
    }
    for (let i = 0; i < 2; i++) {
      const namesake = attach({ ...impatient, target, sessionName: "writer" });
      await expect(namesake).rejects.toMatchObject({ code: "ETIMEDOUT" });
    }
  });

  it("a trace has the packets of both lanes in one file, from the first on", async () => {
    const traceFile = join(folder, "trace.pcapng");
    const server = await serve({ traceFile });
    const [instance] = await listInstances(folder);
    const chunks: Buffer[] = [];
    let stop: () => void = () => {};
    const asked = receiveTrace(
      instance as NonNullable<typeof instance>,
      {},
      async (bytes) => {
        chunks.push(Buffer.from(bytes));
      },
      new Promise<void>((resolve) => {
        stop = resolve;
      }),
    );
    await attachToBoth();
    const { queuePairs } = await statistics();
    const wanted = queuePairs.filter(({ peer }) => peer !== null).map(({ qpn }) => qpn);
    stop();
    expect(await asked).toMatchObject({ isComplete: true, droppedCount: 0 });
    for (const host of hosts.splice(1).reverse()) await host.close();
    await server.close();
    for (const bytes of [Buffer.concat(chunks), readFileSync(traceFile)]) {
      const seen = new Set<number>();
      const { packets } = readPcapng(bytes);
      // IPv4 and UDP headers in front: 28 bytes.
      for (const packet of packets) {
        seen.add(Buffer.from(packet.bytes).readUInt32BE(32) & 0xff_ffff);
      }
      for (const qpn of wanted) expect(seen).toContain(qpn);
    }
  });

  it("ended and started again → the same addresses, files and names", async () => {
    for (let i = 0; i < 2; i++) {
      await serve();
      await attach({ readOnly: false, sessionName: "again" });
      for (const host of hosts.splice(0).reverse()) await host.close();
    }
  });
});

describe.skipIf(foreignCallsUnavailable() !== null)("a client", () => {
  it("two lanes → a session on each lane of the server, all seen and changed", async () => {
    await serve();
    const attached = await attach({
      ...{ lanes: 2, nbdConnectionCountMax: 3, sessionName: "reader" },
      control: { name: "attach", folder },
    });
    expect(attached.laneCount).toBe(2);
    const seen = await sessions();
    const expected = [
      { lane: 0, sessname: "reader", state: "CONNECTED", mpath_policy: "round-robin" },
      { lane: 1, sessname: "reader-1", state: "CONNECTED", mpath_policy: "round-robin" },
    ];
    expect(seen).toEqual(expected.map((one) => expect.objectContaining(one)));
    // A service connection and one for requests of each.
    expect(connectionsOf(await statistics())).toEqual([2, 2]);
  });

  it("two lanes that write → one client to the server, others are others", async () => {
    await serve();
    const target = { addresses: [SERVER], port: 1234, volume: "file" };
    const attached = await attach({ lanes: 2, readOnly: false, target });
    expect(attached.laneCount).toBe(2);
    expect(connectionsOf(await statistics())).toEqual([2, 2]);
    const other = attach({ lanes: 2, readOnly: false, target, connectTimeoutMs: 5000 });
    await expect(other).rejects.toMatchObject({ code: "EPERM" });
    await attached.close();
    hosts.splice(hosts.indexOf(attached), 1);
    expect((await attach({ lanes: 2, readOnly: false, target })).laneCount).toBe(2);
  });

  it("two lanes for a volume that is theirs alone → both have it, and nobody else", async () => {
    await serve({ allow: [parseAccessRule("loopback,exclusive")] });
    const target = { addresses: [SERVER], port: 1234, volume: "file" };
    for (const readOnly of [true, false]) {
      const attached = await attach({ lanes: 2, readOnly, target });
      expect(attached.laneCount).toBe(2);
      const other = attach({ readOnly: true, target, connectTimeoutMs: 5000 });
      await expect(other).rejects.toMatchObject({ code: "EBUSY" });
      await attached.close();
      hosts.splice(hosts.indexOf(attached), 1);
    }
  });

  it("two lanes, a server without groups → one that writes, which the log says", async () => {
    const isInGroup = vi.spyOn(RnbdClient.prototype, "isInGroup", "get").mockReturnValue(false);
    try {
      await serve();
      const said: string[] = [];
      const log = { ...SILENT_LOG, warn: (text: string) => said.push(text) };
      const attached = await attach({
        ...{ lanes: 2, readOnly: false, log, nbdConnectionCountMax: 3 },
      });
      expect(attached.laneCount).toBe(1);
      expect(said).toEqual([expect.stringContaining("one lane alone: this server")]);
      expect(connectionsOf(await statistics()).sort()).toEqual([0, 2]);
      // All NBD clients are the one lane's.
      const alone = await attach({ readOnly: true, nbdConnectionCountMax: 3 });
      expect(attached.memoryBytesMax).toBe(alone.memoryBytesMax);
    } finally {
      isInGroup.mockRestore();
    }
  });
});
