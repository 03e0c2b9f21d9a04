// SPDX-License-Identifier: MIT
// The client against a server that answers exactly what the test says, over a session without RDMA.

import { beforeEach, describe, expect, it } from "vitest";
import { loopEnvironment, RtrsLoop } from "../../test/support/rtrs-loop.js";
import { ERRNO, FarpageError, HeapMemorySource, IpAddress } from "../base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockOperation,
  BlockRequest,
  type BlockRequestOwner,
} from "../block/index.js";
import type { RtrsServerUser, ServerRequest, ServerSession } from "../rtrs/index.js";
import {
  RNBD_ACCESS,
  RNBD_OP,
  RNBD_TYPE,
  type RnbdOpenResponse,
  rnbdDeviceId,
  rnbdIoBytes,
  rnbdIoFlags,
  rnbdIoOperation,
  rnbdIoSectorLow,
  rnbdOpenName,
  rnbdType,
  writeRnbdOpenResponse,
  writeRnbdSessInfoResponse,
} from "../wire/index.js";
import { RnbdClient, type RnbdClientOptions } from "./rnbd-client.js";
import type { RnbdDevice } from "./rnbd-device.js";

const MAX_IO = 8192;
const SECOND = 1e9;
const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, CACHE, STATUS } = BLOCK_OPERATION;
const memory = new HeapMemorySource().allocate(1 << 20);

/** Answers SESS_INFO, OPEN and CLOSE as told, and keeps IO until told. */
class ScriptedServer implements RtrsServerUser {
  /** Of everything that came: "SESS_INFO", "OPEN name", "CLOSE id", "READ@id sector+bytes". */
  readonly log: string[] = [];
  readonly ios: ServerRequest[] = [];
  openErrno = 0;
  nextId = 0;
  response: Partial<RnbdOpenResponse> = {};
  holdsOpens = false;
  readonly opens: ServerRequest[] = [];

  onSessionUp(_session: ServerSession): void {
    this.log.push("up");
  }

  onSessionDown(_session: ServerSession): void {
    this.log.push("down");
  }

  onRequest(request: ServerRequest): void {
    const view = request.userView;
    const type = rnbdType(view, 0);
    if (type === RNBD_TYPE.SESS_INFO) {
      this.log.push("SESS_INFO");
      writeRnbdSessInfoResponse(request.memory.view, request.memoryOffset, 2);
      request.complete(0);
    } else if (type === RNBD_TYPE.OPEN) {
      this.log.push(`OPEN ${rnbdOpenName(request.userMessage, 0)}`);
      if (this.holdsOpens) this.opens.push(request);
      else this.answerOpen(request);
    } else if (type === RNBD_TYPE.CLOSE) {
      this.log.push(`CLOSE ${rnbdDeviceId(view, 0)}`);
      request.complete(0);
    } else {
      this.log.push(describeIo(request));
      this.ios.push(request);
    }
  }

  answerOpen(request: ServerRequest): void {
    const response: RnbdOpenResponse = {
      deviceId: this.nextId++,
      sectorCount: 2048,
      hardwareSectorsMax: 255,
      writeZeroesSectorsMax: 128,
      discardSectorsMax: 128,
      discardGranularityBytes: 512,
      discardAlignmentBytes: 0,
      physicalBlockBytes: 4096,
      logicalBlockBytes: 512,
      segmentsMax: 128,
      secureDiscard: 0,
      rotational: false,
      cachePolicy: 3,
      epochHigh: 0,
      epochLow: 0,
      ...this.response,
    };
    writeRnbdOpenResponse(request.memory.view, request.memoryOffset, response);
    request.complete(this.openErrno);
  }

  /** Answers the oldest IO. */
  answer(errno = 0): void {
    (this.ios.shift() as ServerRequest).complete(errno);
  }

  answerAll(): void {
    for (const request of this.ios.splice(0)) request.complete(0);
  }

  /** What has come since the last call. */
  take(): string[] {
    return this.log.splice(0);
  }
}

