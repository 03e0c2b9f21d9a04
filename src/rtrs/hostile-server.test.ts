// SPDX-License-Identifier: MIT
// A server that breaks the rules: the client completes each request once, loses no permit, and its
// memory can be written only where and while it has asked for it.

import { describe, expect, it } from "vitest";
import { IpAddress, type Memory } from "../base/index.js";
import { type SendWorkRequest, WC_STATUS, WR_OPCODE } from "../verbs/index.js";
import {
  RTRS_IMMEDIATE,
  type RtrsConnectReply,
  rtrsInfoResponseBytes,
  rtrsReplyImmediate,
  writeRtrsDescriptor,
  writeRtrsInfoResponse,
  writeRtrsRkeyResponse,
} from "../wire/index.js";
import type { RtrsClient } from "./client/client.js";
import type { ClientRequest } from "./client/client-request.js";
import { ClientNotes, MS, Pair, SECOND, TestHost } from "./pair.fixture.js";
import { RAW_DEPTH, type RawConnection, RawServer } from "./raw.fixture.js";

/** A client and a server by hand; the client's first data is 4 KiB of `data`. */
class Scene {
  readonly pair: Pair;
  readonly raw: RawServer;
  readonly client: RtrsClient;
  readonly notes = new ClientNotes();
  readonly data: Memory;

  constructor(change: Partial<RtrsConnectReply> = {}) {
    this.pair = new Pair();
    const { pipe } = this.pair;
    const server = new TestHost("192.0.2.7", 7);
    const client = new TestHost("192.0.2.8", 8);
    pipe.hosts.push(server, client);
    this.raw = new RawServer(server, change);
    this.pair.serverHost = server;
    this.client = this.pair.makeClient({ connectionCount: 2 }, this.notes, client);
    this.data = client.memory.allocate(65_536);
    this.data.bytes.fill(0xee);
    this.client.registerMemory(this.data);
    this.client.connect();
  }

  /** Waits until the client has asked for the chunks. */
  untilAsked(): this {
    const service = () => this.raw.connections[0];
    this.pair.pipe.until(
      () => service()?.completions.some((wc) => wc.byteLength === 272) === true,
      "an INFO_REQ has come",
    );
    return this;
  }

  /** Answers the INFO_REQ; what is not said is as it should be. */
  answer(change: { regions?: number; length?: number; bytes?: number; type?: number } = {}): this {
    const regions = change.regions ?? RAW_DEPTH;
    const bytes = new Uint8Array(rtrsInfoResponseBytes(regions));
    const view = new DataView(bytes.buffer);
    writeRtrsInfoResponse(view, 0, regions);
    bytes[0] = change.type ?? 1;
    for (let i = 0; i < regions; i++) {
      const address = this.raw.chunkMemory.address + i * 16_384;
      const high = Math.floor(address / 2 ** 32);
      const length = change.length ?? 16_384;
      writeRtrsDescriptor(view, 8 + 16 * i, high, address >>> 0, this.raw.chunkRegion.rkey, length);
    }
    this.raw.send(this.raw.connectionAt(0), bytes.subarray(0, change.bytes));
    return this;
  }

  up(): this {
    this.untilAsked().answer();
    this.pair.pipe.until(() => this.client.state === "CONNECTED", "the session is up");
    return this;
  }

  run(durationNs = 100 * MS): void {
    this.pair.pipe.run(durationNs);
  }

  /** A READ of 4 KiB to offset 4096 of the data; it has arrived at the server. */
  read(): ClientRequest {
    const request = this.client.acquire();
    if (request === null) throw new Error("a request is free");
    request.userLength = 4;
    request.memory = this.data;
    request.memoryOffset = 4096;
    this.client.submitRead(request, 4096);
    this.run(MS);
    return request;
  }

  /** Sends a reply by hand. */
  reply(
    connection: RawConnection,
    o: { type?: number; errno?: number; id: number; chunk?: number; bytes?: number },
  ): void {
    const payload = new Uint8Array(8);
    const key = this.raw.chunkRegion.rkey;
    writeRtrsRkeyResponse(new DataView(payload.buffer), 0, o.chunk ?? o.id, key);
    const type = o.type ?? RTRS_IMMEDIATE.IO_REPLY_INVALIDATED;
    this.raw.send(connection, payload.subarray(0, o.bytes), (wr) => {
      wr.opcode = WR_OPCODE.SEND_WITH_IMM;
      wr.immediate = rtrsReplyImmediate(type, o.errno ?? 0, o.id);
    });
  }

