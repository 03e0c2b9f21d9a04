// SPDX-License-Identifier: MIT
// The server, message by message: requests as RTRS hands them over, answers as RTRS would get them.

import { beforeEach, describe, expect, it } from "vitest";
import { ERRNO, errnoName } from "../base/index.js";
import { BLOCK_FLAG, BLOCK_OPERATION, type BlockLimits, MemoryDevice } from "../block/index.js";
import {
  RNBD_ACCESS,
  RNBD_FLAG,
  RNBD_IO_BYTES,
  RNBD_OP,
  RNBD_OPEN_BYTES,
  RNBD_OPEN_RSP_BYTES,
  RNBD_SESS_INFO_BYTES,
  rnbdSessInfoHasGroup,
  rnbdSessInfoVersion,
  writeRnbdIo,
  writeRnbdOpen,
  writeRnbdSessInfo,
} from "../wire/index.js";
import { Peer, SlowDevice } from "./rnbd-server.fixture.js";
import { type OpenAttempt, RnbdServer } from "./rnbd-server.js";

const { RO, RW, MIGRATION } = RNBD_ACCESS;

let server: RnbdServer;
let peer: Peer;
let disk: MemoryDevice;

/** Another session. */
function join(id: number, name: string): Peer {
  return new Peer(server, id, name);
}

beforeEach(() => {
  server = new RnbdServer();
  disk = new MemoryDevice({ name: "disk", sizeBytes: 1 << 20 });
  server.addVolume("vol1", disk);
  peer = join(1, "blue");
});