function describeIo(request: ServerRequest): string {
  const view = request.userView;
  const operation = rnbdIoOperation(view, 0);
  const name = Object.entries(RNBD_OP).find(([, value]) => value === operation)?.[0];
  const flags = rnbdIoFlags(view, 0).toString(16);
  const where = `${rnbdIoSectorLow(view, 0)}+${rnbdIoBytes(view, 0)}`;
  return `${name}.${flags}@${rnbdDeviceId(view, 0)} ${operation === RNBD_OP.FLUSH ? "" : where}`.trim();
}

class Owner implements BlockRequestOwner {
  readonly done: BlockRequest[] = [];

  onBlockComplete(request: BlockRequest): void {
    this.done.push(request);
  }
}

const path = { source: IpAddress.parse("192.0.2.1"), destination: IpAddress.parse("192.0.2.2") };

let server: ScriptedServer;
let loop: RtrsLoop;
let client: RnbdClient;
let owner: Owner;
let nowNs: number;
let tag: number;

function makeClient(options: Partial<RnbdClientOptions> = {}, queueDepth = 5): void {
  nowNs = 0;
  tag = 0;
  owner = new Owner();
  server = new ScriptedServer();
  const all = { sessionName: "blue", paths: [path], ...options };
  client = new RnbdClient(loopEnvironment(), all, (user) => {
    loop = new RtrsLoop(user, { queueDepth, maxIoBytes: MAX_IO, random: null });
    return loop;
  });
  loop.server = server;
  client.registerMemory(memory);
  client.connect();
  loop.allow();
}

/** Pumps until nothing is due. */
function pump(): void {
  let turns = 0;
  do {
    client.pump(nowNs);
    client.checkInvariants();
    expect(++turns).toBeLessThan(100);
  } while (client.deadlineNs() <= nowNs);
}

function open(name = "vol1", access: 0 | 1 | 2 = RNBD_ACCESS.RW): RnbdDevice {
  let opened: RnbdDevice | null = null;
  client.open(name, access, (error, device) => {
    if (error !== null) throw error;
    opened = device;
  });
  pump();
  expect(opened).not.toBeNull();
  server.take();
  return opened as unknown as RnbdDevice;
}

/** The code that an open fails with. */
function openCode(name = "vol1"): string {
  let code = "none";
  client.open(name, RNBD_ACCESS.RW, (error, device) => {
    expect(device).toBeNull();
    code = error?.code ?? "no error";
  });
  pump();
  return code;
}

function submit(
  device: RnbdDevice,
  operation: BlockOperation,
  sector = 0,
  sectors = 0,
  flags = 0,
): BlockRequest {
  const request = new BlockRequest(owner, tag++);
  request.operation = operation;
  request.offset = sector * 512;
  request.length = sectors * 512;
  request.flags = flags;
  request.memory = memory;
  device.submit(request);
  return request;
}

/** What came back since the last call, "tag:errno". */
function taken(): string[] {
  pump();
  return owner.done.splice(0).map((request) => `${request.tag}:${request.errno}`);
}

beforeEach(() => makeClient());

