// SPDX-License-Identifier: MIT
// What an attached host does beside I/O: several volumes, too many clients, a server that comes
// back changed, requests that nobody will answer.

import { mkdtempSync, rmSync, truncateSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  AttachHost,
  type AttachHostOptions,
  ControlClient,
  IpAddress,
  listInstances,
  parseAccessRule,
  parseVolume,
  SESSION_STATUS,
  ServerHost,
} from "./index.js";
import { type Log, SILENT_LOG } from "./log.js";
import { loopback } from "./loopback.fixture.js";
import type { Stack } from "./stack.js";

const SERVER = IpAddress.parse(loopback(85));
const CLIENT = IpAddress.parse(loopback(86));
const SERVER_TWO = IpAddress.parse(loopback(95));
const CLIENT_TWO = IpAddress.parse(loopback(96));
let folder: string;
const hosts: (ServerHost | AttachHost)[] = [];
const sockets: Socket[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "farpage-attach-"));
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  // Clients first: they say goodbye to their servers.
  for (const host of hosts.splice(0).reverse()) await host.close().catch(() => {});
  rmSync(folder, { recursive: true });
});

function serve(...volumes: string[]): Promise<ServerHost> {
  return serveTo([], ...volumes);
}

async function serveTo(allow: readonly string[], ...volumes: string[]): Promise<ServerHost> {
  const server = await ServerHost.start({
    addresses: [SERVER, SERVER_TWO],
    port: 1234,
    volumes: volumes.map(parseVolume),
    allow: allow.map(parseAccessRule),
    queueDepth: 16,
    chunkBytes: 1 << 16,
    sessionCountMax: 2,
    pathCountMax: 4,
    alwaysInvalidate: true,
    log: SILENT_LOG,
  });
  hosts.push(server);
  return server;
}

async function attach(
  volumes: readonly string[],
  more: Partial<AttachHostOptions> = {},
): Promise<AttachHost> {
  const [volume = "", ...moreVolumes] = volumes;
  const attached = await AttachHost.start({
    addresses: [CLIENT],
    target: { addresses: [SERVER], port: 1234, volume },
    moreVolumes,
    nbd: { kind: "unix", path: join(folder, "nbd.sock") },
    closeTimeoutMs: 300,
    log: SILENT_LOG,
    ...more,
  });
  hosts.push(attached);
  return attached;
}

/** A log that keeps its warnings, and a promise for the first that `pattern` matches. */
function warnings(): Log & {
  readonly said: string[];
  readonly next: (pattern: RegExp) => Promise<string>;
} {
  const said: string[] = [];
  const waiters: (() => void)[] = [];
  const next = async (pattern: RegExp): Promise<string> => {
    for (;;) {
      const found = said.find((text) => pattern.test(text));
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => waiters.push(resolve));
    }
  };
  const warn = (text: string) => {
    said.push(text);
    for (const waiter of waiters.splice(0)) waiter();
  };
  return { ...SILENT_LOG, warn, said, next };
}

/** Connects and waits for the first bytes, or for the end without any. */
async function nbdClient(): Promise<{ socket: Socket; isServed: boolean; closed: Promise<void> }> {
  const socket = connect(join(folder, "nbd.sock"));
  sockets.push(socket);
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  const isServed = await new Promise<boolean>((resolve) => {
    socket.once("data", () => resolve(true));
    socket.once("close", () => resolve(false));
  });
  return { socket, isServed, closed };
}

/** The client's flags (fixed newstyle, no zeroes) and an option. */
function option(number: number, data: string): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32BE(3, 0);
  bytes.write("IHAVEOPT", 4, "latin1");
  bytes.writeUInt32BE(number, 12);
  bytes.writeUInt32BE(data.length, 16);
  return Buffer.concat([bytes, Buffer.from(data)]);
}

const OPTION_EXPORT_NAME = 1;
const OPTION_LIST = 3;

