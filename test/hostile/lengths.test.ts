// SPDX-License-Identifier: MIT
// A client that lies in every length and offset field: of the immediate, of RTRS' headers, of the
// descriptor, of RNBD's messages. Sums that wrap at 32 and at 64 bits are among them.

import { beforeAll, describe, expect, it } from "vitest";
import { ERRNO } from "../../src/base/index.js";
import { RNBD_ACCESS, RNBD_OP } from "../../src/wire/index.js";
import {
  type Attacker,
  CHUNK_BYTES,
  CHUNK_COUNT,
  type Lies,
  type Request,
  rnbd,
} from "./attacker.js";
import { FIXED_BYTE, OWN_BYTE, Scene, VOLUME_BYTES } from "./scene.js";

const SECTORS = VOLUME_BYTES / 512;
const IO_BYTES_MAX = CHUNK_BYTES - 4096;
const NOTHING = new Uint8Array(0);
const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES } = RNBD_OP;
const { RO, RW } = RNBD_ACCESS;

/** A read of one sector with something wrong about it. */
const wrong = (lies: Lies, more: Partial<Request> = {}): Request => ({
  user: rnbd.io(0, READ, 0, 512),
  readBytes: 512,
  ...more,
  lies,
});

const LIES: readonly (readonly [string, RegExp, Request])[] = [
  ["a chunk that is not there", /BAD_CHUNK/, wrong({ chunkInImmediate: CHUNK_COUNT })],
  ["an offset one byte too far", /BAD_OFFSET/, wrong({ headerOffset: CHUNK_BYTES - 3 })],
  ["the farthest offset there is", /BAD_OFFSET/, wrong({ headerOffset: (1 << 25) - 1 })],
  ["an offset where no header is", /BAD_TYPE/, wrong({ headerOffset: 8000 })],
  [
    "a READ header whose descriptor the chunk's end cuts",
    /BAD_OFFSET/,
    {
      // 10 bytes of it: the last of what is sent is the first part of the header.
      user: new Uint8Array([3, 0, 0xf8, 0x0f, 0, 0, 1, 0]),
      data: NOTHING,
      lies: { at: CHUNK_BYTES - 12, headerOffset: CHUNK_BYTES - 12 },
    },
  ],
  ["a message one byte longer than what there is", /BAD_USER_LENGTH/, wrong({ userLength: 545 })],
  ["the longest message there is", /BAD_USER_LENGTH/, wrong({ userLength: 0xffff })],
  ["more data than a request has", /BAD_DATA_LENGTH/, wrong({}, { readBytes: IO_BYTES_MAX + 1 })],
  ["two descriptors", /BAD_SEGMENT_COUNT/, wrong({ segmentCount: 2 })],
  ["the most descriptors there are", /BAD_SEGMENT_COUNT/, wrong({ segmentCount: 0xffff })],
  ["a descriptor of nothing", /BAD_DESCRIPTOR/, wrong({ descriptor: { length: 0 } })],
  ["one above a chunk", /BAD_DESCRIPTOR/, wrong({ descriptor: { length: CHUNK_BYTES + 1 } })],
  ["a descriptor of 2^31", /BAD_DESCRIPTOR/, wrong({ descriptor: { length: 0x8000_0000 } })],
  ["a descriptor of 2^32 - 1", /BAD_DESCRIPTOR/, wrong({ descriptor: { length: 0xffff_ffff } })],
  ["a type that there is not", /BAD_TYPE/, wrong({ type: 9 })],
  ["the type of another message", /BAD_TYPE/, wrong({ type: 4 })],
];