describe("rnbd server: session and open", () => {
  it.each([
    [2, 2],
    [1, 1],
    [9, 2],
  ])("SESS_INFO with version %i → %i", (theirs, common) => {
    writeRnbdSessInfo(peer.request.userView, 0, theirs);
    peer.send(true, RNBD_SESS_INFO_BYTES, RNBD_SESS_INFO_BYTES);
    expect(peer.answer()).toBe(0);
    expect(rnbdSessInfoVersion(peer.request.memory.view, 0)).toBe(common);
  });

  it("SESS_INFO that names a group → the answer says so; its sessions write together", () => {
    const other = join(2, "green");
    const stranger = join(3, "red");
    const group = new Uint8Array(16).fill(7);
    for (const [member, name] of [
      [peer, group],
      [other, group],
      [stranger, group.map((byte, i) => (i === 15 ? byte ^ 1 : byte))],
    ] as const) {
      writeRnbdSessInfo(member.request.userView, 0, 2, name);
      member.send(true, RNBD_SESS_INFO_BYTES, RNBD_SESS_INFO_BYTES);
      expect(member.answer()).toBe(0);
      expect(rnbdSessInfoHasGroup(member.request.memory.view, 0)).toBe(true);
    }
    const id = peer.openId("vol1");
    expect(stranger.open("vol1", RW)).toBe("EPERM");
    const otherId = other.openId("vol1");
    expect(peer.runIo(id, RNBD_OP.WRITE, 0, 512)).toBe(0);
    expect(other.runIo(otherId, RNBD_OP.WRITE, 0, 512)).toBe(0);
    expect(peer.close(id)).toBe(0);
    expect(stranger.open("vol1", RW)).toBe("EPERM");
    expect(peer.openId("vol1")).not.toBe(id);
    server.onSessionDown(peer.session);
    server.onSessionDown(other.session);
    expect(stranger.openId("vol1")).toBe(0);
  });

  it("a session of a group that has ended keeps others out until its last write is over", () => {
    const slow = new SlowDevice();
    server.addVolume("slow", slow);
    const other = join(2, "green");
    for (const member of [peer, other]) {
      writeRnbdSessInfo(member.request.userView, 0, 2, new Uint8Array(16).fill(7));
      member.send(true, RNBD_SESS_INFO_BYTES, RNBD_SESS_INFO_BYTES);
      expect(member.answer()).toBe(0);
    }
    const id = peer.openId("slow");
    const otherId = other.openId("slow");
    peer.io(id, RNBD_OP.WRITE, 0, 512);
    server.onSessionDown(peer.session);
    expect(other.close(otherId)).toBe(0);
    const stranger = join(3, "red");
    expect(stranger.open("slow", RW)).toBe("EPERM");
    slow.finish();
    expect(peer.answer()).toBe(0);
    expect(stranger.openId("slow")).toBe(0);
  });

  it("SESS_INFO without a group, as Linux sends it → the session is of none", () => {
    writeRnbdSessInfo(peer.request.userView, 0, 2, new Uint8Array(16).fill(7));
    peer.send(true, RNBD_SESS_INFO_BYTES, RNBD_SESS_INFO_BYTES);
    peer.answer();
    writeRnbdSessInfo(peer.request.userView, 0, 2);
    peer.send(true, RNBD_SESS_INFO_BYTES, RNBD_SESS_INFO_BYTES);
    expect(peer.answer()).toBe(0);
    expect(rnbdSessInfoHasGroup(peer.request.memory.view, 0)).toBe(false);
    peer.openId("vol1");
    expect(join(2, "green").open("vol1", RW)).toBe("EPERM");
  });

  it("OPEN → what the device is, ids from 0", () => {
    server.addVolume("vol2", new MemoryDevice({ name: "b", sizeBytes: 4096 }), { readOnly: true });
    expect(peer.open("vol1", RW)).toMatchObject({
      deviceId: 0,
      sectorCount: 2048,
      logicalBlockBytes: 512,
      physicalBlockBytes: 4096,
      cachePolicy: 1,
      secureDiscard: 0,
    });
    expect(peer.open("vol2", RO)).toMatchObject({
      deviceId: 1,
      sectorCount: 8,
      discardSectorsMax: 0,
      writeZeroesSectorsMax: 0,
    });
  });

  it("OPEN of what is open in this session → the same id, whatever the mode", () => {
    const id = peer.openId("vol1", RO);
    expect(peer.openId("//vol1/", RW)).toBe(id);
    expect(server.opens()).toHaveLength(1);
    expect(peer.close(id)).toBe(0);
    expect(server.opens()).toHaveLength(0);
  });

  it.each([
    ["unknown name", "vol9", RO, "ENOENT"],
    ["name with ..", "../vol1", RO, "EINVAL"],
    ["nothing but slashes", "//", RO, "EINVAL"],
    ["no such mode", "vol1", 3, "EINVAL"],
  ])("OPEN: %s → refused", (_, name, access, code) => {
    expect(peer.open(name, access)).toBe(code);
  });

  it("OPEN without a NUL, too short, as a WRITE, or without room for the answer → EINVAL", () => {
    peer.request.userMessage.fill(0x61);
    peer.request.userMessage.set([2, 0, 0, 0, RO], 0);
    peer.send(true, RNBD_OPEN_BYTES, RNBD_OPEN_RSP_BYTES);
    expect(peer.answer()).toBe(ERRNO.EINVAL);
    writeRnbdOpen(peer.request.userView, 0, RO, "vol1");
    peer.send(true, RNBD_OPEN_BYTES - 1, RNBD_OPEN_RSP_BYTES);
    expect(peer.answer()).toBe(ERRNO.EINVAL);
    peer.send(false, RNBD_OPEN_BYTES, RNBD_OPEN_RSP_BYTES);
    expect(peer.answer()).toBe(ERRNO.EINVAL);
    peer.send(true, RNBD_OPEN_BYTES, RNBD_OPEN_RSP_BYTES - 1);
    expect(peer.answer()).toBe(ERRNO.EINVAL);
  });

  it("the epoch of a volume → in OPEN_RSP", () => {
    server.addVolume("vol2", disk, { epoch: { high: 1, low: 2 } });
    expect(peer.open("vol2", RO)).toMatchObject({ epochHigh: 1, epochLow: 2 });
    expect(peer.open("vol1", RO)).toMatchObject({ epochHigh: 0, epochLow: 0 });
  });

  it("OPEN → asks the device for its size first", () => {
    const slow = new SlowDevice();
    server.addVolume("slow", slow);
    peer.open("slow", RO);
    expect(slow.refreshes).toBe(1);
  });
});

