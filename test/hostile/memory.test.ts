// SPDX-License-Identifier: MIT
// A client that writes to a chunk while the server looks at it, after it has been taken from it, or
// that has the server look at it once more.

import { describe, expect, it } from "vitest";
import { HeapMemorySource, IpAddress, SeededRandom } from "../../src/base/index.js";
import type { Connection } from "../../src/rtrs/connection.js";
import type { RtrsEnvironment } from "../../src/rtrs/index.js";
import { serverSettings } from "../../src/rtrs/options.js";
import { ServerChunks } from "../../src/rtrs/server-chunks.js";
import { ServerSession } from "../../src/rtrs/server-session.js";
import { Device } from "../../src/transport/index.js";
import { Context, WR_OPCODE } from "../../src/verbs/index.js";
import { RNBD_OP, type RtrsDescriptor } from "../../src/wire/index.js";
import { FetchWatch } from "../support/fetch-watch.js";
import { type Attacker, CHUNK_BYTES, CHUNK_COUNT, rnbd } from "./attacker.js";
import { MS, OWN_BYTE, Scene } from "./scene.js";

const USER_BYTES_MAX = 64;
const CHUNK = 3;

/** The chunks of one path, and somebody who can change them between any two fetches. */
class Race {
  readonly watch = new FetchWatch();
  readonly chunks: ServerChunks;
  private readonly rotates: boolean;
  /** Fetches so far of this request, and of each byte which one it was. */
  private moment = 0;
  private readonly fetchedAt = new Map<number, number>();
  private readonly start = CHUNK * CHUNK_BYTES;
  private flip: { readonly moment: number; readonly byte: number } | null = null;
  private key = 0;

  constructor(rotates: boolean) {
    this.rotates = rotates;
    const random = new SeededRandom(1);
    const address = IpAddress.parse("192.0.2.1");
    const context = new Context(
      new Device({ addresses: [address], linkMtus: [1500], random, regionCountMax: 64 }),
    );
    const memory = new HeapMemorySource();
    const environment = { context, memory, watch: this.watch } as unknown as RtrsEnvironment;
    const settings = serverSettings({
      queueDepth: CHUNK_COUNT,
      chunkBytes: CHUNK_BYTES,
      alwaysInvalidate: rotates,
      userBytesMax: USER_BYTES_MAX,
    });
    const owner = { reply: () => {} };
    const session = new ServerSession(1, address, "race");
    this.chunks = new ServerChunks(environment, settings, context.allocPd(), owner, session);
    this.chunks.announce();
    this.watch.onFetch = (_memory, offset, length) => this.onFetch(offset, length, context);
  }

  private onFetch(offset: number, length: number, context: Context): void {
    this.moment++;
    for (let i = 0; i < length; i++) this.fetchedAt.set(offset - this.start + i, this.moment);
    if (this.flip?.moment !== this.moment) return;
    // What the device would do with a packet that arrives now.
    const { regions } = context.device;
    if (this.rotates && regions.find(this.key) >= 0) throw new Error("the key still opens it");
    if (!this.rotates) this.change(this.flip.byte);
  }

  private change(byte: number): void {
    const { bytes } = this.chunks.data.memory;
    bytes[this.start + byte] = (bytes[this.start + byte] as number) ^ 0xff;
  }

  /** The key that the client has for the chunk. */
  private openKey(): number {
    const { view } = this.chunks.messages.memory;
    const at = this.chunks.reopen(CHUNK) - this.chunks.messages.memory.address;
    return view.getUint32(at + 4, true);
  }

  /**
   * Has the server take `request`, the end of which lies at `end`, while `byte` changes ahead of
   * fetch number `moment`.
   * @returns what the server made of it, what it has seen of each byte, and how many fetches it took.
   */
  take(request: Uint8Array, headerOffset: number, moment: number, byte: number) {
    const { chunks, start, rotates } = this;
    chunks.data.memory.bytes.fill(0, start, start + CHUNK_BYTES);
    chunks.data.memory.bytes.set(request, start);
    this.flip = { moment, byte };
    this.moment = 0;
    this.fetchedAt.clear();
    const fault = chunks.take(CHUNK, headerOffset, {} as Connection);
    this.flip = null;
    const seen = request.slice();
    const isSeen = !rotates && (this.fetchedAt.get(byte) ?? 0) >= moment && moment > 0;
    if (isSeen && byte < seen.length) seen[byte] = (seen[byte] as number) ^ 0xff;
    const fetches = this.moment;
    // From here on the client may do to a fixed chunk what it likes: the copy stays.
    chunks.data.memory.bytes.fill(0xee, start, start + CHUNK_BYTES);
    return { fault, seen, fetches, request: chunks.requests[CHUNK] };
  }

