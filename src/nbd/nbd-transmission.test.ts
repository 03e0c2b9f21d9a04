// SPDX-License-Identifier: MIT

import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { BLOCK_FLAG, BLOCK_OPERATION, type BlockLimits } from "../block/index.js";
import { NBD_COMMAND, NBD_COMMAND_FLAG, NBD_ERROR } from "../wire/index.js";
import {
  extendedRequest,
  pattern,
  Rig,
  read,
  request,
  same,
  words,
  write,
} from "./client.fixture.js";
import { TestDisk } from "./disk.fixture.js";

const COMMAND = NBD_COMMAND;
const FLAG = NBD_COMMAND_FLAG;
const ERROR = NBD_ERROR;
const FORMS = ["simple", "structured", "extended"] as const;
type Form = (typeof FORMS)[number];

const make = (form: Form) => (form === "extended" ? extendedRequest : request);

/** A disk that is full of a pattern. */
function filledDisk(limits: Partial<BlockLimits> = {}): TestDisk {
  const disk = new TestDisk(limits);
  disk.bytes.set(pattern(disk.bytes.length));
  return disk;
}

describe.each(FORMS)("NBD transmission, %s replies", (form) => {
  const req = make(form);
  const payload = form === "extended" ? FLAG.PAYLOAD_LEN : 0;

  it.each([512, 4096, 4608, 65_536, 66_048, 300_032, 524_288])("READ of %i bytes", (length) => {
    const rig = new Rig(filledDisk());
    const client = rig.enter(form);
    const answer = rig.ask(client, req(COMMAND.READ, 1, 1024, length));
    expect(answer.error).toBe(0);
    expect(same(answer.data, pattern(1 << 20).subarray(1024, 1024 + length))).toBe(true);
    expect(rig.server.counters.readBytes).toBe(length);
  });

  it.each([512, 4096, 4608, 65_536, 66_048, 300_032, 524_288])("WRITE of %i bytes", (length) => {
    const rig = new Rig();
    const client = rig.enter(form);
    const data = pattern(length, 5);
    const answer = rig.ask(client, req(COMMAND.WRITE, 1, 2048, length, payload, data));
    expect(answer).toMatchObject({ error: 0, data: null });
    expect(same(rig.disk.bytes.subarray(2048, 2048 + length), data)).toBe(true);
    expect(rig.disk.bytes[2047]).toBe(0);
    expect(rig.disk.bytes[2048 + length]).toBe(0);
    expect(rig.server.counters.writtenBytes).toBe(length);
  });

  it("a part of a WRITE fails → the rest is skipped, the error comes once", () => {
    const rig = new Rig();
    const client = rig.enter(form);
    rig.disk.fail = ({ offset }) => (offset === 65_536 ? ERRNO.ENOSPC : 0);
    const message = req(COMMAND.WRITE, 1, 0, 524_288, payload, pattern(524_288));
    expect(rig.ask(client, message).error).toBe(ERROR.ENOSPC);
    // Four segments: no more than their parts were under way when the error came.
    expect(rig.disk.asked.length).toBeLessThan(8);
    expect(rig.server.counters.writtenBytes).toBe(0);
    expect(rig.ask(client, req(COMMAND.READ, 2, 0, 512)).error).toBe(0);
  });

  it("requests of no length do nothing, well", () => {
    const rig = new Rig();
    const client = rig.enter(form);
    for (const command of [COMMAND.READ, COMMAND.WRITE, COMMAND.TRIM, COMMAND.CACHE]) {
      expect(rig.ask(client, req(command, 1, 0, 0))).toMatchObject({ error: 0, data: null });
    }
    expect(rig.disk.asked).toEqual([]);
  });

  const { FUA, NO_HOLE, FAST_ZERO } = FLAG;
  const OP = BLOCK_OPERATION;
  it.each([
    ["FLUSH", COMMAND.FLUSH, 0, 0, OP.FLUSH, 0],
    ["FLUSH with FUA", COMMAND.FLUSH, FUA, 0, OP.FLUSH, 0],
    ["TRIM", COMMAND.TRIM, 0, 8192, OP.DISCARD, 0],
    ["TRIM with FUA", COMMAND.TRIM, FUA, 8192, OP.DISCARD, BLOCK_FLAG.FUA],
    ["CACHE", COMMAND.CACHE, 0, 8192, OP.CACHE, 0],
    ["CACHE with FUA", COMMAND.CACHE, FUA, 8192, OP.CACHE, 0],
    ["WRITE_ZEROES", COMMAND.WRITE_ZEROES, 0, 8192, OP.WRITE_ZEROES, 0],
    ["... NO_HOLE", COMMAND.WRITE_ZEROES, NO_HOLE, 8192, OP.WRITE_ZEROES, BLOCK_FLAG.NO_UNMAP],
    ["... FAST", COMMAND.WRITE_ZEROES, FAST_ZERO, 8192, OP.WRITE_ZEROES, BLOCK_FLAG.FAST_ONLY],
    ["... FUA", COMMAND.WRITE_ZEROES, FUA, 8192, OP.WRITE_ZEROES, BLOCK_FLAG.FUA],
    ["READ with FUA", COMMAND.READ, FUA, 8192, OP.READ, 0],
  ])("%s reaches the device as it should", (_title, command, flags, length, operation, asked) => {
    const rig = new Rig();
    const client = rig.enter(form);
    const offset = length === 0 ? 0 : 4096;
    expect(rig.ask(client, req(command, 1, offset, length, flags)).error).toBe(0);
    expect(rig.disk.asked).toEqual([{ operation, flags: asked, offset, length }]);
  });

  it.each([4096, 200_704])("WRITE of %i bytes with FUA: every part has it", (length) => {
    const rig = new Rig();
    const client = rig.enter(form);
    rig.ask(client, req(COMMAND.WRITE, 1, 0, length, payload | FUA, pattern(length)));
    expect(rig.disk.asked.length).toBe(Math.ceil(length / 65_536));
    for (const asked of rig.disk.asked) expect(asked.flags).toBe(BLOCK_FLAG.FUA);
  });

  const SIZE = 1 << 20;
  it.each([
    ["an unknown command", 8, 0, 512, 0, ERROR.EINVAL],
    ["an unknown flag", COMMAND.READ, 0, 512, 0x8000, ERROR.EINVAL],
    ["a flag of another command", COMMAND.READ, 0, 512, NO_HOLE, ERROR.EINVAL],
    ["FLUSH with a length", COMMAND.FLUSH, 0, 512, 0, ERROR.EINVAL],
    ["FLUSH with an offset", COMMAND.FLUSH, 512, 0, 0, ERROR.EINVAL],
    ["READ off its block", COMMAND.READ, 100, 512, 0, ERROR.EINVAL],
    ["READ of half a block", COMMAND.READ, 0, 100, 0, ERROR.EINVAL],
    ["READ past the end", COMMAND.READ, SIZE - 512, 1024, 0, ERROR.EINVAL],
    ["READ far past the end", COMMAND.READ, 2 ** 52, 512, 0, ERROR.EINVAL],
    ["READ over the maximum", COMMAND.READ, 0, (1 << 19) + 512, 0, ERROR.EINVAL],
    ["TRIM past the end", COMMAND.TRIM, SIZE, 512, 0, ERROR.EINVAL],
    ["CACHE past the end", COMMAND.CACHE, SIZE, 512, 0, ERROR.EINVAL],
    ["WRITE_ZEROES past the end", COMMAND.WRITE_ZEROES, SIZE, 512, 0, ERROR.ENOSPC],
  ])(
    "%s → its error, and the next request is served",
    (_t, command, offset, length, flags, error) => {
      const rig = new Rig();
      const client = rig.enter(form);
      expect(rig.ask(client, req(command, 1, offset, length, flags))).toMatchObject({ error });
      expect(rig.disk.asked).toEqual([]);
      expect(rig.server.counters.requestErrors).toBe(1);
      expect(rig.ask(client, req(COMMAND.READ, 2, 0, 512)).error).toBe(0);
    },
  );

  it.each([
    ["past the end", SIZE - 512, 1024, 0, ERROR.ENOSPC],
    ["off its block", 100, 4096, 0, ERROR.EINVAL],
    ["over the maximum", 0, (1 << 19) + 512, 0, ERROR.EINVAL],
    ["with an unknown flag", 0, 9 * 512, 0x4000, ERROR.EINVAL],
  ])(
    "WRITE %s → its payload is skipped, its error comes",
    (_title, offset, length, flags, error) => {
      const rig = new Rig();
      const client = rig.enter(form);
      const message = req(COMMAND.WRITE, 1, offset, length, flags | payload, pattern(length));
      expect(rig.ask(client, message)).toMatchObject({ error });
      expect(rig.disk.asked).toEqual([]);
      expect(rig.ask(client, req(COMMAND.READ, 2, 0, 512)).error).toBe(0);
    },
  );

  it.each([COMMAND.WRITE, COMMAND.TRIM, COMMAND.WRITE_ZEROES])(
    "command %i on a read-only export → EPERM",
    (command) => {
      const rig = new Rig(new TestDisk({ readOnly: true }));
      const client = rig.enter(form);
      const data = command === COMMAND.WRITE ? pattern(512) : pattern(0);
      const flags = command === COMMAND.WRITE ? payload : 0;
      expect(rig.ask(client, req(command, 1, 0, 512, flags, data)).error).toBe(ERROR.EPERM);
      expect(rig.disk.asked).toEqual([]);
    },
  );

  it.each([
    ["TRIM", { discardBytesMax: 0 }, COMMAND.TRIM, 0],
    ["WRITE_ZEROES", { writeZeroesBytesMax: 0 }, COMMAND.WRITE_ZEROES, 0],
    ["FUA", { fua: false }, COMMAND.TRIM, FLAG.FUA],
  ])("%s that the device doesn't have → EINVAL", (_title, limits, command, flags) => {
    const rig = new Rig(new TestDisk(limits));
    const client = rig.enter(form);
    expect(rig.ask(client, req(command, 1, 0, 512, flags)).error).toBe(ERROR.EINVAL);
  });

  it("FUA without a cache is true by itself: the device is not bothered with it", () => {
    const rig = new Rig(new TestDisk({ fua: false, volatileCache: false }));
    const client = rig.enter(form);
    const message = req(COMMAND.WRITE, 1, 0, 512, payload | FUA, pattern(512));
    expect(rig.ask(client, message).error).toBe(0);
    expect(rig.disk.asked[0]?.flags).toBe(0);
  });

  it.each([
    [ERRNO.EIO, 0, ERROR.EIO],
    [ERRNO.ENOSPC, 0, ERROR.ENOSPC],
    [ERRNO.EDQUOT, 0, ERROR.ENOSPC],
    [ERRNO.EFBIG, 0, ERROR.ENOSPC],
    [ERRNO.EROFS, 0, ERROR.EPERM],
    [ERRNO.EACCES, 0, ERROR.EPERM],
    [ERRNO.ENOMEM, 0, ERROR.ENOMEM],
    [ERRNO.ESHUTDOWN, 0, ERROR.ESHUTDOWN],
    [ERRNO.EOPNOTSUPP, 0, ERROR.EINVAL],
    [ERRNO.EOPNOTSUPP, FLAG.FAST_ZERO, ERROR.ENOTSUP],
    [ERRNO.EOVERFLOW, 0, ERROR.EINVAL],
    [ERRNO.ENXIO, 0, ERROR.EIO],
  ])("the device's errno %i (flags %i) → NBD error %i", (errno, flags, error) => {
    const rig = new Rig();
    const client = rig.enter(form);
    rig.disk.fail = () => errno;
    expect(rig.ask(client, req(COMMAND.WRITE_ZEROES, 1, 0, 512, flags)).error).toBe(error);
  });

  it("READ and WRITE that fail carry the error and no data", () => {
    const rig = new Rig();
    const client = rig.enter(form);
    rig.disk.fail = () => ERRNO.EIO;
    const failed = { error: ERROR.EIO, data: null };
    expect(rig.ask(client, req(COMMAND.READ, 1, 0, 512))).toMatchObject(failed);
    expect(rig.ask(client, req(COMMAND.READ, 2, 0, 65_536))).toMatchObject(failed);
    const message = req(COMMAND.WRITE, 3, 0, 512, payload, pattern(512));
    expect(rig.ask(client, message)).toMatchObject(failed);
    expect(rig.server.counters.readBytes + rig.server.counters.writtenBytes).toBe(0);
  });

  it("DISC → what is in progress is answered, what comes after is not, then the end", () => {
    const rig = new Rig(filledDisk());
    const client = rig.enter(form);
    rig.disk.perPump = 0;
    rig.talk(client, req(COMMAND.READ, 1, 0, 4096), req(COMMAND.READ, 2, 0, 131_072));
    rig.talk(client, req(COMMAND.DISC, 3, 0, 0), req(COMMAND.READ, 4, 0, 512));
    expect(client.connection.isClosed).toBe(false);
    rig.disk.perPump = 1;
    const { answers } = rig.talk(client);
    expect([...answers.keys()].sort()).toEqual([1, 2]);
    expect(same(answers.get(2)?.data, pattern(131_072))).toBe(true);
    expect(client.connection.closeReason).toBe("DISCONNECTED");
    expect(rig.server.isIdle).toBe(true);
  });

  it("a range longer than the device takes at once goes piece by piece", () => {
    const limits = { discardBytesMax: 10_000, writeZeroesBytesMax: 5000, transferBytesMax: 4096 };
    const rig = new Rig(new TestDisk(limits));
    const client = rig.enter(form);
    const ask = (command: number) => {
      rig.disk.asked.length = 0;
      expect(rig.ask(client, req(command, 1, 512, 24_576)).error).toBe(0);
      return rig.disk.asked.map(({ offset, length }) => [offset, length]);
    };
    expect(ask(COMMAND.TRIM)).toEqual([
      [512, 9728],
      [10_240, 9728],
      [19_968, 5120],
    ]);
    expect(ask(COMMAND.WRITE_ZEROES).length).toBe(6);
    expect(ask(COMMAND.CACHE).length).toBe(6);
    rig.disk.fail = ({ offset }) => (offset > 512 ? ERRNO.EIO : 0);
    rig.disk.asked.length = 0;
    expect(rig.ask(client, req(COMMAND.TRIM, 1, 512, 24_576)).error).toBe(ERROR.EIO);
    expect(rig.disk.asked.length).toBe(2);
  });

  it("a device that shrinks or grows: requests are checked against its present size", () => {
    const rig = new Rig();
    const client = rig.enter(form);
    rig.disk.limits = { ...rig.disk.limits, sizeBytes: 4096 };
    expect(rig.ask(client, req(COMMAND.READ, 1, 4096, 512)).error).toBe(ERROR.EINVAL);
    expect(rig.ask(client, req(COMMAND.READ, 1, 3584, 512)).error).toBe(0);
  });
});

