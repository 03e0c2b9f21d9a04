// SPDX-License-Identifier: MIT
// A source that lies to its sink, and a sink that lies to its source: what it says is refused by
// name, and nothing outside the folder is touched.

import { beforeEach, describe, expect, it } from "vitest";
import { ERRNO as E, HeapMemorySource, updateCrc32 } from "../base/index.js";
import { ServerRequest } from "../rtrs/index.js";
import { MAX_IO, Rig } from "./copy.fixture.js";
import { LyingSource, oneRecord, target } from "./hostile.fixture.js";
import { COPY_PART_PREFIX, checkCopyPath } from "./index.js";
import { Disk, newNode } from "./memory-tree.fixture.js";
import { COPY_TYPE, COPY_USER_BYTES_MAX, CopyHeader, writeCopyHeader } from "./messages.js";
import { COPY_ACTION, type CopyRecord } from "./records.js";

let lying: LyingSource;
let disk: Disk;

beforeEach(() => {
  lying = new LyingSource();
  ({ disk } = lying);
  expect(lying.hello()).toBe(0);
});

const ask = (what: Partial<CopyHeader>, data: Uint8Array | number) => lying.ask(what, data);
const result = (record: Partial<CopyRecord>, data?: Uint8Array<ArrayBuffer>) =>
  lying.result(record, data);

const FAILED = 0x8000;

describe("a source that names a path", () => {
  const LONG = "x".repeat(256);
  const PATHS: [path: string, errno: number][] = [
    ["../out", E.EINVAL],
    ["a/../../out", E.EINVAL],
    ["/etc/passwd", E.EINVAL],
    ["a//b", E.EINVAL],
    ["a/./b", E.EINVAL],
    ["a/", E.EINVAL],
    ["a\0b", E.EINVAL],
    [LONG, E.ENAMETOOLONG],
    [`a/${LONG}/b`, E.ENAMETOOLONG],
    [Array.from({ length: 600 }, () => "a").join("/"), E.ENAMETOOLONG],
    [`${COPY_PART_PREFIX}0`, E.EPERM],
    ["", E.EISDIR],
  ];

  it.each(PATHS)("%j → refused, nothing made", (path, errno) => {
    expect(result({ path }, Uint8Array.of(1))).toBe(FAILED | errno);
    const link = { action: COPY_ACTION.SYMLINK, path, extra: Uint8Array.of(65) } as const;
    expect(result(link)).toBe(FAILED | errno);
    expect(disk.nodes.size).toBe(1);
    if (path !== "") expect(checkCopyPath(path)).toBe(errno);
  });

  it.each(PATHS.filter(([path]) => path !== ""))(
    "%j to open or to link to → refused",
    (path, errno) => {
      expect(ask({ type: COPY_TYPE.OPEN, path, offset: 10 }, 8)).toBe(errno);
      const link = { action: COPY_ACTION.HARDLINK, path: "a", extra: target(path) } as const;
      expect(result(link)).toBe(FAILED | errno);
      expect(disk.nodes.size).toBe(1);
      expect(disk.parts.size).toBe(0);
    },
  );

  it("through a link that it made itself → refused", () => {
    const extra = target("/etc");
    expect(result({ action: COPY_ACTION.SYMLINK, path: "way", extra })).toBe(0);
    expect(result({ path: "way/passwd" }, Uint8Array.of(1))).toBe(FAILED | E.ELOOP);
    expect(ask({ type: COPY_TYPE.OPEN, path: "way/passwd", offset: 10 }, 8)).toBe(E.ELOOP);
  });
});

describe("a source that lies in a length", () => {
  const good = () => oneRecord({ path: "file" }, Uint8Array.of(1, 2, 3));

  it.each([
    ["the path's", 2, 2],
    ["the extra's", 28, 4],
    ["the data's", 40, 4],
  ])("%s, every value of its top byte → the whole batch is refused", (_what, at, bytes) => {
    for (let value = 1; value < 256; value++) {
      const bad = good();
      bad[at + bytes - 1] = value;
      expect(ask({ type: COPY_TYPE.BATCH, argument: 1 }, bad)).toBe(E.EPROTO);
    }
    expect(disk.nodes.size).toBe(1);
  });

  it("any byte of a record changed → an answer, and nothing but the file is there", () => {
    for (let at = 0; at < good().length; at++) {
      for (const flip of [1, 0x80, 0xff]) {
        const bad = good();
        bad[at] = (bad[at] as number) ^ flip;
        ask({ type: COPY_TYPE.BATCH, argument: 1 }, bad);
      }
    }
    for (const path of disk.nodes.keys()) expect(checkCopyPath(path)).toBe(0);
  });

  it("more records, or more bytes, than there are → refused", () => {
    expect(ask({ type: COPY_TYPE.BATCH, argument: 2 }, good())).toBe(E.EINVAL);
    const twice = Uint8Array.of(...good(), ...good());
    expect(ask({ type: COPY_TYPE.BATCH, argument: 2 }, twice.subarray(0, 109))).toBe(E.EPROTO);
    expect(ask({ type: COPY_TYPE.BATCH, argument: 0xffff_ffff }, good())).toBe(E.EINVAL);
    expect(ask({ type: COPY_TYPE.BATCH, argument: 1, byteLength: MAX_IO + 1 }, good())).toBe(
      E.EINVAL,
    );
    expect(ask({ type: COPY_TYPE.BATCH, argument: 1, slot: 1024 }, good())).toBe(E.EINVAL);
    expect(ask({ type: COPY_TYPE.ANSWER, argument: 7 }, MAX_IO)).toBe(E.EINVAL);
    expect(ask({ type: COPY_TYPE.BATCH, argument: 1 }, 100)).toBe(E.EINVAL);
  });

  it("in its size, or in its CRC → refused, no file", () => {
    expect(result({ path: "a", size: 4 }, Uint8Array.of(1))).toBe(FAILED | E.EPROTO);
    expect(result({ path: "a", crc: 5 }, Uint8Array.of(1))).toBe(FAILED | E.EILSEQ);
    const extra = Uint8Array.of(9, 0, 200, 0, 0, 0, 65);
    expect(result({ path: "a", extra }, Uint8Array.of(1))).toBe(FAILED | E.EPROTO);
    expect(disk.nodes.size).toBe(1);
  });
});

