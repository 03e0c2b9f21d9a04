// SPDX-License-Identifier: MIT
// The bytes of RTRS against messages seen between two Linux 6.1 peers (facts page, section 19) and
// against the tables of sections 3 to 7.

import { describe, expect, it } from "vitest";
import {
  decodeRtrsConnectReply,
  decodeRtrsConnectRequest,
  decodeRtrsInfoRequest,
  decodeRtrsInfoResponse,
  encodeRtrsConnectReply,
  encodeRtrsConnectRequest,
  isRtrsSessionName,
  RTRS_FLAG_NEED_INVAL,
  RTRS_FLAG_NEW_RKEY,
  RTRS_IMMEDIATE,
  RTRS_INFO_REQUEST_BYTES,
  RTRS_TYPE,
  rtrsChunkShift,
  rtrsDescriptorAddressHigh,
  rtrsDescriptorAddressLow,
  rtrsDescriptorKey,
  rtrsDescriptorLength,
  rtrsFitsImmediate,
  rtrsHeartbeatImmediate,
  rtrsImmediateType,
  rtrsReadFlags,
  rtrsReadSegmentCount,
  rtrsReplyErrno,
  rtrsReplyImmediate,
  rtrsReplyMessageId,
  rtrsRequestChunk,
  rtrsRequestImmediate,
  rtrsRequestOffset,
  rtrsRkeyResponseChunk,
  rtrsRkeyResponseKey,
  rtrsType,
  rtrsUserLength,
  writeRtrsDescriptor,
  writeRtrsInfoRequest,
  writeRtrsInfoResponse,
  writeRtrsReadHeader,
  writeRtrsRkeyResponse,
  writeRtrsWriteHeader,
} from "./rtrs.js";

