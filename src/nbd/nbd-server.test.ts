// SPDX-License-Identifier: MIT

import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { BLOCK_OPERATION, type BlockLimits } from "../block/index.js";
import { NBD_COMMAND, NBD_COMMAND_FLAG } from "../wire/index.js";
import {
  extendedRequest,
  join,
  option,
  pattern,
  Rig,
  read,
  request,
  SMALL_LIMITS,
  same,
  TestStream,
  words,
  write,
} from "./client.fixture.js";
import { TestDisk } from "./disk.fixture.js";

const COMMAND = NBD_COMMAND;
const FLAG = NBD_COMMAND_FLAG;
const FORMS = ["simple", "structured", "extended"] as const;
type Form = (typeof FORMS)[number];

const make = (form: Form) => (form === "extended" ? extendedRequest : request);

/** A disk that is full of a pattern. */
function filledDisk(limits: Partial<BlockLimits> = {}): TestDisk {
  const disk = new TestDisk(limits);
  disk.bytes.set(pattern(disk.bytes.length));
  return disk;
}

describe("NBD streams that end or break", () => {
  it("a request without its magic → the connection ends", () => {
    const rig = new Rig();
    const client = rig.enter("simple");
    rig.talk(client, extendedRequest(COMMAND.READ, 1, 0, 512));
    expect(client.connection.closeReason).toBe("BAD_REQUEST_MAGIC");
  });

  it.each([
    ["between requests", new Uint8Array(0), "END_OF_STREAM"],
    ["inside a header", read(1, 0, 512).subarray(0, 20), "TRUNCATED"],
    ["inside a short payload", write(1, 0, pattern(512)).subarray(0, 100), "TRUNCATED"],
    ["inside a long payload", write(1, 0, pattern(262_144)).subarray(0, 200_000), "TRUNCATED"],
  ])("the client closes %s → what was whole is answered", (_title, tail, reason) => {
    const rig = new Rig(filledDisk());
    const client = rig.enter("structured");
    rig.say(client, read(7, 0, 131_072));
    client.stream.say(tail);
    client.stream.hasEnded = true;
    const { answers } = rig.talk(client);
    expect(same(answers.get(7)?.data, pattern(131_072))).toBe(true);
    expect(answers.size).toBe(1);
    expect(client.connection.closeReason).toBe(reason);
    expect(rig.server.isIdle).toBe(true);
    expect(rig.server.counters.closed[reason as "TRUNCATED"]).toBe(1);
  });

  it("a reset with requests at the device → closed at once, buffers back when they return", () => {
    const rig = new Rig(new TestDisk(), { ...SMALL_LIMITS, connectionCountMax: 1 });
    const client = rig.enter("structured");
    rig.disk.perPump = 0;
    rig.talk(client, write(1, 0, pattern(200_704)), read(2, 0, 4096));
    client.stream.errno = ERRNO.ECONNRESET;
    rig.settle();
    expect(client.connection.closeReason).toBe("STREAM_ERROR");
    expect(rig.server.isIdle).toBe(false);
    expect(rig.server.accept(new TestStream(), rig.nowNs)).toBe(null);
    rig.disk.perPump = 1;
    rig.settle();
    expect(rig.server.isIdle).toBe(true);
    expect(rig.ask(rig.enter("simple"), read(1, 0, 512)).error).toBe(0);
  });

  it.each([4096, 200_704])("%i bytes of one client → never the next one's", (length) => {
    const rig = new Rig(filledDisk(), { ...SMALL_LIMITS, connectionCountMax: 1 });
    const first = rig.enter("structured");
    rig.ask(first, write(1, 0, pattern(length)));
    rig.ask(first, read(2, 0, length));
    first.stream.hasEnded = true;
    rig.settle();
    // A device that claims to have read and has not.
    rig.disk.fail = (request) => {
      if (request.operation === BLOCK_OPERATION.READ) request.memory = null;
      return 0;
    };
    const { data } = rig.ask(rig.enter("structured"), read(1, 0, length));
    expect(data?.length).toBe(length);
    // What its own handshake left there a client may see.
    expect(data?.subarray(512).every((byte) => byte === 0)).toBe(true);
  });

  it("shutdown: what is in progress is answered, then all connections end", () => {
    const rig = new Rig(filledDisk());
    const client = rig.enter("structured");
    const haggling = rig.connect();
    rig.disk.perPump = 0;
    rig.talk(client, read(1, 0, 300_032), write(2, 0, pattern(512)));
    rig.server.shutdown();
    client.stream.say(read(3, 0, 512));
    rig.settle();
    expect(haggling.connection.closeReason).toBe("CLOSED");
    expect(client.connection.closeReason).toBe(null);
    rig.disk.perPump = 1;
    const { answers } = rig.talk(client);
    expect([...answers.keys()].sort()).toEqual([1, 2]);
    expect(client.connection.closeReason).toBe("CLOSED");
    expect(rig.server.isIdle).toBe(true);
    rig.server.close();
  });

  it("close: nothing more is written, whatever comes back", () => {
    const rig = new Rig();
    const client = rig.enter("structured");
    rig.disk.perPump = 0;
    rig.talk(client, read(1, 0, 300_032), write(2, 0, pattern(512)));
    client.connection.close();
    rig.disk.perPump = 9;
    rig.settle();
    expect(client.stream.takeOutput().length).toBe(0);
    expect(rig.server.isIdle).toBe(true);
  });
});