describe("a source of a large file", () => {
  const open = (size: number) => lying.open("big", size);
  const block = (index: number, bytes: Uint8Array, crc?: number) => lying.block(index, bytes, crc);
  const finish = (size: number, crc: number) => lying.finish("big", size, crc);

  it("that was never opened, or is too large → refused", () => {
    expect(block(0, new Uint8Array(8192))).toBe(E.EBADF);
    expect(ask({ type: COPY_TYPE.SUMS, slot: 63, argument: 1 }, 4)).toBe(E.EBADF);
    expect(finish(10, 0)).toBe(E.EBADF);
    expect(open(2 ** 51)).toBe(E.EFBIG);
    expect(ask({ type: COPY_TYPE.OPEN, slot: 64, path: "big", offset: 1 }, 8)).toBe(E.EINVAL);
    expect(ask({ type: COPY_TYPE.OPEN, slot: 0, path: "big", offset: 1 }, 7)).toBe(E.EINVAL);
  });

  it("whose blocks are elsewhere, or of another length → refused", () => {
    expect(open(10_000)).toBe(0);
    expect(block(2, new Uint8Array(8192))).toBe(E.EINVAL);
    expect(block(1, new Uint8Array(8192))).toBe(E.EINVAL);
    expect(block(0, new Uint8Array(8191))).toBe(E.EINVAL);
    expect(block(Number.MAX_SAFE_INTEGER, new Uint8Array(8192))).toBe(E.EINVAL);
    expect(block(0, new Uint8Array(8192), 1)).toBe(E.EILSEQ);
    expect(disk.writtenBytes).toBe(0);
  });

  it("that asks for CRCs of what is not there → refused", () => {
    expect(open(10_000)).toBe(0);
    expect(ask({ type: COPY_TYPE.SUMS, slot: 0, argument: 1 }, 4)).toBe(E.EINVAL);
    expect(ask({ type: COPY_TYPE.SUMS, slot: 0, argument: 0xffff_ffff }, MAX_IO)).toBe(E.EINVAL);
  });

  it("that ends it before it is whole, or with another sum → no name; whole → there", () => {
    expect(open(10_000)).toBe(0);
    expect(block(0, new Uint8Array(8192).fill(1))).toBe(0);
    expect(finish(10_000, 1)).toBe(E.EILSEQ);
    expect(disk.nodes.has("big")).toBe(false);
    expect(open(10_000)).toBe(0);
    expect(lying.lastMemory[1]).toBe(8192 >> 8);
    const whole = new Uint8Array(10_000).fill(1, 0, 8192);
    const crc = ~updateCrc32(whole, 0, 10_000, -1) >>> 0;
    // What an earlier attempt left must be compared first.
    expect(finish(10_000, crc)).toBe(E.EILSEQ);
    expect(open(10_000)).toBe(0);
    expect(ask({ type: COPY_TYPE.SUMS, slot: 0, argument: 1 }, 4)).toBe(0);
    expect(finish(10_000, crc)).toBe(0);
    expect(disk.nodes.get("big")?.bytes).toEqual(whole);
  });
});

