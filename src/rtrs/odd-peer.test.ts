// SPDX-License-Identifier: MIT
// RTRS peers that keep the rules and are unlike us: other sizes, other orders, other regions, other
// minor versions, heartbeats at odd times (rtrs-rnbd facts, sections 3 to 9).

import { describe, expect, it } from "vitest";
import type { Memory } from "../base/index.js";
import { type SendWorkRequest, WR_OPCODE } from "../verbs/index.js";
import {
  encodeRtrsConnectReply,
  RTRS_IMMEDIATE,
  type RtrsConnectReply,
  rtrsHeartbeatImmediate,
  rtrsInfoResponseBytes,
  rtrsReplyImmediate,
  writeRtrsDescriptor,
  writeRtrsInfoResponse,
  writeRtrsRkeyResponse,
} from "../wire/index.js";
import type { RtrsClient } from "./client/client.js";
import type { ClientRequest } from "./client/client-request.js";
import { ClientNotes, MS, Pair, SECOND, TestHost } from "./pair.fixture.js";
import { type RawConnection, RawServer } from "./raw.fixture.js";

/** What an odd server offers, and how its chunks lie. */
interface Oddity {
  readonly name: string;
  readonly reply: Partial<RtrsConnectReply>;
  /** Regions in INFO_RSP; the chunks are cut evenly. */
  readonly regions: number;
  /** Regions are announced from the last address to the first. */
  readonly isBackwards?: boolean;
}

/** A client of ours and a server by hand. */
class Scene {
  readonly pair = new Pair();
  readonly raw: RawServer;
  readonly client: RtrsClient;
  readonly notes = new ClientNotes();
  readonly data: Memory;
  private readonly oddity: Oddity;

  constructor(oddity: Oddity) {
    this.oddity = oddity;
    const server = new TestHost("192.0.2.7", 7);
    const host = new TestHost("192.0.2.8", 8);
    this.pair.pipe.hosts.push(server, host);
    this.raw = new RawServer(server, oddity.reply);
    this.pair.serverHost = server;
    this.client = this.pair.makeClient({}, this.notes, host);
    this.data = host.memory.allocate(65_536);
    this.client.registerMemory(this.data);
    this.client.connect();
    const service = () => this.raw.connections[0];
    const isAsked = () => service()?.completions.some((wc) => wc.byteLength === 272) === true;
    this.pair.pipe.until(isAsked, "an INFO_REQ has come");
  }

  get chunkBytes(): number {
    return this.raw.reply.ioBytesMax + this.raw.reply.headerBytesMax;
  }

  /** Where chunk `number` is, in the raw server's chunk memory. */
  chunkOffset(number: number): number {
    const { regions, isBackwards } = this.oddity;
    const perRegion = this.raw.reply.queueDepth / regions;
    const region = Math.floor(number / perRegion);
    const place = isBackwards === true ? regions - 1 - region : region;
    return (place * perRegion + (number % perRegion)) * this.chunkBytes;
  }

  answerInfo(): void {
    const { regions } = this.oddity;
    const perRegion = this.raw.reply.queueDepth / regions;
    const bytes = new Uint8Array(rtrsInfoResponseBytes(regions));
    const view = new DataView(bytes.buffer);
    writeRtrsInfoResponse(view, 0, regions);
    for (let i = 0; i < regions; i++) {
      const address = this.raw.chunkMemory.address + this.chunkOffset(i * perRegion);
      const high = Math.floor(address / 2 ** 32);
      const { rkey } = this.raw.chunkRegion;
      const at = 8 + 16 * i;
      writeRtrsDescriptor(view, at, high, address >>> 0, rkey, perRegion * this.chunkBytes);
    }
    this.raw.send(this.raw.connectionAt(0), bytes);
  }

  up(): this {
    this.answerInfo();
    this.pair.pipe.until(() => this.client.state === "CONNECTED", "the session is up");
    return this;
  }

  /** Writes `length` bytes; @returns the data where the server finds it. */
  write(length: number, chunk = 0): Uint8Array {
    const request = this.client.acquire();
    if (request === null) throw new Error("a request is free");
    request.userLength = 4;
    request.memory = length === 0 ? null : this.data;
    request.memoryOffset = 0;
    for (let i = 0; i < length; i++) this.data.bytes[i] = (i * 7 + length) & 0xff;
    this.client.submitWrite(request, length);
    this.pair.pipe.run(MS);
    const at = this.chunkOffset(chunk);
    return this.raw.chunkMemory.bytes.slice(at, at + length);
  }

  immediate(connection: RawConnection, value: number, payload = new Uint8Array(0)): void {
    this.raw.send(connection, payload, (wr: SendWorkRequest) => {
      wr.opcode = payload.length === 0 ? WR_OPCODE.RDMA_WRITE_WITH_IMM : WR_OPCODE.SEND_WITH_IMM;
      wr.immediate = value;
    });
    this.pair.pipe.run(MS);
  }

  /** Answers chunk `id` in the way that the server has announced. */
  reply(id: number, type: number = RTRS_IMMEDIATE.IO_REPLY): void {
    const isRotating = (this.raw.reply.flags & 2) !== 0;
    const payload = new Uint8Array(isRotating ? 8 : 0);
    const view = new DataView(payload.buffer);
    if (isRotating) writeRtrsRkeyResponse(view, 0, id, this.raw.chunkRegion.rkey);
    this.immediate(this.raw.connectionAt(1), rtrsReplyImmediate(type, 0, id), payload);
  }
}