  /** Writes to the client's memory with the key that `request` opened. */
  write(offset: number, length: number, key: number): void {
    const bytes = new Uint8Array(length).fill(0x55);
    this.raw.send(this.raw.connectionAt(1), bytes, (wr: SendWorkRequest) => {
      const address = this.data.address + offset;
      wr.opcode = WR_OPCODE.RDMA_WRITE;
      wr.remoteAddressHigh = Math.floor(address / 2 ** 32);
      wr.remoteAddressLow = address >>> 0;
      wr.rkey = key;
    });
  }

  /** The key that the client has opened for a request. */
  keyOf(number: number): number {
    return (this.client as unknown as Inside).requests.slots[number]?.region.rkey ?? 0;
  }

  /** How the raw server's work requests went on the connection that carries the first request. */
  statuses(): number[] {
    const { completions } = this.raw.connectionAt(1);
    return completions.filter((wc) => wc.opcode < 128).map((wc) => wc.status);
  }

  /** The first byte at `offset`, and whether all of `length` are the same. */
  fill(offset: number, length: number): number {
    const bytes = this.data.bytes.subarray(offset, offset + length);
    const first = bytes[0] ?? -1;
    return bytes.every((byte) => byte === first) ? first : -1;
  }

  invalidate(key: number): void {
    this.raw.send(this.raw.connectionAt(1), new Uint8Array(0), (wr) => {
      wr.opcode = WR_OPCODE.SEND_WITH_INV;
      wr.invalidateKey = key;
    });
  }
}

interface Inside {
  readonly requests: { readonly slots: { readonly region: { readonly rkey: number } }[] };
}

const { SUCCESS, REM_ACCESS_ERR, WR_FLUSH_ERR } = WC_STATUS;

describe("a server's writes to the client's memory", () => {
  it("to the descriptor, before the reply → arrive, and nothing beside them", () => {
    const scene = new Scene().up();
    const request = scene.read();
    const key = scene.keyOf(request.number);
    scene.write(4096, 4096, key);
    scene.run(MS);
    scene.invalidate(key);
    scene.reply(scene.raw.connectionAt(1), { id: request.number });
    scene.run();
    expect(scene.notes.errnos).toEqual([0]);
    expect(scene.statuses()).toEqual([SUCCESS, SUCCESS, SUCCESS]);
    expect(scene.fill(0, 4096)).toBe(0xee);
    expect(scene.fill(4096, 4096)).toBe(0x55);
    expect(scene.fill(8192, 4096)).toBe(0xee);
  });

  it.each([
    ["before the descriptor", 4095, 1],
    ["behind it", 8192, 1],
    ["over its end", 8000, 193],
  ])("%s → refused, and the request survives the connection", (_name, offset, length) => {
    const scene = new Scene().up();
    const request = scene.read();
    scene.write(offset, length, scene.keyOf(request.number));
    scene.run();
    expect(scene.statuses()).toEqual([REM_ACCESS_ERR]);
    expect(scene.fill(0, 12_288)).toBe(0xee);
    expect(scene.notes.events).toEqual(["up", "down"]);
    expect(scene.notes.errnos).toEqual([]);
    expect(scene.client.inflight).toBe(1);
  });

  it("after the reply, by the key of the request → refused", () => {
    const scene = new Scene().up();
    const request = scene.read();
    const key = scene.keyOf(request.number);
    // It says that it has invalidated the key, and has not.
    scene.reply(scene.raw.connectionAt(1), { id: request.number });
    scene.run(MS);
    expect(scene.notes.errnos).toEqual([0]);
    scene.write(4096, 4096, key);
    scene.run();
    expect(scene.statuses()).toEqual([SUCCESS, REM_ACCESS_ERR]);
    expect(scene.fill(4096, 4096)).toBe(0xee);
  });

  it("after the connection was lost, by the key of the request → nothing to write by", () => {
    const scene = new Scene().up();
    const request = scene.read();
    const key = scene.keyOf(request.number);
    scene.raw.connectionAt(0).id.disconnect();
    scene.run(20 * MS);
    expect(scene.notes.events).toEqual(["up", "down"]);
    expect(scene.keyOf(request.number)).toBe(0);
    scene.write(4096, 4096, key);
    scene.run(MS);
    expect(scene.statuses()).toEqual([WR_FLUSH_ERR]);
    expect(scene.fill(4096, 4096)).toBe(0xee);
  });
});