  /** Gives the chunk back. */
  release(): void {
    this.chunks.release(CHUNK);
    if (this.rotates) this.key = this.openKey();
  }
}

/** What a server must make of these bytes: written once more, from the facts page alone. */
function judge(bytes: Uint8Array, headerOffset: number): string {
  const at = new DataView(bytes.buffer, bytes.byteOffset + headerOffset);
  const type = at.getUint16(0, true);
  const userLength = at.getUint16(2, true);
  if (type !== 2 && type !== 3) return "BAD_TYPE";
  if (userLength > headerOffset) return "BAD_USER_LENGTH";
  if (headerOffset - userLength > CHUNK_BYTES - 4096) return "BAD_DATA_LENGTH";
  let descriptor = "";
  if (type === 3) {
    const count = at.getUint16(6, true);
    if (count > 1) return "BAD_SEGMENT_COUNT";
    const length = at.getUint32(20, true);
    if (count === 1 && (length === 0 || length > CHUNK_BYTES)) return "BAD_DESCRIPTOR";
    if (count === 1) descriptor = `${at.getUint32(16, true)} ${length}`;
  }
  const dataLength = headerOffset - userLength;
  const isCopied = userLength <= USER_BYTES_MAX;
  const user = isCopied ? bytes.subarray(dataLength, headerOffset) : "too long";
  return `${type} ${dataLength} ${user} ${descriptor}`;
}

function told(race: Race, taken: ReturnType<Race["take"]>): string {
  const { fault, request } = taken;
  if (fault !== null || request === undefined) return String(fault);
  const { chunks } = race;
  const type = request.isRead ? 3 : 2;
  const hasDescriptor = request.isRead && chunks.hasDescriptor[CHUNK] !== 0;
  const descriptor = hasDescriptor
    ? `${chunks.clientKeys[CHUNK]} ${chunks.clientLengths[CHUNK]}`
    : "";
  const isCopied = request.userLength <= USER_BYTES_MAX;
  const user = isCopied ? request.userMessage.subarray(0, request.userLength) : "too long";
  return `${type} ${request.dataLength} ${user} ${descriptor}`;
}

const DATA_BYTES = 16;
const USER = rnbd.io(1, RNBD_OP.WRITE, 5, DATA_BYTES);
const HEADER_OFFSET = DATA_BYTES + USER.length;
const WRITE = new Uint8Array([
  ...new Uint8Array(DATA_BYTES).fill(7),
  ...USER,
  2,
  0,
  USER.length,
  0,
]);
// READ: type, user length, flags, one descriptor of 16 bytes under key 0x99.
const READ = new Uint8Array([
  ...[...new Uint8Array(DATA_BYTES), ...USER, 3, 0, USER.length, 0, 0, 0, 1, 0],
  ...[1, 2, 3, 4, 5, 6, 7, 8, 0x99, 0, 0, 0, 16, 0, 0, 0],
]);

describe("a chunk that changes while the server takes the request out of it", () => {
  it.each([
    ["WRITE", true, WRITE],
    ["READ", true, READ],
    ["WRITE", false, WRITE],
    ["READ", false, READ],
  ])(
    "%s, rotating keys %s: every byte, at every fetch → as if it stood still",
    (_, rotates, bytes) => {
      const race = new Race(rotates);
      const still = race.take(bytes, HEADER_OFFSET, 0, 0);
      expect(told(race, still)).toBe(judge(bytes, HEADER_OFFSET));
      race.release();
      expect(still.fetches).toBeGreaterThan(USER.length);
      let changed = 0;
      for (let moment = 1; moment <= still.fetches; moment++) {
        for (let byte = 0; byte < bytes.length + 4; byte++) {
          const taken = race.take(bytes, HEADER_OFFSET, moment, byte);
          const is = told(race, taken);
          if (is !== judge(taken.seen, HEADER_OFFSET)) {
            throw new Error(`byte ${byte} changed ahead of fetch ${moment}: ${is}`);
          }
          if (is !== told(race, still)) changed++;
          race.release();
        }
      }
      // With rotating keys nothing can change; with fixed ones the test would be worth nothing else.
      expect(changed > 0).toBe(!rotates);
    },
  );
});