const ODDITIES: readonly Oddity[] = [
  { name: "one chunk", reply: { queueDepth: 1 }, regions: 1 },
  { name: "6 chunks in 2 regions", reply: { queueDepth: 6 }, regions: 2 },
  { name: "6 chunks in 6, backwards", reply: { queueDepth: 6 }, regions: 6, isBackwards: true },
  { name: "fixed keys, one region", reply: { queueDepth: 7, flags: 0 }, regions: 1 },
  { name: "fixed keys, a region each", reply: { queueDepth: 7, flags: 0 }, regions: 7 },
  {
    name: "sizes that are no powers of two",
    reply: { queueDepth: 5, ioBytesMax: 9_000, headerBytesMax: 3_000 },
    regions: 5,
  },
  {
    name: "the smallest I/O there is",
    reply: { queueDepth: 7, ioBytesMax: 512, headerBytesMax: 2_048 },
    regions: 1,
  },
  { name: "flags that we don't know", reply: { queueDepth: 7, flags: 0xffff_fffe }, regions: 7 },
];

/** A server of another version. */
class VersionedServer extends RawServer {
  private readonly version: number;

  constructor(host: TestHost, version: number) {
    super(host);
    this.version = version;
  }

  protected override replyBytes(): Uint8Array {
    const bytes = encodeRtrsConnectReply(this.reply);
    new DataView(bytes.buffer).setUint16(2, this.version, true);
    return bytes;
  }
}

describe("a server with", () => {
  it.each(ODDITIES.map((oddity) => ({ name: oddity.name, oddity })))(
    "$name → used",
    ({ oddity }) => {
      const scene = new Scene(oddity).up();
      const { ioBytesMax, queueDepth } = scene.raw.reply;
      expect(scene.client.maxIoBytes).toBe(ioBytesMax);
      expect(scene.client.queueDepth).toBe(Math.max(1, queueDepth - 1));
      for (const length of [ioBytesMax, 0, 512]) {
        const got = scene.write(length);
        expect(got).toEqual(scene.data.bytes.slice(0, length));
        scene.reply(0);
        const request = scene.notes.completed.at(-1) as ClientRequest;
        expect(request.errno).toBe(0);
        scene.client.release(request);
      }
      scene.pair.pipe.run(30 * SECOND);
      expect(scene.notes.events[0]).toBe("up");
    },
  );

  it("heartbeats on any connection, acknowledgements of none → answered, no harm", () => {
    const scene = new Scene(ODDITIES[1] as Oddity).up();
    const { raw } = scene;
    const received = () => raw.connectionAt(0).completions.filter((wc) => wc.opcode >= 128).length;
    const before = received();
    for (const cid of [0, 1, 1, 0]) {
      scene.immediate(raw.connectionAt(cid), rtrsHeartbeatImmediate(RTRS_IMMEDIATE.HEARTBEAT));
      scene.immediate(raw.connectionAt(cid), rtrsHeartbeatImmediate(RTRS_IMMEDIATE.HEARTBEAT_ACK));
    }
    expect(received() - before).toBe(4);
    expect(scene.notes.events).toEqual(["up"]);
  });

  it("a heartbeat right behind INFO_RSP, before there is a receive → waits, is answered", () => {
    const scene = new Scene(ODDITIES[0] as Oddity);
    scene.answerInfo();
    const [service] = scene.raw.connections as [RawConnection];
    scene.immediate(service, rtrsHeartbeatImmediate(RTRS_IMMEDIATE.HEARTBEAT));
    scene.pair.pipe.run(SECOND);
    expect(scene.client.state).toBe("CONNECTED");
    expect(service.completions.filter((wc) => wc.opcode >= 128)).toHaveLength(2);
  });

  it("a reply that says a key was invalidated, though none was asked to be → done", () => {
    const scene = new Scene(ODDITIES[1] as Oddity).up();
    scene.write(512);
    scene.reply(0, RTRS_IMMEDIATE.IO_REPLY_INVALIDATED);
    expect(scene.notes.errnos).toEqual([0]);
  });

  it("another minor version → used; another major one → EPROTO", () => {
    for (const [version, code] of [
      [0x02ff, null],
      [0x0300, "EPROTO"],
      [0x0100, "EPROTO"],
    ] as const) {
      const pair = new Pair({ connectAttemptsMax: 1 });
      const serverHost = new TestHost("192.0.2.7", 7);
      const raw = new VersionedServer(serverHost, version);
      pair.pipe.hosts.push(serverHost);
      pair.serverHost = serverHost;
      const notes = new ClientNotes();
      const host = new TestHost("192.0.2.8", 8);
      pair.pipe.hosts.push(host);
      const client = pair.makeClient({ connectAttemptsMax: 1 }, notes, host);
      client.connect();
      pair.pipe.run(SECOND);
      const asked = raw.connections[0]?.completions.some((wc) => wc.byteLength === 272) === true;
      expect(asked).toBe(code === null);
      expect(client.lastError?.code ?? null).toBe(code);
    }
  });
});
