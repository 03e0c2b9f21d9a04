// SPDX-License-Identifier: MIT
// What becomes of a session and of its requests when connections, hosts and processes fail.

import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { QP_STATE } from "../verbs/index.js";
import type { ClientPath } from "./client/client-path.js";
import { ClientNotes, MS, Pair, SECOND, TestHost } from "./pair.fixture.js";

/** Moves every RC queue pair of the client's side to ERR, as a fatal completion does. */
function breakConnections(pair: Pair): void {
  for (const path of pathsOf(pair)) {
    for (const connection of path.connections) connection.qp.modifyQp({ state: QP_STATE.ERR });
  }
}

function pathsOf({ client }: Pair): readonly ClientPath[] {
  return client.paths as readonly ClientPath[];
}

function partition(pair: Pair): void {
  pair.pipe.loses = () => true;
}

function heal(pair: Pair): void {
  pair.pipe.loses = null;
}

function upAgain(pair: Pair): void {
  const { events } = pair.clientNotes;
  const ups = events.filter((event) => event === "up").length;
  pair.pipe.until(
    () => events.filter((event) => event === "up").length > ups,
    "the session is up again",
    200 * SECOND,
  );
}

describe("requests in flight when the connection is lost", () => {
  it.each([true, false])("queue pairs fail, rotation %s → re-issued, done once", (rotates) => {
    const pair = new Pair({ connectionCount: 2 }, { alwaysInvalidate: rotates });
    pair.connect();
    for (let block = 0; block < 3; block++) {
      pair.serverNotes.blocks.set(block, new Uint8Array(4096).fill(block + 1));
    }
    pair.serverNotes.holds = true;
    const reads = [pair.read(0), pair.read(1), pair.read(2)];
    const writes = [pair.write(10, 10), pair.write(11, 11)];
    pair.pipe.run(MS);
    breakConnections(pair);
    pair.pipe.run(MS);
    expect(pair.clientNotes.events).toEqual(["up", "down"]);
    pair.serverNotes.holds = false;
    pair.serverNotes.answerAll();
    upAgain(pair);
    pair.untilIdle();
    expect(pair.clientNotes.reissued.map((request) => request.number)).toEqual([0, 1, 2, 3, 4]);
    expect(pair.clientNotes.errnos).toEqual([0, 0, 0, 0, 0]);
    expect(reads.map((read) => pair.dataOf(read)[4095])).toEqual([1, 2, 3]);
    expect(writes.map((write) => write.reissueCount)).toEqual([1, 1]);
    // Each twice; in which order is not said, since they went by two connections.
    expect(pair.serverNotes.writes.slice(0, 2).sort()).toEqual(["10:10", "11:11"]);
    expect(pair.serverNotes.writes.slice(2).sort()).toEqual(["10:10", "11:11"]);
    expect(pair.client.counters()).toMatchObject({ reissued: 5, reconnects: 1 });
  });

  it("the server still works on them → it lets nobody back in before it is through", () => {
    const pair = new Pair();
    pair.connect();
    pair.serverNotes.holds = true;
    pair.write(1, 1);
    pair.pipe.run(MS);
    breakConnections(pair);
    pair.pipe.run(20 * SECOND);
    expect(pair.client.state).toBe("RECONNECTING");
    expect(pair.client.lastError?.code).toBe("ECONNRESET");
    expect(pair.serverNotes.events).toEqual(["up blue"]);
    expect(pair.clientNotes.completed).toEqual([]);
    pair.serverNotes.answerAll();
    pair.serverNotes.holds = false;
    upAgain(pair);
    pair.untilIdle();
    expect(pair.serverNotes.events).toEqual(["up blue", "down blue", "up blue"]);
    // Once by the old connection, once by the new, in this order; then answered.
    expect(pair.serverNotes.writes).toEqual(["1:1", "1:1"]);
    expect(pair.clientNotes.errnos).toEqual([0]);
  });

  it("the server's process dies and comes back → fresh keys, every request answered", () => {
    const pair = new Pair({ connectionCount: 2 });
    pair.connect();
    pair.serverNotes.holds = true;
    const write = pair.write(7, 7);
    const read = pair.read(8);
    pair.pipe.run(MS);
    pair.killServer();
    pair.pipe.run(20 * SECOND);
    expect(pair.clientNotes.events).toEqual(["up", "down"]);
    pair.restartServer();
    pair.serverNotes.blocks.set(8, new Uint8Array(4096).fill(8));
    upAgain(pair);
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([0, 0]);
    expect(pair.serverNotes.writes).toEqual(["7:7"]);
    expect(pair.dataOf(read)[0]).toBe(8);
    pair.client.release(write);
    pair.client.release(read);
    pair.read(7);
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([0, 0, 0]);
  });

  it("without retry → ECONNRESET at once, and ENOTCONN while down", () => {
    const pair = new Pair();
    pair.connect();
    pair.serverNotes.holds = true;
    const request = pair.client.acquireReserved();
    if (request === null) throw new Error("a request is free");
    request.retry = false;
    request.userLength = 4;
    pair.client.submitWrite(request, 0);
    pair.pipe.run(MS);
    pair.killServer();
    breakConnections(pair);
    pair.pipe.run(MS);
    expect(request.errno).toBe(ERRNO.ECONNRESET);
    pair.client.submitWrite(request, 0);
    pair.pipe.run(MS);
    expect(request.errno).toBe(ERRNO.ENOTCONN);
    expect(pair.client.inflight).toBe(0);
  });

  it("the user opens its things first → the others wait, new ones behind the old", () => {
    const pair = new Pair();
    pair.connect();
    pair.clientNotes.reissuesAtOnce = false;
    pair.serverNotes.holds = true;
    pair.write(1, 1);
    pair.pipe.run(MS);
    pair.killServer();
    breakConnections(pair);
    pair.pipe.run(MS);
    pair.write(2, 2);
    pair.restartServer();
    upAgain(pair);
    pair.pipe.run(SECOND);
    expect(pair.serverNotes.writes).toEqual([]);
    const open = pair.client.acquireReserved();
    if (open === null) throw new Error("a request is kept");
    open.retry = false;
    open.userView.setUint32(0, 99, true);
    open.userLength = 4;
    pair.client.submitWrite(open, 0);
    pair.pipe.run(SECOND);
    expect(pair.serverNotes.writes).toEqual(["99:-"]);
    pair.write(3, 3);
    pair.clientNotes.onReissue = (request) => {
      const block = request.userView.getUint32(0, true);
      request.userView.setUint32(0, block + 100, true);
      return block === 2 ? ERRNO.EIO : 0;
    };
    pair.client.reissue();
    pair.untilIdle();
    expect(pair.serverNotes.writes).toEqual(["99:-", "101:1", "103:3"]);
    expect([...pair.clientNotes.errnos].sort((a, b) => a - b)).toEqual([0, 0, 0, ERRNO.EIO]);
    expect(pair.clientNotes.reissued.map((request) => request.reissueCount)).toEqual([1, 0, 0]);
  });

  it("a server with one chunk → the user can still open its things first", () => {
    const pair = new Pair({}, { queueDepth: 1 });
    pair.connect();
    expect(pair.client.queueDepth).toBe(1);
    pair.clientNotes.reissuesAtOnce = false;
    pair.serverNotes.holds = true;
    pair.write(1, 1);
    expect(pair.client.acquire()).toBeNull();
    pair.pipe.run(MS);
    pair.killServer();
    breakConnections(pair);
    pair.restartServer();
    upAgain(pair);
    const open = pair.client.acquireReserved();
    if (open === null) throw new Error("a request is kept");
    open.retry = false;
    open.userView.setUint32(0, 99, true);
    open.userLength = 4;
    pair.client.submitWrite(open, 0);
    pair.pipe.until(() => pair.clientNotes.completed.length === 1, "the open is answered");
    pair.client.reissue();
    pair.client.submitWrite(open, 0);
    pair.untilIdle();
    expect(pair.serverNotes.writes).toEqual(["99:-", "1:1", "99:-"]);
  });

  it("lost again before `reissue` → they still wait, in their order", () => {
    const pair = new Pair();
    pair.connect();
    pair.clientNotes.reissuesAtOnce = false;
    pair.serverNotes.holds = true;
    pair.write(1, 1);
    pair.write(2, 2);
    pair.pipe.run(MS);
    pair.killServer();
    breakConnections(pair);
    pair.restartServer();
    upAgain(pair);
    pair.write(3, 3);
    breakConnections(pair);
    upAgain(pair);
    pair.client.reissue();
    pair.untilIdle();
    expect(pair.serverNotes.writes).toEqual(["1:1", "2:2", "3:3"]);
    expect(pair.clientNotes.errnos).toEqual([0, 0, 0]);
  });

  it("asked to fail what waits → fails it, and the session goes on", () => {
    const pair = new Pair();
    pair.connect();
    pair.serverNotes.holds = true;
    pair.write(1, 1);
    pair.pipe.run(MS);
    pair.killServer();
    breakConnections(pair);
    pair.pipe.run(MS);
    pair.client.failWaiting(ERRNO.EIO);
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([ERRNO.EIO]);
    pair.restartServer();
    upAgain(pair);
    pair.write(2, 2);
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([ERRNO.EIO, 0]);
  });

  it("down longer than the configured time → ETIMEDOUT, new ones too until it is back", () => {
    const pair = new Pair({ requestTimeoutNs: 10 * SECOND });
    pair.connect();
    pair.serverNotes.holds = true;
    const old = pair.write(1, 1);
    pair.pipe.run(MS);
    pair.killServer();
    breakConnections(pair);
    const fresh = pair.write(2, 2);
    pair.pipe.run(9 * SECOND);
    expect(pair.client.inflight).toBe(2);
    pair.pipe.run(2 * SECOND);
    expect([old.errno, fresh.errno]).toEqual([ERRNO.ETIMEDOUT, ERRNO.ETIMEDOUT]);
    pair.write(3, 3);
    pair.pipe.run(MS);
    expect(pair.clientNotes.errnos).toEqual(new Array(3).fill(ERRNO.ETIMEDOUT));
    pair.restartServer();
    upAgain(pair);
    pair.write(4, 4);
    pair.untilIdle();
    expect(pair.clientNotes.errnos.at(-1)).toBe(0);
  });
});

