// SPDX-License-Identifier: MIT
// A client and a server over two devices: what their users see of each other while all is well.

import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { ClientNotes, MS, Pair, SECOND, TestHost } from "./pair.fixture.js";
import { RawClient } from "./raw.fixture.js";

/** The one value of all bytes, or -1. */
function fillOf(bytes: Uint8Array): number {
  const first = bytes[0] ?? -1;
  return bytes.every((byte) => byte === first) ? first : -1;
}

const KEYS = {
  "the session's": { invalidate: false },
  "its own": { invalidate: true },
  "its own, invalidated by the server": { invalidate: true, remoteInvalidate: true },
};

const MODES = [true, false].flatMap((alwaysInvalidate) =>
  Object.entries(KEYS).map(([key, client]) => ({ alwaysInvalidate, key, client })),
);
const MODE = "with key rotation $alwaysInvalidate, a read by $key key";

describe.each(MODES)(`requests ${MODE}`, ({ alwaysInvalidate, client }) => {
  it("writes and reads → every byte arrives, over and over through the same chunks", () => {
    const pair = new Pair({ ...client, connectionCount: 2 }, { alwaysInvalidate });
    pair.connect();
    for (let round = 0; round < 10; round++) {
      const writes = Array.from({ length: 7 }, (_, i) => pair.write(i, (round + i) & 255));
      pair.untilIdle();
      for (const request of writes) pair.client.release(request);
      const reads = Array.from({ length: 7 }, (_, i) => pair.read(i));
      pair.untilIdle();
      reads.forEach((read, i) => {
        expect(fillOf(pair.dataOf(read))).toBe((round + i) & 255);
        pair.client.release(read);
      });
    }
    expect(pair.clientNotes.errnos).toEqual(new Array(140).fill(0));
    expect(pair.client.counters()).toMatchObject({ completed: 140, strayReplies: 0 });
  });

  it("requests without data, both ways → reach the user and come back", () => {
    const pair = new Pair({ ...client }, { alwaysInvalidate });
    pair.connect();
    const seen: string[] = [];
    pair.serverNotes.onAny = (request) => {
      const block = request.userView.getUint32(0, true);
      seen.push(`${request.isRead ? "read" : "write"} ${block} ${request.dataLength}`);
      request.complete(0);
    };
    pair.read(11, 0);
    pair.write(12, 0, 0);
    pair.untilIdle();
    expect(seen).toEqual(["read 11 0", "write 12 0"]);
    expect(pair.clientNotes.errnos).toEqual([0, 0]);
  });

  it("largest request → all its bytes; one more is a bug of the caller", () => {
    const pair = new Pair({ ...client }, { alwaysInvalidate });
    pair.connect();
    const write = pair.write(3, 9, pair.client.maxIoBytes);
    pair.untilIdle();
    pair.client.release(write);
    const read = pair.read(3, pair.client.maxIoBytes);
    pair.untilIdle();
    expect(fillOf(pair.dataOf(read))).toBe(9);
    expect(pair.dataOf(read).length).toBe(12_288);
    expect(() => pair.client.submitRead(read, 12_289)).toThrow(/length/);
  });
});

