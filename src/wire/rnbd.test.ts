// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  isRnbdName,
  RNBD_ACCESS,
  RNBD_CLOSE_BYTES,
  RNBD_FLAG,
  RNBD_GROUP_BYTES,
  RNBD_IO_BYTES,
  RNBD_OP,
  RNBD_OPEN_BYTES,
  RNBD_OPEN_RSP_BYTES,
  RNBD_SESS_INFO_BYTES,
  RNBD_TYPE,
  type RnbdOpenResponse,
  readRnbdOpenResponse,
  rnbdDeviceId,
  rnbdIoBytes,
  rnbdIoFlags,
  rnbdIoOperation,
  rnbdIoSectorHigh,
  rnbdIoSectorLow,
  rnbdOpenAccess,
  rnbdOpenName,
  rnbdSessInfoGroup,
  rnbdSessInfoHasGroup,
  rnbdSessInfoVersion,
  rnbdType,
  writeRnbdClose,
  writeRnbdDeviceId,
  writeRnbdIo,
  writeRnbdOpen,
  writeRnbdOpenResponse,
  writeRnbdSessInfo,
  writeRnbdSessInfoResponse,
} from "./rnbd.js";

/**
 * Writes at an odd offset into bytes that are all ones; whatever isn't written on purpose shows.
 */