describe("finding out", () => {
  it("a server that acknowledges but does nothing → the heartbeat fails after 30 s", () => {
    const pair = new Pair();
    pair.connect();
    const { machines } = pair.serverHost;
    machines.splice(machines.indexOf(pair.server), 1);
    pair.write(1, 1);
    pair.pipe.run(34 * SECOND);
    expect(pair.clientNotes.events).toEqual(["up"]);
    pair.pipe.run(2 * SECOND);
    expect(pair.clientNotes.events).toEqual(["up", "down"]);
    expect(pair.client.lastError?.message).toBe("the server is silent");
    machines.push(pair.server);
    upAgain(pair);
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([0]);
  });

  it("a client that acknowledges but does nothing → the heartbeat fails after 30 s", () => {
    const pair = new Pair();
    pair.connect();
    const { machines } = pair.clientHost;
    machines.splice(machines.indexOf(pair.client), 1);
    pair.pipe.run(34 * SECOND);
    expect(pair.serverNotes.events).toEqual(["up blue"]);
    // It says goodbye, and waits a while for an answer.
    pair.pipe.run(4 * SECOND);
    expect(pair.serverNotes.events).toEqual(["up blue", "down blue"]);
    expect(pair.server.lastCloseReason).toBe("the client is silent");
  });

  it("a silent network → both sides notice, and find back", () => {
    const pair = new Pair();
    pair.connect();
    partition(pair);
    pair.pipe.run(60 * SECOND);
    expect(pair.clientNotes.events).toEqual(["up", "down"]);
    expect(pair.serverNotes.events).toEqual(["up blue", "down blue"]);
    expect(pair.serverHost.memory.liveCount).toBe(0);
    heal(pair);
    upAgain(pair);
    pair.write(1, 1);
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([0]);
  });

  it("a client that vanishes → the server ends its session and gives its memory back", () => {
    const pair = new Pair();
    pair.connect();
    pair.pipe.remove(pair.clientHost);
    pair.pipe.run(60 * SECOND);
    expect(pair.serverNotes.events).toEqual(["up blue", "down blue"]);
    expect(pair.serverHost.memory.liveCount).toBe(0);
    expect(pair.server.counters()).toMatchObject({ sessions: 0, inflight: 0 });
  });

  it("a client that vanishes while the server works for it → waits for that alone", () => {
    const pair = new Pair();
    pair.connect();
    pair.serverNotes.holds = true;
    pair.write(1, 1);
    pair.pipe.run(MS);
    pair.pipe.remove(pair.clientHost);
    pair.pipe.run(60 * SECOND);
    expect(pair.server.lastCloseReason).toBe("");
    expect(pair.server.deadlineNs()).toBe(Infinity);
    pair.serverNotes.answerAll();
    pair.pipe.run(MS);
    expect(pair.serverNotes.events).toEqual(["up blue", "down blue"]);
  });

  it("a client whose process died and came back → gets its name back within seconds", () => {
    const pair = new Pair();
    pair.connect();
    pair.pipe.remove(pair.clientHost);
    const host = new TestHost("192.0.2.1", 17);
    pair.pipe.hosts.push(host);
    const again = pair.makeClient({}, new ClientNotes(), host);
    again.connect();
    const before = pair.pipe.nowNs;
    pair.pipe.until(() => again.state === "CONNECTED", "the new process is connected");
    expect(pair.pipe.nowNs - before).toBeLessThan(15 * SECOND);
  });

  it("a client that vanishes while connecting → forgotten after the time for it", () => {
    const pair = new Pair({ connectionCount: 3 });
    pair.client.connect();
    pair.pipe.until(() => pair.server.counters().sessions === 1, "a path is half built");
    pair.pipe.remove(pair.clientHost);
    pair.pipe.run(29 * SECOND);
    expect(pair.server.counters().sessions).toBe(1);
    pair.pipe.run(10 * SECOND);
    expect(pair.server.counters().sessions).toBe(0);
    expect(pair.serverHost.memory.liveCount).toBe(0);
    expect(pair.serverNotes.events).toEqual([]);
  });

  it("the client comes back before the server has noticed → let in at once", () => {
    const pair = new Pair();
    pair.connect();
    // Nothing of the client's goodbye arrives.
    partition(pair);
    breakConnections(pair);
    pair.pipe.run(SECOND);
    heal(pair);
    const before = pair.pipe.nowNs;
    upAgain(pair);
    expect(pair.pipe.nowNs - before).toBeLessThan(3 * SECOND);
    expect(pair.serverNotes.events).toEqual(["up blue", "down blue", "up blue"]);
  });
});