describe("attach", () => {
  it("several volumes of a server: exports of one endpoint, each with its URI", async () => {
    await serve("first=memory:1M", "second=memory:2M,readonly", "third=memory:1M");
    const readOnly = await attach(["first", "second"], { readOnly: true });
    expect(readOnly.volumes).toMatchObject([
      { name: "first", sizeBytes: 1 << 20, readOnly: true },
      { name: "second", sizeBytes: 2 << 20, readOnly: true },
    ]);
    const [first, second] = readOnly.volumes.map(({ nbdUri }) => nbdUri);
    expect(first).toBe(readOnly.nbdUri);
    expect(second).toBe(readOnly.nbdUri.replace("///first", "///second"));
    const { socket } = await nbdClient();
    let listed = "";
    const bothListed = new Promise<void>((resolve) => {
      socket.on("data", (bytes) => {
        listed += bytes.toString("latin1");
        if (listed.includes("first") && listed.includes("second")) resolve();
      });
    });
    socket.write(option(OPTION_LIST, ""));
    await bothListed;
    expect(listed).not.toContain("third");
  });

  it("one of several volumes is not there → none is attached, and the error names it", async () => {
    await serve("first=memory:1M");
    const attempt = attach(["first", "second"]);
    await expect(attempt).rejects.toMatchObject({
      code: "ENOENT",
      message: expect.stringContaining('no volume "second"'),
    });
    await expect(attach(["first", "first"])).rejects.toMatchObject({ code: "EEXIST" });
  });

  it("no rule lets the client in → told at once, not when the time is over", async () => {
    await serveTo(["loopback,none"], "disk=memory:1M");
    const refused = attach(["disk"], { connectTimeoutMs: 3_600_000 });
    await expect(refused).rejects.toMatchObject({
      code: "EACCES",
      message: expect.stringContaining("refuses this client"),
    });
  });

  it("more nbd clients than there may be: turned away, with one warning", async () => {
    await serve("disk=memory:1M");
    const log = warnings();
    const attached = await attach(["disk"], { nbdConnectionCountMax: 1, log });
    expect((await nbdClient()).isServed).toBe(true);
    for (let i = 0; i < 3; i++) expect((await nbdClient()).isServed).toBe(false);
    expect(log.said).toHaveLength(1);
    expect(log.said[0]).toMatch(/turned away: 1 /);
    // The bound of memory follows the number.
    expect(attached.memoryBytesMax).toBeLessThan(16 << 20);
    await attached.close();
    expect(log.said[1]).toMatch(/\(2 more in \d+ s\)$/);
  });

  it("back with another size: old and new are warned of, the loss is said once", async () => {
    const path = join(folder, "disk.img");
    const server = await serve(`disk=${path},size=1M`);
    const log = warnings();
    const told: string[] = [];
    const onSession = (_up: boolean, text: string) => told.push(text);
    const attached = await attach(["disk"], { log, onSession, ioTimeoutMs: 30_000 });
    await server.close();
    truncateSync(path, 1 << 19);
    await serve(`disk=${path}`);
    expect(await log.next(/another size/)).toMatch(
      /"disk" .* 512 KiB \(524288 bytes\), before 1 MiB \(1048576 bytes\), and what lay behind/,
    );
    expect(attached.sizeBytes).toBe(1 << 19);
    expect(told[0]).toMatch(/lost .*; requests wait for 30 s, then fail with ETIMEDOUT/);
    expect(told[1]).toMatch(/again/);
    expect(log.said.filter((text) => /session|again/.test(text))).toEqual([]);
  });

  it("two paths; by the control socket: told, added, removed, the policy set, errors", async () => {
    await serve("disk=memory:1M");
    const told: string[] = [];
    const attached = await attach(["disk"], {
      addresses: [CLIENT, CLIENT_TWO],
      target: { addresses: [SERVER, SERVER_TWO], port: 1234, volume: "disk" },
      control: { name: "attach", folder },
      onPath: (_, path, text) => told.push(`${path}: ${text}`),
    });
    const [instance] = await listInstances(folder);
    const ask = async (change: object) => {
      const client = await ControlClient.connect(instance?.path ?? "");
      try {
        const reply = await client.ask({ request: "session", ...change });
        return SESSION_STATUS.parse(reply["session"]);
      } finally {
        client.close();
      }
    };
    const connected = async () =>
      (await ask({})).paths.filter(({ state }) => state === "connected").map(({ path }) => path);
    const [first, second] = [`ip:${CLIENT}@ip:${SERVER}`, `ip:${CLIENT_TWO}@ip:${SERVER_TWO}`];
    await expect.poll(connected).toEqual([first, second]);
    expect((await ask({ removePaths: [`${SERVER_TWO}`] })).mpath_policy).toBe("min-inflight");
    await expect.poll(connected).toEqual([first]);
    const removed = `the path from ${CLIENT_TWO} to ${SERVER_TWO} is removed; 1 left`;
    expect(told).toEqual([`${second}: ${removed}`]);
    const third = `ip:${CLIENT_TWO}@ip:${SERVER}`;
    expect((await ask({ addPaths: [third], policy: "round-robin" })).paths.length).toBe(2);
    await expect.poll(connected).toEqual([first, third]);
    const { paths, mpath_policy } = attached.status;
    expect(mpath_policy).toBe("round-robin");
    expect(paths[1]).toMatchObject({ hca_port: 2, src_addr: `ip:${CLIENT_TWO}` });
    expect(paths[0]?.stats.rdma.reads).toBeGreaterThan(0);
    expect((await ask({ reset: true })).paths[0]?.stats.rdma.reads).toBe(0);
    const code = (expected: string) => ({ code: expected });
    await expect(ask({ removePaths: [`${SERVER}`] })).rejects.toMatchObject(code("EINVAL"));
    await expect(ask({ addPaths: ["nonsense"] })).rejects.toMatchObject(code("EINVAL"));
    await expect(ask({ addPaths: [third] })).rejects.toMatchObject(code("EEXIST"));
    await expect(ask({ removePaths: ["192.0.2.1"] })).rejects.toMatchObject(code("ENOENT"));
    await ask({ removePaths: [first] });
    await expect.poll(async () => (await ask({})).paths.length).toBe(1);
    await expect(ask({ removePaths: [third] })).rejects.toMatchObject(code("EBUSY"));
  });

  it("two paths, closed in order: nothing is told of a path", async () => {
    await serve("disk=memory:1M");
    const told: string[] = [];
    const attached = await attach(["disk"], {
      addresses: [CLIENT, CLIENT_TWO],
      target: { addresses: [SERVER, SERVER_TWO], port: 1234, volume: "disk" },
      onPath: (_, path, text) => told.push(`${path}: ${text}`),
    });
    const states = () => attached.status.paths.map(({ state }) => state);
    await expect.poll(states).toEqual(["connected", "connected"]);
    await attached.close();
    expect(told).toEqual([]);
  });

  it("closed with requests that nobody answers: the nbd clients are let go", async () => {
    const server = await serve("disk=memory:1M");
    const attached = await attach(["disk"]);
    const { socket, closed } = await nbdClient();
    const entered = new Promise<void>((resolve) => socket.once("data", () => resolve()));
    socket.write(option(OPTION_EXPORT_NAME, "disk"));
    await entered;
    await (server as unknown as { stack: Stack }).stack.lane.stop();
    const read = Buffer.alloc(28);
    read.writeUInt32BE(0x25609513, 0);
    read.writeUInt32BE(512, 24);
    socket.write(read);
    await expect.poll(() => inflightOf(attached)).toBe(1);
    await attached.close();
    await closed;
  });
});

function inflightOf(attached: AttachHost): number {
  const { lane } = attached as unknown as { lane: { devices: { inflight: number }[] } };
  return lane.devices[0]?.inflight ?? 0;
}