describe.each([true, false])("lies of RTRS, rotating keys %s", (alwaysInvalidate) => {
  let scene: Scene;
  let number = 64;
  beforeAll(() => {
    scene = new Scene({ alwaysInvalidate });
  });

  it.each(LIES)("%s → that path is closed: %s", (_name, reason, request) => {
    const attacker = scene.attacker(number++);
    expect(scene.run(attacker, request)).toMatchObject({ errno: -1, data: NOTHING });
    expect(scene.fate(attacker)).toMatch(reason);
    scene.expectNobodyHarmed();
  });

  it("a descriptor whose end wraps at 32 bits, at 64 bits → nothing lands anywhere else", () => {
    for (const [addressHigh, addressLow] of [
      [0x10, 0xffff_ff00],
      [0xffff_ffff, 0xffff_ff00],
      [0xffff_ffff, 0xffff_ffff],
      [0, 0],
    ] as const) {
      const attacker = scene.attacker(number++);
      const id = scene.open(attacker, "own");
      const user = rnbd.io(id, READ, 0, 512);
      const lies = { descriptor: { addressHigh, addressLow } };
      const outcome = scene.run(attacker, { user, readBytes: 512, lies });
      expect(outcome).toMatchObject({ errno: -1, data: NOTHING });
      expect(scene.fate(attacker)).toMatch(/failed/);
      scene.expectNobodyHarmed();
    }
  });

  it("a descriptor shorter than the answer → as much of the answer as fits", () => {
    const attacker = scene.attacker(number++);
    const id = scene.open(attacker, "own");
    const lies = { descriptor: { length: 100 } };
    const outcome = scene.run(attacker, { user: rnbd.io(id, READ, 0, 512), readBytes: 512, lies });
    expect(outcome.errno).toBe(0);
    expect(outcome.data).toEqual(new Uint8Array(100).fill(OWN_BYTE));
    scene.expectNobodyHarmed();
  });
});

describe("what was in a chunk before does not come back", () => {
  it.each([true, false])("answers shorter than what is asked for, keys rotate %s", (rotates) => {
    const scene = new Scene({ alwaysInvalidate: rotates });
    const attacker = scene.attacker();
    const fixed = scene.open(attacker, "fixed", RO);
    const fill = () => {
      const outcome = scene.run(attacker, { user: rnbd.io(fixed, READ, 0, 8192), readBytes: 8192 });
      expect(outcome.data).toEqual(new Uint8Array(8192).fill(FIXED_BYTE));
    };
    for (const [user, errno, length] of [
      [rnbd.open("own", RW), 0, rnbd.openResponseBytes],
      [rnbd.sessInfo(), 0, rnbd.sessInfo().length],
      [rnbd.open("closed", RO), ERRNO.EACCES, 0],
      [rnbd.io(fixed, READ, 0, 512), ERRNO.EINVAL, 0],
      [rnbd.io(fixed, READ, SECTORS, 8192), ERRNO.EINVAL, 0],
      [new Uint8Array([9, 9]), ERRNO.EINVAL, 0],
    ] as const) {
      fill();
      const outcome = scene.run(attacker, { user, readBytes: 8192 });
      expect(outcome.errno).toBe(errno);
      // Bytes of an answer may be what the buffer was filled with; longer it can't be.
      expect(outcome.data.length).toBeLessThanOrEqual(length);
    }
    scene.expectNobodyHarmed();
  });

  it("a new client's chunks → zeroes, whatever the one before had there", () => {
    const scene = new Scene();
    const first = scene.attacker(66);
    const fixed = scene.open(first, "fixed", RO);
    scene.run(first, { user: rnbd.io(fixed, READ, 0, 8192), readBytes: 8192 });
    first.connectionAt(0).id.disconnect();
    first.connectionAt(1).id.disconnect();
    scene.until("the first is gone", () => !scene.isUp(first));
    const second = scene.attacker(67);
    const own = scene.open(second, "own");
    // It claims 4 KiB of data and sends none: what is written is what the chunk holds.
    const user = rnbd.io(own, WRITE, 0, 4096);
    expect(scene.run(second, { chunk: 1, user, withheldBytes: 4096 }).errno).toBe(0);
    const { data } = scene.run(second, { user: rnbd.io(own, READ, 0, 4096), readBytes: 4096 });
    expect(data).toEqual(new Uint8Array(4096));
    scene.expectNobodyHarmed();
  });
});

