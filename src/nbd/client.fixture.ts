// SPDX-License-Identifier: MIT
// The client's side for the tests of this room: a stream that can be cut anywhere, the client's
// messages, a parser of what comes back, and a rig that turns the endpoint until it rests.

import { assert, ERRNO, HeapMemorySource, type Memory } from "../base/index.js";
import {
  NBD_CHUNK,
  NBD_COMMAND,
  NBD_EXTENDED_REPLY_BYTES,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_OPTION,
  NBD_OPTION_MAGIC_HIGH,
  NBD_OPTION_MAGIC_LOW,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  writeNbdExtendedRequest,
  writeNbdRequest,
} from "../wire/index.js";
import type { ByteStream, IoVector } from "./byte-stream.js";
import { TestDisk } from "./disk.fixture.js";
import type { NbdConnection } from "./nbd-connection.js";
import { NbdExports } from "./nbd-export.js";
import type { NbdLimits } from "./nbd-limits.js";
import { NbdServer } from "./nbd-server.js";

/** Small, so that every limit is met soon. */
export const SMALL_LIMITS: Partial<NbdLimits> = {
  connectionCountMax: 3,
  requestCountMax: 8,
  inlineBytes: 4096,
  segmentCount: 4,
  segmentBytes: 65_536,
  stagingBytes: 8192,
  requestBytesMax: 1 << 19,
};

export class TestStream implements ByteStream {
  readonly peer = "test";
  isClosed = false;
  /** The client has closed its end. */
  hasEnded = false;
  /** What read and write fail with, an errno; 0 for none. */
  errno = 0;
  /** Bytes that one read gives at most. */
  readBytesMax = Number.POSITIVE_INFINITY;
  /** Bytes that are taken before the stream is full; `drain` makes room again. */
  window = Number.POSITIVE_INFINITY;
  /** What the client has said and nobody read; `inputAt` bytes of the first are gone. */
  private readonly input: Uint8Array[] = [];
  private inputAt = 0;
  private output: Uint8Array[] = [];

  say(...messages: readonly Uint8Array[]): void {
    for (const message of messages) if (message.length > 0) this.input.push(message);
  }

  get hasInput(): boolean {
    return this.input.length > 0 || this.hasEnded || this.errno !== 0;
  }

  read(memory: Memory, offset: number, length: number): number {
    if (this.isClosed) return -ERRNO.EBADF;
    if (this.errno !== 0) return -this.errno;
    assert(length > 0 && offset >= 0 && offset + length <= memory.length, "reads stay in memory");
    const wanted = Math.min(length, this.readBytesMax);
    let count = 0;
    while (count < wanted && this.input.length > 0) {
      const first = this.input[0] as Uint8Array;
      const part = first.subarray(this.inputAt, this.inputAt + wanted - count);
      memory.bytes.set(part, offset + count);
      count += part.length;
      this.inputAt += part.length;
      if (this.inputAt === first.length) {
        this.input.shift();
        this.inputAt = 0;
      }
    }
    if (count === 0) return this.hasEnded ? 0 : -ERRNO.EAGAIN;
    return count;
  }

  write(vector: IoVector): number {
    if (this.isClosed) return -ERRNO.EBADF;
    if (this.errno !== 0) return -this.errno;
    let left = Math.min(this.window, vector.byteLength);
    if (left === 0) return -ERRNO.EAGAIN;
    const taken = left;
    for (let i = 0; i < vector.count && left > 0; i++) {
      const memory = vector.memories[i] as Memory;
      const offset = vector.offsets[i] as number;
      const length = Math.min(left, vector.lengths[i] as number);
      this.output.push(memory.bytes.slice(offset, offset + length));
      left -= length;
    }
    this.window -= taken;
    return taken;
  }

  close(): void {
    assert(!this.isClosed, "a stream is closed once");
    this.isClosed = true;
  }

  /** Everything written since the last call. */
  takeOutput(): Uint8Array {
    const bytes = join(this.output);
    this.output = [];
    return bytes;
  }
}

