// SPDX-License-Identifier: MIT
// RTRS messages as Linux 6.1 speaks them: the two messages in CM private data, the two of the info
// exchange, the headers of requests and replies, and the 32-bit immediate. Bytes only; what they
// mean to a session is `rtrs/`'s business. Facts: docs/rtrs.md (sections 2 to 7 of the
// facts page). Every field is little-endian; the immediate alone is a number that the transport
// writes in network order.
//
// Messages of the control plane are plain objects; headers of the I/O path are functions on
// (view, offset) that allocate nothing. Decoders never throw: they return a reason instead.

import { decodeUtf8, encodeUtf8 } from "../base/index.js";

export const RTRS_MAGIC = 0x1bbd;
export const RTRS_VERSION_MAJOR = 2;
export const RTRS_VERSION_MINOR = 0;
const RTRS_VERSION = (RTRS_VERSION_MAJOR << 8) | RTRS_VERSION_MINOR;

/** Bytes of a connect request and of a connect reply in CM private data. */
export const RTRS_CONNECT_BYTES = 56;
export const RTRS_INFO_REQUEST_BYTES = 272;
/** Bytes of an INFO_RSP before its first region descriptor, and of each descriptor. */
export const RTRS_INFO_RESPONSE_HEADER_BYTES = 8;
export const RTRS_DESCRIPTOR_BYTES = 16;
export const RTRS_WRITE_HEADER_BYTES = 4;
/** A READ header before its descriptor. */
export const RTRS_READ_HEADER_BYTES = 8;
export const RTRS_RKEY_RESPONSE_BYTES = 8;
/** A name with its terminating NUL. */
export const RTRS_NAME_BYTES = 255;
export const RTRS_UUID_BYTES = 16;

export const RTRS_CONNECTION_COUNT_MAX = 4096;
export const RTRS_PATH_COUNT_MAX = 128;
export const RTRS_QUEUE_DEPTH_MAX = 65_535;
export const RTRS_CHUNK_BYTES_MIN = 8192;

/** Message types, the first 16 bits of every message outside CM private data. */
export const RTRS_TYPE = {
  INFO_REQ: 0,
  INFO_RSP: 1,
  WRITE: 2,
  READ: 3,
  RKEY_RSP: 4,
} as const;

/** Flag of a READ header: the server shall invalidate the client's key before it replies. */
export const RTRS_FLAG_NEED_INVAL = 1;
/** Flag of a connect reply: the server rotates its chunks' keys. */
export const RTRS_FLAG_NEW_RKEY = 2;

/** Bits 31..28 of an immediate. */
export const RTRS_IMMEDIATE = {
  IO_REQUEST: 0,
  IO_REPLY: 1,
  /** A reply before which a SEND with invalidate for the same request went. */
  IO_REPLY_INVALIDATED: 2,
  HEARTBEAT: 8,
  HEARTBEAT_ACK: 9,
} as const;

const PAYLOAD_BITS = 28;
const PAYLOAD_MASK = (1 << PAYLOAD_BITS) - 1;
const MESSAGE_ID_BITS = 19;
const MESSAGE_ID_MASK = (1 << MESSAGE_ID_BITS) - 1;
const ERRNO_MASK = 0x1ff;

// ---------------------------------------------------------------------------------- immediates
//
//   31      28 27                                                0
//  +----------+---------------------------------------------------+
//  |  type 4  | request: chunk number << S + header offset         |
//  |          | reply:   errno (9 bits) << 19 + message id (19)    |
//  +----------+---------------------------------------------------+

/**
 * S of an I/O request's immediate: bits of the header offset, 28 - ceil(log2(queue depth)).
 * @param queueDepth 1 .. 65,535.
 */
export function rtrsChunkShift(queueDepth: number): number {
  return PAYLOAD_BITS - ceilLog2(queueDepth);
}

/** Whether chunk numbers below `queueDepth` and offsets below `chunkBytes` fit one immediate. */
export function rtrsFitsImmediate(queueDepth: number, chunkBytes: number): boolean {
  return ceilLog2(queueDepth) + ceilLog2(chunkBytes) <= PAYLOAD_BITS;
}

function ceilLog2(n: number): number {
  return n <= 1 ? 0 : 32 - Math.clz32(n - 1);
}

export function rtrsImmediateType(immediate: number): number {
  return immediate >>> PAYLOAD_BITS;
}

