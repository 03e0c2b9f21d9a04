// SPDX-License-Identifier: MIT
// A source that lies to its sink, and a sink that lies to its source: what it says is refused by
// name, and nothing outside the folder is touched.

import { beforeEach, describe, expect, it } from "vitest";
import { ERRNO as E, HeapMemorySource, IpAddress, updateCrc32 } from "../base/index.js";
import { ServerRequest, ServerSession } from "../rtrs/index.js";
import { MAX_IO, NotingHost, Rig } from "./copy.fixture.js";
import { COPY_PART_PREFIX, CopySink, checkCopyPath } from "./index.js";
import { Disk, newNode } from "./memory-tree.fixture.js";
import { COPY_TYPE, COPY_USER_BYTES_MAX, CopyHeader, writeCopyHeader } from "./messages.js";
import { COPY_ACTION, CopyRecord, writeRecord } from "./records.js";

const peer = IpAddress.parse("192.0.2.1");
const local = IpAddress.parse("192.0.2.2");

let disk: Disk;
let host: NotingHost;
let sink: CopySink;
let session: ServerSession;
let errnos: number[];

beforeEach(() => {
  disk = new Disk();
  host = new NotingHost(disk);
  const memory = new HeapMemorySource();
  sink = new CopySink({ crc32: updateCrc32, memory, maxIoBytes: MAX_IO }, host);
  session = new ServerSession(1, peer, local, "1");
  errnos = [];
  sink.onSessionUp(session);
  expect(ask({ type: COPY_TYPE.HELLO, path: "folder" }, 16)).toBe(0);
});

/** What a request says; `data` is a write, a number asks for so many bytes. */
function ask(what: Partial<CopyHeader>, data: Uint8Array | number): number {
  const memory = new HeapMemorySource().allocate(MAX_IO);
  const owner = {
    reply: (_request: ServerRequest, errno: number) => {
      errnos.push(errno);
    },
  };
  const request = new ServerRequest(owner, session, 0, new Uint8Array(8192), memory, 0);
  const header = Object.assign(new CopyHeader(), { runHigh: 1, runLow: 2, byteLength: 0, ...what });
  request.isRead = typeof data === "number";
  if (typeof data !== "number") {
    memory.bytes.set(data);
    header.byteLength = what.byteLength ?? data.length;
  }
  request.dataLength = typeof data === "number" ? data : data.length;
  request.userLength = writeCopyHeader(header, request.userMessage, request.userView);
  const before = errnos.length;
  sink.onRequest(request);
  for (let i = 0; i < 20 && errnos.length === before; i++) sink.pump(1);
  expect(errnos.length).toBe(before + 1);
  lastMemory = memory.bytes;
  return errnos.at(-1) as number;
}

let lastMemory: Uint8Array;

/** A batch of one record. */
function batch(record: Partial<CopyRecord>, data = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(MAX_IO);
  const full = Object.assign(new CopyRecord(), { action: COPY_ACTION.FILE, ...record });
  full.dataLength = data.length;
  full.size = record.size ?? data.length;
  full.crc = record.crc ?? ~updateCrc32(data, 0, data.length, -1) >>> 0;
  bytes.set(data, 48 + full.path.length);
  return bytes.subarray(0, writeRecord(full, bytes, new DataView(bytes.buffer), 0));
}