function written(length: number, write: (view: DataView, offset: number) => void): string {
  const bytes = new Uint8Array(length + 2).fill(0xff);
  write(new DataView(bytes.buffer), 1);
  expect(bytes[0]).toBe(0xff);
  expect(bytes[length + 1]).toBe(0xff);
  return hex(bytes.subarray(1, length + 1));
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function viewOf(text: string): DataView {
  const bytes = Uint8Array.from(text.trim().split(/\s+/), (byte) => Number.parseInt(byte, 16));
  return new DataView(bytes.buffer);
}

const OPEN_RSP = `03 00 00 00 00 00 00 00 00 00 02 00 00 00 00 00 ff 00 00 00 00 00 00 00
  ff ff 7f 00 00 02 00 00 00 00 00 00 00 02 00 02 80 00 00 00 00 03 00 00 00 00 00 00 00 00 00 00`;
const WRITE_IO = `04 00 00 00 00 00 00 00 08 00 00 00 00 00 00 00 01 01 00 00 00 10 00 00
  04 40 00 00 00 00 00 00`;
const FLUSH_IO = `04 00 00 00 00 00 00 00 ff ff ff ff ff ff ff ff 02 03 00 00 00 00 00 00
  00 00 00 00 00 00 00 00`;
const DISCARD_IO = `04 00 00 00 00 00 00 00 00 08 00 00 00 00 00 00 03 01 00 00 00 00 01 00
  04 40 00 00 00 00 00 00`;

describe("rnbd: messages that two Linux 6.1 kernels exchanged (facts page 19)", () => {
  it("SESS_INFO and its response → type and version, zeroes otherwise", () => {
    const zeroes = " 00".repeat(31);
    expect(written(RNBD_SESS_INFO_BYTES, (v, o) => writeRnbdSessInfo(v, o, 2))).toBe(
      `00 00 00 00 02${zeroes}`,
    );
    expect(written(RNBD_SESS_INFO_BYTES, (v, o) => writeRnbdSessInfoResponse(v, o, 2))).toBe(
      `01 00 00 00 02${zeroes}`,
    );
    expect(rnbdSessInfoVersion(viewOf(`01 00 00 00 02${zeroes}`), 0)).toBe(2);
  });

  it("a group in SESS_INFO → behind a mark; the answer has the mark alone", () => {
    const group = Uint8Array.from({ length: RNBD_GROUP_BYTES }, (_, i) => i + 1);
    const mark = "66 61 72 70 61 67 65 47";
    const named = written(RNBD_SESS_INFO_BYTES, (v, o) => writeRnbdSessInfo(v, o, 2, group));
    expect(named).toBe(
      `00 00 00 00 02 00 00 00 ${mark} 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 00 00 00 00`,
    );
    expect(rnbdSessInfoHasGroup(viewOf(named), 0)).toBe(true);
    expect([...rnbdSessInfoGroup(viewOf(named), 0)]).toEqual([...group]);
    const answer = (takes: boolean) =>
      written(RNBD_SESS_INFO_BYTES, (v, o) => writeRnbdSessInfoResponse(v, o, 2, takes));
    expect(answer(true)).toBe(`01 00 00 00 02 00 00 00 ${mark}${" 00".repeat(20)}`);
    expect(rnbdSessInfoHasGroup(viewOf(answer(true)), 0)).toBe(true);
    expect(rnbdSessInfoHasGroup(viewOf(answer(false)), 0)).toBe(false);
    expect(rnbdSessInfoHasGroup(viewOf(named.replace("66 61", "66 60")), 0)).toBe(false);
  });

  it("OPEN_RSP of a 64 MiB device with write cache and FUA → its fields, the same bytes", () => {
    const response = readRnbdOpenResponse(viewOf(OPEN_RSP), 0) as RnbdOpenResponse;
    expect(response).toEqual({
      deviceId: 0,
      sectorCount: 131_072,
      hardwareSectorsMax: 255,
      writeZeroesSectorsMax: 0,
      discardSectorsMax: 0x7fffff,
      discardGranularityBytes: 512,
      discardAlignmentBytes: 0,
      physicalBlockBytes: 512,
      logicalBlockBytes: 512,
      segmentsMax: 128,
      secureDiscard: 0,
      rotational: false,
      cachePolicy: 3,
      epochHigh: 0,
      epochLow: 0,
    });
    const bytes = written(RNBD_OPEN_RSP_BYTES, (v, o) => writeRnbdOpenResponse(v, o, response));
    expect(bytes).toBe(hex(new Uint8Array(viewOf(OPEN_RSP).buffer)));
  });

  it.each([
    ["write of 4 KiB at sector 8", WRITE_IO, RNBD_OP.WRITE, RNBD_FLAG.SYNC, 0, 8, 4096],
    ["flush", FLUSH_IO, RNBD_OP.FLUSH, RNBD_FLAG.SYNC | RNBD_FLAG.FUA, 0xffff_ffff, 0xffff_ffff, 0],
    ["discard of 64 KiB", DISCARD_IO, RNBD_OP.DISCARD, RNBD_FLAG.SYNC, 0, 2048, 65_536],
  ])("IO: %s → its fields, and the same bytes", (_, text, operation, flags, high, low, count) => {
    const view = viewOf(text);
    expect(rnbdType(view, 0)).toBe(RNBD_TYPE.IO);
    expect(rnbdDeviceId(view, 0)).toBe(0);
    expect(rnbdIoOperation(view, 0)).toBe(operation);
    expect(rnbdIoFlags(view, 0)).toBe(flags);
    expect(rnbdIoSectorHigh(view, 0)).toBe(high);
    expect(rnbdIoSectorLow(view, 0)).toBe(low);
    expect(rnbdIoBytes(view, 0)).toBe(count);
    const ours = written(RNBD_IO_BYTES, (v, o) =>
      writeRnbdIo(v, o, 0, high, low, operation | flags, count),
    );
    // Linux puts an I/O priority at 24 where the task has one; farpage has none.
    view.setUint16(24, 0, true);
    expect(ours).toBe(hex(new Uint8Array(view.buffer)));
  });

  it("CLOSE of device 0 → 8 bytes", () => {
    expect(written(RNBD_CLOSE_BYTES, (v, o) => writeRnbdClose(v, o, 0))).toBe(
      "05 00 00 00 00 00 00 00",
    );
  });
});

describe("rnbd: OPEN", () => {
  const bytes = new Uint8Array(RNBD_OPEN_BYTES);
  const view = new DataView(bytes.buffer);

  it("any name that can travel → is read back, behind it zeroes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 80 }).filter(isRnbdName), (name) => {
        const access = RNBD_ACCESS.MIGRATION;
        bytes.fill(0xff);
        writeRnbdOpen(view, 0, access, name);
        expect(rnbdType(view, 0)).toBe(RNBD_TYPE.OPEN);
        expect(rnbdOpenAccess(view, 0)).toBe(access);
        expect(rnbdOpenName(bytes, 0)).toBe(name);
      }),
    );
  });

  it("255 bytes without a NUL → no name, whatever follows", () => {
    bytes.fill(0x61);
    bytes.fill(0, 261);
    expect(rnbdOpenName(bytes, 0)).toBeNull();
    bytes[260] = 0;
    expect(rnbdOpenName(bytes, 0)).toBe("a".repeat(254));
  });

  it("bytes after the NUL → ignored", () => {
    writeRnbdOpen(view, 0, RNBD_ACCESS.RW, "vol1");
    bytes.fill(0xee, 11);
    expect(rnbdOpenName(bytes, 0)).toBe("vol1");
  });

  it("a name that is no UTF-8 → null", () => {
    writeRnbdOpen(view, 0, RNBD_ACCESS.RW, "vol1");
    bytes[7] = 0xc0;
    expect(rnbdOpenName(bytes, 0)).toBeNull();
  });

  it("names that can't travel → told", () => {
    expect(isRnbdName("")).toBe(false);
    expect(isRnbdName("a\0b")).toBe(false);
    expect(isRnbdName("a".repeat(254))).toBe(true);
    expect(isRnbdName("a".repeat(255))).toBe(false);
    expect(isRnbdName("é".repeat(128))).toBe(false);
  });
});

