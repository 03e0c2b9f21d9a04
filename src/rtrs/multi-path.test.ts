// SPDX-License-Identifier: MIT
// Several paths in one session at the server: what belongs to the session, what to a path, and what
// becomes of requests that a client sends again by another path.

import { describe, expect, it } from "vitest";
import { WC_STATUS } from "../verbs/index.js";
import { decodeRtrsConnectReply } from "../wire/index.js";
import { RtrsServer, type ServerRequest } from "./index.js";
import { connectPath, RawPath } from "./multi-path.fixture.js";
import { MS, Pipe, SECOND, ServerNotes, TestHost } from "./pair.fixture.js";
import { RAW_DEPTH } from "./raw.fixture.js";

/** A server and three hosts of a client; a path from each. */
class Scene {
  readonly pipe = new Pipe();
  readonly notes = new ServerNotes();
  readonly serverHost = new TestHost("192.0.2.2", 2);
  readonly hosts = [3, 4, 5].map((n) => new TestHost(`192.0.2.${n}`, n));
  readonly server: RtrsServer;
  /** `path:permit:errno` of each reply. */
  readonly replies: string[] = [];

  constructor(pathCountMax = 2) {
    this.pipe.hosts.push(this.serverHost, ...this.hosts);
    const options = { queueDepth: RAW_DEPTH, chunkBytes: 16_384, pathCountMax };
    this.server = new RtrsServer(this.serverHost.environment, options, this.notes);
    this.serverHost.machines.push(this.server);
  }

  /** @returns the path, or the errno of the refusal; -1 for a disconnect. */
  ask(from: number, tag = from, attempt = 1): RawPath | number {
    const host = this.hosts[from] as TestHost;
    const identity = { server: this.serverHost, session: 1, path: 40 + tag, attempt };
    const path = connectPath(this.pipe, host, identity);
    if (!(path instanceof RawPath)) {
      const reply = decodeRtrsConnectReply(path.privateData);
      return typeof reply === "string" ? -1 : reply.errno;
    }
    path.onReply = (permit, errno) => this.replies.push(`${from}:${permit}:${errno}`);
    return path;
  }

  connect(from: number): RawPath {
    const path = this.ask(from);
    if (typeof path === "number") throw new Error(`refused with errno ${path}`);
    return path;
  }

  /** Requests that the server's user has, by their first data byte. */
  get held(): number[] {
    return this.notes.requests.map(({ memory, memoryOffset }) => memory.bytes[memoryOffset] ?? -1);
  }

  finish(index = 0): void {
    const [request] = this.notes.requests.splice(index, 1);
    (request as ServerRequest).complete(0);
  }
}

