// SPDX-License-Identifier: MIT
// Hosts that close while something is wrong: they must come to an end, and say what was lost.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AttachHost, IpAddress, ServerHost } from "./index.js";
import { SILENT_LOG } from "./log.js";
import { loopback } from "./loopback.fixture.js";
import type { Stack } from "./stack.js";

const SERVER = IpAddress.parse(loopback(83));
const CLIENT = IpAddress.parse(loopback(84));
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "farpage-close-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

function startServer(): Promise<ServerHost> {
  const path = join(folder, "disk.img");
  return ServerHost.start({
    addresses: [SERVER],
    port: 1234,
    volumes: [{ name: "disk", path, sizeBytes: 1 << 20, readOnly: false }],
    queueDepth: 16,
    chunkBytes: 1 << 16,
    sessionCountMax: 2,
    pathCountMax: 1,
    alwaysInvalidate: true,
    log: SILENT_LOG,
  });
}

function startClient(): Promise<AttachHost> {
  return AttachHost.start({
    addresses: [CLIENT],
    target: { addresses: [SERVER], port: 1234, volume: "disk" },
    nbd: { kind: "unix", path: join(folder, "nbd.sock") },
    closeTimeoutMs: 300,
    log: SILENT_LOG,
  });
}

function stackOf(host: ServerHost | AttachHost): Stack {
  return (host as unknown as { stack: Stack }).stack;
}

function breakLane(host: ServerHost | AttachHost): void {
  stackOf(host).lane.add({
    pump: () => {
      throw new Error("a bug");
    },
    deadlineNs: () => 0,
    checkInvariants: () => {},
  });
}

describe("closing", () => {
  it("client, then server: both end, the socket file is gone", async () => {
    const server = await startServer();
    const client = await startClient();
    await client.close();
    await server.close();
    expect(readdirSync(folder)).toEqual(["disk.img"]);
  });

  it("the server falls silent: the client's last flush is given up after a while", async () => {
    const server = await startServer();
    const client = await startClient();
    await stackOf(server).lane.stop();
    await client.close();
    expect(readdirSync(folder)).toEqual(["disk.img"]);
    await expect(server.close()).rejects.toMatchObject({ code: "ESHUTDOWN" });
  });

  it("a server's lane fails: it says so, and closing says what may not be durable", async () => {
    const server = await startServer();
    breakLane(server);
    await expect(server.failed).rejects.toThrow("a bug");
    await expect(server.close()).rejects.toMatchObject({ code: "ESHUTDOWN" });
    expect(stackOf(server).link.port).toBe(4791);
    // Its address is free again.
    await (await startClientlessServer()).close();
  });

  it("a client's lane fails: the socket file goes all the same", async () => {
    const server = await startServer();
    const client = await startClient();
    breakLane(client);
    await expect(client.failed).rejects.toThrow("a bug");
    await client.close();
    expect(readdirSync(folder)).toEqual(["disk.img"]);
    await server.close();
  });
});

function startClientlessServer(): Promise<ServerHost> {
  return ServerHost.start({
    addresses: [SERVER],
    port: 1234,
    volumes: [{ name: "memory", path: null, sizeBytes: 1 << 20, readOnly: false }],
    queueDepth: 4,
    chunkBytes: 1 << 16,
    sessionCountMax: 1,
    pathCountMax: 1,
    alwaysInvalidate: true,
    log: SILENT_LOG,
  });
}
