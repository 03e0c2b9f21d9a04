// SPDX-License-Identifier: MIT
// Requests the other way: a session that the server opens back to its client.

import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { callBack, RtrsCallback, type RtrsClient } from "./index.js";
import { ClientNotes, Pair, ServerNotes } from "./pair.fixture.js";

/** A connected pair whose client can be called. */
class CallablePair extends Pair {
  readonly callNotes = new ServerNotes();
  readonly backNotes = new ClientNotes();
  readonly callback: RtrsCallback;

  constructor() {
    super();
    const { clientHost, serverHost } = this;
    this.callback = new RtrsCallback(
      clientHost.environment,
      {
        local: clientHost.address,
        peer: serverHost.address,
        queueDepth: 4,
        chunkBytes: 16_384,
        heartbeatIntervalNs: 1e9,
      },
      this.callNotes,
    );
    clientHost.machines.push(this.callback);
    this.connect();
  }

  call(token = this.callback.offer.token): RtrsClient {
    const session = this.serverNotes.sessions[0];
    if (session === undefined) throw new Error("a session is up");
    const offer = { port: this.callback.offer.port, token };
    const back = callBack(this.serverHost.environment, session, offer, this.backNotes);
    this.backNotes.client = back;
    this.serverHost.machines.push(back);
    back.connect();
    return back;
  }

  /** A request from server to client; a write of 100 bytes, or a read. */
  ask(back: RtrsClient, isRead: boolean): void {
    const request = back.acquire();
    if (request === null) throw new Error("a request is free");
    request.userView.setUint32(0, 5, true);
    request.userLength = 4;
    const memory = this.serverHost.memory.allocate(4096);
    back.registerMemory(memory);
    memory.bytes.fill(isRead ? 0 : 9, 0, 100);
    request.memory = memory;
    if (isRead) back.submitRead(request, 100);
    else back.submitWrite(request, 100);
    const before = this.backNotes.completed.length;
    this.pipe.until(() => this.backNotes.completed.length > before, "an answer");
    expect(request.errno).toBe(0);
    expect(memory.bytes[99]).toBe(9);
    back.release(request);
  }
}

describe("a session back to a client that can be called", () => {
  it("requests go both ways at once, each answered by its own user", () => {
    const pair = new CallablePair();
    const back = pair.call();
    pair.pipe.until(() => back.state === "CONNECTED", "the session back is up");
    expect(pair.callNotes.events).toEqual([`up ${pair.callback.offer.token}`]);
    const forth = pair.write(7, 3);
    pair.ask(back, false);
    pair.ask(back, true);
    pair.untilIdle();
    expect(forth.errno).toBe(0);
    expect(pair.callNotes.writes).toEqual(["5:9"]);
    expect(pair.serverNotes.writes).toEqual(["7:3"]);
    back.close();
    pair.pipe.until(() => back.state === "CLOSED", "it ends");
    pair.callback.close();
    pair.pipe.until(() => pair.callback.isClosed, "so does the other end");
    expect(pair.client.state).toBe("CONNECTED");
  });

  it("another token → the session is closed, its requests never reach the user", () => {
    const pair = new CallablePair();
    const back = pair.call("0".repeat(32));
    pair.pipe.until(() => back.attemptCount > 2, "it is thrown out, and tries again");
    expect(pair.backNotes.events).toEqual([]);
    expect(pair.callNotes.events).toEqual([]);
    expect(pair.callback.server.counters().closedPaths).toBeGreaterThan(0);
    back.close();
    expect(() => pair.call("short")).toThrow("32 hexadecimal digits");
  });

  it("a caller that is not the server's address → refused with EACCES", () => {
    const pair = new CallablePair();
    const { serverHost, clientHost } = pair;
    expect(pair.callback.admit(serverHost.address, null)).toBe(0);
    expect(pair.callback.admit(clientHost.address, null)).toBe(ERRNO.EACCES);
  });
});