/** The immediate of a request whose RTRS header is at `headerOffset` of chunk `chunk`. */
export function rtrsRequestImmediate(chunk: number, headerOffset: number, shift: number): number {
  return ((chunk << shift) | headerOffset) >>> 0;
}

export function rtrsRequestChunk(immediate: number, shift: number): number {
  return (immediate & PAYLOAD_MASK) >>> shift;
}

export function rtrsRequestOffset(immediate: number, shift: number): number {
  return immediate & PAYLOAD_MASK & ((1 << shift) - 1);
}

/**
 * The immediate of a reply.
 * @param type IO_REPLY or IO_REPLY_INVALIDATED.
 * @param errno 0 or a positive errno below 512.
 * @param messageId the chunk number.
 */
export function rtrsReplyImmediate(type: number, errno: number, messageId: number): number {
  const payload = ((errno & ERRNO_MASK) << MESSAGE_ID_BITS) | messageId;
  return ((type << PAYLOAD_BITS) | payload) >>> 0;
}

export function rtrsReplyErrno(immediate: number): number {
  return (immediate >>> MESSAGE_ID_BITS) & ERRNO_MASK;
}

export function rtrsReplyMessageId(immediate: number): number {
  return immediate & MESSAGE_ID_MASK;
}

/** The immediate of a heartbeat or of its acknowledgement. */
export function rtrsHeartbeatImmediate(type: number): number {
  return (type << PAYLOAD_BITS) >>> 0;
}

// ------------------------------------------------------------------------- connect request, reply

/** Why a message was refused. */
export type RtrsReason =
  | "TOO_SHORT"
  | "BAD_MAGIC"
  | "BAD_VERSION"
  | "BAD_CONNECTION_NUMBER"
  | "BAD_TYPE"
  | "BAD_NAME"
  | "BAD_COUNT";

/** What a client says in the private data of each CM REQ (facts page 4.3). */
export interface RtrsConnectRequest {
  /** This connection, 0 .. connectionCount - 1; 0 is the service connection. */
  readonly connectionId: number;
  /** Connections of the path; the same in all its requests. */
  readonly connectionCount: number;
  /** 1 on a path's first attempt, one more on each later one; wraps at 2^16. */
  readonly reconnectCount: number;
  /** 16 bytes, the path's for its life. */
  readonly pathUuid: Uint8Array;
  /** 16 bytes, the session's for its life. */
  readonly pathsUuid: Uint8Array;
  /** The server may create a session for an unknown `pathsUuid`. */
  readonly firstConnection: boolean;
}

