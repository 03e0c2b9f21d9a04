// SPDX-License-Identifier: MIT
// RNBD messages as Linux 6.1 speaks them, and the additions of 6.8 that travel in the same version
// (facts page 12, 18): the user messages of RTRS requests, and the responses that a server writes
// into the data of a READ. Bytes only. Every field is little-endian; a sector is 512 bytes, always.
//
// All are functions on (view, offset). Getters may be called on any bytes that are long enough:
// what they return is untrusted. Writers zero every byte that has no meaning.

import { decodeUtf8, encodeUtf8 } from "../base/index.js";

export const RNBD_VERSION_MAJOR = 2;
export const RNBD_SECTOR_BYTES = 512;

/** Message types, the first 16 bits of each message. */
export const RNBD_TYPE = {
  SESS_INFO: 0,
  SESS_INFO_RSP: 1,
  OPEN: 2,
  OPEN_RSP: 3,
  IO: 4,
  CLOSE: 5,
} as const;

export const RNBD_SESS_INFO_BYTES = 36;
export const RNBD_OPEN_BYTES = 264;
export const RNBD_OPEN_RSP_BYTES = 56;
export const RNBD_IO_BYTES = 32;
/** An IO message without its priority, the shortest that any version sent. */
export const RNBD_IO_BYTES_MIN = 24;
export const RNBD_CLOSE_BYTES = 8;
/** What names a group of sessions. */
export const RNBD_GROUP_BYTES = 16;
/** A device name with its terminating NUL. */
export const RNBD_NAME_BYTES = 255;

/** How a device is opened. */
export const RNBD_ACCESS = { RO: 0, RW: 1, MIGRATION: 2 } as const;
export type RnbdAccess = (typeof RNBD_ACCESS)[keyof typeof RNBD_ACCESS];

/** What an IO message asks for: bits 7..0 of `rnbdIoFlags`. */
export const RNBD_OP = {
  READ: 0,
  WRITE: 1,
  FLUSH: 2,
  DISCARD: 3,
  SECURE_ERASE: 4,
  /** Linux 6.8 on; write-same, which nobody sent, before. */
  WRITE_ZEROES: 5,
} as const;

/** Bits of an IO message's `rw` field above the operation. */
export const RNBD_FLAG = {
  /** Linux sets it on everything that somebody waits for; no meaning beyond priority. */
  SYNC: 0x100,
  FUA: 0x200,
  /** A flush goes before the operation. Kernels of 2025 on; older ones set FUA alone. */
  PREFLUSH: 0x400,
  /** WRITE_ZEROES: keep the space. Kernels of 2025 on. */
  NOUNMAP: 0x800,
} as const;

/** Bits of `RnbdOpenResponse.cachePolicy`. */
export const RNBD_CACHE = { FUA: 1, WRITE_BACK: 2 } as const;

/** The type of a message. */
export function rnbdType(view: DataView, offset: number): number {
  return view.getUint16(offset, true);
}

// ------------------------------------------------------------------------------------- SESS_INFO
//
//   0       type 0 (request), 1 (response)
//   4       ver
//   5..7    reserved
//   8..15   DEVIATION: GROUP_MAGIC where the session belongs to a group, and where the server has
//           understood that; reserved in Linux, which ignores it and everything behind
//   16..31  DEVIATION: the group's name; nothing in the response
//   32..35  reserved

/** "farpageG" as two big-endian words: nothing that lies there by chance looks like it. */
const GROUP_MAGIC = [0x6661_7270, 0x6167_6547] as const;

/** The highest major version that the sender speaks (request), or that both use (response). */
export function rnbdSessInfoVersion(view: DataView, offset: number): number {
  return view.getUint8(offset + 4);
}

/**
 * Whether a SESS_INFO names a group of sessions, or its response says that the server takes groups.
 */
export function rnbdSessInfoHasGroup(view: DataView, offset: number): boolean {
  return (
    view.getUint32(offset + 8) === GROUP_MAGIC[0] && view.getUint32(offset + 12) === GROUP_MAGIC[1]
  );
}

/** A copy of the group's name, `RNBD_GROUP_BYTES` long. Preconditions: `rnbdSessInfoHasGroup`. */
export function rnbdSessInfoGroup(view: DataView, offset: number): Uint8Array {
  const group = new Uint8Array(RNBD_GROUP_BYTES);
  for (let i = 0; i < RNBD_GROUP_BYTES; i++) group[i] = view.getUint8(offset + 16 + i);
  return group;
}

/** @param group the name of the session's group, `RNBD_GROUP_BYTES` long; null for none. */
export function writeRnbdSessInfo(
  view: DataView,
  offset: number,
  version: number,
  group: Uint8Array | null = null,
): void {
  writeSessInfo(view, offset, RNBD_TYPE.SESS_INFO, version);
  if (group === null) return;
  writeGroupMagic(view, offset);
  for (let i = 0; i < RNBD_GROUP_BYTES; i++) view.setUint8(offset + 16 + i, group[i] as number);
}

