// SPDX-License-Identifier: MIT

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SeededRandom, updateCrc32 } from "../base/index.js";
import { NBD_COMMAND, NBD_COMMAND_FLAG, NBD_OPTION } from "../wire/index.js";
import {
  type Client,
  contextData,
  extendedRequest,
  infoData,
  join,
  option,
  pattern,
  Rig,
  request,
  SMALL_LIMITS,
  same,
  words,
} from "./client.fixture.js";
import { TestDisk } from "./disk.fixture.js";

const COMMAND = NBD_COMMAND;
const BLOCK = 512;
const DISK_BLOCKS = 512;

const DISK_PATTERN = pattern(DISK_BLOCKS * BLOCK);
const ALONE = { ...SMALL_LIMITS, connectionCountMax: 1 };

type Form = "simple" | "structured" | "extended";

/** A small disk full of a pattern, so that reads have something to say. */
function disk(transferBytesMax = 1 << 20): TestDisk {
  const made = new TestDisk({ sizeBytes: DISK_BLOCKS * BLOCK, transferBytesMax });
  made.bytes.set(DISK_PATTERN);
  return made;
}

function handshake(form: Form): Uint8Array {
  const context = option(NBD_OPTION.SET_META_CONTEXT, contextData("disk", ["base:allocation"]));
  const parts = [words(3), option(NBD_OPTION.LIST), option(77, pattern(30))];
  if (form === "structured") parts.push(option(NBD_OPTION.STRUCTURED_REPLY), context);
  if (form === "extended") parts.push(option(NBD_OPTION.EXTENDED_HEADERS), context);
  parts.push(option(NBD_OPTION.GO, infoData("disk", [1, 2, 3])));
  return join(parts);
}

/** A whole conversation, by message; requests in it don't depend on one another's order. */
function messages(form: Form): Uint8Array[] {
  const req = form === "extended" ? extendedRequest : request;
  const flag = form === "extended" ? NBD_COMMAND_FLAG.PAYLOAD_LEN : 0;
  return [
    handshake(form),
    req(COMMAND.READ, 1, 0, 1024),
    req(COMMAND.WRITE, 2, 102_400, 512, flag, pattern(512, 2)),
    req(COMMAND.READ, 3, 100, 512),
    req(COMMAND.WRITE, 4, 200_000, 1536, flag, pattern(1536, 3)),
    req(COMMAND.READ, 5, 4096, 70_144),
    req(COMMAND.WRITE, 6, 110_080, 66_560, flag, pattern(66_560, 4)),
    req(COMMAND.BLOCK_STATUS, 7, 0, 4096),
    req(COMMAND.FLUSH, 8, 0, 0),
    req(COMMAND.WRITE_ZEROES, 9, 204_800, 4096),
    req(99, 10, 0, 0),
    req(COMMAND.READ, 11, 8192, 512),
    req(COMMAND.DISC, 12, 0, 0),
  ];
}

/**
 * Where to cut a conversation in two: at every byte of the handshake and of each header, a few
 * bytes into each payload and before its end, and here and there between.
 */
function places(form: Form): number[] {
  const found = new Set<number>();
  const headerBytes = form === "extended" ? 32 : 28;
  let start = 0;
  for (const [index, { length }] of messages(form).entries()) {
    const dense = index === 0 ? length : headerBytes + 4;
    for (let at = 0; at < length; at += at < dense ? 1 : 499) {
      found.add(start + at);
    }
    for (let at = Math.max(0, length - 4); at < length; at++) found.add(start + at);
    start += length;
  }
  found.delete(0);
  return [...found].sort((a, b) => a - b);
}

const CONVERSATIONS = {
  simple: join(messages("simple")),
  structured: join(messages("structured")),
  extended: join(messages("extended")),
};

/** Tells byte strings apart, fast. */
function hash(bytes: Uint8Array | null): number {
  return bytes === null ? -1 : updateCrc32(bytes, 0, bytes.length, 0);
}