/** Writes `bytes` into a chunk as a packet that comes too late would, by the key of `descriptor`. */
function writeLate(attacker: Attacker, descriptor: RtrsDescriptor, bytes: Uint8Array): void {
  attacker.request(0, bytes, 0, 0, (wr) => {
    wr.opcode = WR_OPCODE.RDMA_WRITE;
    wr.remoteAddressHigh = descriptor.addressHigh;
    wr.remoteAddressLow = descriptor.addressLow;
    wr.rkey = descriptor.rkey;
  });
}

describe("a write that comes after the request", () => {
  it("rotating keys → refused by the device, that path is closed, the disk has the first", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    const id = scene.open(attacker, "own");
    const [descriptor] = attacker.chunks as [RtrsDescriptor];
    attacker.post({ user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data: new Uint8Array(512).fill(1) });
    scene.until("the disk has it", () => scene.inflight("own") > 0);
    writeLate(attacker, descriptor, new Uint8Array(512).fill(2));
    scene.until("the path ends", () => attacker.isDisconnected);
    expect(attacker.hasAccessError).toBe(true);
    expect(scene.fate(attacker)).toMatch(/connection 1 failed/);
    expect(scene.contents("own").subarray(0, 513)).toEqual(
      new Uint8Array(513).fill(1, 0, 512).fill(OWN_BYTE, 512),
    );
    scene.expectNobodyHarmed();
  });

  it("fixed keys → the data may be a mixture, of its own volume, where it said", () => {
    const scene = new Scene({ alwaysInvalidate: false });
    const attacker = scene.attacker();
    const id = scene.open(attacker, "own");
    const [descriptor] = attacker.chunks as [RtrsDescriptor];
    const data = new Uint8Array(512).fill(1);
    attacker.post({ user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data });
    scene.until("the disk has it", () => scene.inflight("own") > 0);
    writeLate(attacker, descriptor, new Uint8Array(2048).fill(2));
    scene.until("the reply", () => attacker.replies.has(0));
    expect(attacker.replies.get(0)).toBe(0);
    const now = scene.contents("own");
    expect(now.subarray(0, 512).every((byte) => byte === 1 || byte === 2)).toBe(true);
    expect(now.subarray(512).every((byte) => byte === OWN_BYTE)).toBe(true);
    scene.expectNobodyHarmed();
  });
});

describe.each([true, false])(
  "an immediate that comes again, rotating keys %s",
  (alwaysInvalidate) => {
    const again = (attacker: Attacker) => {
      attacker.post({
        user: new Uint8Array(0),
        lies: { change: (wr) => Object.assign(wr, EMPTY) },
      });
    };
    // An empty RDMA write needs no key; the immediate names chunk 0 and offset 544.
    const EMPTY = { sgeCount: 0, rkey: 0, immediate: 544 };

    it("while the server has the chunk → CHUNK_IN_USE", () => {
      const scene = new Scene({ alwaysInvalidate });
      const attacker = scene.attacker();
      const id = scene.open(attacker, "own");
      attacker.post({
        user: rnbd.io(id, RNBD_OP.WRITE, 0, 512),
        data: new Uint8Array(512).fill(1),
      });
      scene.until("the disk has it", () => scene.inflight("own") > 0);
      again(attacker);
      expect(scene.fate(attacker)).toMatch(/CHUNK_IN_USE/);
      scene.expectNobodyHarmed();
    });

    it("after the reply → BAD_TYPE: a header is good for one request", () => {
      const scene = new Scene({ alwaysInvalidate });
      const attacker = scene.attacker();
      const id = scene.open(attacker, "own");
      const user = rnbd.io(id, RNBD_OP.WRITE, 0, 512);
      expect(scene.run(attacker, { user, data: new Uint8Array(512).fill(1) }).errno).toBe(0);
      const counters = scene.rnbd.volume("own")?.counters;
      expect(counters?.writes).toBe(1);
      again(attacker);
      scene.world.run(MS);
      expect(scene.fate(attacker)).toMatch(/BAD_TYPE/);
      expect(counters?.writes).toBe(1);
      scene.expectNobodyHarmed();
    });
  },
);
