// SPDX-License-Identifier: MIT
// The client against a server that answers exactly what the test says: opening, and I/O.

import { beforeEach, describe, expect, it } from "vitest";
import { ERRNO, FarpageError, HeapMemorySource } from "../base/index.js";
import { BLOCK_FLAG, BLOCK_OPERATION } from "../block/index.js";
import type { ServerRequest } from "../rtrs/index.js";
import { RNBD_ACCESS } from "../wire/index.js";
import {
  client,
  loop,
  makeClient,
  memory,
  newRequest,
  open,
  openCode,
  owner,
  pump,
  server,
  submit,
  taken,
} from "./rnbd-client.fixture.js";
import type { RnbdDevice } from "./rnbd-device.js";

const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, CACHE, STATUS } = BLOCK_OPERATION;

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
    const read = newRequest();
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

  it("changes that overlap one in flight → held with all behind; reads in front are not", () => {
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
    const foreign = newRequest();
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