describe("rnbd client: opening", () => {
  it("session up → SESS_INFO, then OPEN; the device is what the server says", () => {
    let opened: RnbdDevice | null = null;
    client.open("vol1", RNBD_ACCESS.RW, (_, device) => {
      opened = device;
    });
    pump();
    expect(server.take()).toEqual(["up", "SESS_INFO", "OPEN vol1"]);
    const device = opened as unknown as RnbdDevice;
    expect(device.limits).toMatchObject({
      sizeBytes: 1 << 20,
      logicalBlockBytes: 512,
      physicalBlockBytes: 4096,
      readOnly: false,
      volatileCache: true,
      fua: true,
      queueDepth: 4,
    });
    expect(device.limits.discardBytesMax).toBeGreaterThan(1 << 31);
  });

  it("a second device → OPEN alone; the same name twice → EEXIST", () => {
    open("vol1");
    client.open("vol2", RNBD_ACCESS.RO, () => {});
    pump();
    expect(server.take()).toEqual(["OPEN vol2"]);
    expect(() => client.open("vol1", RNBD_ACCESS.RW, () => {})).toThrow("open in this session");
    expect(() => client.open("", RNBD_ACCESS.RW, () => {})).toThrow("no volume name");
  });

  it.each([
    [ERRNO.ENOENT, "ENOENT"],
    [ERRNO.EPERM, "EPERM"],
    [ERRNO.EROFS, "EROFS"],
    [ERRNO.EACCES, "EACCES"],
    [ERRNO.EMFILE, "EMFILE"],
  ])("the server refuses with %i → %s, and the name can be tried again", (errno, code) => {
    server.openErrno = errno;
    expect(openCode()).toBe(code);
    server.openErrno = 0;
    open();
  });

  it.each([
    ["no block size", { logicalBlockBytes: 0 }],
    ["an odd block size", { logicalBlockBytes: 1000 }],
    ["blocks larger than an I/O", { logicalBlockBytes: 16_384 }],
    ["a size beyond 2^53 bytes", { sectorCount: 2 ** 50 }],
  ])("an answer with %s → EPROTO", (_, response) => {
    server.response = response;
    expect(openCode()).toBe("EPROTO");
  });

  it("the session never comes up → its error", () => {
    makeClient();
    const error = new FarpageError("CM_REJECTED", "nobody there");
    let failed: FarpageError | null = null;
    client.onFailed = (reason) => {
      failed = reason;
    };
    loop.fail(error);
    expect(openCode()).toBe("CM_REJECTED");
    expect(failed).toBe(error);
    expect(openCode("vol2")).toBe("CM_REJECTED");
  });

  it("the session is lost under an OPEN → asked again in the next one", () => {
    server.holdsOpens = true;
    let count = 0;
    client.open("vol1", RNBD_ACCESS.RW, (error) => {
      expect(error).toBeNull();
      count++;
    });
    pump();
    loop.lose();
    pump();
    server.holdsOpens = false;
    server.answerOpen(server.opens[0] as ServerRequest);
    loop.allow();
    pump();
    expect(server.take().slice(-3)).toEqual(["up", "SESS_INFO", "OPEN vol1"]);
    expect(count).toBe(1);
  });
});