/** What a server answers in the private data of REP or REJ (facts page 4.4). */
export interface RtrsConnectReply {
  /** 0 in a REP; in a REJ the positive errno (it travels negative). */
  readonly errno: number;
  /** 1 .. 65,535; 0 in a REJ, like all that follows. */
  readonly queueDepth: number;
  /** Chunk size less `headerBytesMax`. */
  readonly ioBytesMax: number;
  readonly headerBytesMax: number;
  /** `RTRS_FLAG_NEW_RKEY` or 0. */
  readonly flags: number;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A fresh 56-byte message. */
export function encodeRtrsConnectRequest(request: RtrsConnectRequest): Uint8Array {
  const bytes = new Uint8Array(RTRS_CONNECT_BYTES);
  const view = viewOf(bytes);
  view.setUint16(2, RTRS_MAGIC, true);
  view.setUint16(4, RTRS_VERSION, true);
  view.setUint16(6, request.connectionId, true);
  view.setUint16(8, request.connectionCount, true);
  view.setUint16(10, request.reconnectCount, true);
  bytes.set(request.pathUuid, 12);
  bytes.set(request.pathsUuid, 28);
  view.setUint8(44, request.firstConnection ? 1 : 0);
  return bytes;
}

/**
 * Bytes 0 and 1 belong to the CM and the reserved ones to the future: neither is looked at.
 * @param bytes private data after the IP CM header; what follows byte 55 is ignored. Copied.
 */
export function decodeRtrsConnectRequest(bytes: Uint8Array): RtrsConnectRequest | RtrsReason {
  if (bytes.length < RTRS_CONNECT_BYTES) return "TOO_SHORT";
  const view = viewOf(bytes);
  if (view.getUint16(2, true) !== RTRS_MAGIC) return "BAD_MAGIC";
  if (view.getUint16(4, true) >>> 8 !== RTRS_VERSION_MAJOR) return "BAD_VERSION";
  const connectionId = view.getUint16(6, true);
  const connectionCount = view.getUint16(8, true);
  if (connectionCount > RTRS_CONNECTION_COUNT_MAX || connectionId >= connectionCount) {
    return "BAD_CONNECTION_NUMBER";
  }
  return {
    connectionId,
    connectionCount,
    reconnectCount: view.getUint16(10, true),
    pathUuid: bytes.slice(12, 28),
    pathsUuid: bytes.slice(28, 44),
    firstConnection: (view.getUint8(44) & 1) !== 0,
  };
}

/** A fresh 56-byte message. */
export function encodeRtrsConnectReply(reply: RtrsConnectReply): Uint8Array {
  const bytes = new Uint8Array(RTRS_CONNECT_BYTES);
  const view = viewOf(bytes);
  view.setUint16(0, RTRS_MAGIC, true);
  view.setUint16(2, RTRS_VERSION, true);
  view.setInt16(4, -reply.errno, true);
  view.setUint16(6, reply.queueDepth, true);
  view.setUint32(8, reply.ioBytesMax, true);
  view.setUint32(12, reply.headerBytesMax, true);
  view.setUint32(16, reply.flags, true);
  return bytes;
}

/** @param bytes private data of a REP or REJ; what follows byte 55 is ignored. */
export function decodeRtrsConnectReply(bytes: Uint8Array): RtrsConnectReply | RtrsReason {
  if (bytes.length < RTRS_CONNECT_BYTES) return "TOO_SHORT";
  const view = viewOf(bytes);
  if (view.getUint16(0, true) !== RTRS_MAGIC) return "BAD_MAGIC";
  if (view.getUint16(2, true) >>> 8 !== RTRS_VERSION_MAJOR) return "BAD_VERSION";
  return {
    errno: Math.abs(view.getInt16(4, true)),
    queueDepth: view.getUint16(6, true),
    ioBytesMax: view.getUint32(8, true),
    headerBytesMax: view.getUint32(12, true),
    flags: view.getUint32(16, true),
  };
}

// ------------------------------------------------------------------------------- info exchange

/**
 * Whether a server accepts `name`: 1 .. 254 bytes of UTF-8, no "/", "." or NUL (facts page 5.1).
 */
export function isRtrsSessionName(name: string): boolean {
  if (name.includes("/") || name.includes(".") || name.includes("\0")) return false;
  const bytes = encodeUtf8(name).length;
  return bytes >= 1 && bytes < RTRS_NAME_BYTES;
}

/** Writes the 272 bytes of an INFO_REQ at `offset`. Preconditions: `isRtrsSessionName(name)`. */
export function writeRtrsInfoRequest(bytes: Uint8Array, offset: number, name: string): void {
  bytes.fill(0, offset, offset + RTRS_INFO_REQUEST_BYTES);
  bytes.set(encodeUtf8(name), offset + 2);
}

/**
 * The session name of an INFO_REQ of `length` bytes at `offset`, or why there is none; the rules of
 * `isRtrsSessionName` apply, and the name must be valid UTF-8 ended by a NUL.
 */
export function decodeRtrsInfoRequest(
  bytes: Uint8Array,
  offset: number,
  length: number,
): { readonly name: string } | RtrsReason {
  if (length < RTRS_INFO_REQUEST_BYTES) return "TOO_SHORT";
  if (rtrsType(viewOf(bytes), offset) !== RTRS_TYPE.INFO_REQ) return "BAD_TYPE";
  const start = offset + 2;
  let end = start;
  while (end < start + RTRS_NAME_BYTES && bytes[end] !== 0) end++;
  if (end === start + RTRS_NAME_BYTES) return "BAD_NAME";
  const name = decodeUtf8(bytes, start, end);
  return name !== null && isRtrsSessionName(name) ? { name } : "BAD_NAME";
}

/** A region of the server's chunks in an INFO_RSP, or the client's buffer in a READ header. */
export interface RtrsDescriptor {
  readonly addressHigh: number;
  readonly addressLow: number;
  readonly rkey: number;
  readonly length: number;
}

/** Bytes of an INFO_RSP with `regionCount` descriptors. */
export function rtrsInfoResponseBytes(regionCount: number): number {
  return RTRS_INFO_RESPONSE_HEADER_BYTES + regionCount * RTRS_DESCRIPTOR_BYTES;
}

/** Writes what precedes the descriptors of an INFO_RSP. */
export function writeRtrsInfoResponse(view: DataView, offset: number, regionCount: number): void {
  view.setUint16(offset, RTRS_TYPE.INFO_RSP, true);
  view.setUint16(offset + 2, regionCount, true);
  view.setUint32(offset + 4, 0, true);
}

/** Where descriptor `index` of the INFO_RSP at `offset` is. */
export function rtrsInfoResponseDescriptor(offset: number, index: number): number {
  return offset + RTRS_INFO_RESPONSE_HEADER_BYTES + index * RTRS_DESCRIPTOR_BYTES;
}

/** The regions of an INFO_RSP of `length` bytes at `offset`, or why it was refused. */
export function decodeRtrsInfoResponse(
  view: DataView,
  offset: number,
  length: number,
): readonly RtrsDescriptor[] | RtrsReason {
  if (length < RTRS_INFO_RESPONSE_HEADER_BYTES) return "TOO_SHORT";
  if (rtrsType(view, offset) !== RTRS_TYPE.INFO_RSP) return "BAD_TYPE";
  const count = view.getUint16(offset + 2, true);
  if (count === 0) return "BAD_COUNT";
  if (length < rtrsInfoResponseBytes(count)) return "TOO_SHORT";
  const regions: RtrsDescriptor[] = [];
  for (let i = 0; i < count; i++) {
    const at = rtrsInfoResponseDescriptor(offset, i);
    regions.push({
      addressHigh: rtrsDescriptorAddressHigh(view, at),
      addressLow: rtrsDescriptorAddressLow(view, at),
      rkey: rtrsDescriptorKey(view, at),
      length: rtrsDescriptorLength(view, at),
    });
  }
  return regions;
}

// --------------------------------------------------------------- descriptors (hot, on view,
// offset)

export function rtrsDescriptorAddressLow(view: DataView, offset: number): number {
  return view.getUint32(offset, true);
}

export function rtrsDescriptorAddressHigh(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true);
}