describe("lies of RNBD are refused, and the session goes on", () => {
  let scene: Scene;
  let attacker: Attacker;
  let id: number;
  beforeAll(() => {
    scene = new Scene();
    attacker = scene.attacker();
    id = scene.open(attacker, "own");
  });

  it.each<[string, number, (id: number) => Request]>([
    ["no message", ERRNO.EINVAL, () => ({ user: NOTHING, readBytes: 512 })],
    ["one byte of a message", ERRNO.EINVAL, () => ({ user: new Uint8Array(1), readBytes: 512 })],
    ["half a message", ERRNO.EINVAL, (id) => half(rnbd.io(id, READ, 0, 512))],
    ["a message too long", ERRNO.EMSGSIZE, () => ({ user: new Uint8Array(600), readBytes: 512 })],
    ["fewer bytes than it asks for", ERRNO.EINVAL, (id) => read(rnbd.io(id, READ, 0, 1024))],
    ["more bytes than it asks for", ERRNO.EINVAL, (id) => read(rnbd.io(id, READ, 0, 511))],
    ["2^32 - 512 bytes", ERRNO.EINVAL, (id) => read(rnbd.io(id, READ, 0, 0xffff_fe00))],
    ["a read that has data", ERRNO.EINVAL, (id) => write(rnbd.io(id, READ, 0, 512))],
    ["a write that has none", ERRNO.EINVAL, (id) => read(rnbd.io(id, WRITE, 0, 512))],
    ["a write of more than came", ERRNO.EINVAL, (id) => write(rnbd.io(id, WRITE, 0, 1024))],
    ["a flush with bytes", ERRNO.EINVAL, (id) => read(rnbd.io(id, FLUSH, 0, 0))],
    ["a discard with bytes", ERRNO.EINVAL, (id) => write(rnbd.io(id, DISCARD, 0, 512))],
    ["an operation of no name", ERRNO.EOPNOTSUPP, (id) => read(rnbd.io(id, 99, 0, 512))],
    ["the sector behind the end", ERRNO.EINVAL, (id) => write(rnbd.io(id, WRITE, SECTORS, 512))],
    ["a sum that wraps at 2^32 bytes", ERRNO.EINVAL, (id) => write(at(id, 0x7f_ffff, 0))],
    ["a sum that wraps at 2^32 sectors", ERRNO.EINVAL, (id) => write(at(id, 0xffff_ffff, 0))],
    ["2^53 bytes", ERRNO.EINVAL, (id) => write(at(id, 0, 0x1000))],
    ["2^64 bytes, which wrap to 0", ERRNO.EINVAL, (id) => write(at(id, 0, 0x80_0000))],
    ["the last sector there is", ERRNO.EINVAL, (id) => write(at(id, 0xffff_ffff, 0xffff_ffff))],
    [
      "zeroes over 2^32 bytes",
      ERRNO.EINVAL,
      (id) => ({ user: rnbd.io(id, WRITE_ZEROES, 1, 0xffff_fe00), data: NOTHING }),
    ],
    ["a device that is not open", ERRNO.ENOTCONN, () => write(rnbd.io(77, WRITE, 0, 512))],
    ["an id of the same slot", ERRNO.ENOTCONN, (id) => write(rnbd.io(id + 1024, WRITE, 0, 512))],
    ["the device 2^32 - 1", ERRNO.ENOTCONN, () => write(rnbd.io(0xffff_ffff, WRITE, 0, 512))],
    ["a short SESS_INFO", ERRNO.EINVAL, () => half(rnbd.sessInfo())],
    ["a short OPEN", ERRNO.EINVAL, () => half(rnbd.open("own", RW))],
    ["no room for OPEN_RSP", ERRNO.EINVAL, () => read(rnbd.open("own", RW), 55)],
    ["a name without an end", ERRNO.EINVAL, () => read(rnbd.open("own", RW).fill(65, 6))],
    ["a mode of no name", ERRNO.EINVAL, () => read(rnbd.open("own", 9))],
  ])("%s → errno %i", (_name, errno, make) => {
    expect(scene.run(attacker, make(id))).toEqual({ errno, data: NOTHING });
    expect(scene.fate(attacker)).toBe("");
    expect(scene.contents("own")).toEqual(new Uint8Array(VOLUME_BYTES).fill(OWN_BYTE));
    scene.expectNobodyHarmed();
  });

  it("a message cut short, the rest left over from the one before → EINVAL", () => {
    const whole = read(rnbd.io(id, READ, 0, 512));
    expect(scene.run(attacker, whole).errno).toBe(0);
    const { errno, data } = scene.run(attacker, { ...whole, user: whole.user.slice(0, 16) });
    expect({ errno, data }).toEqual({ errno: ERRNO.EINVAL, data: NOTHING });
    scene.expectNobodyHarmed();
  });

  const read = (user: Uint8Array, readBytes = 512): Request => ({ user, readBytes });
  const write = (user: Uint8Array): Request => ({ user, data: new Uint8Array(512).fill(0xbb) });
  const half = (user: Uint8Array): Request => read(user.slice(0, user.length >> 1));
  const at = (id: number, low: number, high: number) => rnbd.io(id, WRITE, low, 512, high);
});