describe("rnbd client: I/O", () => {
  it("read, write, flush, discard, zeroes → as Linux sends them", () => {
    const device = open();
    submit(device, READ, 8, 8);
    submit(device, WRITE, 16, 8);
    submit(device, WRITE, 24, 8, BLOCK_FLAG.FUA);
    submit(device, FLUSH);
    pump();
    expect(server.take()).toEqual([
      "READ.100@0 8+4096",
      "WRITE.100@0 16+4096",
      "WRITE.300@0 24+4096",
      "FLUSH.300@0",
    ]);
    for (let i = 0; i < 4; i++) server.answer();
    expect(taken()).toEqual(["0:0", "1:0", "2:0", "3:0"]);
    submit(device, DISCARD, 0, 8);
    submit(device, WRITE_ZEROES, 8, 8);
    submit(device, WRITE_ZEROES, 16, 8, BLOCK_FLAG.NO_UNMAP);
    pump();
    expect(server.take()).toEqual([
      "DISCARD.100@0 0+4096",
      "WRITE_ZEROES.100@0 8+4096",
      "WRITE_ZEROES.900@0 16+4096",
    ]);
  });

  it("data travels from and to the caller's memory, at its offset", () => {
    const device = open();
    memory.bytes.fill(0x11, 4096, 8192);
    const request = submit(device, WRITE, 0, 8);
    expect(request.memoryOffset).toBe(0);
    memory.bytes.fill(0x22, 0, 4096);
    pump();
    const chunk = (server.ios[0] as ServerRequest).memory.bytes;
    expect(chunk.subarray(0, 4096).every((byte) => byte === 0x22)).toBe(true);
    server.answer();
    taken();
    const read = new BlockRequest(owner, tag++);
    Object.assign(read, { operation: READ, offset: 0, length: 512, memory, memoryOffset: 4096 });
    device.submit(read);
    pump();
    (server.ios[0] as ServerRequest).memory.bytes.fill(0x33, 0, 512);
    server.answer();
    expect(taken()).toEqual(["1:0"]);
    expect(memory.bytes[4095]).toBe(0x22);
    expect(memory.bytes.subarray(4096, 4608).every((byte) => byte === 0x33)).toBe(true);
    expect(memory.bytes[4608]).toBe(0x11);
  });

  it("more than the session's I/O size → parts; done when all are, the first error is told", () => {
    const device = open();
    submit(device, WRITE, 0, 40);
    pump();
    expect(server.take()).toEqual([
      "WRITE.100@0 0+8192",
      "WRITE.100@0 16+8192",
      "WRITE.100@0 32+4096",
    ]);
    server.answer();
    server.answer(ERRNO.ENOSPC);
    expect(taken()).toEqual([]);
    server.answer();
    expect(taken()).toEqual([`0:${ERRNO.ENOSPC}`]);
  });

  it("an error while parts are not sent yet → they never are", () => {
    const device = open();
    submit(device, WRITE, 0, 160);
    submit(device, READ, 0, 8);
    pump();
    expect(server.take()).toHaveLength(4);
    server.answer(ERRNO.EIO);
    pump();
    expect(server.take()).toEqual(["READ.100@0 0+4096"]);
    for (let i = 0; i < 4; i++) server.answer();
    expect(taken().sort()).toEqual([`0:${ERRNO.EIO}`, "1:0"]);
  });

  it("no permits → requests wait in order, devices take turns", () => {
    const one = open("vol1");
    const two = open("vol2");
    for (let i = 0; i < 8; i++) submit(one, READ, i, 1);
    for (let i = 0; i < 8; i++) submit(two, READ, i, 1);
    pump();
    expect(server.take()).toHaveLength(4);
    for (let i = 0; i < 4; i++) server.answer();
    pump();
    expect(server.take()).toEqual([
      "READ.100@0 4+512",
      "READ.100@1 0+512",
      "READ.100@0 5+512",
      "READ.100@1 1+512",
    ]);
  });

  it("changes that overlap one in flight → held, and what is behind them; reads in front are not", () => {
    const device = open();
    submit(device, WRITE, 0, 8);
    submit(device, READ, 0, 8);
    submit(device, DISCARD, 7, 2);
    submit(device, READ, 100, 1);
    pump();
    expect(server.take()).toEqual(["WRITE.100@0 0+4096", "READ.100@0 0+4096"]);
    server.answer();
    pump();
    expect(server.take()).toEqual(["DISCARD.100@0 7+1024", "READ.100@0 100+512"]);
  });

  it("a DISCARD with FUA → a flush behind it; without a volatile cache, none", () => {
    const device = open();
    submit(device, DISCARD, 0, 8, BLOCK_FLAG.FUA);
    pump();
    server.answer();
    expect(taken()).toEqual([]);
    expect(server.take()).toEqual(["DISCARD.100@0 0+4096", "FLUSH.300@0"]);
    server.answer(ERRNO.EIO);
    expect(taken()).toEqual([`0:${ERRNO.EIO}`]);
    server.response = { cachePolicy: 0 };
    const plain = open("vol2");
    submit(plain, WRITE, 0, 8, BLOCK_FLAG.FUA);
    pump();
    server.answer();
    expect(server.take()).toEqual(["WRITE.100@1 0+4096"]);
    expect(taken()).toEqual(["1:0"]);
  });

  it("STATUS and CACHE → answered here, all data", () => {
    const device = open();
    const status = submit(device, STATUS, 0, 16);
    submit(device, CACHE, 0, 16);
    expect(owner.done).toEqual([]);
    expect(taken()).toEqual(["0:0", "1:0"]);
    expect(status.extents).toEqual([{ length: 8192, hole: false, zero: false }]);
    expect(server.take()).toEqual([]);
  });

  it("requests that can't be → refused here", () => {
    const reader = open("vol1", RNBD_ACCESS.RO);
    submit(reader, WRITE, 0, 8);
    submit(reader, READ, 2048, 8);
    const foreign = new BlockRequest(owner, tag++);
    const other = new HeapMemorySource().allocate(512);
    Object.assign(foreign, { operation: READ, offset: 0, length: 512, memory: other });
    reader.submit(foreign);
    expect(taken()).toEqual([`0:${ERRNO.EROFS}`, `1:${ERRNO.EINVAL}`, `2:${ERRNO.EFAULT}`]);
    expect(server.take()).toEqual([]);
  });

  it("discards beyond what one command takes → parts; none on offer → EOPNOTSUPP", () => {
    const device = open();
    submit(device, DISCARD, 0, 300);
    pump();
    expect(server.take()).toEqual([
      "DISCARD.100@0 0+65536",
      "DISCARD.100@0 128+65536",
      "DISCARD.100@0 256+22528",
    ]);
    for (let i = 0; i < 3; i++) server.answer();
    expect(taken()).toEqual(["0:0"]);
    server.response = { discardSectorsMax: 0, writeZeroesSectorsMax: 0 };
    const plain = open("vol2");
    submit(plain, DISCARD, 0, 8);
    submit(plain, WRITE_ZEROES, 0, 8);
    expect(taken()).toEqual([`1:${ERRNO.EOPNOTSUPP}`, `2:${ERRNO.EOPNOTSUPP}`]);
  });
});