describe("rnbd server: who may open how, over all sessions", () => {
  it.each([
    [[RW], RO, "ok"],
    [[RO, RO], RW, "ok"],
    [[RW], RW, "EPERM"],
    [[RW], MIGRATION, "ok"],
    [[MIGRATION], RW, "EPERM"],
    [[MIGRATION], MIGRATION, "ok"],
    [[RW, MIGRATION], MIGRATION, "EPERM"],
    [[RW, MIGRATION], RO, "ok"],
  ])("open as %j → another as %i: %s", (before, access, outcome) => {
    before.forEach((mode, index) => {
      expect(join(10 + index, `s${index}`).open("vol1", mode)).toBeTypeOf("object");
    });
    const answer = peer.open("vol1", access);
    expect(typeof answer === "string" ? answer : "ok").toBe(outcome);
  });

  it("the writer's session goes → the next may write", () => {
    const other = join(2, "red");
    other.openId("vol1", RW);
    expect(peer.open("vol1", RW)).toBe("EPERM");
    server.onSessionDown(other.session);
    expect(peer.open("vol1", RW)).toBeTypeOf("object");
  });

  it("the writer's last write is still in the device → nobody else may write yet", () => {
    const slow = new SlowDevice();
    server.addVolume("slow", slow);
    const other = join(2, "red");
    const id = other.openId("slow", RW);
    other.io(id, RNBD_OP.WRITE, 0, 512);
    expect(peer.open("slow", RW)).toBe("EPERM");
    server.onSessionDown(other.session);
    expect(peer.open("slow", RW)).toBe("EPERM");
    slow.finish();
    expect(other.answer()).toBe(0);
    expect(peer.open("slow", RW)).toBeTypeOf("object");
  });

  it("a read-only volume or device → EROFS for writers", () => {
    server.addVolume("vol2", disk, { readOnly: true });
    const fixed = new MemoryDevice({ name: "c", sizeBytes: 4096, readOnly: true });
    server.addVolume("vol3", fixed);
    expect(peer.open("vol2", RW)).toBe("EROFS");
    expect(peer.open("vol3", MIGRATION)).toBe("EROFS");
  });

  it("the access rule says no → its errno, and no right is taken", () => {
    const attempts: OpenAttempt[] = [];
    server = new RnbdServer({
      authorize: (attempt) => {
        attempts.push(attempt);
        return { errno: attempt.sessionName === "blue" ? ERRNO.EACCES : 0, exclusive: false };
      },
    });
    server.addVolume("vol1", disk);
    peer = join(1, "blue");
    expect(peer.open("vol1", RW)).toBe("EACCES");
    expect(join(2, "red").open("vol1", RW)).toBeTypeOf("object");
    expect(attempts[0]).toMatchObject({ volumeName: "vol1", sessionName: "blue", access: RW });
    expect(attempts[0]?.clientAddress.toString()).toBe("192.0.2.1");
  });
});