describe.each(MODES)(`answers ${MODE}`, ({ alwaysInvalidate, client }) => {
  it("an error of the user → the client's errno, and the chunk works on", () => {
    const pair = new Pair({ ...client }, { alwaysInvalidate });
    pair.connect();
    pair.serverNotes.onAny = (request) => request.complete(ERRNO.ENOSPC);
    const failed = [pair.read(1), pair.write(1, 1)];
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([ERRNO.ENOSPC, ERRNO.ENOSPC]);
    expect(fillOf(pair.dataOf(failed[0] as (typeof failed)[number]))).toBe(0xee);
    for (const request of failed) pair.client.release(request);
    pair.serverNotes.onAny = null;
    pair.write(1, 1);
    pair.untilIdle();
    expect(pair.clientNotes.errnos.at(-1)).toBe(0);
    expect(pair.clientNotes.events).toEqual(["up"]);
  });

  it("an answer shorter than was asked for → no byte beyond it is touched", () => {
    const pair = new Pair({ ...client }, { alwaysInvalidate });
    pair.connect();
    pair.serverNotes.onAny = (request) => {
      request.memory.bytes.fill(5, request.memoryOffset, request.memoryOffset + 4096);
      request.complete(0, 100);
    };
    const read = pair.read(1);
    pair.untilIdle();
    const data = pair.dataOf(read);
    expect(fillOf(data.subarray(0, 100))).toBe(5);
    expect(fillOf(data.subarray(100))).toBe(0xee);
  });

  it("answers in any order, later → each to its own request", () => {
    const pair = new Pair({ ...client, connectionCount: 3 }, { alwaysInvalidate });
    pair.connect();
    for (let block = 0; block < 7; block++) {
      pair.serverNotes.blocks.set(block, new Uint8Array(4096).fill(block + 1));
    }
    pair.serverNotes.holds = true;
    const reads = Array.from({ length: 7 }, (_, i) => pair.read(i));
    pair.pipe.run(100 * MS);
    expect(pair.client.inflight).toBe(7);
    expect(pair.server.counters().inflight).toBe(7);
    pair.serverNotes.requests.reverse();
    pair.serverNotes.answerAll();
    pair.untilIdle();
    expect(reads.map((read) => fillOf(pair.dataOf(read)))).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });
});