describe("connecting", () => {
  it("no server at first → tries until there is one", () => {
    const pair = new Pair();
    pair.killServer();
    pair.client.connect();
    pair.pipe.run(30 * SECOND);
    expect(pair.client.state).toBe("CONNECTING");
    expect(pair.client.lastError?.code).toBe("ETIMEDOUT");
    pair.restartServer();
    pair.pipe.until(() => pair.client.state === "CONNECTED", "the session is up", 20 * SECOND);
    expect(pair.client.lastError).toBeNull();
  });

  it("nobody listens on the port → ECONNREFUSED when the attempts are used up", () => {
    const pair = new Pair({ port: 1235, connectAttemptsMax: 3 });
    pair.client.connect();
    pair.pipe.until(() => pair.client.state === "CLOSED", "the client gives up");
    expect(pair.clientNotes.events).toEqual(["failed ECONNREFUSED"]);
    expect(pair.client.attemptCount).toBe(3);
  });

  it("attempts → quick at first, then further apart, at most the longest delay", () => {
    const pair = new Pair({ port: 1235, reconnectDelayNs: 50 * MS, reconnectDelayNsMax: SECOND });
    pair.client.connect();
    pair.pipe.run(SECOND);
    const early = pair.client.attemptCount;
    expect(early).toBeGreaterThanOrEqual(4);
    pair.pipe.run(20 * SECOND);
    const late = pair.client.attemptCount - early;
    expect(late).toBeGreaterThanOrEqual(15);
    expect(late).toBeLessThanOrEqual(30);
  });

  it("closed while connecting, or before → CLOSED, nothing held", () => {
    const early = new Pair();
    early.client.close();
    early.pipe.until(() => early.client.state === "CLOSED", "closed before it connected");
    const pair = new Pair();
    pair.client.connect();
    pair.pipe.run(0);
    pair.client.close();
    pair.pipe.until(() => pair.client.state === "CLOSED", "closed while connecting");
    expect(pair.clientHost.memory.liveBytes).toBe(pair.data.length);
    expect(pair.clientNotes.events).toEqual([]);
    pair.pipe.run(40 * SECOND);
    expect(pair.server.counters().sessions).toBe(0);
  });

  it("a server that came back smaller → not used; one that came back larger → used", () => {
    const pair = new Pair();
    pair.connect();
    pair.killServer();
    breakConnections(pair);
    Object.assign(pair.serverOptions, { queueDepth: 4 });
    pair.restartServer();
    pair.pipe.run(5 * SECOND);
    expect(pair.client.lastError?.message).toMatch(/smaller/);
    pair.killServer();
    Object.assign(pair.serverOptions, { queueDepth: 32 });
    pair.restartServer();
    upAgain(pair);
    pair.write(1, 1);
    pair.untilIdle();
    expect(pair.client.queueDepth).toBe(7);
    expect(pair.clientNotes.errnos).toEqual([0]);
  });
});

describe("packet loss", () => {
  it.each([true, false])(
    "one packet in ten, rotation %s → every request answered once",
    (rotates) => {
      const pair = new Pair({ connectionCount: 2 }, { alwaysInvalidate: rotates });
      let state = 12_345;
      pair.pipe.loses = () => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        return state >>> 16 < 6554;
      };
      pair.connect();
      for (let round = 0; round < 15; round++) {
        const writes = Array.from({ length: 7 }, (_, i) => pair.write(i, (round * 7 + i) & 255));
        pair.untilIdle();
        for (const request of writes) pair.client.release(request);
        const reads = Array.from({ length: 7 }, (_, i) => pair.read(i));
        pair.untilIdle();
        reads.forEach((read, i) => {
          const data = pair.dataOf(read);
          expect(data.every((byte) => byte === ((round * 7 + i) & 255))).toBe(true);
          pair.client.release(read);
        });
      }
      expect(pair.clientNotes.errnos).toEqual(new Array(210).fill(0));
    },
  );
});