describe("a session with two paths", () => {
  it("the second comes up → one session, requests by both, each answered where it came", () => {
    const scene = new Scene();
    const [first, second] = [scene.connect(0), scene.connect(1)];
    expect(scene.server.counters()).toMatchObject({ sessions: 1, paths: 2 });
    expect(scene.server.sessions().map(({ pathCount }) => pathCount)).toEqual([2]);
    first.write(0, 1, 11);
    second.write(1, 2, 22);
    scene.pipe.run(MS);
    second.write(0, 1, 33);
    scene.pipe.run(MS);
    expect(scene.replies.sort()).toEqual(["0:0:0", "1:0:0", "1:1:0"]);
    expect(scene.notes.writes).toEqual(["1:11", "2:22", "1:33"]);
    expect(scene.notes.events).toEqual(["up raw1"]);
  });

  it("one goes → the session stays; the last goes → it is down", () => {
    const scene = new Scene();
    const [first, second] = [scene.connect(0), scene.connect(1)];
    first.cut();
    first.end();
    scene.pipe.run(SECOND);
    expect(scene.server.counters()).toMatchObject({ sessions: 1, paths: 1 });
    second.write(3, 7, 77);
    scene.pipe.run(MS);
    expect(scene.notes.writes).toEqual(["7:77"]);
    expect(scene.notes.events).toEqual(["up raw1"]);
    second.cut();
    second.end();
    scene.pipe.run(SECOND);
    expect(scene.notes.events).toEqual(["up raw1", "down raw1"]);
    expect(scene.server.counters()).toMatchObject({ sessions: 0, paths: 0 });
  });

  it("one that went comes back → let in, the user hears nothing", () => {
    const scene = new Scene();
    const first = scene.connect(0);
    scene.connect(1);
    first.cut();
    first.end();
    scene.pipe.run(SECOND);
    const again = scene.ask(0, 0, 2);
    expect(again).toBeInstanceOf(RawPath);
    (again as RawPath).write(2, 5, 55);
    scene.pipe.run(MS);
    expect(scene.notes.writes).toEqual(["5:55"]);
    expect(scene.notes.events).toEqual(["up raw1"]);
  });

  it("between the addresses of another → EEXIST; one too many → ECONNRESET", () => {
    const scene = new Scene();
    scene.connect(0);
    expect(scene.ask(0, 9)).toBe(17);
    scene.connect(1);
    expect(scene.ask(2)).toBe(104);
    expect(scene.server.counters()).toMatchObject({ paths: 2, refusedConnections: 2 });
  });

  it("under another name → that path is closed, the session lives", () => {
    const scene = new Scene();
    scene.connect(0);
    const host = scene.hosts[1] as TestHost;
    const path = new RawPath(host, scene.serverHost, 1);
    for (let cid = 0; cid < 2; cid++) {
      const connection = path.ask({ pathUuid: new Uint8Array(16).fill(50) });
      scene.pipe.until(() => connection.events.length > 0, "the path comes up");
    }
    path.askInfo("another");
    scene.pipe.run(2 * SECOND);
    expect(scene.server.lastCloseReason).toMatch(/"raw1" says that it is "another"/);
    expect(scene.server.counters()).toMatchObject({ sessions: 1, paths: 1 });
    expect(scene.notes.events).toEqual(["up raw1"]);
  });

  it("a connection of a path from another address → refused, the path comes up", () => {
    const scene = new Scene();
    const [host, stranger] = scene.hosts as [TestHost, TestHost];
    const pathUuid = new Uint8Array(16).fill(50);
    const path = new RawPath(host, scene.serverHost, 1);
    const other = new RawPath(stranger, scene.serverHost, 1);
    const ask = (from: RawPath, connectionId: number) => {
      const connection = from.ask({ connectionId, pathUuid });
      scene.pipe.until(() => connection.events.length > 0, "the server answers");
      return connection.events[0];
    };
    expect(ask(path, 0)?.type).toBe("ESTABLISHED");
    const refusal = ask(other, 1);
    expect(refusal?.type).toBe("REJECTED");
    const reply = decodeRtrsConnectReply(refusal?.privateData ?? new Uint8Array(0));
    expect(reply).toMatchObject({ errno: 104 });
    expect(ask(path, 1)?.type).toBe("ESTABLISHED");
    path.askInfo();
    scene.pipe.run(SECOND);
    expect(scene.notes.events).toEqual(["up raw1"]);
  });

  it("the key of one path's chunk by the other → refused by the device", () => {
    const scene = new Scene();
    const [first, second] = [scene.connect(0), scene.connect(1)];
    second.chunks = first.chunks;
    second.request(3, new Uint8Array(8).fill(0x66), 0, 4);
    scene.pipe.run(SECOND);
    const statuses = second.connectionAt(1).completions.map(({ status }) => status);
    expect(statuses).toContain(WC_STATUS.REM_ACCESS_ERR);
    expect(scene.notes.requests).toEqual([]);
    expect(scene.server.counters()).toMatchObject({ sessions: 1, paths: 1 });
  });
});