describe("NBD structured and extended replies", () => {
  it("without a context BLOCK_STATUS is EINVAL, in every form", () => {
    for (const form of FORMS) {
      const rig = new Rig();
      const client = rig.enter(form, false);
      const answer = rig.ask(client, make(form)(COMMAND.BLOCK_STATUS, 1, 0, 512));
      expect(answer.error).toBe(ERROR.EINVAL);
    }
  });

  it.each(["structured", "extended"] as const)("BLOCK_STATUS, %s", (form) => {
    const rig = new Rig();
    const client = rig.enter(form);
    const run = (length: number, hole: boolean, zero: boolean) => ({ length, hole, zero });
    rig.disk.status = () => [
      run(4096, false, false),
      run(4096, false, false),
      run(8192, true, true),
      run(512, false, true),
      run(100_000, true, false),
    ];
    const ask = (length: number, flags = 0) =>
      rig.ask(client, make(form)(COMMAND.BLOCK_STATUS, 1, 512, length, flags)).extents;
    expect(ask(65_536)).toEqual([
      [8192, 0],
      [8192, 3],
      [512, 2],
      [48_640, 1],
    ]);
    expect(ask(65_536, FLAG.REQ_ONE)).toEqual([[8192, 0]]);
    expect(ask(8704)).toEqual([
      [8192, 0],
      [512, 3],
    ]);
    rig.disk.status = null;
    expect(ask(65_536)).toEqual([[65_536, 0]]);
    rig.disk.fail = () => ERRNO.EIO;
    const failed = rig.ask(client, make(form)(COMMAND.BLOCK_STATUS, 2, 0, 512));
    expect(failed.error).toBe(ERROR.EIO);
  });

  it.each(["structured", "extended"] as const)("no more descriptors than fit, %s", (form) => {
    const rig = new Rig();
    const client = rig.enter(form);
    rig.disk.status = ({ length }) =>
      Array.from({ length: length / 512 }, (_, i) => ({
        length: 512,
        hole: i % 2 === 1,
        zero: false,
      }));
    const { extents } = rig.ask(client, make(form)(COMMAND.BLOCK_STATUS, 1, 0, 1 << 20));
    expect(extents.length).toBe(form === "structured" ? 511 : 255);
    expect(extents.every(([length, flags], i) => length === 512 && flags === i % 2)).toBe(true);
  });

  it.each([
    ["within one part", 65_536],
    ["of several parts", 300_032],
  ])("READ with DF %s → one chunk of data", (_title, length) => {
    for (const form of ["structured", "extended"] as const) {
      const rig = new Rig(filledDisk());
      const client = rig.enter(form);
      const answer = rig.ask(client, make(form)(COMMAND.READ, 1, 0, length, FLAG.DF));
      expect(answer.chunks).toBe(1);
      expect(same(answer.data, pattern(length))).toBe(true);
    }
  });

  it("READ with DF over the maximum → EOVERFLOW; DF without structured replies → EINVAL", () => {
    const rig = new Rig();
    const long = read(1, 0, (1 << 19) + 512, FLAG.DF);
    expect(rig.ask(rig.enter("structured"), long).error).toBe(ERROR.EOVERFLOW);
    expect(rig.ask(rig.enter("simple"), read(1, 0, 512, FLAG.DF)).error).toBe(ERROR.EINVAL);
  });

  it("a part of a READ fails → an error chunk ends the reply, the connection goes on", () => {
    for (const flags of [0, FLAG.DF]) {
      const rig = new Rig(filledDisk());
      const client = rig.enter("structured");
      rig.disk.fail = ({ offset }) => (offset === 131_072 ? ERRNO.EIO : 0);
      expect(rig.ask(client, read(1, 0, 300_032, flags)).error).toBe(ERROR.EIO);
      expect(rig.server.counters.readBytes).toBe(0);
      rig.disk.fail = () => 0;
      expect(same(rig.ask(client, read(2, 0, 300_032, flags)).data, pattern(300_032))).toBe(true);
    }
  });

  it("extended lengths beyond 32 bits: EINVAL without payload, the end with it", () => {
    const rig = new Rig();
    const client = rig.enter("extended");
    const trim = extendedRequest(COMMAND.TRIM, 1, 0, 2 ** 40);
    expect(rig.ask(client, trim).error).toBe(ERROR.EINVAL);
    rig.talk(client, extendedRequest(COMMAND.WRITE, 2, 0, 2 ** 40, FLAG.PAYLOAD_LEN));
    expect(client.connection.closeReason).toBe("PAYLOAD_TOO_LONG");
  });

  it("a payload where none belongs is skipped and EINVAL", () => {
    const rig = new Rig();
    const client = rig.enter("extended");
    const message = extendedRequest(COMMAND.READ, 1, 0, 512, FLAG.PAYLOAD_LEN, pattern(512));
    expect(rig.ask(client, message).error).toBe(ERROR.EINVAL);
    expect(rig.ask(client, extendedRequest(COMMAND.READ, 2, 0, 512)).error).toBe(0);
  });

  it("every chunk of an extended reply carries the request's offset", () => {
    const rig = new Rig();
    const client = rig.enter("extended");
    client.stream.say(extendedRequest(COMMAND.TRIM, 1, 2 ** 45, 512));
    rig.settle();
    const output = client.stream.takeOutput();
    expect(output.subarray(16, 24)).toEqual(words(2 ** 13, 0));
  });
});

