// SPDX-License-Identifier: MIT
// A client session of several paths: how requests are spread, what becomes of them when paths fail,
// come back, and are added and removed.

import { describe, expect, it } from "vitest";
import { ERRNO, type IpAddress } from "../base/index.js";
import { QP_STATE } from "../verbs/index.js";
import type { ClientPath } from "./client/client-path.js";
import {
  type RtrsClientOptions,
  type RtrsClientPath,
  RtrsServer,
  type RtrsServerOptions,
  type ServerRequest,
} from "./index.js";
import { MS, Pair, SECOND, ServerNotes, TestHost } from "./pair.fixture.js";

const HEARTBEAT = { heartbeatIntervalNs: 500 * MS };

/** A session of two or three paths, all up. */
function upPair(
  client: Partial<RtrsClientOptions> = {},
  server: RtrsServerOptions = {},
  count = 2,
): Pair {
  const pair = new Pair({ ...HEARTBEAT, ...client }, { ...HEARTBEAT, ...server }, {}, count);
  pair.clientNotes.onComplete = (request) => pair.client.release(request);
  pair.connect();
  pair.pipe.until(() => connectedCount(pair) === count, "all paths are up");
  return pair;
}

function connectedCount({ client }: Pair): number {
  return client.paths.filter(({ state }) => state === "CONNECTED").length;
}

function pathOf({ client }: Pair, index: number): RtrsClientPath {
  const path = client.paths[index];
  if (path === undefined) throw new Error("there is such a path");
  return path;
}

/** The client finds out at once that a path is of no use; nobody tells the server. */
function breakPath(pair: Pair, index: number): void {
  for (const { qp } of (pathOf(pair, index) as ClientPath).connections) {
    qp.modifyQp({ state: QP_STATE.ERR });
  }
}

function untilDown(pair: Pair, index: number): void {
  pair.pipe.until(() => pathOf(pair, index).state !== "CONNECTED", "the path is down");
}

/** BTH: RC, acknowledge. */
const OPCODE_ACK = 0x11;

describe("several paths come up", () => {
  it("two → one session at the server, one `up` at the client; both ends' states agree", () => {
    const pair = upPair();
    expect(pair.server.counters()).toMatchObject({ sessions: 1, paths: 2 });
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(pair.serverNotes.events).toEqual(["up blue"]);
    expect(pair.server.counters().refusedConnections).toBe(0);
  });

  it("the first has no network → the second makes the session, the first joins later", () => {
    const pair = new Pair(HEARTBEAT, HEARTBEAT, {}, 2);
    pair.pipe.cutPorts.add(0);
    pair.connect();
    expect(pathOf(pair, 0).state).not.toBe("CONNECTED");
    pair.write(1, 11);
    pair.untilIdle();
    pair.pipe.cutPorts.clear();
    pair.pipe.until(() => connectedCount(pair) === 2, "the first path is up");
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(pair.server.counters()).toMatchObject({ sessions: 1, paths: 2 });
  });

  it("none can come up and the attempts end → the session fails once, with the reason", () => {
    const pair = new Pair({ ...HEARTBEAT, connectAttemptsMax: 2 }, {}, {}, 2);
    pair.killServer();
    pair.client.connect();
    pair.pipe.until(() => pair.client.state === "CLOSED", "the session gives up");
    expect(pair.clientNotes.events).toEqual(["failed ETIMEDOUT"]);
  });

  it("the same two addresses twice → EINVAL as an option, EEXIST when added", () => {
    const pair = upPair();
    const { source, destination } = pathOf(pair, 1);
    expect(() => pair.client.addPath({ source, destination })).toThrow(/already/);
    const paths = [
      { source, destination },
      { source, destination },
    ];
    expect(() => new Pair({ paths })).toThrow(/named twice/);
  });
});