describe("NBD connections beside each other", () => {
  it("a flush on one covers what was written on another, and both see it", () => {
    const rig = new Rig();
    const [a, b] = [rig.enter("structured"), rig.enter("simple")];
    expect(rig.ask(a, write(1, 0, pattern(4096, 9))).error).toBe(0);
    expect(rig.ask(b, request(COMMAND.FLUSH, 1, 0, 0)).error).toBe(0);
    expect(rig.disk.asked.map(({ operation }) => operation)).toEqual([
      BLOCK_OPERATION.WRITE,
      BLOCK_OPERATION.FLUSH,
    ]);
    expect(same(rig.ask(b, read(2, 0, 4096)).data, pattern(4096, 9))).toBe(true);
  });

  it("more of them than there may be → turned away, and served again when one leaves", () => {
    const rig = new Rig();
    const clients = [rig.enter("simple"), rig.enter("simple"), rig.enter("simple")];
    expect(() => rig.connect()).toThrow(/room/);
    expect(rig.server.counters).toMatchObject({ connections: 3, refused: 1 });
    expect(rig.server.connectionCount).toBe(3);
    rig.talk(clients[1] as (typeof clients)[0], request(COMMAND.DISC, 1, 0, 0));
    expect(rig.server.connectionCount).toBe(2);
    expect(rig.ask(rig.enter("simple"), read(1, 0, 512)).error).toBe(0);
  });

  it("all of them together keep to the device's queue depth, and all are served", () => {
    const disk = filledDisk({ queueDepth: 3 });
    const rig = new Rig(disk);
    const clients = [rig.enter("simple"), rig.enter("structured"), rig.enter("structured")];
    for (const client of clients) {
      for (let i = 0; i < 20; i++) rig.say(client, read(i, i * 4096, 4096));
      rig.say(client, read(99, 0, 400_384));
    }
    rig.settle();
    expect(disk.inflightMax).toBe(3);
    for (const client of clients) {
      const { answers } = rig.talk(client);
      expect(answers.size).toBe(21);
      expect(same(answers.get(99)?.data, pattern(400_384))).toBe(true);
    }
  });

  it("one that takes no replies holds only itself up", () => {
    const rig = new Rig(filledDisk());
    const [stuck, well] = [rig.enter("structured"), rig.enter("structured")];
    stuck.stream.window = 100;
    for (let i = 0; i < 50; i++) rig.say(stuck, read(i, 0, 131_072));
    rig.settle();
    expect(stuck.connection.wantsRead).toBe(false);
    expect(stuck.connection.wantsWrite).toBe(true);
    for (let i = 0; i < 50; i++) {
      expect(same(rig.ask(well, read(i, 0, 131_072)).data, pattern(131_072))).toBe(true);
    }
    stuck.stream.window = Number.POSITIVE_INFINITY;
    const { answers } = rig.talk(stuck);
    expect(answers.size).toBe(50);
  });

  it("a WRITE gets through to the device though no reply is taken", () => {
    for (const form of ["simple", "structured"] as const) {
      const rig = new Rig(filledDisk());
      const client = rig.enter(form);
      client.stream.window = 0;
      for (let i = 0; i < 5; i++) rig.say(client, read(i, 0, 262_144));
      rig.say(client, write(9, 0, pattern(300_032, 3)));
      rig.settle();
      expect(same(rig.disk.bytes.subarray(0, 300_032), pattern(300_032, 3))).toBe(true);
      client.stream.window = Number.POSITIVE_INFINITY;
      expect(rig.talk(client).answers.size).toBe(6);
    }
  });

  it("32 MiB at once, both ways, through 1 MiB of buffers", () => {
    const length = 32 << 20;
    const rig = new Rig(new TestDisk({ sizeBytes: length, transferBytesMax: 131_072 }), {
      connectionCountMax: 1,
      segmentCount: 8,
      segmentBytes: 131_072,
    });
    const data = pattern(length);
    for (const form of FORMS) {
      const client = rig.enter(form);
      const flags = form === "extended" ? FLAG.PAYLOAD_LEN : 0;
      const message = make(form)(COMMAND.WRITE, 1, 0, length, flags, data);
      expect(rig.ask(client, message).error).toBe(0);
      const answer = rig.ask(client, make(form)(COMMAND.READ, 2, 0, length));
      expect(same(answer.data, data)).toBe(true);
      rig.talk(client, make(form)(COMMAND.DISC, 3, 0, 0));
    }
    expect(rig.server.memoryBytes).toBeLessThan(4 << 20);
  });
});

describe("NBD server limits", () => {
  it.each([
    { connectionCountMax: 0 },
    { requestCountMax: 5000 },
    { segmentCount: 3 },
    { segmentBytes: 4096 },
    { inlineBytes: 5000 },
    { stagingBytes: 4096 },
    { requestBytesMax: 100_000 },
    { requestCountMax: 1, inlineBytes: 4096 },
    { requestCountMax: 4096, inlineBytes: 1 << 20 },
  ])("%j is refused", (limits) => {
    expect(() => new Rig(new TestDisk(), limits)).toThrow(/NBD limit/);
  });

  it("pipelined options and requests in one piece are served in order", () => {
    const rig = new Rig(filledDisk());
    const client = rig.connect();
    client.stream.say(join([words(3), option(1), write(1, 0, pattern(512)), read(2, 0, 512)]));
    client.parser.expect(2, 0, 512, true);
    rig.settle();
    client.parser.add(client.stream.takeOutput().subarray(28));
    expect(same(client.parser.answers.get(2)?.data, pattern(512))).toBe(true);
  });
});