function bytesOf(text: string, length?: number): Uint8Array {
  const values = text
    .trim()
    .split(/\s+/)
    .map((byte) => Number.parseInt(byte, 16));
  const bytes = new Uint8Array(length ?? values.length);
  bytes.set(values);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const CONNECT_REQUEST = bytesOf(`
  00 00 bd 1b 00 02 00 00 03 00 01 00
  0d 58 66 1d b9 f2 4f 10 96 cc f4 1a 3f dc ab 23
  dc c2 64 f3 bf 94 46 b9 90 23 d6 22 5f fb 85 bc
  01 00 00 00 00 00 00 00 00 00 00 00`);
const CONNECT_REPLY = bytesOf("bd 1b 00 02 00 00 00 02 00 f0 01 00 00 10 00 00 02 00 00 00", 56);
const INFO_RESPONSE = bytesOf(
  "01 00 01 00 00 00 00 00 00 00 04 84 9c 95 48 ff 27 03 00 00 00 00 00 04",
);

describe("connect request", () => {
  it("a Linux client's → its fields, and the same bytes again", () => {
    const request = decodeRtrsConnectRequest(CONNECT_REQUEST);
    if (typeof request === "string") throw new Error(request);
    expect(request.connectionId).toBe(0);
    expect(request.connectionCount).toBe(3);
    expect(request.reconnectCount).toBe(1);
    expect(request.firstConnection).toBe(true);
    expect([...request.pathUuid]).toEqual([...CONNECT_REQUEST.subarray(12, 28)]);
    expect([...request.pathsUuid]).toEqual([...CONNECT_REQUEST.subarray(28, 44)]);
    expect(encodeRtrsConnectRequest(request)).toEqual(CONNECT_REQUEST);
  });

  it("the bytes of the CM and the reserved ones → not looked at", () => {
    const bytes = CONNECT_REQUEST.slice();
    bytes[0] = 0x5a;
    bytes[44] = 0xff;
    bytes[55] = 1;
    expect(decodeRtrsConnectRequest(bytes)).toEqual(decodeRtrsConnectRequest(CONNECT_REQUEST));
  });

  it.each([
    ["TOO_SHORT", (bytes: Uint8Array) => bytes.slice(0, 55)],
    ["BAD_MAGIC", (bytes: Uint8Array) => bytes.fill(0xbc, 2, 3)],
    ["BAD_VERSION", (bytes: Uint8Array) => bytes.fill(3, 5, 6)],
    ["BAD_CONNECTION_NUMBER", (bytes: Uint8Array) => bytes.fill(3, 6, 7)],
    ["BAD_CONNECTION_NUMBER", (bytes: Uint8Array) => bytes.fill(0x20, 9, 10)],
    ["BAD_CONNECTION_NUMBER", (bytes: Uint8Array) => bytes.fill(0, 8, 10)],
  ])("%s → refused", (reason, spoil) => {
    expect(decodeRtrsConnectRequest(spoil(CONNECT_REQUEST.slice()))).toBe(reason);
  });

  it("another minor version → taken", () => {
    const bytes = CONNECT_REQUEST.slice();
    bytes[4] = 7;
    expect(typeof decodeRtrsConnectRequest(bytes)).toBe("object");
  });
});

describe("connect reply", () => {
  it("a Linux server's → its fields, and the same bytes again", () => {
    const reply = decodeRtrsConnectReply(CONNECT_REPLY);
    expect(reply).toEqual({
      errno: 0,
      queueDepth: 512,
      ioBytesMax: 126_976,
      headerBytesMax: 4096,
      flags: RTRS_FLAG_NEW_RKEY,
    });
    if (typeof reply === "object") expect(encodeRtrsConnectReply(reply)).toEqual(CONNECT_REPLY);
  });

  it("a rejection → its errno travels negative", () => {
    const nothing = { queueDepth: 0, ioBytesMax: 0, headerBytesMax: 0, flags: 0 };
    const bytes = encodeRtrsConnectReply({ errno: 17, ...nothing });
    expect([...bytes.subarray(4, 6)]).toEqual([0xef, 0xff]);
    expect(decodeRtrsConnectReply(bytes)).toMatchObject({ errno: 17 });
  });

  it("short, of another magic, of another major version → refused", () => {
    expect(decodeRtrsConnectReply(CONNECT_REPLY.subarray(0, 55))).toBe("TOO_SHORT");
    expect(decodeRtrsConnectReply(CONNECT_REPLY.slice().fill(0, 0, 1))).toBe("BAD_MAGIC");
    expect(decodeRtrsConnectReply(CONNECT_REPLY.slice().fill(1, 3, 4))).toBe("BAD_VERSION");
  });
});

describe("info exchange", () => {
  it("INFO_RSP of a fixed-key server → one region of 64 MiB at a kernel address", () => {
    const regions = decodeRtrsInfoResponse(viewOf(INFO_RESPONSE), 0, INFO_RESPONSE.length);
    expect(regions).toEqual([
      { addressHigh: 0xff48959c, addressLow: 0x84040000, rkey: 0x327, length: 64 << 20 },
    ]);
    const again = new Uint8Array(INFO_RESPONSE.length).fill(0xaa);
    writeRtrsInfoResponse(viewOf(again), 0, 1);
    writeRtrsDescriptor(viewOf(again), 8, 0xff48959c, 0x84040000, 0x327, 64 << 20);
    expect(again).toEqual(INFO_RESPONSE);
  });

  it("INFO_RSP short, of another type, of no regions → refused", () => {
    const view = viewOf(INFO_RESPONSE);
    expect(decodeRtrsInfoResponse(view, 0, 7)).toBe("TOO_SHORT");
    expect(decodeRtrsInfoResponse(view, 0, INFO_RESPONSE.length - 1)).toBe("TOO_SHORT");
    const spoilt = INFO_RESPONSE.slice();
    spoilt[0] = 2;
    expect(decodeRtrsInfoResponse(viewOf(spoilt), 0, spoilt.length)).toBe("BAD_TYPE");
    spoilt[0] = 1;
    spoilt[2] = 0;
    expect(decodeRtrsInfoResponse(viewOf(spoilt), 0, spoilt.length)).toBe("BAD_COUNT");
  });

  it("INFO_REQ → 272 bytes with the name, and the name again", () => {
    const bytes = new Uint8Array(RTRS_INFO_REQUEST_BYTES + 3).fill(0xaa);
    writeRtrsInfoRequest(bytes, 3, "blue-ü");
    expect(bytes[3 + 271]).toBe(0);
    expect(decodeRtrsInfoRequest(bytes, 3, RTRS_INFO_REQUEST_BYTES)).toEqual({ name: "blue-ü" });
  });

  it("INFO_REQ short, of another type, without NUL, with a bad name → refused", () => {
    const good = new Uint8Array(RTRS_INFO_REQUEST_BYTES);
    writeRtrsInfoRequest(good, 0, "blue");
    const decode = (change: (bytes: Uint8Array) => void, length = good.length) => {
      const bytes = good.slice();
      change(bytes);
      return decodeRtrsInfoRequest(bytes, 0, length);
    };
    expect(decode(() => {}, 271)).toBe("TOO_SHORT");
    expect(decode((bytes) => bytes.fill(1, 0, 1))).toBe("BAD_TYPE");
    expect(decode((bytes) => bytes.fill(0x61, 2, 257))).toBe("BAD_NAME");
    expect(decode((bytes) => bytes.fill(0x2e, 3, 4))).toBe("BAD_NAME");
    expect(decode((bytes) => bytes.fill(0x2f, 3, 4))).toBe("BAD_NAME");
    expect(decode((bytes) => bytes.fill(0, 2, 3))).toBe("BAD_NAME");
    expect(decode((bytes) => bytes.fill(0xff, 3, 4))).toBe("BAD_NAME");
  });

  it("session names → the server's rules", () => {
    expect(isRtrsSessionName("a")).toBe(true);
    expect(isRtrsSessionName("é".repeat(127))).toBe(true);
    expect(isRtrsSessionName("é".repeat(128))).toBe(false);
    for (const name of ["", "a/b", "a.b", "a\0b"]) expect(isRtrsSessionName(name)).toBe(false);
  });
});

describe("immediates", () => {
  it.each([
    [512, 19, 1, 4128, 0x00081020],
    [100, 21, 10, 8224, 0x01402020],
    [128, 21, 127, 0, 0x0fe00000],
    [1, 28, 0, 0x0fffffff, 0x0fffffff],
    [65_535, 12, 65_534, 4095, 0x0fffefff],
  ])("request, queue depth %i → shift %i", (queueDepth, shift, chunk, offset, immediate) => {
    expect(rtrsChunkShift(queueDepth)).toBe(shift);
    expect(rtrsRequestImmediate(chunk, offset, shift)).toBe(immediate);
    expect(rtrsImmediateType(immediate)).toBe(RTRS_IMMEDIATE.IO_REQUEST);
    expect(rtrsRequestChunk(immediate, shift)).toBe(chunk);
    expect(rtrsRequestOffset(immediate, shift)).toBe(offset);
  });

  it("replies of a Linux server → type, errno, chunk", () => {
    const { IO_REPLY, IO_REPLY_INVALIDATED } = RTRS_IMMEDIATE;
    expect(rtrsReplyImmediate(IO_REPLY_INVALIDATED, 0, 0)).toBe(0x20000000);
    expect(rtrsReplyImmediate(IO_REPLY_INVALIDATED, 107, 0)).toBe(0x23580000);
    const immediate = rtrsReplyImmediate(IO_REPLY, 511, 0x7ffff);
    expect(immediate).toBe(0x1fffffff);
    expect(rtrsReplyErrno(immediate)).toBe(511);
    expect(rtrsReplyMessageId(immediate)).toBe(0x7ffff);
  });

  it("heartbeat and acknowledgement → as on the wire, unsigned", () => {
    expect(rtrsHeartbeatImmediate(RTRS_IMMEDIATE.HEARTBEAT)).toBe(0x80000000);
    expect(rtrsHeartbeatImmediate(RTRS_IMMEDIATE.HEARTBEAT_ACK)).toBe(0x90000000);
    expect(rtrsImmediateType(0x90000000)).toBe(RTRS_IMMEDIATE.HEARTBEAT_ACK);
  });

  it("queue depth and chunk size → what fits 28 bits", () => {
    expect(rtrsFitsImmediate(512, 1 << 19)).toBe(true);
    expect(rtrsFitsImmediate(513, 1 << 19)).toBe(false);
    expect(rtrsFitsImmediate(512, (1 << 19) + 1)).toBe(false);
    expect(rtrsFitsImmediate(1, 1 << 28)).toBe(true);
  });
});

describe("request and reply headers", () => {
  it("SESS_INFO request of a Linux client → READ header and descriptor", () => {
    const expected = bytesOf(
      "03 00 24 00 01 00 01 00 c0 b4 29 c4 ed 7f 4a ff dc 03 00 00 24 00 00 00",
    );
    const view = viewOf(new Uint8Array(24).fill(0xaa));
    writeRtrsReadHeader(view, 0, 36, RTRS_FLAG_NEED_INVAL, 1);
    writeRtrsDescriptor(view, 8, 0xff4a7fed, 0xc429b4c0, 0x3dc, 36);
    expect(new Uint8Array(view.buffer)).toEqual(expected);
    expect(rtrsType(view, 0)).toBe(RTRS_TYPE.READ);
    expect(rtrsUserLength(view, 0)).toBe(36);
    expect(rtrsReadFlags(view, 0)).toBe(RTRS_FLAG_NEED_INVAL);
    expect(rtrsReadSegmentCount(view, 0)).toBe(1);
    expect(rtrsDescriptorAddressHigh(view, 8)).toBe(0xff4a7fed);
    expect(rtrsDescriptorAddressLow(view, 8)).toBe(0xc429b4c0);
    expect(rtrsDescriptorKey(view, 8)).toBe(0x3dc);
    expect(rtrsDescriptorLength(view, 8)).toBe(36);
  });

  it("write and flush of a Linux client → their headers", () => {
    const view = viewOf(new Uint8Array(12).fill(0xaa));
    writeRtrsWriteHeader(view, 0, 32);
    writeRtrsReadHeader(view, 4, 32, 0, 0);
    expect(new Uint8Array(view.buffer)).toEqual(bytesOf("02 00 20 00 03 00 20 00 00 00 00 00"));
  });

  it.each([
    ["04 00 00 00 bc 03 00 00", 0, 0x3bc],
    ["04 00 00 00 ef 03 00 00", 0, 0x3ef],
    ["04 00 ff 01 ff ff ff ff", 511, 0xffffffff],
  ])("RKEY_RSP %s → chunk %i", (text, chunk, rkey) => {
    const view = viewOf(bytesOf(text));
    expect(rtrsType(view, 0)).toBe(RTRS_TYPE.RKEY_RSP);
    expect(rtrsRkeyResponseChunk(view, 0)).toBe(chunk);
    expect(rtrsRkeyResponseKey(view, 0)).toBe(rkey);
    const again = viewOf(new Uint8Array(8).fill(0xaa));
    writeRtrsRkeyResponse(again, 0, chunk, rkey);
    expect(new Uint8Array(again.buffer)).toEqual(bytesOf(text));
  });
});