describe("rnbd client: the session is lost and comes back", () => {
  it("SESS_INFO, OPEN, then what was in flight under the new id, then what waited", () => {
    const device = open();
    submit(device, WRITE, 0, 8);
    submit(device, READ, 8, 8);
    pump();
    server.take();
    server.answerAll();
    loop.lose();
    pump();
    submit(device, FLUSH);
    expect(taken()).toEqual([]);
    expect(client.isConnected).toBe(false);
    server.nextId = 7;
    loop.allow();
    pump();
    expect(server.take()).toEqual([
      "down",
      "up",
      "SESS_INFO",
      "OPEN vol1",
      "WRITE.100@7 0+4096",
      "READ.100@7 8+4096",
      "FLUSH.300@7",
    ]);
    for (let i = 0; i < 3; i++) server.answer();
    expect(taken()).toEqual(["0:0", "1:0", "2:0"]);
  });

  it("lost again before the devices are open → once more, nothing sent twice in one session", () => {
    const device = open();
    submit(device, WRITE, 0, 8);
    pump();
    server.answerAll();
    loop.lose();
    pump();
    server.holdsOpens = true;
    loop.allow();
    pump();
    loop.lose();
    for (const request of server.opens.splice(0)) server.answerOpen(request);
    pump();
    server.holdsOpens = false;
    server.take();
    loop.allow();
    pump();
    expect(server.take().slice(-4)).toEqual(["up", "SESS_INFO", "OPEN vol1", "WRITE.100@2 0+4096"]);
    server.answer();
    expect(taken()).toEqual(["0:0"]);
  });

  it("a change that overlaps one from before the loss → still held behind it", () => {
    const device = open();
    submit(device, WRITE, 0, 8);
    submit(device, WRITE, 4, 8);
    pump();
    server.answerAll();
    loop.lose();
    pump();
    server.take();
    loop.allow();
    pump();
    expect(server.take().slice(-1)).toEqual(["WRITE.100@1 0+4096"]);
    server.answer();
    pump();
    expect(server.take()).toEqual(["WRITE.100@1 4+4096"]);
  });

  it("a device that isn't opened again → its I/O waits, the others go on, asked once a second", () => {
    const one = open("vol1");
    submit(one, WRITE, 0, 8);
    pump();
    server.answerAll();
    loop.lose();
    pump();
    server.openErrno = ERRNO.EPERM;
    server.take();
    loop.allow();
    pump();
    expect(server.take()).toEqual(["up", "SESS_INFO", "OPEN vol1"]);
    server.openErrno = 0;
    const two = open("vol2");
    submit(two, READ, 0, 1);
    submit(one, READ, 0, 1);
    pump();
    expect(server.take()).toEqual(["READ.100@2 0+512"]);
    expect(client.deadlineNs()).toBe(SECOND);
    nowNs = SECOND;
    pump();
    expect(server.take()).toEqual(["OPEN vol1", "WRITE.100@3 0+4096", "READ.100@3 0+512"]);
    for (let i = 0; i < 3; i++) server.answer();
    expect(taken().sort()).toEqual(["0:0", "1:0", "2:0"]);
  });

  it("another size → onResize; of other blocks → everything fails", () => {
    const device = open();
    let resizes = 0;
    device.onResize = () => resizes++;
    server.response = { sectorCount: 4096 };
    loop.lose();
    loop.allow();
    pump();
    loop.allow();
    pump();
    expect(resizes).toBe(1);
    expect(device.limits.sizeBytes).toBe(1 << 21);
    server.response = { sectorCount: 4096, logicalBlockBytes: 4096 };
    loop.lose();
    pump();
    loop.allow();
    submit(device, READ, 0, 8);
    expect(taken()).toEqual([`0:${ERRNO.EIO}`]);
    submit(device, READ, 0, 8);
    expect(taken()).toEqual([`1:${ERRNO.EIO}`]);
  });

  it("a time limit for I/O → ETIMEDOUT, at once from then on, until the device is back", () => {
    makeClient({ ioTimeoutNs: 10 * SECOND });
    const device = open();
    submit(device, WRITE, 0, 8);
    pump();
    server.answerAll();
    nowNs = SECOND;
    loop.lose();
    pump();
    submit(device, READ, 0, 8);
    expect(taken()).toEqual([]);
    expect(client.deadlineNs()).toBe(11 * SECOND);
    nowNs = 11 * SECOND;
    expect(taken().sort()).toEqual([`0:${ERRNO.ETIMEDOUT}`, `1:${ERRNO.ETIMEDOUT}`]);
    submit(device, READ, 0, 8);
    expect(taken()).toEqual([`2:${ERRNO.ETIMEDOUT}`]);
    loop.allow();
    pump();
    submit(device, READ, 0, 8);
    pump();
    server.answer();
    expect(taken()).toEqual(["3:0"]);
  });

  it("the session fails for good → what is in flight, waits, or comes, fails", () => {
    const device = open();
    for (let i = 0; i < 6; i++) submit(device, WRITE, i * 8, 8);
    pump();
    loop.fail(new FarpageError("EPROTO", "another server"));
    const errnos = new Set(taken().map((text) => text.split(":")[1]));
    expect(errnos).toEqual(new Set([`${ERRNO.ECONNABORTED}`, `${ERRNO.EIO}`]));
    submit(device, READ, 0, 8);
    expect(taken()).toEqual([`6:${ERRNO.EIO}`]);
    expect(device.inflight).toBe(0);
  });
});