/** What came of a conversation: replies by cookie, the disk, the reason of the end. */
function outcome(rig: Rig, client: Client, form: Form) {
  const output = client.stream.takeOutput();
  const { parser } = client;
  for (const [cookie, offset, length] of [
    [1, 0, 1024],
    [3, 100, 512],
    [5, 4096, 70_144],
    [11, 8192, 512],
  ] as const) {
    parser.expect(cookie, offset, length, true);
  }
  // The handshake ends with the ACK of GO, whose length depends on the form alone.
  const go = join([words(0x0003e889, 0x045565a9, NBD_OPTION.GO, 1, 0)]);
  let at = 0;
  while (!same(output.subarray(at, at + go.length), go)) at++;
  parser.add(output.subarray(at + go.length));
  const answers = [...parser.answers.values()].sort((a, b) => a.cookie - b.cookie);
  return JSON.stringify([
    form,
    hash(output.subarray(0, at)),
    answers.map((a) => [a.cookie, a.error, a.isDone, hash(a.data), a.extents]),
    parser.restBytes,
    hash(rig.disk.bytes),
    client.connection.closeReason,
    rig.server.isIdle,
  ]);
}

/** Says `bytes` in pieces of `cuts` bytes each (the last ones again and again), resting between. */
function converse(form: Form, cuts: readonly number[], window: number): string {
  const rig = new Rig(disk(), ALONE);
  const client = rig.connect();
  const bytes = CONVERSATIONS[form];
  let at = 0;
  for (let i = 0; at < bytes.length; i++) {
    const length = cuts[i % cuts.length] as number;
    client.stream.say(bytes.subarray(at, at + length));
    at += length;
    if (window > 0) client.stream.window = window;
    rig.settle();
  }
  client.stream.window = Number.POSITIVE_INFINITY;
  rig.settle();
  return outcome(rig, client, form);
}

describe.each(["simple", "structured", "extended"] as const)("NBD connection, %s", (form) => {
  const whole = converse(form, [1 << 20], 0);

  it("the conversation does what it should", () => {
    const [, , answers, rest, , reason, isIdle] = JSON.parse(whole) as unknown[];
    expect((answers as unknown[][]).map((answer) => answer.slice(0, 3))).toEqual(
      [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map((cookie) => [
        cookie,
        cookie === 3 || cookie === 4 || cookie === 10 || (cookie === 7 && form === "simple")
          ? 22
          : 0,
        true,
      ]),
    );
    expect([rest, reason, isIdle]).toEqual([0, "DISCONNECTED", true]);
  });

  it("the same bytes cut in two give the same outcome", () => {
    const bytes = CONVERSATIONS[form];
    // Simple and structured differ in the replies alone: every place once is enough.
    const stride = form === "simple" ? 5 : 1;
    for (const [index, at] of places(form).entries()) {
      if (index % stride === 0 && converse(form, [at, bytes.length], 0) !== whole) {
        expect(`cut at ${at}`).toBe("no difference");
      }
    }
  });

  it("cut anyhow, to a client that takes replies slowly: the same outcome", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 9000 })), {
          minLength: 1,
          maxLength: 30,
        }),
        fc.constantFrom(0, 1000, 20_000),
        (cuts, window) => converse(form, cuts.concat([3000]), window) === whole,
      ),
      { numRuns: 25 },
    );
  });
});

interface Step {
  readonly kind: "read" | "write" | "zero" | "flush" | "bad";
  readonly block: number;
  readonly blocks: number;
  readonly seed: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom("read", "read", "write", "write", "zero", "flush", "bad"),
  block: fc.integer({ min: 0, max: DISK_BLOCKS - 1 }),
  blocks: fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: DISK_BLOCKS })),
  seed: fc.integer({ min: 1, max: 250 }),
});