describe("policies", () => {
  const spread = (pair: Pair) => pair.client.paths.map(({ inflight }) => inflight);

  it("round-robin → each path in turn, whatever is in flight", () => {
    const pair = upPair({ policy: "round-robin" });
    pair.serverNotes.holds = true;
    for (let block = 0; block < 6; block++) pair.write(block, block);
    expect(spread(pair)).toEqual([3, 3]);
    // The answers of the first path are lost on their way; the second goes on alone.
    pair.pipe.run(MS);
    pair.serverNotes.answerAll();
    pair.untilIdle();
    expect(pair.client.paths.map(({ counters }) => counters.writes)).toEqual([3, 3]);
  });

  it("min-inflight → the path that answers gets more than the one that does not", () => {
    const pair = upPair({ policy: "min-inflight", answerTimeoutNs: 100 * SECOND });
    let firstPath = 0;
    pair.serverNotes.onAny = (request) => {
      // The first two requests stay in the disk.
      if (firstPath++ >= 2) request.complete(0);
    };
    for (let round = 0; round < 10; round++) {
      pair.write(0, round);
      pair.pipe.run(MS);
    }
    expect(pair.client.inflight).toBe(2);
    expect(spread(pair)).toEqual([1, 1]);
    // With one more in flight on the first, the second takes the next, and so on.
    pair.serverNotes.onAny = () => {};
    const before = spread(pair);
    pair.write(1, 1);
    pair.write(2, 2);
    expect(spread(pair)).toEqual(before.map((count) => count + 1));
  });

  it("a heartbeat that comes back as the first thing in a long time → has taken that long", () => {
    const pair = upPair({ policy: "min-latency" });
    pair.pipe.slowPorts.set(0, 5 * MS);
    pair.pipe.run(2 * SECOND);
    // Without the transport's own acknowledgements nothing moves at the client meanwhile.
    pair.pipe.loses = (bytes, from) => from === pair.serverHost && bytes[0] === OPCODE_ACK;
    pair.pipe.run(SECOND);
    expect(pathOf(pair, 0).latencyNs).toBeGreaterThanOrEqual(10 * MS);
    expect(pathOf(pair, 1).latencyNs).toBeLessThan(5 * MS);
  });

  it("min-latency → the path whose heartbeats come back sooner; measured anew all the time", () => {
    const pair = upPair({ policy: "min-latency" });
    pair.pipe.run(2 * SECOND);
    expect(pair.client.paths.every(({ latencyNs }) => latencyNs > 0)).toBe(true);
    pair.pipe.slowPorts.set(0, 5 * MS);
    pair.pipe.run(3 * SECOND);
    expect(pathOf(pair, 0).latencyNs).toBeGreaterThan(pathOf(pair, 1).latencyNs);
    for (let block = 0; block < 5; block++) pair.write(block, 1);
    expect(spread(pair)).toEqual([0, 5]);
    pair.untilIdle();
    pair.pipe.slowPorts.clear();
    pair.pipe.slowPorts.set(1, 5 * MS);
    pair.pipe.run(3 * SECOND);
    for (let block = 0; block < 5; block++) pair.write(block, 2);
    expect(spread(pair)).toEqual([5, 0]);
    // The policy can be changed at any time.
    pair.untilIdle();
    pair.client.policy = "min-inflight";
    for (let block = 0; block < 4; block++) pair.write(block, 3);
    expect(spread(pair)).toEqual([2, 2]);
  });
});

describe("a path fails", () => {
  it("requests in flight → answered by the other, under their permits, the user unaware", () => {
    const pair = upPair();
    pair.serverNotes.holds = true;
    for (let block = 0; block < 6; block++) pair.write(block, 10 + block);
    pair.pipe.run(MS);
    expect(pair.serverNotes.requests.length).toBe(6);
    breakPath(pair, 0);
    untilDown(pair, 0);
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(pathOf(pair, 1).inflight).toBe(6);
    expect(pathOf(pair, 0).counters.failedOver).toBe(3);
    pair.pipe.run(MS);
    // The server has closed the first path, and waits for the copies that its user has.
    expect(pair.serverNotes.requests.length).toBe(6);
    pair.serverNotes.holds = false;
    pair.serverNotes.answerAll();
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual(new Array(6).fill(0));
    expect(pair.clientNotes.reissued).toEqual([]);
    // Each of the three twice, and nothing else.
    expect(pair.serverNotes.writes.length).toBe(9);
    expect(pair.client.counters().reissued).toBe(3);
  });

  it("a read in flight on it → the other's data, and the lost path can't write any more", () => {
    const pair = upPair();
    pair.write(3, 33);
    pair.untilIdle();
    pair.serverNotes.requests.length = 0;
    pair.serverNotes.holds = true;
    const reads = [pair.read(3), pair.read(3)];
    pair.pipe.run(MS);
    breakPath(pair, 1);
    untilDown(pair, 1);
    pair.serverNotes.holds = false;
    pair.serverNotes.answerAll();
    pair.untilIdle();
    for (const read of reads) expect(new Set(pair.dataOf(read))).toEqual(new Set([33]));
    pair.pipe.until(() => connectedCount(pair) === 2, "it is back");
    expect(pathOf(pair, 1).counters).toMatchObject({ reconnectsOk: 1, failedOver: 1 });
  });

  it("cut silently → found out by the transport; it is probed, and returns", () => {
    const pair = upPair({ reconnectDelayNsMax: SECOND });
    pair.pipe.cutPorts.add(1);
    const startNs = pair.pipe.nowNs;
    for (let block = 0; block < 6; block++) pair.write(block, 40 + block);
    pair.untilIdle();
    expect(pair.pipe.nowNs - startNs).toBeLessThan(3 * SECOND);
    expect(pair.clientNotes.errnos).toEqual(new Array(6).fill(0));
    pair.pipe.run(20 * SECOND);
    expect(pathOf(pair, 1).counters.reconnectsFailed).toBeGreaterThan(1);
    expect(pathOf(pair, 1).lastError?.code).toBe("ETIMEDOUT");
    pair.pipe.cutPorts.clear();
    pair.pipe.until(() => connectedCount(pair) === 2, "it is back");
    expect(pair.clientNotes.events).toEqual(["up"]);
  });

  it("queue depth 1, and no room but on the other → still answered, the permit kept", () => {
    const pair = upPair({ queueDepthMax: 1 }, { queueDepth: 4 });
    pair.serverNotes.holds = true;
    const first = pair.write(1, 1);
    pair.pipe.run(MS);
    breakPath(pair, pathOf(pair, 0).inflight === 1 ? 0 : 1);
    pair.pipe.run(MS);
    pair.serverNotes.holds = false;
    pair.serverNotes.answerAll();
    pair.untilIdle();
    expect(first.errno).toBe(0);
    expect(pair.serverNotes.writes).toEqual(["1:1", "1:1"]);
  });

  it("a request without retry → goes on as well: the session lives", () => {
    const pair = upPair();
    pair.serverNotes.holds = true;
    for (const block of [1, 2]) pair.write(block, block, 4096, false);
    pair.pipe.run(MS);
    breakPath(pair, 0);
    untilDown(pair, 0);
    pair.serverNotes.holds = false;
    pair.serverNotes.answerAll();
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([0, 0]);
  });
});

