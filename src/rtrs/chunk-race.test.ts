// SPDX-License-Identifier: MIT
// A chunk whose bytes change while the server takes the request out of it: every byte, ahead of
// every fetch, with each way to keep it from doing so. What the server makes of it must be what it
// would have made of a chunk that stood still, with each byte as it was when it was fetched.

import { describe, expect, it } from "vitest";
import { FetchWatch } from "../../test/support/fetch-watch.js";
import { HeapMemorySource, IpAddress, SeededRandom } from "../base/index.js";
import { Device } from "../transport/index.js";
import { Context } from "../verbs/index.js";
import { RNBD_IO_BYTES, RNBD_OP, writeRnbdIo } from "../wire/index.js";
import type { Connection } from "./connection.js";
import type { RtrsEnvironment } from "./environment.js";
import { serverSettings } from "./options.js";
import { ServerChunks } from "./server-chunks.js";
import { ServerSession } from "./server-session.js";

const CHUNK_BYTES = 16_384;
const CHUNK_COUNT = 7;
const USER_BYTES_MAX = 64;
const CHUNK = 3;

/** The chunk is closed while the server has it; or it stays open and data is copied; or neither. */
type Way = "closed" | "copied" | "fixed keys";

/** The chunks of one path, and somebody who can change them between any two fetches. */
class Race {
  readonly watch = new FetchWatch();
  readonly chunks: ServerChunks;
  readonly way: Way;
  /** Fetches so far of this request, and of each byte which one it was. */
  private moment = 0;
  private readonly fetchedAt = new Map<number, number>();
  private readonly start = CHUNK * CHUNK_BYTES;
  private flip: { readonly moment: number; readonly byte: number } | null = null;
  private key = 0;

  constructor(way: Way) {
    this.way = way;
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
      alwaysInvalidate: way !== "fixed keys",
      copyBytesMax: way === "copied" ? CHUNK_BYTES / 2 : 0,
      userBytesMax: USER_BYTES_MAX,
    });
    const owner = { reply: () => {} };
    const session = new ServerSession(1, address, address, "race");
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
    const isClosed = this.way === "closed";
    if (isClosed && regions.find(this.key) >= 0) throw new Error("the key still opens it");
    if (!isClosed) this.change(this.flip.byte);
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
   * @returns what the server made of it, what it has seen of each byte, how many fetches it took.
   */
  take(request: Uint8Array, headerOffset: number, moment: number, byte: number) {
    const { chunks, start, way } = this;
    chunks.data.memory.bytes.fill(0, start, start + CHUNK_BYTES);
    chunks.data.memory.bytes.set(request, start);
    this.flip = { moment, byte };
    this.moment = 0;
    this.fetchedAt.clear();
    const fault = chunks.take(CHUNK, headerOffset, {} as Connection);
    this.flip = null;
    const seen = request.slice();
    const isSeen = way !== "closed" && (this.fetchedAt.get(byte) ?? 0) >= moment && moment > 0;
    if (isSeen && byte < seen.length) seen[byte] = (seen[byte] as number) ^ 0xff;
    const fetches = this.moment;
    // From here on the client may do to an open chunk what it likes: the copies stay.
    chunks.data.memory.bytes.fill(0xee, start, start + CHUNK_BYTES);
    return { fault, seen, fetches, request: chunks.requests[CHUNK] };
  }

  /** Gives the chunk back. */
  release(): void {
    this.chunks.release(CHUNK);
    if (this.way !== "fixed keys") this.key = this.openKey();
  }
}

/** What a server must make of these bytes: written once more, from the facts page alone. */
function judge(bytes: Uint8Array, headerOffset: number, way: Way): string {
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
  const data = way === "copied" && type === 2 ? ` ${bytes.subarray(0, dataLength)}` : "";
  return `${type} ${dataLength} ${user} ${descriptor}${data}`;
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
  const { bytes } = request.memory;
  const at = request.memoryOffset;
  // Data that stays in the chunk is the test's own to change.
  const isOut = race.way === "copied" && !request.isRead;
  const data = isOut ? ` ${bytes.subarray(at, at + request.dataLength)}` : "";
  return `${type} ${request.dataLength} ${user} ${descriptor}${data}`;
}

const DATA_BYTES = 16;
const USER = new Uint8Array(RNBD_IO_BYTES);
writeRnbdIo(new DataView(USER.buffer), 0, 1, 0, 5, RNBD_OP.WRITE, DATA_BYTES);
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
    ["WRITE", "closed", WRITE],
    ["READ", "closed", READ],
    ["WRITE", "copied", WRITE],
    ["READ", "copied", READ],
    ["WRITE", "fixed keys", WRITE],
    ["READ", "fixed keys", READ],
  ] as const)("%s, %s: every byte, at every fetch → as if it stood still", (_, way, bytes) => {
    const race = new Race(way);
    const still = race.take(bytes, HEADER_OFFSET, 0, 0);
    expect(told(race, still)).toBe(judge(bytes, HEADER_OFFSET, way));
    race.release();
    expect(still.fetches).toBeGreaterThan(USER.length);
    let changed = 0;
    for (let moment = 1; moment <= still.fetches; moment++) {
      for (let byte = 0; byte < bytes.length + 4; byte++) {
        const taken = race.take(bytes, HEADER_OFFSET, moment, byte);
        const is = told(race, taken);
        if (is !== judge(taken.seen, HEADER_OFFSET, way)) {
          throw new Error(`byte ${byte} changed ahead of fetch ${moment}: ${is}`);
        }
        if (is !== told(race, still)) changed++;
        race.release();
      }
    }
    // A closed chunk can't change; an open one must, or this is no test.
    expect(changed > 0).toBe(way !== "closed");
  });
});