describe("NBD server under load", () => {
  it("any mix of requests, device orders and slow readers: each is answered once, rightly", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(step, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 3 }),
        fc.record({
          seed: fc.integer(),
          perPump: fc.integer({ min: 1, max: 8 }),
          window: fc.constantFrom(300, 5000, 100_000, Number.POSITIVE_INFINITY),
          transferBytesMax: fc.constantFrom(512, 5120, 65_536, 1 << 20),
          form: fc.constantFrom<Form>("simple", "structured", "extended"),
        }),
        (conversations, { seed, perPump, window, transferBytesMax, form }) => {
          const device = disk(transferBytesMax);
          device.random = new SeededRandom(seed);
          device.perPump = perPump;
          const rig = new Rig(device, SMALL_LIMITS);
          const clients = conversations.map(() => rig.enter(form));
          for (const [i, client] of clients.entries()) {
            client.stream.window = window;
            sayAll(rig, client, form, conversations[i] ?? []);
          }
          for (let turns = 0; turns < 3000; turns++) {
            rig.settle();
            if (clients.every(({ connection }) => !connection.wantsWrite)) break;
            for (const { stream } of clients) stream.window = window;
          }
          for (const [i, client] of clients.entries()) {
            const { parser } = client;
            parser.add(client.stream.takeOutput());
            const steps = conversations[i] ?? [];
            expect(parser.restBytes).toBe(0);
            expect(parser.answers.size).toBe(steps.length);
            for (const [cookie, { kind, blocks }] of steps.entries()) {
              const answer = parser.answers.get(cookie);
              expect(answer?.isDone).toBe(true);
              expect(answer?.error).toBe(kind === "bad" ? 22 : 0);
              if (kind === "read") expect(answer?.data?.length).toBe(clip(steps[cookie]!) * BLOCK);
              expect(blocks).toBeGreaterThan(0);
            }
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it("one request at a time: reads give what was written last", () => {
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 1, maxLength: 25 }),
        fc.constantFrom<Form>("simple", "structured", "extended"),
        fc.constantFrom(5120, 65_536),
        (steps, form, transferBytesMax) => {
          const device = disk(transferBytesMax);
          const model = device.bytes.slice();
          const rig = new Rig(device, SMALL_LIMITS);
          const client = rig.enter(form);
          for (const [cookie, one] of steps.entries()) {
            const [offset, length] = [one.block * BLOCK, clip(one) * BLOCK];
            const answer = rig.ask(client, messageOf(form, cookie, one));
            if (one.kind === "read") {
              expect(same(answer.data, model.subarray(offset, offset + length))).toBe(true);
            } else if (one.kind === "write") {
              model.set(pattern(length, one.seed), offset);
            } else if (one.kind === "zero") {
              model.fill(0, offset, offset + length);
            }
          }
          expect(same(device.bytes, model)).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });
});

/** Blocks of `step` that lie on the disk. */
function clip({ block, blocks }: Step): number {
  return Math.min(blocks, DISK_BLOCKS - block);
}

function messageOf(form: Form, cookie: number, one: Step): Uint8Array {
  const req = form === "extended" ? extendedRequest : request;
  const flag = form === "extended" ? NBD_COMMAND_FLAG.PAYLOAD_LEN : 0;
  const [offset, length] = [one.block * BLOCK, clip(one) * BLOCK];
  switch (one.kind) {
    case "read":
      return req(COMMAND.READ, cookie, offset, length);
    case "write":
      return req(COMMAND.WRITE, cookie, offset, length, flag, pattern(length, one.seed));
    case "zero":
      return req(COMMAND.WRITE_ZEROES, cookie, offset, length);
    case "flush":
      return req(COMMAND.FLUSH, cookie, 0, 0);
    default:
      return req(COMMAND.WRITE, cookie, offset + 1, length, flag, pattern(length));
  }
}

function sayAll(rig: Rig, client: Client, form: Form, steps: readonly Step[]): void {
  for (const [cookie, one] of steps.entries()) rig.say(client, messageOf(form, cookie, one));
}

describe("NBD server against hostile bytes", () => {
  it("any bytes after a true beginning: it rests, keeps its bounds, serves others", () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Form>("simple", "structured", "extended"),
        fc.nat(),
        fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 12 }),
        fc.uint8Array({ maxLength: 200 }),
        (form, cut, flips, tail) => {
          const rig = new Rig(disk(), SMALL_LIMITS);
          const well = rig.enter("structured");
          const bytes = CONVERSATIONS[form].slice();
          // Near the front more often: that is where the handshake is.
          for (const [at, value] of flips) bytes[at % (at % 2 === 0 ? 300 : bytes.length)] = value;
          const client = rig.connect();
          client.stream.say(bytes.subarray(0, cut % (bytes.length + 1)), tail);
          client.stream.hasEnded = true;
          rig.settle();
          expect(client.connection.isClosed).toBe(true);
          expect(rig.ask(well, request(COMMAND.READ, 1, 0, 512)).error).toBe(0);
          expect(rig.server.connectionCount).toBe(1);
        },
      ),
      { numRuns: 100 },
    );
  });
});