describe("a server's replies", () => {
  it.each([true, false])("twice, invalidated %s → the request completes once", (invalidates) => {
    const scene = new Scene().up();
    const request = scene.read();
    if (invalidates) scene.invalidate(scene.keyOf(request.number));
    scene.reply(scene.raw.connectionAt(1), { id: request.number, errno: 5 });
    scene.reply(scene.raw.connectionAt(1), { id: request.number, errno: 0 });
    scene.run();
    expect(scene.notes.errnos).toEqual([5]);
    expect(scene.client.counters().strayReplies).toBe(1);
    expect(scene.client.state).toBe("CONNECTED");
  });

  it("for no request, for a chunk that does not exist, by another connection → ignored", () => {
    const scene = new Scene().up();
    const request = scene.read();
    scene.reply(scene.raw.connectionAt(1), { id: request.number + 1 });
    scene.reply(scene.raw.connectionAt(1), { id: 0x7ffff, chunk: 0xffff });
    scene.reply(scene.raw.connectionAt(2), { id: request.number });
    scene.run();
    expect(scene.notes.errnos).toEqual([]);
    expect(scene.client.counters().strayReplies).toBe(3);
    expect(scene.client.state).toBe("CONNECTED");
  });

  it.each([
    ["too short for a key", { bytes: 7 }],
    ["with the key of another chunk", { chunk: 5 }],
  ])("%s → the path fails, the request waits", (_name, change) => {
    const scene = new Scene().up();
    const request = scene.read();
    scene.reply(scene.raw.connectionAt(1), { id: request.number, ...change });
    scene.run(20 * MS);
    expect(scene.notes.events).toEqual(["up", "down"]);
    expect(scene.client.lastError?.code).toBe("EPROTO");
    expect(scene.client.inflight).toBe(1);
  });

  it("an immediate of unknown type → ignored, as Linux does", () => {
    const scene = new Scene().up();
    scene.raw.send(scene.raw.connectionAt(0), new Uint8Array(0), (wr) => {
      wr.opcode = WR_OPCODE.RDMA_WRITE_WITH_IMM;
      wr.immediate = 0x70000000;
    });
    scene.run();
    expect(scene.client.state).toBe("CONNECTED");
  });

  it("longer than a reply can be → the path fails", () => {
    const scene = new Scene().up();
    scene.raw.send(scene.raw.connectionAt(1), new Uint8Array(9));
    scene.run(20 * MS);
    expect(scene.notes.events).toEqual(["up", "down"]);
  });
});

describe("a server's offers", () => {
  it.each<[string, string, Partial<RtrsConnectReply>]>([
    ["no chunks", "EPROTO", { queueDepth: 0 }],
    ["an errno in an acceptance", "EPROTO", { errno: 12 }],
    ["chunks that no immediate can name", "EPROTO", { ioBytesMax: 1 << 29 }],
    ["a chunk of nothing", "EPROTO", { ioBytesMax: 0 }],
    ["no room for headers", "EMSGSIZE", { headerBytesMax: 535 }],
  ])("%s → %s, and another attempt", (_name, code, change) => {
    const scene = new Scene(change);
    scene.run(20 * MS);
    expect(scene.client.state).toBe("CONNECTING");
    expect(scene.client.lastError?.code).toBe(code);
    scene.run(SECOND);
    expect(scene.client.attemptCount).toBeGreaterThan(1);
  });

  it.each([
    ["another type", { type: 4 }],
    ["one chunk less", { regions: RAW_DEPTH - 1 }],
    ["one chunk more", { regions: RAW_DEPTH + 1 }],
    ["chunks of another size", { length: 8192 }],
    ["half a descriptor", { bytes: 100 }],
  ])("an INFO_RSP with %s → EPROTO, and another attempt", (_name, change) => {
    const scene = new Scene().untilAsked().answer(change);
    scene.run(20 * MS);
    expect(scene.client.state).toBe("CONNECTING");
    expect(scene.client.lastError).not.toBeNull();
    scene.raw.connections.length = 0;
    scene.up();
    expect(scene.client.lastError).toBeNull();
  });

  it("no INFO_RSP → ETIMEDOUT, and another attempt", () => {
    const scene = new Scene().untilAsked();
    scene.run(6 * SECOND);
    expect(scene.client.lastError?.code).toBe("ETIMEDOUT");
    scene.raw.connections.length = 0;
    scene.up();
  });
});

describe("addresses", () => {
  it("a source that is not this host's → EADDRNOTAVAIL, and another attempt", () => {
    const pair = new Pair();
    const paths = [
      { source: IpAddress.parse("192.0.2.200"), destination: pair.serverHost.address },
    ];
    const notes = new ClientNotes();
    const client = pair.makeClient({ paths, connectAttemptsMax: 2 }, notes, pair.clientHost);
    client.connect();
    pair.pipe.until(() => client.state === "CLOSED", "the client gives up");
    expect(notes.events).toEqual(["failed EADDRNOTAVAIL"]);
  });
});