describe("rnbd client: a flush never claims what a lost cache held", () => {
  const EPOCH = { epochHigh: 1, epochLow: 1 };
  const OTHER = { epochHigh: 1, epochLow: 2 };

  function reconnect(response: Partial<RnbdOpenResponse>): void {
    server.response = response;
    server.answerAll();
    loop.lose();
    pump();
    loop.allow();
    pump();
    server.take();
  }

  /** Runs one request to its end. @returns its errno. */
  function run(device: RnbdDevice, operation: BlockOperation, sector = 0, sectors = 0): number {
    const request = submit(device, operation, sector, sectors);
    pump();
    if (server.ios.length > 0) server.answer();
    pump();
    expect(owner.done.splice(0)).toEqual([request]);
    return request.errno;
  }

  it("the cache is another, writes were not flushed → EIO for every flush from here on", () => {
    server.response = EPOCH;
    const device = open();
    run(device, WRITE, 0, 8);
    reconnect(OTHER);
    expect(device.hasLostWrites).toBe(true);
    expect(run(device, FLUSH)).toBe(ERRNO.EIO);
    expect(run(device, WRITE, 0, 8)).toBe(0);
    expect(run(device, FLUSH)).toBe(ERRNO.EIO);
    expect(run(device, READ, 0, 8)).toBe(0);
  });

  it("a flush that was in flight when the cache went → EIO, not sent again", () => {
    server.response = EPOCH;
    const device = open();
    run(device, WRITE, 0, 8);
    submit(device, FLUSH);
    pump();
    reconnect(OTHER);
    expect(server.ios).toEqual([]);
    expect(taken()).toEqual([`1:${ERRNO.EIO}`]);
  });

  it.each([
    ["the same cache", EPOCH, EPOCH],
    ["a server that doesn't tell", {}, {}],
    ["a server that tells now", {}, EPOCH],
  ])("%s → flushes go on", (_, before, after) => {
    server.response = before;
    const device = open();
    run(device, WRITE, 0, 8);
    reconnect(after);
    expect(device.hasLostWrites).toBe(false);
    expect(run(device, FLUSH)).toBe(0);
  });

  it("another cache after everything was flushed, or written with FUA → flushes go on", () => {
    server.response = EPOCH;
    const device = open();
    run(device, WRITE, 0, 8);
    expect(run(device, FLUSH)).toBe(0);
    submit(device, WRITE, 0, 8, BLOCK_FLAG.FUA);
    pump();
    server.answer();
    expect(taken()).toEqual(["2:0"]);
    tag = 0;
    reconnect(OTHER);
    expect(device.hasLostWrites).toBe(false);
    expect(run(device, FLUSH)).toBe(0);
  });

  it("a write acknowledged while the flush was under way → not covered by it", () => {
    server.response = EPOCH;
    const device = open();
    submit(device, WRITE, 0, 8);
    submit(device, FLUSH);
    pump();
    server.answer();
    server.answer();
    expect(taken()).toEqual(["0:0", "1:0"]);
    reconnect(OTHER);
    expect(device.hasLostWrites).toBe(true);
  });

  it("no volatile cache, and another server's memory → all I/O fails", () => {
    server.response = { ...EPOCH, cachePolicy: 0 };
    const device = open();
    reconnect({ ...OTHER, cachePolicy: 0 });
    expect(run(device, READ, 0, 8)).toBe(ERRNO.EIO);
  });
});

