// SPDX-License-Identifier: MIT
// Fuzzes the NBD endpoint: several clients at once say mutated things, in pieces of any size, to
// one server over a small disk. Nothing may throw, hang, touch memory that is not the server's, or
// send any; and a client that behaves is served beside them.

import { ERRNO, type Memory, SeededRandom } from "../../src/base/index.js";
import { MemoryDevice } from "../../src/block/index.js";
import {
  type ByteStream,
  type IoVector,
  type NbdConnection,
  NbdExports,
  NbdServer,
} from "../../src/nbd/index.js";
import {
  NBD_COMMAND,
  NBD_OPTION,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
} from "../../src/wire/index.js";
import { containsSecret, GuardedMemorySource } from "./guarded-memory.js";
import { Mutator } from "./mutate.js";
import {
  clientFlags,
  drawHandshake,
  drawRequest,
  infoOption,
  type Message,
  request,
} from "./nbd-messages.js";

const DISK_BYTES = 1 << 20;
const CLIENT_COUNT = 3;
const TURNS_MAX = 20_000;
const QUIET_BYTES = 4096;
const QUIET_COOKIE = 0x5e77ed;

/** A client's end: says `input`, then hangs up or falls silent; takes replies as it likes. */
class FuzzStream implements ByteStream {
  readonly peer = "fuzzer";
  isClosed = false;
  /** The tail of what the server has said. */
  output = new Uint8Array(0);
  private position = 0;
  private readonly input: Uint8Array;
  private readonly mutator: Mutator;
  private readonly ending: "eof" | "reset" | "silence";
  private readonly patience: number;

  /** @param patience reads and writes out of this many find nothing ready once. */
  constructor(
    input: Uint8Array,
    mutator: Mutator,
    ending: "eof" | "reset" | "silence",
    patience: number,
  ) {
    this.input = input;
    this.mutator = mutator;
    this.ending = ending;
    this.patience = patience;
  }

  get isExhausted(): boolean {
    return this.position === this.input.length;
  }

  read(memory: Memory, offset: number, length: number): number {
    this.check(memory, offset, length);
    if (this.mutator.oneIn(this.patience)) return -ERRNO.EAGAIN;
    if (this.isExhausted) {
      if (this.ending === "silence") return -ERRNO.EAGAIN;
      return this.ending === "eof" ? 0 : -ERRNO.ECONNRESET;
    }
    const left = Math.min(length, this.input.length - this.position);
    const count = this.mutator.oneIn(3) ? 1 + this.mutator.below(left) : left;
    memory.bytes.set(this.input.subarray(this.position, this.position + count), offset);
    this.position += count;
    return count;
  }

  write(vector: IoVector): number {
    if (this.mutator.oneIn(this.patience)) return -ERRNO.EAGAIN;
    let left = this.mutator.oneIn(3)
      ? 1 + this.mutator.below(vector.byteLength)
      : vector.byteLength;
    let taken = 0;
    for (let i = 0; i < vector.count && left > 0; i++) {
      const memory = vector.memories[i] as Memory;
      const offset = vector.offsets[i] as number;
      const length = Math.min(left, vector.lengths[i] as number);
      this.check(memory, offset, length);
      if (containsSecret(memory.bytes, offset, length)) throw new Error("a secret was sent");
      this.keep(memory.bytes.subarray(offset, offset + length));
      taken += length;
      left -= length;
    }
    return taken;
  }

  close(): void {
    if (this.isClosed) throw new Error("a stream is closed once");
    this.isClosed = true;
  }

  private keep(bytes: Uint8Array): void {
    const joined = new Uint8Array(this.output.length + bytes.length);
    joined.set(this.output);
    joined.set(bytes, this.output.length);
    this.output = joined.slice(-(QUIET_BYTES + NBD_SIMPLE_REPLY_BYTES));
  }

  private check(memory: Memory, offset: number, length: number): void {
    if (this.isClosed) throw new Error("a closed stream is left alone");
    if (length <= 0 || offset < 0 || offset + length > memory.length) {
      throw new Error(`${length} bytes at ${offset} are no range of the memory`);
    }
  }
}

interface Client {
  readonly stream: FuzzStream;
  readonly connection: NbdConnection;
  turns: number;
}

export interface NbdFuzzReport {
  /** Messages that were changed. */
  mutated: number;
  conversations: number;
  /** Why connections ended, by reason. */
  readonly closed: Readonly<Record<string, number>>;
  readonly requests: number;
}

/** One server under fire. */
export class NbdFuzzer {
  mutated = 0;
  conversations = 0;
  private readonly mutator: Mutator;
  private readonly memory = new GuardedMemorySource();
  private readonly server: NbdServer;
  private readonly devices: MemoryDevice[];
  private readonly clients: (Client | null)[] = new Array(CLIENT_COUNT).fill(null);
  private previous: Uint8Array = new Uint8Array([1, 2, 3, 4]);
  private nowNs = 1;
  private turnCount = 0;
  /** Streams in a row that found no place. */
  private refusals = 0;

  constructor(seed: number) {
    this.mutator = new Mutator(new SeededRandom(seed).fork("nbd"));
    const exports = new NbdExports();
    this.devices = [
      new MemoryDevice({ name: "disk", sizeBytes: DISK_BYTES, queueDepth: 8 }),
      new MemoryDevice({ name: "quiet", sizeBytes: DISK_BYTES, readOnly: true }),
    ];
    exports.add("disk", this.devices[0] as MemoryDevice, "a disk to be hurt");
    exports.add("quiet", this.devices[1] as MemoryDevice);
    this.server = new NbdServer({
      exports,
      memory: this.memory,
      limits: {
        connectionCountMax: CLIENT_COUNT + 1,
        requestCountMax: 8,
        inlineBytes: 4096,
        segmentCount: 4,
        segmentBytes: 65_536,
        stagingBytes: 8192,
        requestBytesMax: 1 << 20,
      },
    });
  }