export function rtrsDescriptorKey(view: DataView, offset: number): number {
  return view.getUint32(offset + 8, true);
}

export function rtrsDescriptorLength(view: DataView, offset: number): number {
  return view.getUint32(offset + 12, true);
}

export function writeRtrsDescriptor(
  view: DataView,
  offset: number,
  addressHigh: number,
  addressLow: number,
  rkey: number,
  length: number,
): void {
  view.setUint32(offset, addressLow, true);
  view.setUint32(offset + 4, addressHigh, true);
  view.setUint32(offset + 8, rkey, true);
  view.setUint32(offset + 12, length, true);
}

// ---------------------------------------------------------- request and reply headers (hot as
// well)
//
//  WRITE  0 type = 2   2 usr_len
//  READ   0 type = 3   2 usr_len   4 flags   6 sg_cnt (0 or 1)   8 descriptor (16)
//  RKEY   0 type = 4   2 buf_id    4 rkey

/** The type of any message outside CM private data. */
export function rtrsType(view: DataView, offset: number): number {
  return view.getUint16(offset, true);
}

/** READ and WRITE header: bytes of the user message, which ends where the header begins. */
export function rtrsUserLength(view: DataView, offset: number): number {
  return view.getUint16(offset + 2, true);
}

export function rtrsReadFlags(view: DataView, offset: number): number {
  return view.getUint16(offset + 4, true);
}

/** READ header: descriptors that follow; only 0 and 1 are valid. */
export function rtrsReadSegmentCount(view: DataView, offset: number): number {
  return view.getUint16(offset + 6, true);
}

export function writeRtrsWriteHeader(view: DataView, offset: number, userLength: number): void {
  view.setUint16(offset, RTRS_TYPE.WRITE, true);
  view.setUint16(offset + 2, userLength, true);
}

/** Writes 8 bytes; with `segmentCount` 1 a descriptor must be written behind them. */
export function writeRtrsReadHeader(
  view: DataView,
  offset: number,
  userLength: number,
  flags: number,
  segmentCount: number,
): void {
  view.setUint16(offset, RTRS_TYPE.READ, true);
  view.setUint16(offset + 2, userLength, true);
  view.setUint16(offset + 4, flags, true);
  view.setUint16(offset + 6, segmentCount, true);
}

export function rtrsRkeyResponseChunk(view: DataView, offset: number): number {
  return view.getUint16(offset + 2, true);
}

export function rtrsRkeyResponseKey(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true);
}

export function writeRtrsRkeyResponse(
  view: DataView,
  offset: number,
  chunk: number,
  rkey: number,
): void {
  view.setUint16(offset, RTRS_TYPE.RKEY_RSP, true);
  view.setUint16(offset + 2, chunk, true);
  view.setUint32(offset + 4, rkey, true);
}