describe("all paths fail", () => {
  it("requests wait; back by one path → what the other left is settled, then reissued", () => {
    const pair = upPair();
    pair.serverNotes.holds = true;
    pair.clientNotes.reissuesAtOnce = false;
    /** Which path carries a write, by what it writes. */
    const carriers = new Map<number, number>();
    for (let fill = 50; fill < 54; fill++) {
      const before = pathOf(pair, 0).inflight;
      pair.write(fill - 50, fill);
      carriers.set(fill, pathOf(pair, 0).inflight > before ? 0 : 1);
    }
    pair.pipe.run(MS);
    // The first path stays away, and the server does not know: its requests are in the disk.
    pair.pipe.cutPorts.add(0);
    breakPath(pair, 0);
    breakPath(pair, 1);
    pair.pipe.until(() => pair.clientNotes.events.includes("down"), "the session is down");
    const held = pair.serverNotes.requests.splice(0);
    const fillOf = (request: ServerRequest) => request.memory.bytes[request.memoryOffset] ?? -1;
    const ofFirst = held.filter((request) => carriers.get(fillOf(request)) === 0);
    expect(ofFirst.length).toBe(2);
    // The server lets the second path in again when that one's requests are over, not before.
    pair.pipe.run(200 * MS);
    expect(pair.client.state).toBe("RECONNECTING");
    for (const request of held) if (!ofFirst.includes(request)) request.complete(0);
    pair.pipe.until(() => pair.client.state === "CONNECTED", "the second path is back");
    expect(pair.client.unsettledCount).toBe(2);
    // A harmless request settles a permit: it is run when the old copy under it is over.
    const settling = [pair.read(99, 512, false), pair.read(99, 512, false)];
    pair.pipe.run(200 * MS);
    expect(pair.serverNotes.requests.length).toBe(0);
    expect(pair.client.unsettledCount).toBe(2);
    pair.serverNotes.holds = false;
    ofFirst[0]?.complete(0);
    pair.pipe.until(() => pair.client.unsettledCount === 1, "one is settled");
    ofFirst[1]?.complete(0);
    pair.pipe.until(() => pair.client.unsettledCount === 0, "both are settled");
    expect(settling.map(({ errno }) => errno)).toEqual([0, 0]);
    expect(pair.clientNotes.completed).toEqual(settling);
    pair.client.reissue();
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual(new Array(6).fill(0));
  });

  it("the path that was lost returns itself → nothing is left in doubt", () => {
    const pair = upPair({}, {}, 2);
    pair.serverNotes.holds = true;
    for (let block = 0; block < 4; block++) pair.write(block, 60 + block);
    pair.pipe.run(MS);
    breakPath(pair, 0);
    breakPath(pair, 1);
    pair.pipe.run(10 * MS);
    pair.serverNotes.holds = false;
    pair.serverNotes.answerAll();
    pair.untilIdle();
    pair.pipe.until(() => connectedCount(pair) === 2, "both are back");
    expect(pair.client.unsettledCount).toBe(0);
    expect(pair.clientNotes.errnos).toEqual([0, 0, 0, 0]);
  });

  it("the server's process is another → ENXIO at one path ends the others; one `down`", () => {
    const pair = upPair();
    pair.killServer();
    pair.restartServer();
    // Only the second path notices by itself: the first has nothing to send.
    const startNs = pair.pipe.nowNs;
    breakPath(pair, 1);
    pair.pipe.until(() => pair.clientNotes.events.includes("down"), "the session is down");
    expect(pair.pipe.nowNs - startNs).toBeLessThan(300 * MS);
    pair.pipe.until(() => connectedCount(pair) === 2, "both paths are back");
    expect(pair.clientNotes.events).toEqual(["up", "down", "up"]);
    expect(pair.server.counters()).toMatchObject({ sessions: 1, paths: 2 });
    pair.write(1, 1);
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([0]);
  });

  it("a path to a server that never knew the session → refused, and nobody is disturbed", () => {
    const pair = upPair();
    const stranger = new TestHost("203.0.113.9", 77);
    const options = { queueDepth: 8, chunkBytes: 16_384 };
    stranger.machines.push(new RtrsServer(stranger.environment, options, new ServerNotes()));
    pair.pipe.hosts.push(stranger);
    pair.client.addPath({ source: pair.clientHost.address, destination: stranger.address });
    pair.pipe.run(2 * SECOND);
    expect(pathOf(pair, 2).state).not.toBe("CONNECTED");
    expect(pathOf(pair, 2).lastError?.code).toBe("ENXIO");
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(connectedCount(pair)).toBe(2);
  });
});

