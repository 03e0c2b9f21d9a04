// SPDX-License-Identifier: MIT
// A server of two lanes by real sockets and threads, and clients of it. (Threads run the compiled
// program.)

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import {
  AttachHost,
  type AttachHostOptions,
  ControlClient,
  type HostStatistics,
  IpAddress,
  listInstances,
  MEMORY_STATISTICS,
  type MemoryStatistics,
  parseVolume,
  SESSION_STATUS,
  ServerHost,
  type ServerHostOptions,
  type SessionStatus,
  STATISTICS,
} from "../index.js";
import { SILENT_LOG } from "../log.js";
import { loopback } from "../loopback.fixture.js";

export const SERVER = IpAddress.parse(loopback(201));
const REPLY = z.object({ statistics: STATISTICS });
const SESSIONS = z.object({ sessions: z.array(SESSION_STATUS) });
/** Sessions choose their lane by chance: with so many, one in 2,000 runs leaves a lane empty. */
const CLIENT_COUNT_MAX = 12;

/** Of the test that runs. */
export let folder = "";
let clientCount = 0;
export const hosts: (ServerHost | AttachHost)[] = [];

export function beginTest(): void {
  folder = mkdtempSync(join(tmpdir(), "farpage-lanes-"));
  clientCount = 0;
}

export async function endTest(): Promise<void> {
  for (const host of hosts.splice(0).reverse()) await host.close().catch(() => {});
  rmSync(folder, { recursive: true });
}

export async function serve(more: Partial<ServerHostOptions> = {}): Promise<ServerHost> {
  const server = await ServerHost.start({
    addresses: [SERVER],
    port: 1234,
    volumes: [parseVolume("memory=memory:1M"), parseVolume(`file=${folder}/disk,size=1M`)],
    queueDepth: 4,
    chunkBytes: 1 << 14,
    sessionCountMax: CLIENT_COUNT_MAX,
    pathCountMax: 1,
    alwaysInvalidate: true,
    lanes: 2,
    control: { name: "serve", folder },
    log: SILENT_LOG,
    ...more,
  });
  hosts.push(server);
  return server;
}

export async function attach(more: Partial<AttachHostOptions> = {}): Promise<AttachHost> {
  const number = clientCount++;
  const attached = await AttachHost.start({
    addresses: [IpAddress.parse(loopback(202 + number))],
    target: { addresses: [SERVER], port: 1234, volume: number % 2 === 0 ? "memory" : "file" },
    readOnly: true,
    nbdConnectionCountMax: 1,
    nbd: { kind: "unix", path: join(folder, `${number}.sock`) },
    closeTimeoutMs: 300,
    log: SILENT_LOG,
    ...more,
  });
  hosts.push(attached);
  return attached;
}

export async function statistics(): Promise<HostStatistics> {
  const instance = (await listInstances(folder)).find(({ name }) => name === "serve");
  const client = await ControlClient.connect((instance as { path: string }).path);
  const { statistics } = REPLY.parse(await client.ask({ request: "stat" }));
  client.close();
  return statistics;
}

/** The server's memory, as its control socket tells of it. */
export async function memory(): Promise<MemoryStatistics> {
  const instance = (await listInstances(folder)).find(({ name }) => name === "serve");
  const client = await ControlClient.connect((instance as { path: string }).path);
  const { memory } = await client.ask({ request: "memory" });
  client.close();
  return MEMORY_STATISTICS.parse(memory);
}

/** Queue pairs with a peer, by lane. */
export function connectionsOf({ queuePairs }: HostStatistics): [number, number] {
  const counts: [number, number] = [0, 0];
  for (const { lane, peer } of queuePairs) {
    if (peer !== null) counts[lane as 0 | 1]++;
  }
  return counts;
}

/** Sessions of a client, lane 0's first, as the control socket tells of them. */
export async function sessions(): Promise<readonly SessionStatus[]> {
  const instances = await listInstances(folder);
  const instance = instances.find(({ name }) => name === "attach");
  const client = await ControlClient.connect((instance as { path: string }).path);
  const reply = SESSIONS.parse(await client.ask({ request: "session", policy: "round-robin" }));
  client.close();
  return reply.sessions;
}

/** Attaches until both lanes have a session. */
export async function attachToBoth(): Promise<void> {
  while (clientCount < CLIENT_COUNT_MAX) {
    await attach();
    if (connectionsOf(await statistics()).every((count) => count > 0)) return;
  }
  throw new Error("all sessions chose the same lane");
}