/** The result of a batch of one record. */
function result(record: Partial<CopyRecord>, data = new Uint8Array(0)): number {
  const errno = ask({ type: COPY_TYPE.BATCH, argument: 1 }, batch(record, data));
  if (errno === 0) return 0;
  expect(errno).toBe(E.EREMOTEIO);
  expect(ask({ type: COPY_TYPE.ANSWER, argument: 1 }, 2)).toBe(0);
  return (lastMemory[0] as number) + (lastMemory[1] as number) * 256;
}

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
      const extra = Uint8Array.from(path, (one) => one.charCodeAt(0));
      const link = { action: COPY_ACTION.HARDLINK, path: "a", extra } as const;
      expect(result(link)).toBe(FAILED | errno);
      expect(disk.nodes.size).toBe(1);
      expect(disk.parts.size).toBe(0);
    },
  );

  it("through a link that it made itself → refused", () => {
    const target = "/etc";
    const extra = Uint8Array.from(target, (one) => one.charCodeAt(0));
    expect(result({ action: COPY_ACTION.SYMLINK, path: "way", extra })).toBe(0);
    expect(result({ path: "way/passwd" }, Uint8Array.of(1))).toBe(FAILED | E.ELOOP);
    expect(ask({ type: COPY_TYPE.OPEN, path: "way/passwd", offset: 10 }, 8)).toBe(E.ELOOP);
  });
});

describe("a source that lies in a length", () => {
  const good = () => batch({ path: "file" }, Uint8Array.of(1, 2, 3));

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
  const open = (size: number) =>
    ask({ type: COPY_TYPE.OPEN, slot: 0, path: "big", offset: size }, 8);
  const block = (index: number, bytes: Uint8Array, crc?: number) =>
    ask(
      {
        type: COPY_TYPE.BLOCK,
        slot: 0,
        offset: index,
        argument: crc ?? ~updateCrc32(bytes, 0, bytes.length, -1) >>> 0,
      },
      bytes,
    );
  const finish = (size: number, crc: number) =>
    ask({ type: COPY_TYPE.FINISH, slot: 0 }, batch({ path: "big", size, crc }));

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
    expect(lastMemory[1]).toBe(8192 >> 8);
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
    expect(ask({ type: COPY_TYPE.BATCH, runLow: 9, argument: 1 }, batch({ path: "a" }))).toBe(
      E.ESTALE,
    );
    expect(ask({ type: COPY_TYPE.TELL, argument: 9 }, new Uint8Array(16))).toBe(E.EINVAL);
    expect(ask({ type: COPY_TYPE.HELLO, path: "folder", runLow: 10 }, 15)).toBe(E.EINVAL);
  });

  it("that is asked for more runs than it may have → EBUSY; a run left alone ends", () => {
    for (let run = 10; run < 25; run++) {
      expect(ask({ type: COPY_TYPE.HELLO, path: "folder", runLow: run }, 16)).toBe(0);
    }
    expect(ask({ type: COPY_TYPE.HELLO, path: "folder", runLow: 99 }, 16)).toBe(E.EBUSY);
    sink.onSessionDown(session);
    expect(sink.runCount).toBe(16);
    sink.pump(61e9);
    expect(sink.runCount).toBe(0);
    expect(host.ends.every(({ how }) => how === "LOST")).toBe(true);
    expect(host.trees.every(({ isClosed }) => isClosed)).toBe(true);
  });

  it("a pull without a token, a port, a path that ends → refused; with them → its host's", () => {
    const token = "0123456789abcdef0123456789abcdef";
    const pull = (path: string, argument = 50_000) =>
      ask({ type: COPY_TYPE.PULL, path, argument }, 0);
    expect(pull(`${token}files`)).toBe(E.EINVAL);
    expect(pull(`${token.slice(1)}Zfiles\0`)).toBe(E.EINVAL);
    expect(pull(`${token}files\0`, 0)).toBe(E.EINVAL);
    expect(pull(`${token}files\0`, 65_536)).toBe(E.EINVAL);
    expect(host.pulls).toEqual([]);
    expect(pull(`${token}files\0more\0`)).toBe(0);
    expect(host.pulls).toEqual([{ key: "1:2", port: 50_000, token, paths: ["files", "more"] }]);
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
      const request = new ServerRequest(owner, session, 0, bytes.slice(), memory, 0);
      request.userMessage[at] = value;
      request.userLength = length;
      sink.onRequest(request);
      sink.pump(1);
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