describe("a request sent again by another path", () => {
  function twoPaths(): { scene: Scene; first: RawPath; second: RawPath } {
    const scene = new Scene();
    const paths = { first: scene.connect(0), second: scene.connect(1) };
    scene.notes.holds = true;
    return { scene, ...paths };
  }

  it("while the user has the first copy → waits for it; the old path is closed at once", () => {
    const { scene, first, second } = twoPaths();
    first.write(4, 1, 11);
    scene.pipe.run(MS);
    first.cut();
    second.write(4, 1, 12);
    second.write(5, 2, 22);
    scene.pipe.run(MS);
    expect(scene.held).toEqual([11, 22]);
    expect(scene.server.sessions().map(({ pathCount }) => pathCount)).toEqual([1]);
    scene.finish(0);
    scene.pipe.run(MS);
    expect(scene.held).toEqual([22, 12]);
    scene.finish(0);
    scene.finish(0);
    scene.pipe.run(MS);
    expect(scene.replies).toEqual(["1:5:0", "1:4:0"]);
    scene.pipe.run(10 * SECOND);
    expect(scene.server.lastCloseReason).toMatch(/request 4 of this path by another/);
    expect(scene.server.counters()).toMatchObject({ sessions: 1, paths: 1 });
  });

  it("after the first copy was done → runs at once", () => {
    const { scene, first, second } = twoPaths();
    first.write(4, 1, 11);
    scene.pipe.run(MS);
    first.cut();
    scene.finish(0);
    second.write(4, 1, 12);
    scene.pipe.run(MS);
    expect(scene.held).toEqual([12]);
  });

  it("by a path that is lost in its turn → the third path's copy waits for the first", () => {
    const scene = new Scene(3);
    const [first, second, third] = [scene.connect(0), scene.connect(1), scene.connect(2)];
    scene.notes.holds = true;
    first.write(4, 1, 11);
    scene.pipe.run(MS);
    first.cut();
    second.write(4, 1, 12);
    scene.pipe.run(MS);
    second.cut();
    third.write(4, 1, 13);
    scene.pipe.run(MS);
    expect(scene.held).toEqual([11]);
    scene.finish(0);
    scene.pipe.run(MS);
    expect(scene.held).toEqual([13]);
    scene.finish(0);
    scene.pipe.run(MS);
    expect(scene.replies).toEqual(["2:4:0"]);
  });

  it("and the second path is lost while it waits → it is forgotten, the session goes down", () => {
    const { scene, first, second } = twoPaths();
    first.write(4, 1, 11);
    scene.pipe.run(MS);
    first.cut();
    second.write(4, 1, 12);
    scene.pipe.run(MS);
    second.cut();
    second.end();
    scene.pipe.run(10 * SECOND);
    expect(scene.ask(2)).toBe(104);
    expect(scene.notes.events).toEqual(["up raw1"]);
    scene.finish(0);
    scene.pipe.run(10 * SECOND);
    expect(scene.held).toEqual([]);
    expect(scene.notes.events).toEqual(["up raw1", "down raw1"]);
    expect(scene.ask(2)).toBeInstanceOf(RawPath);
  });
});

describe("RtrsServer.close", () => {
  it("with two paths and a request with the user → closed when it is done, nothing is left", () => {
    const scene = new Scene();
    const first = scene.connect(0);
    scene.connect(1);
    scene.notes.holds = true;
    first.write(0, 1, 11);
    scene.pipe.run(MS);
    scene.server.close();
    scene.pipe.run(10 * SECOND);
    expect(scene.server.isClosed).toBe(false);
    scene.finish(0);
    scene.pipe.run(MS);
    expect(scene.server.isClosed).toBe(true);
    scene.pipe.until(() => scene.serverHost.cm.liveCount === 0, "the CM has nothing left");
    expect(scene.serverHost.memory.liveCount).toBe(0);
  });

  it("its event channel goes too, whether there was a client or not", () => {
    for (const hasClient of [true, false]) {
      const scene = new Scene();
      if (hasClient) scene.connect(0);
      const { cm } = scene.serverHost.environment;
      const before = channelCount(cm);
      scene.server.close();
      scene.pipe.run(10 * SECOND);
      expect(scene.server.isClosed).toBe(true);
      expect(channelCount(cm)).toBe(before - 1);
    }
  });
});

/** Channels that the connection manager knows. */
function channelCount(cm: unknown): number {
  return (cm as { readonly channels: ReadonlySet<unknown> }).channels.size;
}