describe("session", () => {
  it("connect → both users hear of it once, and the client knows the limits", () => {
    const pair = new Pair();
    expect(pair.client.acquire()).toBeNull();
    pair.connect();
    expect(pair.clientNotes.events).toEqual(["up", "permit"]);
    expect(pair.serverNotes.events).toEqual(["up blue"]);
    expect(pair.client.maxIoBytes).toBe(12_288);
    expect(pair.client.chunkBytes).toBe(16_384);
    expect(pair.client.queueDepth).toBe(7);
    expect(pair.server.sessions().map((session) => session.name)).toEqual(["blue"]);
    expect(pair.server.memoryBytesMax).toBe(16 * 4 * 8 * (16_384 + 8192));
  });

  it("a client that pauses for three seconds → its path stays, and it gets its answer", () => {
    const pair = new Pair();
    pair.connect();
    pair.serverNotes.holds = true;
    const read = pair.read(1);
    pair.pipe.run(100 * MS);
    pair.pipe.loses = (_, from) => from === pair.serverHost;
    pair.serverNotes.answerAll();
    pair.pipe.run(3 * SECOND);
    pair.pipe.loses = null;
    pair.untilIdle();
    expect(read.errno).toBe(0);
    expect(pair.serverNotes.events).toEqual(["up blue"]);
    expect(pair.clientNotes.events).toEqual(["up"]);
  });

  it("a client that goes by the REP → waits for an ACK as long as the server may take", () => {
    const pair = new Pair();
    const host = new TestHost("192.0.2.9", 9);
    const raw = new RawClient(host, pair.serverHost);
    pair.pipe.hosts.push(host);
    const { events, qp } = raw.ask();
    pair.pipe.until(() => events.length > 0, "connected");
    expect(qp.queryQp().timeout).toBe(19); // 2.15 s at most, on our own side
  });

  it("all requests taken → null, told when one is free; the reserved one is kept", () => {
    const pair = new Pair();
    pair.connect();
    const taken = Array.from({ length: 7 }, () => pair.client.acquire());
    expect(taken.map((request) => request?.number)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(pair.client.acquire()).toBeNull();
    const reserved = pair.client.acquireReserved();
    expect(reserved?.number).toBe(7);
    expect(pair.client.acquireReserved()).toBeNull();
    pair.pipe.run(MS);
    expect(pair.clientNotes.events).toEqual(["up"]);
    pair.client.release(taken[3] as NonNullable<(typeof taken)[number]>);
    pair.pipe.run(MS);
    // It is the reserved one that is missing now.
    expect(pair.clientNotes.events).toEqual(["up"]);
    pair.client.release(reserved as NonNullable<typeof reserved>);
    pair.pipe.run(MS);
    expect(pair.clientNotes.events).toEqual(["up", "permit"]);
    expect(pair.client.acquire()?.number).toBe(3);
  });

  it("a request used while it is not one's own → a bug, said so", () => {
    const pair = new Pair();
    pair.connect();
    const write = pair.write(1, 1);
    expect(() => pair.client.submitWrite(write, 4096)).toThrow(/in flight/);
    expect(() => pair.client.release(write)).toThrow(/in flight/);
    pair.untilIdle();
    pair.client.release(write);
    expect(() => pair.client.release(write)).toThrow(/in flight/);
  });

  it("memory that is not registered → a bug, said so; registered twice → EEXIST", () => {
    const pair = new Pair();
    pair.connect();
    expect(() => pair.client.registerMemory(pair.data)).toThrow(
      expect.objectContaining({ code: "EEXIST" }),
    );
    pair.client.unregisterMemory(pair.data);
    expect(() => pair.write(1, 1)).toThrow(/registered/);
  });

  it("more requests than the send queue holds → all answered", () => {
    const pair = new Pair({}, { queueDepth: 256, chunkBytes: 8192 });
    pair.connect();
    pair.serverNotes.onAny = (request) => request.complete(0);
    let left = 3000;
    const again = () => {
      while (left > 0) {
        const request = pair.client.acquire();
        if (request === null) return;
        left--;
        request.userLength = 8;
        if (left % 2 === 0) pair.client.submitWrite(request, 0);
        else {
          request.memory = pair.data;
          pair.client.submitRead(request, 512);
        }
      }
    };
    pair.clientNotes.onComplete = (request) => {
      pair.client.release(request);
      again();
    };
    again();
    pair.pipe.until(() => left === 0 && pair.client.inflight === 0, "all are answered");
    expect(pair.clientNotes.errnos.length).toBe(3000);
    expect(pair.clientNotes.errnos.every((errno) => errno === 0)).toBe(true);
  });

  it("a server with more chunks than the client wants → as many as it wants", () => {
    const pair = new Pair({ queueDepthMax: 3, reservedRequests: 2 });
    pair.connect();
    expect(pair.client.queueDepth).toBe(1);
    for (let i = 0; i < 5; i++) {
      const write = pair.write(i, i);
      pair.untilIdle();
      pair.client.release(write);
    }
    expect(pair.clientNotes.errnos).toEqual([0, 0, 0, 0, 0]);
  });

  it("a user message longer than the server's user takes → EMSGSIZE, the session lives", () => {
    const pair = new Pair({ userBytesMax: 600 }, { userBytesMax: 300 });
    pair.connect();
    const request = pair.client.acquire();
    if (request === null) throw new Error("a request is free");
    request.userLength = 301;
    pair.client.submitWrite(request, 0);
    pair.untilIdle();
    expect(request.errno).toBe(ERRNO.EMSGSIZE);
    expect(pair.serverNotes.requests).toEqual([]);
    pair.client.submitWrite(Object.assign(request, { userLength: 300 }), 0);
    pair.untilIdle();
    expect(request.errno).toBe(0);
  });

  it("idle for a minute → heartbeats alone, both sides stay up", () => {
    const pair = new Pair();
    pair.connect();
    const before = pair.pipe.packetCount;
    pair.pipe.run(60 * SECOND);
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(pair.serverNotes.events).toEqual(["up blue"]);
    // Each side every 5 s: heartbeat, acknowledgement, and what the transport adds to each.
    const packets = pair.pipe.packetCount - before;
    expect(packets).toBeGreaterThan(40);
    expect(packets).toBeLessThan(200);
  });

  it("closed by the client → ESHUTDOWN for what is in flight, all memory given back", () => {
    const pair = new Pair();
    pair.connect();
    pair.serverNotes.holds = true;
    pair.read(1);
    pair.write(2, 2);
    pair.pipe.run(10 * MS);
    pair.client.close();
    pair.pipe.until(() => pair.client.state === "CLOSED", "the client is closed");
    expect(pair.clientNotes.errnos).toEqual([ERRNO.ESHUTDOWN, ERRNO.ESHUTDOWN]);
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(pair.clientHost.memory.liveBytes).toBe(pair.data.length);
    pair.pipe.run(SECOND);
    expect(pair.serverNotes.events).toEqual(["up blue"]);
    pair.serverNotes.answerAll();
    pair.pipe.run(SECOND);
    expect(pair.serverNotes.events).toEqual(["up blue", "down blue"]);
    expect(pair.serverHost.memory.liveCount).toBe(0);
    expect(pair.server.counters().sessions).toBe(0);
  });

  it("closed by the server → it waits for its user's requests, then holds nothing", () => {
    const pair = new Pair({ connectAttemptsMax: 2 });
    pair.connect();
    pair.serverNotes.holds = true;
    pair.write(2, 2);
    pair.pipe.run(10 * MS);
    pair.server.close();
    pair.pipe.run(SECOND);
    expect(pair.server.isClosed).toBe(false);
    pair.serverNotes.answerAll();
    pair.pipe.until(() => pair.server.isClosed, "the server is closed");
    expect(pair.serverHost.memory.liveCount).toBe(0);
    pair.pipe.until(() => pair.client.state === "CLOSED", "the client gives up");
    expect(pair.clientNotes.events).toEqual(["up", "down", "failed ECONNREFUSED"]);
    expect(pair.clientNotes.errnos).toEqual([ERRNO.ECONNABORTED]);
    expect(pair.clientHost.memory.liveBytes).toBe(pair.data.length);
  });

  it("disconnected by the server's user → the client comes back", () => {
    const pair = new Pair();
    pair.connect();
    pair.server.sessions()[0]?.disconnect();
    pair.pipe.until(() => pair.serverNotes.events.length === 3, "the session is up again");
    expect(pair.serverNotes.events).toEqual(["up blue", "down blue", "up blue"]);
    pair.pipe.run(MS);
    expect(pair.clientNotes.events).toEqual(["up", "down", "up"]);
    const [first, second] = pair.serverNotes.sessions;
    expect(first?.id).not.toBe(second?.id);
  });

  it("two clients of one name → the second is refused until the first is gone", () => {
    const pair = new Pair();
    pair.connect();
    const host = new TestHost("192.0.2.3", 3);
    pair.pipe.hosts.push(host);
    const notes = new ClientNotes();
    const second = pair.makeClient({}, notes, host);
    second.connect();
    pair.pipe.run(3 * SECOND);
    expect(second.state).toBe("CONNECTING");
    expect(second.lastError?.code).toBe("ECONNRESET");
    expect(pair.server.lastCloseReason).toMatch(/named "blue"/);
    expect(pair.clientNotes.events).toEqual(["up"]);
    pair.client.close();
    pair.pipe.until(() => second.state === "CONNECTED", "the second has its turn");
  });

  it("more sessions than allowed → ENOMEM, the others undisturbed", () => {
    const pair = new Pair({}, { sessionCountMax: 1 });
    pair.connect();
    const host = new TestHost("192.0.2.3", 3);
    pair.pipe.hosts.push(host);
    const notes = new ClientNotes();
    const second = pair.makeClient({ sessionName: "red", connectAttemptsMax: 1 }, notes, host);
    second.connect();
    pair.pipe.until(() => second.state === "CLOSED", "the second gives up");
    expect(notes.events).toEqual(["failed ENOMEM"]);
    expect(host.memory.liveCount).toBe(0);
    expect(pair.clientNotes.events).toEqual(["up"]);
  });

  it("two sessions → separate chunks, separate answers", () => {
    const pair = new Pair();
    pair.connect();
    const host = new TestHost("192.0.2.3", 3);
    pair.pipe.hosts.push(host);
    const other = pair.makeClient({ sessionName: "red" }, new ClientNotes(), host);
    other.connect();
    pair.pipe.until(() => other.state === "CONNECTED", "the second is up");
    expect(pair.server.sessions().length).toBe(2);
    pair.write(1, 1);
    pair.untilIdle();
    const [a, b] = pair.serverNotes.sessions;
    expect(a).not.toBe(b);
    expect(pair.serverHost.memory.liveCount).toBe(6);
  });
});