  /** Runs until `count` messages have been mutated. */
  run(count: number): NbdFuzzReport {
    while (this.mutated < count) {
      for (let i = 0; i < CLIENT_COUNT; i++) this.clients[i] ??= this.connect();
      this.turn();
    }
    const { closed, requests } = this.server.counters;
    const total = requests.reduce((sum, n) => sum + n, 0);
    const { mutated, conversations } = this;
    return { mutated, conversations, closed, requests: total };
  }

  /** A new client, when the last one's requests are out of the device and its place is free. */
  private connect(): Client | null {
    const { mutator } = this;
    const messages = this.drawConversation();
    const input = joinBytes(messages);
    const ending = mutator.pick(["eof", "eof", "reset", "silence"] as const);
    const patience = mutator.pick([2, 8, 1000]);
    const stream = new FuzzStream(input, mutator, ending, patience);
    const connection = this.accept(stream);
    if (connection === null) return null;
    this.conversations++;
    if (this.conversations % 64 === 0) this.checkQuietClient();
    return { stream, connection, turns: 0 };
  }

  /** Offers a stream to the server, which may still have requests of closed connections in it. */
  private accept(stream: FuzzStream): NbdConnection | null {
    const connection = this.server.accept(stream, this.nowNs);
    this.refusals = connection === null ? this.refusals + 1 : 0;
    if (this.refusals > 1000) throw new Error("closed connections keep their places");
    return connection;
  }

  /** A handshake and some requests; a few of the messages mutated. */
  private drawConversation(): Uint8Array[] {
    const { mutator } = this;
    const messages = drawHandshake(mutator, mutator.pick(["disk", "", "quiet", "none"]));
    const isExtended = messages.some(
      (message) => message.bytes[11] === NBD_OPTION.EXTENDED_HEADERS,
    );
    for (let count = mutator.below(24); count > 0; count--) {
      messages.push(drawRequest(mutator, DISK_BYTES, isExtended));
    }
    // Half of the conversations get to the transmission phase unharmed.
    const spared = mutator.oneIn(2)
      ? messages.findIndex((message) => message.bytes.length > 27)
      : 0;
    return messages.map((message, i) => (i < spared ? message.bytes : this.spoil(message)));
  }

  private spoil(message: Message): Uint8Array {
    const { mutator } = this;
    if (!mutator.oneIn(3)) return message.bytes;
    this.mutated++;
    let bytes: Uint8Array = message.bytes.slice();
    if (mutator.oneIn(3)) bytes = mutator.mutate(bytes, this.previous, 1 << 16);
    else for (let n = 1 + mutator.below(2); n > 0; n--) mutator.editField(bytes, message.fields);
    this.previous = bytes.slice(0, 256);
    return bytes;
  }

  private turn(): void {
    const { server, mutator } = this;
    this.nowNs += mutator.below(1_000_000);
    for (const client of this.clients) {
      if (client === null || client.connection.isClosed) continue;
      if (client.connection.wantsRead) client.connection.onReadable(this.nowNs);
      if (client.connection.wantsWrite) client.connection.onWritable(this.nowNs);
    }
    for (const device of this.devices) device.pump(this.nowNs);
    server.pump(this.nowNs);
    if (++this.turnCount % 16 === 0) server.checkInvariants();
    if (this.turnCount % 512 === 0) this.memory.check();
    for (const [i, client] of this.clients.entries()) {
      if (client === null) continue;
      client.turns++;
      if (client.connection.isClosed) this.clients[i] = null;
      else if (client.turns > TURNS_MAX) throw new Error("a connection hangs");
      else if (client.turns > 200 && client.stream.isExhausted) this.endSilence(client);
    }
  }

  /** A silent client must leave at the latest when the server is told so. */
  private endSilence(client: Client): void {
    if (client.turns % 100 === 0) client.connection.close();
  }

  /** A well-behaved client reads 4 KiB and is answered while the others go on. */
  private checkQuietClient(): void {
    const messages = [
      clientFlags(3),
      infoOption(NBD_OPTION.GO, "quiet", []),
      request({ type: NBD_COMMAND.READ, cookie: QUIET_COOKIE, offset: 0, length: QUIET_BYTES }),
      request({ type: NBD_COMMAND.DISC, offset: 0, length: 0 }),
    ].map((message) => message.bytes);
    let stream: FuzzStream;
    let connection: NbdConnection | null;
    do {
      this.turn();
      stream = new FuzzStream(joinBytes(messages), this.mutator, "silence", 8);
      connection = this.accept(stream);
    } while (connection === null);
    for (let turns = 0; !connection.isClosed; turns++) {
      if (turns > TURNS_MAX) throw new Error("the quiet client is not served");
      connection.onReadable(this.nowNs);
      connection.onWritable(this.nowNs);
      this.turn();
    }
    const view = new DataView(stream.output.buffer);
    const isAnswered =
      stream.output.length === QUIET_BYTES + NBD_SIMPLE_REPLY_BYTES &&
      view.getUint32(0) === NBD_SIMPLE_REPLY_MAGIC &&
      view.getUint32(4) === 0 &&
      view.getUint32(12) === QUIET_COOKIE &&
      stream.output.subarray(NBD_SIMPLE_REPLY_BYTES).every((byte) => byte === 0);
    if (!isAnswered) throw new Error("the quiet client's answer is wrong");
  }
}

function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