describe("rnbd: OPEN_RSP and IO, any values", () => {
  const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
  const u16 = fc.integer({ min: 0, max: 0xffff });

  it("write then read → the same response", () => {
    const response = fc.record({
      deviceId: u32,
      sectorCount: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
      hardwareSectorsMax: u32,
      writeZeroesSectorsMax: u32,
      discardSectorsMax: u32,
      discardGranularityBytes: u32,
      discardAlignmentBytes: u32,
      physicalBlockBytes: u16,
      logicalBlockBytes: u16,
      segmentsMax: u16,
      secureDiscard: u16,
      rotational: fc.boolean(),
      cachePolicy: fc.integer({ min: 0, max: 3 }),
      epochHigh: u32,
      epochLow: u32,
    });
    fc.assert(
      fc.property(response, (value) => {
        const view = new DataView(new ArrayBuffer(RNBD_OPEN_RSP_BYTES + 3));
        writeRnbdOpenResponse(view, 3, value);
        expect(readRnbdOpenResponse(view, 3)).toEqual(value);
      }),
    );
  });

  it("a size of 2^53 sectors or a wrong type → null", () => {
    const view = viewOf(OPEN_RSP);
    view.setUint32(12, 0x20_0000, true);
    expect(readRnbdOpenResponse(view, 0)).toBeNull();
    view.setUint32(12, 0, true);
    view.setUint16(0, RNBD_TYPE.OPEN, true);
    expect(readRnbdOpenResponse(view, 0)).toBeNull();
  });

  it("a new device id → changes only that", () => {
    fc.assert(
      fc.property(u32, u32, (before, after) => {
        const view = new DataView(new ArrayBuffer(RNBD_IO_BYTES));
        writeRnbdIo(view, 0, before, 1, 2, RNBD_OP.WRITE, 512);
        writeRnbdDeviceId(view, 0, after);
        expect(written(RNBD_IO_BYTES, (v, o) => writeRnbdIo(v, o, after, 1, 2, 1, 512))).toBe(
          hex(new Uint8Array(view.buffer)),
        );
      }),
    );
  });
});