/** @param takesGroup the request named a group, and the server knows what that means. */
export function writeRnbdSessInfoResponse(
  view: DataView,
  offset: number,
  version: number,
  takesGroup = false,
): void {
  writeSessInfo(view, offset, RNBD_TYPE.SESS_INFO_RSP, version);
  if (takesGroup) writeGroupMagic(view, offset);
}

function writeGroupMagic(view: DataView, offset: number): void {
  view.setUint32(offset + 8, GROUP_MAGIC[0]);
  view.setUint32(offset + 12, GROUP_MAGIC[1]);
}

function writeSessInfo(view: DataView, offset: number, type: number, version: number): void {
  zero(view, offset, RNBD_SESS_INFO_BYTES);
  view.setUint16(offset, type, true);
  view.setUint8(offset + 4, version);
}

// ------------------------------------------------------------------------------------------ OPEN
//
//   0       type 2
//   4       access mode
//   5       reserved
//   6..260  device name, ended by a NUL; what follows the NUL may be anything
//   261     reserved

/** The access mode that is asked for; compare with `RNBD_ACCESS`, it can be any byte. */
export function rnbdOpenAccess(view: DataView, offset: number): number {
  return view.getUint8(offset + 4);
}

/** The device name of an OPEN, or null where no NUL ends it or it is no UTF-8. */
export function rnbdOpenName(bytes: Uint8Array, offset: number): string | null {
  const start = offset + 6;
  let end = start;
  while (end < start + RNBD_NAME_BYTES && bytes[end] !== 0) end++;
  return end === start + RNBD_NAME_BYTES ? null : decodeUtf8(bytes, start, end);
}

/** Whether `name` can travel: 1 .. 254 bytes of UTF-8 without a NUL. */
export function isRnbdName(name: string): boolean {
  if (name.includes("\0")) return false;
  const length = encodeUtf8(name).length;
  return length >= 1 && length < RNBD_NAME_BYTES;
}

/** Preconditions: `isRnbdName(name)`. */
export function writeRnbdOpen(
  view: DataView,
  offset: number,
  access: RnbdAccess,
  name: string,
): void {
  zero(view, offset, RNBD_OPEN_BYTES);
  view.setUint16(offset, RNBD_TYPE.OPEN, true);
  view.setUint8(offset + 4, access);
  const bytes = encodeUtf8(name);
  for (let i = 0; i < bytes.length; i++) view.setUint8(offset + 6 + i, bytes[i] as number);
}

// -------------------------------------------------------------------------------------- OPEN_RSP

/** What a server tells of a device it has opened; 56 bytes on the wire. */
export interface RnbdOpenResponse {
  /** 0 .. 2^32 - 1; unique in its session. */
  readonly deviceId: number;
  /** Size in sectors, below 2^53. */
  readonly sectorCount: number;
  readonly hardwareSectorsMax: number;
  /** 0: the server has no WRITE_ZEROES. */
  readonly writeZeroesSectorsMax: number;
  /** 0: the server has no DISCARD. */
  readonly discardSectorsMax: number;
  readonly discardGranularityBytes: number;
  readonly discardAlignmentBytes: number;
  readonly physicalBlockBytes: number;
  readonly logicalBlockBytes: number;
  readonly segmentsMax: number;
  /** Non-zero: the server has SECURE_ERASE. */
  readonly secureDiscard: number;
  readonly rotational: boolean;
  /** `RNBD_CACHE` bits. */
  readonly cachePolicy: number;
  /**
   * Names the cache that acknowledged, unflushed writes live in; 0 where the server doesn't say.
   * DEVIATION: bytes 46..53 are reserved in Linux, which sends zeroes and ignores them. What a
   * client does with it is told in rnbd/rnbd-device.ts.
   */
  readonly epochHigh: number;
  readonly epochLow: number;
}

/**
 * Reads an OPEN_RSP at `offset`; null where its type is wrong or its size no number below 2^53
 * sectors. (Linux checks neither.)
 */
