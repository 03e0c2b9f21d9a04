// SPDX-License-Identifier: MIT
// The client when its session is lost, reopened or closed.

import { beforeEach, describe, expect, it } from "vitest";
import { ERRNO, FarpageError } from "../base/index.js";
import { BLOCK_FLAG, BLOCK_OPERATION, type BlockOperation } from "../block/index.js";
import type { ServerRequest } from "../rtrs/index.js";
import { RNBD_ACCESS, RNBD_CACHE, type RnbdOpenResponse } from "../wire/index.js";
import {
  client,
  loop,
  makeClient,
  memory,
  nowNs,
  open,
  owner,
  pump,
  SECOND,
  server,
  setNow,
  submit,
  taken,
} from "./rnbd-client.fixture.js";
import type { RnbdDevice } from "./rnbd-device.js";

const { READ, WRITE, FLUSH } = BLOCK_OPERATION;

beforeEach(() => makeClient());

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

  it("what lost paths may have left → settled by SESS_INFO, before OPEN and before any I/O", () => {
    const device = open();
    submit(device, WRITE, 0, 8);
    pump();
    server.answerAll();
    server.take();
    loop.lose();
    loop.unsettledCount = 3;
    const onRequest = server.onRequest.bind(server);
    server.onRequest = (request) => {
      onRequest(request);
      if (server.log.at(-1) === "SESS_INFO") loop.unsettledCount--;
    };
    loop.allow();
    pump();
    const info = "SESS_INFO";
    expect(server.take().slice(1)).toEqual([
      "up",
      ...[info, info, info],
      "OPEN vol1",
      "WRITE.100@1 0+4096",
    ]);
    server.answerAll();
    expect(taken()).toEqual(["0:0"]);
  });

  it("lost again before the devices are open → once more, nothing twice in a session", () => {
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

  it("a device that isn't opened again → its I/O waits, others go on, asked once a second", () => {
    const one = open("vol1");
    const refusals: string[] = [];
    client.onRefused = (device, error) => {
      refusals.push(`${device.name} ${device.state} ${error.code}`);
    };
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
    expect(refusals).toEqual(["vol1 REOPENING EPERM"]);
    server.openErrno = 0;
    const two = open("vol2");
    submit(two, READ, 0, 1);
    submit(one, READ, 0, 1);
    pump();
    expect(server.take()).toEqual(["READ.100@2 0+512"]);
    expect(client.deadlineNs()).toBe(SECOND);
    setNow(SECOND);
    pump();
    expect(server.take()).toEqual(["OPEN vol1", "WRITE.100@3 0+4096", "READ.100@3 0+512"]);
    for (let i = 0; i < 3; i++) server.answer();
    expect(taken().sort()).toEqual(["0:0", "1:0", "2:0"]);
  });

  it("another size → onResize; of other blocks → everything fails", () => {
    const device = open();
    let resizes = 0;
    device.onResize = () => resizes++;
    const refusals: string[] = [];
    client.onRefused = (refused, error) => {
      refusals.push(`${refused.state} ${error.code}`);
    };
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
    expect(refusals).toEqual(["CLOSED EIO"]);
  });

  it("a time limit for I/O → ETIMEDOUT, at once from then on, until the device is back", () => {
    makeClient({ ioTimeoutNs: 10 * SECOND });
    const device = open();
    submit(device, WRITE, 0, 8);
    pump();
    server.answerAll();
    setNow(SECOND);
    loop.lose();
    pump();
    submit(device, READ, 0, 8);
    expect(taken()).toEqual([]);
    expect(client.deadlineNs()).toBe(11 * SECOND);
    setNow(11 * SECOND);
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

  it("a FUA write sent without FUA, then the server learns FUA → a flush behind it still", () => {
    server.response = { cachePolicy: RNBD_CACHE.WRITE_BACK };
    const device = open();
    submit(device, WRITE, 0, 8, BLOCK_FLAG.FUA);
    pump();
    server.take();
    server.response = { cachePolicy: RNBD_CACHE.WRITE_BACK | RNBD_CACHE.FUA };
    loop.lose();
    server.answer();
    loop.allow();
    pump();
    expect(server.take().slice(-1)).toEqual(["WRITE.100@1 0+4096"]);
    server.answer();
    expect(taken()).toEqual([]);
    expect(server.take()).toEqual(["FLUSH.300@1"]);
    server.answer();
    expect(taken()).toEqual(["0:0"]);
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