describe("rnbd server: I/O", () => {
  let id: number;
  beforeEach(() => {
    id = peer.openId("vol1");
  });

  it("write, read back → the bytes, wherever the sector lies", () => {
    peer.request.memory.bytes.fill(0x5a, 0, 4096);
    expect(peer.runIo(id, RNBD_OP.WRITE | RNBD_FLAG.FUA, 8, 4096)).toBe(0);
    peer.request.memory.bytes.fill(0);
    expect(peer.runIo(id, RNBD_OP.READ | RNBD_FLAG.SYNC, 8, 4096)).toBe(0);
    expect(peer.request.memory.bytes.subarray(0, 4096).every((byte) => byte === 0x5a)).toBe(true);
    expect(server.volume("vol1")?.counters).toMatchObject({
      reads: 1,
      readBytes: 4096,
      writes: 1,
      writeBytes: 4096,
      errors: 0,
    });
  });

  it("flush with sector all ones, discard and write zeroes without data → done", () => {
    writeRnbdIo(peer.request.userView, 0, id, 0xffff_ffff, 0xffff_ffff, 0x302, 0);
    peer.send(true, RNBD_IO_BYTES, 0);
    expect(peer.answer()).toBe(0);
    expect(peer.runIo(id, RNBD_OP.DISCARD, 0, 65_536, 0)).toBe(0);
    expect(peer.runIo(id, RNBD_OP.WRITE_ZEROES | RNBD_FLAG.NOUNMAP, 0, 65_536, 0)).toBe(0);
  });

  it.each([
    ["secure erase", RNBD_OP.SECURE_ERASE, 0, 4096, 0, "EOPNOTSUPP"],
    ["unknown operation", 77, 0, 4096, 4096, "EOPNOTSUPP"],
    ["bytes beyond the data (read)", RNBD_OP.READ, 0, 4096, 512, "EINVAL"],
    ["bytes beyond the data (write)", RNBD_OP.WRITE, 0, 4096, 512, "EINVAL"],
    ["data beyond the bytes", RNBD_OP.WRITE, 0, 512, 4096, "EINVAL"],
    ["nothing at all", RNBD_OP.WRITE, 0, 0, 0, "EINVAL"],
    ["discard with data", RNBD_OP.DISCARD, 0, 4096, 4096, "EINVAL"],
    ["flush with data", RNBD_OP.FLUSH, 0, 0, 512, "EINVAL"],
    ["beyond the end", RNBD_OP.READ, 2047, 1024, 1024, "EINVAL"],
    ["a length of no whole sectors", RNBD_OP.READ, 0, 100, 100, "EINVAL"],
  ])("%s → refused", (_, operation, sector, bytes, data, code) => {
    expect(errnoName(peer.runIo(id, operation, sector, bytes, data))).toBe(code);
    expect(server.volume("vol1")?.counters.errors).toBe(1);
  });

  it("a sector that has no byte offset → EINVAL", () => {
    for (const high of [0x1000, 0x20_0000, 0xffff_ffff]) {
      writeRnbdIo(peer.request.userView, 0, id, high, 0, RNBD_OP.READ, 512);
      peer.send(true, RNBD_IO_BYTES, 512);
      expect(peer.answer()).toBe(ERRNO.EINVAL);
    }
  });

  it("a read in a WRITE, a write in a READ → EINVAL", () => {
    writeRnbdIo(peer.request.userView, 0, id, 0, 0, RNBD_OP.READ, 512);
    peer.send(false, RNBD_IO_BYTES, 512);
    expect(peer.answer()).toBe(ERRNO.EINVAL);
    writeRnbdIo(peer.request.userView, 0, id, 0, 0, RNBD_OP.WRITE, 512);
    peer.send(true, RNBD_IO_BYTES, 512);
    expect(peer.answer()).toBe(ERRNO.EINVAL);
  });

  it("changes through a read-only open → EROFS", () => {
    const reader = join(2, "red");
    const readerId = reader.openId("vol1", RO);
    expect(reader.runIo(readerId, RNBD_OP.WRITE, 0, 512)).toBe(ERRNO.EROFS);
    expect(reader.runIo(readerId, RNBD_OP.DISCARD, 0, 512, 0)).toBe(ERRNO.EROFS);
    expect(reader.runIo(readerId, RNBD_OP.WRITE_ZEROES, 0, 512, 0)).toBe(ERRNO.EROFS);
    expect(reader.runIo(readerId, RNBD_OP.READ, 0, 512)).toBe(0);
    expect(reader.runIo(readerId, RNBD_OP.FLUSH, 0, 0)).toBe(0);
  });

  it("an id that is closed, of another session, or none → ENOTCONN; no id ever comes twice", () => {
    const other = join(2, "red");
    expect(other.runIo(id, RNBD_OP.READ, 0, 512)).toBe(ERRNO.ENOTCONN);
    expect(peer.close(id)).toBe(0);
    expect(peer.close(id)).toBe(0);
    expect(peer.runIo(id, RNBD_OP.READ, 0, 512)).toBe(ERRNO.ENOTCONN);
    const ids = new Set([id]);
    for (let i = 0; i < 2000; i++) {
      const next = peer.openId("vol1");
      expect(ids.has(next)).toBe(false);
      ids.add(next);
      peer.close(next);
    }
  });

  it.each([0, 1, 3, 7, 23])("a message of %i bytes → EINVAL", (length) => {
    writeRnbdIo(peer.request.userView, 0, id, 0, 0, RNBD_OP.READ, 512);
    peer.send(true, length, 512);
    expect(peer.answer()).toBe(ERRNO.EINVAL);
  });

  it("an IO message without priority → taken", () => {
    writeRnbdIo(peer.request.userView, 0, id, 0, 0, RNBD_OP.READ, 512);
    peer.send(true, 24, 512);
    expect(peer.answer()).toBe(0);
  });

  it("a message of an unknown type, or one that only servers send → EINVAL", () => {
    for (const type of [1, 3, 6, 0xffff]) {
      peer.request.userView.setUint16(0, type, true);
      peer.send(true, RNBD_OPEN_BYTES, RNBD_OPEN_RSP_BYTES);
      expect(peer.answer()).toBe(ERRNO.EINVAL);
    }
  });
});