describe("a sink", () => {
  it("that is asked for a folder there is not, for a run nobody has begun → ENOENT, ESTALE", () => {
    expect(ask({ type: COPY_TYPE.HELLO, path: "else", runLow: 9 }, 16)).toBe(E.ENOENT);
    expect(ask({ type: COPY_TYPE.BATCH, runLow: 9, argument: 1 }, oneRecord({ path: "a" }))).toBe(
      E.ESTALE,
    );
    expect(ask({ type: COPY_TYPE.TELL, argument: 9 }, new Uint8Array(16))).toBe(E.EINVAL);
    expect(ask({ type: COPY_TYPE.HELLO, path: "folder", runLow: 10 }, 15)).toBe(E.EINVAL);
  });

  it("a pull without a token, a port, a path that ends → refused; with them → its host's", () => {
    const token = "0123456789abcdef0123456789abcdef";
    const pull = (path: string, argument = 50_000) =>
      ask({ type: COPY_TYPE.PULL, path, argument }, 0);
    expect(pull(`${token}files`)).toBe(E.EINVAL);
    expect(pull(`${token.slice(1)}Zfiles\0`)).toBe(E.EINVAL);
    expect(pull(`${token}files\0`, 0)).toBe(E.EINVAL);
    expect(pull(`${token}files\0`, 65_536)).toBe(E.EINVAL);
    expect(lying.host.pulls).toEqual([]);
    expect(pull(`${token}files\0more\0`)).toBe(0);
    expect(lying.host.pulls).toEqual([
      { key: "1:2", port: 50_000, token, paths: ["files", "more"] },
    ]);
  });

  it("user messages cut short, of another version or type → refused", () => {
    const header = new CopyHeader();
    const bytes = new Uint8Array(COPY_USER_BYTES_MAX);
    const length = writeCopyHeader(header, bytes, new DataView(bytes.buffer));
    for (const [at, value, errno] of [
      [0, 1, E.EPROTO],
      [4, 2, E.EPROTONOSUPPORT],
      [5, 0, E.EPROTO],
      [5, 10, E.EPROTO],
      [22, 0xff, E.EPROTO],
    ] as const) {
      const answers: number[] = [];
      const owner = { reply: (_one: ServerRequest, reply: number) => answers.push(reply) };
      const memory = new HeapMemorySource().allocate(MAX_IO);
      const request = new ServerRequest(owner, lying.session, 0, bytes.slice(), memory, 0);
      request.userMessage[at] = value;
      request.userLength = length;
      lying.sink.onRequest(request);
      lying.sink.pump(1);
      expect(answers, `byte ${at}`).toEqual([errno]);
    }
  });
});

describe("a source", () => {
  it("whose sink's disk is full → ENOSPC, and what was whole is there", () => {
    const from = new Disk();
    for (let i = 0; i < 50; i++) from.put(`f${i}`, newNode("file", new Uint8Array(1000).fill(i)));
    const to = new Disk();
    to.spaceBytes = 20_500;
    const rig = new Rig(from, to, {});
    rig.run();
    expect(rig.source.error?.code).toBe("ENOSPC");
    const files = [...to.nodes.values()].filter(({ kind }) => kind === "file");
    expect(files.length).toBe(20);
    expect(files.every(({ bytes }) => bytes.length === 1000)).toBe(true);
  });

  it("whose sink's disk is full in a large file → ENOSPC, which the sink's host hears too", () => {
    const from = new Disk();
    from.put("big", newNode("file", new Uint8Array(200_000).fill(1)));
    const to = new Disk();
    to.spaceBytes = 20_500;
    const rig = new Rig(from, to, {});
    rig.run();
    expect(rig.source.error?.code).toBe("ENOSPC");
    expect(rig.host.failures).toEqual([`big ${E.ENOSPC}`]);
    expect(rig.sink.counters().failures).toBe(1);
  });

  it("that ends while its own disk still reads → waits for that, and ends", () => {
    const from = new Disk();
    from.put("big", newNode("file", new Uint8Array(200_000).fill(1)));
    const to = new Disk();
    to.spaceBytes = 20_500;
    const rig = new Rig(from, to, {});
    // The first blocks are read at once, and fill the sink's disk; the others take their time.
    rig.tree.slowness = ({ offset }) => (offset < 3 * MAX_IO ? 0 : 50);
    let wasLate = false;
    rig.onTurn = () => {
      wasLate ||= rig.source.session.state === "CLOSED" && rig.tree.isPending;
    };
    rig.run();
    expect(rig.source.error?.code).toBe("ENOSPC");
    expect(wasLate).toBe(true);
    expect(rig.tree.isPending).toBe(false);
  });

  it("whose file changes while it is read → read again; one that never rests → EBUSY", () => {
    for (const changes of [2, Infinity]) {
      const from = new Disk();
      const node = from.put("big", newNode("file", new Uint8Array(100_000).fill(1)));
      const to = new Disk();
      const rig = new Rig(from, to, {});
      let count = 0;
      rig.tree.onRead = (_path, offset) => {
        if (offset !== 0 || count++ >= changes) return;
        node.bytes[5] = count;
        node.version++;
      };
      rig.run();
      expect(rig.source.error).toBeNull();
      if (changes === Infinity) {
        expect(rig.problems).toEqual([{ path: "big", errno: E.EBUSY, isRemote: false }]);
        expect(to.nodes.has("big")).toBe(false);
      } else {
        expect(rig.problems).toEqual([]);
        expect(to.nodes.get("big")?.bytes).toEqual(node.bytes);
      }
    }
  });

  it("whose sink does not know the folder → its errno, nothing is sent", () => {
    const rig = new Rig(new Disk(), new Disk(), { target: "elsewhere" });
    rig.run();
    expect(rig.source.error?.code).toBe("ENOENT");
  });
});