describe("paths come and go", () => {
  it("added at run time → takes its share; removed under load → its requests go on", () => {
    const pair = upPair({}, {}, 2);
    pair.client.removePath(pathOf(pair, 1).number);
    pair.pipe.until(() => pair.client.paths.length === 1, "it is gone");
    pair.pipe.until(() => pair.server.counters().paths === 1, "at the server, too");
    const source = pair.clientHost.addresses[1] as IpAddress;
    const destination = pair.serverHost.addresses[1] as IpAddress;
    const added = pair.client.addPath({ source, destination });
    expect(added.number).toBe(2);
    pair.pipe.until(() => added.state === "CONNECTED", "it is up");
    pair.serverNotes.holds = true;
    for (let block = 0; block < 6; block++) pair.write(block, block);
    expect(added.inflight).toBe(3);
    pair.client.removePath(0);
    pair.pipe.run(MS);
    pair.serverNotes.holds = false;
    pair.serverNotes.answerAll();
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual(new Array(6).fill(0));
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(pair.client.paths.map(({ number }) => number)).toEqual([2]);
  });

  it("the last, or one that is not there → EBUSY, ENOENT", () => {
    const pair = upPair();
    expect(() => pair.client.removePath(7)).toThrow(expect.objectContaining({ code: "ENOENT" }));
    pair.client.removePath(0);
    expect(() => pair.client.removePath(1)).toThrow(expect.objectContaining({ code: "EBUSY" }));
    pair.client.close();
    expect(() => pair.client.removePath(1)).toThrow(expect.objectContaining({ code: "ESHUTDOWN" }));
  });

  it("closed with everything in flight → every request ends, and all memory is given back", () => {
    const before = new Pair({}, {}, {}, 2).clientHost.memory.liveCount;
    const pair = upPair();
    pair.serverNotes.holds = true;
    for (let block = 0; block < 6; block++) pair.write(block, block);
    pair.pipe.run(MS);
    pair.client.close();
    pair.pipe.until(() => pair.client.state === "CLOSED", "it is closed");
    expect(pair.clientNotes.errnos).toEqual(new Array(6).fill(ERRNO.ESHUTDOWN));
    expect(pair.clientHost.memory.liveCount).toBe(before);
  });

  it("counters → by path, by connection, and latencies of every answer; reset", () => {
    const pair = upPair({ connectionCount: 2, policy: "round-robin" });
    for (let block = 0; block < 4; block++) pair.write(block, block, 4096);
    pair.untilIdle();
    for (let block = 0; block < 4; block++) pair.read(block, 512);
    pair.untilIdle();
    const { counters } = pathOf(pair, 0);
    expect(counters).toMatchObject({
      reads: 2,
      writes: 2,
      readBytes: 2 * 516,
      writeBytes: 2 * 4100,
    });
    expect(counters.connections.map(({ requests }) => requests)).toEqual([0, 2, 2]);
    expect(counters.connections.every(({ inflight }) => inflight === 0)).toBe(true);
    expect(counters.latency.count).toBe(4);
    expect(counters.latency.buckets().reduce((sum, { count }) => sum + count, 0)).toBe(4);
    expect(counters.latency.meanNs).toBeGreaterThan(10_000);
    counters.reset();
    expect(counters).toMatchObject({ reads: 0, writeBytes: 0 });
    expect(counters.latency.buckets()).toEqual([]);
  });
});