describe("rnbd server: durability by flags", () => {
  function start(limits: Partial<BlockLimits>, operation: number): SlowDevice {
    const slow = new SlowDevice(limits);
    server.addVolume("slow", slow);
    peer.io(peer.openId("slow"), operation, 1, 512);
    return slow;
  }

  it("FUA where the device has it → passed on", () => {
    const slow = start({ volatileCache: true, fua: true }, RNBD_OP.WRITE | RNBD_FLAG.FUA);
    expect(slow.log).toEqual([`WRITE 512+512/${BLOCK_FLAG.FUA}`]);
  });

  it("FUA where the device has not → a flush behind the write, and its error is the answer", () => {
    const slow = start({ volatileCache: true, fua: false }, RNBD_OP.WRITE | RNBD_FLAG.FUA);
    const told: number[][] = [];
    const volume = server.volume("slow");
    if (volume !== null) volume.onDeviceError = (operation, errno) => told.push([operation, errno]);
    expect(slow.log).toEqual(["WRITE 512+512/0"]);
    slow.finish();
    slow.pump();
    expect(peer.answers).toEqual([]);
    expect(slow.log[0]).toMatch(/^FLUSH/);
    slow.finish(ERRNO.EIO);
    expect(peer.answer()).toBe(ERRNO.EIO);
    expect(volume?.counters.errors).toBe(1);
    expect(told).toEqual([[BLOCK_OPERATION.FLUSH, ERRNO.EIO]]);
  });

  it("PREFLUSH → a flush in front; when it fails, no write", () => {
    const slow = start({ volatileCache: true, fua: true }, RNBD_OP.WRITE | RNBD_FLAG.PREFLUSH);
    expect(slow.log[0]).toMatch(/^FLUSH/);
    slow.finish();
    slow.pump();
    expect(slow.log).toEqual(["WRITE 512+512/0"]);
    slow.finish();
    expect(peer.answer()).toBe(0);
    peer.io(peer.openId("slow"), RNBD_OP.WRITE | RNBD_FLAG.PREFLUSH, 1, 512);
    slow.finish(ERRNO.EIO);
    expect(peer.answer()).toBe(ERRNO.EIO);
    expect(slow.log).toEqual([]);
  });
});

describe("rnbd server: volumes that come and go", () => {
  it("removed with I/O in flight → ids end at once, drained when the last request is", () => {
    const slow = new SlowDevice();
    server.addVolume("slow", slow);
    const id = peer.openId("slow");
    peer.io(id, RNBD_OP.READ, 0, 512);
    let drained = false;
    expect(server.removeVolume("slow", () => (drained = true))).toBe(true);
    server.pump(0);
    expect(drained).toBe(false);
    const other = join(2, "red");
    expect(other.open("slow", RO)).toBe("ENOENT");
    slow.finish();
    expect(peer.answer()).toBe(0);
    expect(drained).toBe(true);
    expect(peer.runIo(id, RNBD_OP.READ, 0, 512)).toBe(ERRNO.ENOTCONN);
    expect(server.removeVolume("slow")).toBe(false);
  });

  it("removed while idle → drained at the next pump, which is due", () => {
    let drained = false;
    server.removeVolume("vol1", () => (drained = true));
    expect(drained).toBe(false);
    expect(server.deadlineNs()).toBe(0);
    server.pump(0);
    expect(drained).toBe(true);
    expect(server.deadlineNs()).toBe(Infinity);
  });

  it("a volume resized → its size at the next OPEN", () => {
    peer.openId("vol1");
    disk.resize(1 << 21);
    expect(peer.open("vol1", RW)).toMatchObject({ sectorCount: 4096 });
  });

  it("names that can't be, or are taken → told when added", () => {
    const code = (name: string) => {
      try {
        server.addVolume(name, disk);
        return "ok";
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    expect(code("vol1")).toBe("EEXIST");
    expect(code("/vol1")).toBe("EEXIST");
    expect(code("a..b")).toBe("EINVAL");
    expect(code("")).toBe("EINVAL");
    expect(code("x".repeat(255))).toBe("EINVAL");
    expect(code("dir/vol1")).toBe("ok");
    const big = new MemoryDevice({ name: "d", sizeBytes: 65_536, logicalBlockBytes: 65_536 });
    expect(() => server.addVolume("big", big)).toThrow("32768");
  });

  it("more than 1024 devices in a session → EMFILE", () => {
    for (let i = 0; i < 1024; i++) {
      server.addVolume(`v${i}`, disk);
      expect(peer.openId(`v${i}`, RO)).toBe(i);
    }
    expect(peer.open("vol1", RO)).toBe("EMFILE");
    expect(peer.close(5)).toBe(0);
    expect(peer.openId("vol1", RO)).toBe(5 + 1024);
  });
});