describe("NBD simple replies of long READs", () => {
  it("a failure before the reply has begun → an error without data", () => {
    const rig = new Rig(filledDisk());
    const client = rig.enter("simple");
    rig.disk.fail = ({ offset }) => (offset === 65_536 ? ERRNO.EIO : 0);
    expect(rig.ask(client, read(1, 0, 131_072))).toMatchObject({ error: ERROR.EIO, data: null });
    rig.disk.fail = () => 0;
    expect(same(rig.ask(client, read(2, 0, 131_072)).data, pattern(131_072))).toBe(true);
  });

  it("a failure when part of the data is out → the connection ends, nothing false is sent", () => {
    const rig = new Rig(filledDisk());
    const client = rig.enter("simple");
    rig.disk.fail = ({ offset }) => (offset === 458_752 ? ERRNO.EIO : 0);
    rig.talk(client, read(1, 0, 524_288));
    expect(client.connection.closeReason).toBe("READ_FAILED_IN_REPLY");
    expect(client.parser.answers.size).toBe(0);
    expect(client.parser.restBytes).toBeLessThanOrEqual(16 + 458_752);
    expect(rig.server.isIdle).toBe(true);
  });

  it("replies that finish meanwhile wait for its end", () => {
    const rig = new Rig(filledDisk());
    const client = rig.enter("simple");
    rig.disk.perPump = 1;
    const { answers } = rig.talk(
      client,
      read(1, 0, 524_288),
      read(2, 4096, 4096),
      read(3, 0, 500_224),
      write(4, 0, pattern(200_704)),
      request(COMMAND.FLUSH, 5, 0, 0),
      request(99, 6, 0, 0),
    );
    expect([...answers.values()].map((a) => [a.cookie, a.error]).sort()).toEqual([
      [1, 0],
      [2, 0],
      [3, 0],
      [4, 0],
      [5, 0],
      [6, ERROR.EINVAL],
    ]);
    expect(same(answers.get(1)?.data, pattern(524_288))).toBe(true);
    expect(same(answers.get(2)?.data, pattern(1 << 20).subarray(4096, 8192))).toBe(true);
  });
});