export function readRnbdOpenResponse(view: DataView, offset: number): RnbdOpenResponse | null {
  const sectorsHigh = view.getUint32(offset + 12, true);
  if (rnbdType(view, offset) !== RNBD_TYPE.OPEN_RSP || sectorsHigh >= 0x20_0000) return null;
  return {
    deviceId: view.getUint32(offset + 4, true),
    sectorCount: sectorsHigh * 0x1_0000_0000 + view.getUint32(offset + 8, true),
    hardwareSectorsMax: view.getUint32(offset + 16, true),
    writeZeroesSectorsMax: view.getUint32(offset + 20, true),
    discardSectorsMax: view.getUint32(offset + 24, true),
    discardGranularityBytes: view.getUint32(offset + 28, true),
    discardAlignmentBytes: view.getUint32(offset + 32, true),
    physicalBlockBytes: view.getUint16(offset + 36, true),
    logicalBlockBytes: view.getUint16(offset + 38, true),
    segmentsMax: view.getUint16(offset + 40, true),
    secureDiscard: view.getUint16(offset + 42, true),
    rotational: view.getUint8(offset + 44) !== 0,
    cachePolicy: view.getUint8(offset + 45),
    epochHigh: view.getUint32(offset + 50, true),
    epochLow: view.getUint32(offset + 46, true),
  };
}

export function writeRnbdOpenResponse(
  view: DataView,
  offset: number,
  response: RnbdOpenResponse,
): void {
  zero(view, offset, RNBD_OPEN_RSP_BYTES);
  view.setUint16(offset, RNBD_TYPE.OPEN_RSP, true);
  view.setUint32(offset + 4, response.deviceId, true);
  view.setUint32(offset + 8, response.sectorCount >>> 0, true);
  view.setUint32(offset + 12, Math.floor(response.sectorCount / 0x1_0000_0000), true);
  view.setUint32(offset + 16, response.hardwareSectorsMax, true);
  view.setUint32(offset + 20, response.writeZeroesSectorsMax, true);
  view.setUint32(offset + 24, response.discardSectorsMax, true);
  view.setUint32(offset + 28, response.discardGranularityBytes, true);
  view.setUint32(offset + 32, response.discardAlignmentBytes, true);
  view.setUint16(offset + 36, response.physicalBlockBytes, true);
  view.setUint16(offset + 38, response.logicalBlockBytes, true);
  view.setUint16(offset + 40, response.segmentsMax, true);
  view.setUint16(offset + 42, response.secureDiscard, true);
  view.setUint8(offset + 44, response.rotational ? 1 : 0);
  view.setUint8(offset + 45, response.cachePolicy);
  view.setUint32(offset + 46, response.epochLow, true);
  view.setUint32(offset + 50, response.epochHigh, true);
}

// -------------------------------------------------------------------------------------------- IO
//
//   0   type 4             8   first sector, 64 bits      20  bytes that it covers
//   4   device id         16   rw: flags, operation       24  priority (Linux ioprio), 26..31
//   padding

/** The device of an IO or CLOSE message. */
export function rnbdDeviceId(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true);
}

/** The high half of the first sector. */
export function rnbdIoSectorHigh(view: DataView, offset: number): number {
  return view.getUint32(offset + 12, true);
}

/** The low half of the first sector. */
export function rnbdIoSectorLow(view: DataView, offset: number): number {
  return view.getUint32(offset + 8, true);
}

/** What is asked for; compare with `RNBD_OP`, it can be any byte. */
export function rnbdIoOperation(view: DataView, offset: number): number {
  return view.getUint8(offset + 16);
}

/** `RNBD_FLAG` bits, and others that newer peers may know. */
export function rnbdIoFlags(view: DataView, offset: number): number {
  return (view.getUint32(offset + 16, true) & ~0xff) >>> 0;
}

/** Bytes that the operation covers on the device. */
export function rnbdIoBytes(view: DataView, offset: number): number {
  return view.getUint32(offset + 20, true);
}

/**
 * Writes an IO message with priority 0.
 * @param operationAndFlags an `RNBD_OP` and `RNBD_FLAG` bits.
 * @param sectorHigh,sectorLow first sector; all ones in a flush.
 */
export function writeRnbdIo(
  view: DataView,
  offset: number,
  deviceId: number,
  sectorHigh: number,
  sectorLow: number,
  operationAndFlags: number,
  byteCount: number,
): void {
  view.setUint32(offset, RNBD_TYPE.IO, true);
  view.setUint32(offset + 4, deviceId, true);
  view.setUint32(offset + 8, sectorLow, true);
  view.setUint32(offset + 12, sectorHigh, true);
  view.setUint32(offset + 16, operationAndFlags, true);
  view.setUint32(offset + 20, byteCount, true);
  view.setUint32(offset + 24, 0, true);
  view.setUint32(offset + 28, 0, true);
}

/** Changes the device of an IO message that is written already. */
export function writeRnbdDeviceId(view: DataView, offset: number, deviceId: number): void {
  view.setUint32(offset + 4, deviceId, true);
}

// ----------------------------------------------------------------------------------------- CLOSE

export function writeRnbdClose(view: DataView, offset: number, deviceId: number): void {
  view.setUint32(offset, RNBD_TYPE.CLOSE, true);
  view.setUint32(offset + 4, deviceId, true);
}

function zero(view: DataView, offset: number, length: number): void {
  for (let i = 0; i < length; i++) view.setUint8(offset + i, 0);
}