export function join(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Big-endian words of 4 bytes. */
export function words(...values: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  for (const [i, value] of values.entries()) view.setUint32(i * 4, value);
  return new Uint8Array(view.buffer);
}

export function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** Bytes that tell their place; `seed` for others. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = i * 31 + (i >> 8) * 7 + seed * 101;
  return bytes;
}

/** Whether two byte strings are the same; much faster than a deep comparison. */
export function same(a: Uint8Array | null | undefined, b: Uint8Array): boolean {
  if (a === null || a === undefined || a.length !== b.length) return false;
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function option(type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  return join([words(NBD_OPTION_MAGIC_HIGH, NBD_OPTION_MAGIC_LOW, type, data.length), data]);
}

/** The data of INFO and GO. */
export function infoData(name: string, kinds: readonly number[] = []): Uint8Array {
  const tail = new DataView(new ArrayBuffer(2 + 2 * kinds.length));
  tail.setUint16(0, kinds.length);
  for (const [i, kind] of kinds.entries()) tail.setUint16(2 + 2 * i, kind);
  return join([words(name.length), ascii(name), new Uint8Array(tail.buffer)]);
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextData(name: string, queries: readonly string[]): Uint8Array {
  const parts = queries.flatMap((query) => [words(query.length), ascii(query)]);
  return join([words(name.length), ascii(name), words(queries.length), ...parts]);
}

/** A compact request, followed by `data`. */
export function request(
  command: number,
  cookie: number,
  offset: number,
  length: number,
  flags = 0,
  data: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const view = new DataView(new ArrayBuffer(28));
  writeNbdRequest(view, 0, flags, command, 0xc00c1e00, cookie, offset, length);
  return join([new Uint8Array(view.buffer), data]);
}

export function extendedRequest(
  command: number,
  cookie: number,
  offset: number,
  length: number,
  flags = 0,
  data: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const view = new DataView(new ArrayBuffer(32));
  writeNbdExtendedRequest(view, 0, flags, command, 0xc00c1e00, cookie, offset, length);
  return join([new Uint8Array(view.buffer), data]);
}

export function write(cookie: number, offset: number, data: Uint8Array, flags = 0): Uint8Array {
  return request(NBD_COMMAND.WRITE, cookie, offset, data.length, flags, data);
}

export function read(cookie: number, offset: number, length: number, flags = 0): Uint8Array {
  return request(NBD_COMMAND.READ, cookie, offset, length, flags);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array;
}

/** Splits replies to options. Preconditions: there are only whole ones. */
export function parseOptionReplies(bytes: Uint8Array): OptionReply[] {
  const replies: OptionReply[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length; ) {
    assert(view.getUint32(at) === 0x0003e889, "a reply to an option has its magic, high word");
    assert(view.getUint32(at + 4) === 0x045565a9, "a reply to an option has its magic, low word");
    const length = view.getUint32(at + 16);
    assert(at + 20 + length <= bytes.length, "replies to options are whole");
    const data = bytes.slice(at + 20, at + 20 + length);
    replies.push({ option: view.getUint32(at + 8), type: view.getUint32(at + 12), data });
    at += 20 + length;
  }
  return replies;
}

/** All that came back for one request. */
export interface Answer {
  readonly cookie: number;
  /** The error; 0 for success. */
  error: number;
  /** READ: the data put together; null where none came. */
  data: Uint8Array | null;
  /** BLOCK_STATUS: length and flags of each descriptor. */
  extents: (readonly [number, number])[];
  /** Content chunks, and whether the last message of the reply has come. */
  chunks: number;
  isDone: boolean;
}

/** What the parser must know of a request to understand its reply. */
export interface Expected {
  readonly offset: number;
  readonly length: number;
  readonly isRead: boolean;
}

/** Takes replies apart, all three forms; fails on anything that the protocol forbids. */
export class ReplyParser {
  readonly answers = new Map<number, Answer>();
  /** By cookie. READs must be listed before their replies are parsed. */
  readonly expected = new Map<number, Expected>();
  private rest = new Uint8Array(0);

  /** Bytes of a reply that is not complete. */
  get restBytes(): number {
    return this.rest.length;
  }

  expect(cookie: number, offset: number, length: number, isRead: boolean): void {
    this.expected.set(cookie, { offset, length, isRead });
  }

  add(bytes: Uint8Array): void {
    const all = join([this.rest, bytes]);
    const view = new DataView(all.buffer, all.byteOffset, all.length);
    let at = 0;
    for (let taken = -1; at < all.length && taken !== 0; at += taken) {
      taken = this.takeMessage(view, at, all);
    }
    this.rest = all.slice(at);
  }

  /** @returns bytes of the message at `at`, 0 when it is not complete. */
  private takeMessage(view: DataView, at: number, all: Uint8Array): number {
    const left = all.length - at;
    if (left < 16) return 0;
    const magic = view.getUint32(at);
    if (magic === NBD_SIMPLE_REPLY_MAGIC) return this.takeSimple(view, at, all);
    const isExtended = magic === NBD_EXTENDED_REPLY_MAGIC;
    assert(isExtended || magic === NBD_STRUCTURED_REPLY_MAGIC, "a reply has a magic");
    const headerBytes = isExtended ? NBD_EXTENDED_REPLY_BYTES : 20;
    if (left < headerBytes) return 0;
    const length = view.getUint32(at + (isExtended ? 28 : 16));
    if (left < headerBytes + length) return 0;
    const answer = this.answer(view.getUint32(at + 8), view.getUint32(at + 12));
    const payload = all.subarray(at + headerBytes, at + headerBytes + length);
    this.takeChunk(answer, view.getUint16(at + 6), payload);
    answer.isDone = (view.getUint16(at + 4) & 1) !== 0;
    return headerBytes + length;
  }

  private takeSimple(view: DataView, at: number, all: Uint8Array): number {
    const cookie = view.getUint32(at + 12);
    const error = view.getUint32(at + 4);
    const expected = this.expected.get(cookie);
    const length = error === 0 && expected?.isRead === true ? expected.length : 0;
    if (all.length - at < 16 + length) return 0;
    const answer = this.answer(view.getUint32(at + 8), cookie);
    answer.error = error;
    answer.isDone = true;
    if (length > 0) {
      answer.data = all.slice(at + 16, at + 16 + length);
      answer.chunks = 1;
    }
    return 16 + length;
  }

  private answer(cookieHigh: number, cookie: number): Answer {
    assert(cookieHigh === 0xc00c1e00, "the cookie comes back whole");
    const known = this.answers.get(cookie);
    if (known !== undefined) {
      assert(!known.isDone, "nothing follows the end of a reply");
      return known;
    }
    const fresh = { cookie, error: 0, data: null, extents: [], chunks: 0, isDone: false };
    this.answers.set(cookie, fresh);
    return fresh;
  }

  private takeChunk(answer: Answer, type: number, payload: Uint8Array): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    const u64 = (at: number) => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
    if (type === NBD_CHUNK.OFFSET_DATA) {
      const expected = this.expected.get(answer.cookie);
      assert(expected?.isRead === true, "data answers a READ");
      answer.data ??= new Uint8Array(expected.length);
      answer.data.set(payload.subarray(8), u64(0) - expected.offset);
      answer.chunks++;
    } else if (type === NBD_CHUNK.ERROR) {
      answer.error = view.getUint32(0);
      assert(view.getUint16(4) === payload.length - 6, "an error's text has its length");
    } else if (type === NBD_CHUNK.BLOCK_STATUS) {
      for (let at = 4; at < payload.length; at += 8) {
        answer.extents.push([view.getUint32(at), view.getUint32(at + 4)]);
      }
    } else if (type === NBD_CHUNK.BLOCK_STATUS_EXT) {
      assert(view.getUint32(4) === (payload.length - 8) / 16, "descriptors are counted");
      for (let at = 8; at < payload.length; at += 16) answer.extents.push([u64(at), u64(at + 8)]);
    } else {
      assert(type === NBD_CHUNK.NONE && payload.length === 0, "a chunk has a known type");
    }
  }
}

export interface Client {
  readonly stream: TestStream;
  readonly connection: NbdConnection;
  readonly parser: ReplyParser;
}

/** A server over one test disk, "disk", and its clients. */
export class Rig {
  readonly disk: TestDisk;
  readonly exports: NbdExports = new NbdExports();
  readonly server: NbdServer;
  readonly clients: Client[] = [];
  nowNs = 1000;

  constructor(disk: TestDisk = new TestDisk(), limits: Partial<NbdLimits> = SMALL_LIMITS) {
    this.disk = disk;
    this.exports.add("disk", disk, "a test disk");
    this.server = new NbdServer({ exports: this.exports, memory: new HeapMemorySource(), limits });
  }

  connect(): Client {
    const stream = new TestStream();
    const connection = this.server.accept(stream, this.nowNs);
    assert(connection !== null, "there is room for a client");
    const client = { stream, connection, parser: new ReplyParser() };
    this.clients.push(client);
    return client;
  }

  /** One turn, as a runtime takes it. */
  turn(): void {
    this.nowNs++;
    for (const { stream, connection } of this.clients) {
      if (connection.wantsRead && stream.hasInput) connection.onReadable(this.nowNs);
      if (connection.wantsWrite && stream.window > 0) connection.onWritable(this.nowNs);
    }
    this.server.checkInvariants();
    this.disk.pump(this.nowNs);
    this.server.pump(this.nowNs);
    this.server.checkInvariants();
  }

  private get isBusy(): boolean {
    if (Math.min(this.server.deadlineNs(), this.disk.deadlineNs()) <= this.nowNs) return true;
    return this.clients.some(
      ({ stream, connection }) =>
        (connection.wantsRead && stream.hasInput) || (connection.wantsWrite && stream.window > 0),
    );
  }

  /** Turns until nothing is left to do. */
  settle(turnsMax = 20_000): void {
    for (let turns = 0; ; turns++) {
      assert(turns < turnsMax, "the endpoint comes to rest");
      this.turn();
      if (!this.isBusy) return;
    }
  }

  /** A client in transmission on "disk", with nothing unread. */
  enter(form: "simple" | "structured" | "extended", withContext = true): Client {
    const client = this.connect();
    client.stream.say(words(3));
    if (form !== "simple") {
      const isExtended = form === "extended";
      client.stream.say(
        option(isExtended ? NBD_OPTION.EXTENDED_HEADERS : NBD_OPTION.STRUCTURED_REPLY),
      );
      if (withContext) {
        const data = contextData("disk", ["base:allocation"]);
        client.stream.say(option(NBD_OPTION.SET_META_CONTEXT, data));
      }
    }
    client.stream.say(option(NBD_OPTION.GO, infoData("disk")));
    this.settle();
    client.stream.takeOutput();
    return client;
  }

  /** Says `messages` (requests whose cookies the parser expects), and parses what comes. */
  talk(client: Client, ...messages: readonly Uint8Array[]): ReplyParser {
    for (const message of messages) this.say(client, message);
    this.settle();
    client.parser.add(client.stream.takeOutput());
    return client.parser;
  }

  /** Says one request, and has its reply expected. */
  say(client: Client, message: Uint8Array): void {
    const view = new DataView(message.buffer, message.byteOffset, message.length);
    const isRead = view.getUint16(6) === NBD_COMMAND.READ;
    const isExtended = view.getUint32(0) === 0x21e41c71;
    const length = view.getUint32(isExtended ? 28 : 24);
    client.parser.expect(view.getUint32(12), view.getUint32(20), length, isRead);
    client.stream.say(message);
  }

  /** One request and its answer. */
  ask(client: Client, message: Uint8Array): Answer {
    const parser = this.talk(client, message);
    const cookie = new DataView(message.buffer, message.byteOffset).getUint32(12);
    const answer = parser.answers.get(cookie);
    assert(answer?.isDone === true, "the request is answered");
    parser.answers.delete(cookie);
    return answer;
  }
}