describe("rnbd client: reopening and closing", () => {
  it("reopen → the size of now, the I/O in flight untouched", () => {
    const device = open();
    let resizes = 0;
    device.onResize = () => resizes++;
    submit(device, READ, 0, 8);
    pump();
    server.take();
    server.response = { sectorCount: 4096 };
    device.reopen();
    pump();
    expect(server.take()).toEqual(["OPEN vol1"]);
    expect(resizes).toBe(1);
    server.answer();
    expect(taken()).toEqual(["0:0"]);
  });

  it("reopen that the server refuses → the device stays as it is", () => {
    const device = open();
    server.openErrno = ERRNO.ENOENT;
    device.reopen();
    pump();
    expect(device.state).toBe("OPEN");
    expect(client.deadlineNs()).toBe(Infinity);
  });

  it("close a device → CLOSE with its id, and the name is free; with I/O in flight, a bug", () => {
    const device = open();
    submit(device, READ, 0, 8);
    expect(() => device.close()).toThrow("in flight");
    pump();
    server.answer();
    taken();
    server.take();
    device.close();
    device.close();
    pump();
    expect(server.take()).toEqual(["CLOSE 0"]);
    open();
  });

  it("close the client → CLOSE of every device, then the session ends", () => {
    open("vol1");
    open("vol2");
    client.close();
    pump();
    expect(server.take()).toEqual(["CLOSE 0", "CLOSE 1", "down"]);
    expect(client.isClosed).toBe(true);
    client.unregisterMemory(memory);
  });

  it("close while down, and while opens wait → they are canceled, the session ends", () => {
    const device = open();
    loop.lose();
    pump();
    let code = "";
    client.open("vol2", RNBD_ACCESS.RW, (error) => {
      code = error?.code ?? "";
    });
    client.close();
    pump();
    expect(code).toBe("ECANCELED");
    expect(device.state).toBe("CLOSED");
    expect(client.isClosed).toBe(true);
  });

  it("close while an OPEN is answered → canceled", () => {
    pump();
    server.holdsOpens = true;
    let code = "";
    client.open("vol1", RNBD_ACCESS.RW, (error) => {
      code = error?.code ?? "";
    });
    pump();
    client.close();
    client.pump(nowNs);
    expect(code).toBe("");
    server.answerOpen(server.opens[0] as ServerRequest);
    pump();
    expect(code).toBe("ECANCELED");
    expect(client.isClosed).toBe(true);
  });
});
