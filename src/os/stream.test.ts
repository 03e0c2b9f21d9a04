// SPDX-License-Identifier: MIT
import { spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Backend, OsStream, Poller, StreamListener } from "./index.js";
import { connectStream, foreignCallsUnavailable, listenStream, openPoller } from "./index.js";

const hasNative = foreignCallsUnavailable() === null;
const BACKENDS: readonly Backend[] = hasNative ? ["native", "node"] : ["node"];

const MS = 1_000_000;

/** A socket file whose listener was killed: what a crash leaves. */
async function leaveStaleSocket(path: string): Promise<void> {
  const listen = `listen(${JSON.stringify(path)}, () => console.log(1))`;
  const script = `require('net').createServer().${listen}`;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await exited;
}

describe.each(BACKENDS)("streams, %s", (backend) => {
  let poller: Poller;
  let directory: string;
  let path: string;
  const open: (StreamListener | OsStream)[] = [];

  beforeEach(() => {
    poller = openPoller(backend);
    directory = mkdtempSync(join(tmpdir(), "farpage-stream-"));
    path = join(directory, "socket");
  });
  afterEach(() => {
    for (const closable of open.splice(0)) closable.close();
    poller.close();
    rmSync(directory, { recursive: true });
  });

  async function listenUnix(at = path, backlog = 16): Promise<StreamListener> {
    const listener = await listenStream({ kind: "unix", path: at }, { poller, backend, backlog });
    open.push(listener);
    return listener;
  }

  async function acceptNext(listener: StreamListener): Promise<OsStream> {
    for (let i = 0; i < 100; i++) {
      const stream = listener.accept();
      if (stream !== null) {
        open.push(stream);
        return stream;
      }
      await poller.wait(10 * MS);
      poller.poll();
    }
    throw new Error("no connection arrived");
  }

  it("closed listener → its socket file is gone, and others are refused", async () => {
    const listener = await listenUnix();
    expect(lstatSync(path).isSocket()).toBe(true);
    listener.close();
    expect(existsSync(path)).toBe(false);
    await expect(connectStream({ kind: "unix", path }, { poller, backend })).rejects.toMatchObject({
      code: "ENOENT",
    });
    listener.close();
  });

  it("a socket file that a crash left → is taken over", async () => {
    await leaveStaleSocket(path);
    expect(existsSync(path)).toBe(true);
    const listener = await listenUnix();
    const client = await connectStream({ kind: "unix", path }, { poller, backend });
    open.push(client, await acceptNext(listener));
  });

  it("a socket that somebody listens on → EADDRINUSE, and it stays", async () => {
    await listenUnix();
    await expect(listenUnix()).rejects.toMatchObject({ code: "EADDRINUSE" });
    expect(existsSync(path)).toBe(true);
  });

  it("a file, a directory or a link in the way → EEXIST, and it stays", async () => {
    writeFileSync(path, "precious");
    await expect(listenUnix()).rejects.toMatchObject({ code: "EEXIST" });
    await expect(listenUnix(directory)).rejects.toMatchObject({ code: "EEXIST" });
    const link = join(directory, "link");
    symlinkSync(path, link);
    await expect(listenUnix(link)).rejects.toMatchObject({ code: "EEXIST" });
    expect(lstatSync(path).size).toBe(8);
  });

  it("a path that is too long, or nowhere → says so", async () => {
    await expect(listenUnix(join(directory, "none", "socket"))).rejects.toMatchObject({
      code: expect.stringMatching(/^(ENOENT|EACCES)$/),
    });
    await expect(listenUnix(join(directory, "x".repeat(120)))).rejects.toThrow();
  });

  it("the socket file of another listener at the same path → survives the close", async () => {
    const first = await listenUnix();
    renameSync(path, join(directory, "moved"));
    await listenUnix();
    // node:net removes whatever is at the path; the native listener looks first.
    if (backend === "native") {
      first.close();
      expect(existsSync(path)).toBe(true);
    }
  });

  it("TCP: port taken, nobody there, unknown host → says which", async () => {
    const where = { kind: "tcp", host: "127.0.0.1", port: 0 } as const;
    const first = await listenStream(where, { poller, backend });
    open.push(first);
    await expect(listenStream(first.address, { poller, backend })).rejects.toMatchObject({
      code: "EADDRINUSE",
    });
    const { address } = first;
    first.close();
    await new Promise((resolve) => setImmediate(resolve));
    await expect(connectStream(address, { poller, backend })).rejects.toMatchObject({
      code: "ECONNREFUSED",
    });
    const nowhere = { kind: "tcp", host: "host.invalid", port: 1 } as const;
    await expect(connectStream(nowhere, { poller, backend })).rejects.toMatchObject({
      code: expect.stringMatching(/^(ENOTFOUND|EAI_AGAIN)$/),
    });
  });

  it("IPv6 loopback → listens and names the peer", async () => {
    const listener = await listenStream({ kind: "tcp", host: "::1", port: 0 }, { poller, backend });
    open.push(listener);
    open.push(await connectStream(listener.address, { poller, backend }));
    expect((await acceptNext(listener)).peer).toMatch(/^\[::1\]:\d+$/);
  });

  it("several connections at once → each is accepted, none twice", async () => {
    const listener = await listenUnix();
    const clients = Array.from({ length: 10 }, () => connect(path));
    await Promise.all(clients.map((c) => new Promise((resolve) => c.once("connect", resolve))));
    for (let i = 0; i < 10; i++) await acceptNext(listener);
    expect(listener.accept()).toBeNull();
    for (const client of clients) client.destroy();
  });

  it("a client that has gone before it was accepted → harmless", async () => {
    const listener = await listenUnix();
    const client = connect(path);
    await new Promise((resolve) => client.once("connect", resolve));
    client.destroy();
    await new Promise((resolve) => client.once("close", resolve));
    await poller.wait(5 * MS);
    listener.accept()?.close();
    expect(listener.accept()).toBeNull();
  });

  it.runIf(process.getuid?.() !== 0)("a directory without permission → EACCES", async () => {
    chmodSync(directory, 0o500);
    await expect(listenUnix()).rejects.toMatchObject({ code: "EACCES" });
    chmodSync(directory, 0o700);
  });
});
