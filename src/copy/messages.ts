// SPDX-License-Identifier: MIT
// What a copy says over RTRS. Every request has a user message that begins with this header, little
// endian:
//
//    0        4    5    6      8          12            16           24           32
//   +--------+----+----+------+----------+-------------+------------+------------+----------
//   | "FCPY" | 1  |type| slot | argument | byte length | offset     | run        | path ...
//   +--------+----+----+------+----------+-------------+------------+------------+----------
//
// The source is the one who has the files; the sink stores them. A run is one copy, named by 64
// random bits, and survives the loss of its session. All requests may be executed twice.
//
//   | message | is | slot   | argument     | offset | data                 | answer
//   | HELLO   | R  |        |              |        | 16 bytes             | block bytes, flags
//   | BATCH   | W  | answer | record count |        | records (records.ts) | EREMOTEIO: ask
//   | ANSWER  | R  | answer | record count |        | a result per record  |
//   | OPEN    | R  | file   |              | size   | 8 bytes              | bytes there already
//   | SUMS    | R  | file   | block count  | block  | a CRC-32 per block   |
//   | BLOCK   | W  | file   | CRC-32       | block  | the block            |
//   | FINISH  | W  | file   |              | size   | one record           |
//   | PULL    | R  |        | port         |        | none                 | it sends now
//   | TELL    | W  |        | what         |        | see below            |

import { highOf, joinHalves, lowOf } from "../base/index.js";
import { readByteText, writeByteText } from "./byte-text.js";

const MAGIC = 0x5950_4346;
const VERSION = 1;
export const COPY_HEADER_BYTES = 32;
/** Longest user message of a copy: both ends of its sessions must have this room. */
export const COPY_USER_BYTES_MAX = 4_064;

export const COPY_TYPE = {
  HELLO: 1,
  BATCH: 2,
  ANSWER: 3,
  OPEN: 4,
  SUMS: 5,
  BLOCK: 6,
  FINISH: 7,
  PULL: 8,
  TELL: 9,
} as const;
export type CopyType = (typeof COPY_TYPE)[keyof typeof COPY_TYPE];

/** What a TELL tells, as its argument. */
export const COPY_TELL = {
  /** Files and bytes that the source has found so far; the offset is 1 when there are no more. */
  FOUND: 1,
  /** A file that could not be read: a record with its path, and the errno as its size. */
  PROBLEM: 2,
  /** Everything is sent: files, bytes. */
  DONE: 3,
  /** The source has given up: the offset is the errno. */
  FAILED: 4,
} as const;
export const COPY_TELL_BYTES = 16;
export const COPY_HELLO_BYTES = 16;
/** In the answer to HELLO: owners and groups can be set there. */
export const COPY_FLAG_OWNERS = 1;
/** Bytes of the token in a PULL, as text; what follows are paths, each ended by NUL. */
export const COPY_TOKEN_BYTES = 32;

export class CopyHeader {
  type: CopyType = COPY_TYPE.HELLO;
  slot = 0;
  argument = 0;
  byteLength = 0;
  offset = 0;
  runHigh = 0;
  runLow = 0;
  path = "";
}

/** Writes a header and its path. @returns bytes of the user message. */
export function writeCopyHeader(header: CopyHeader, bytes: Uint8Array, view: DataView): number {
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, VERSION);
  view.setUint8(5, header.type);
  view.setUint16(6, header.slot, true);
  view.setUint32(8, header.argument, true);
  view.setUint32(12, header.byteLength, true);
  view.setUint32(16, lowOf(header.offset), true);
  view.setUint32(20, highOf(header.offset), true);
  view.setUint32(24, header.runLow, true);
  view.setUint32(28, header.runHigh, true);
  return writeByteText(header.path, bytes, COPY_HEADER_BYTES);
}

/** Reads a header of `length` bytes into `header`. @returns null, or why it is none. */
export function readCopyHeader(
  header: CopyHeader,
  bytes: Uint8Array,
  view: DataView,
  length: number,
): "NOT_COPY" | "VERSION" | "TYPE" | "OFFSET" | null {
  if (length < COPY_HEADER_BYTES || view.getUint32(0, true) !== MAGIC) return "NOT_COPY";
  if (view.getUint8(4) !== VERSION) return "VERSION";
  const type = view.getUint8(5);
  if (type < COPY_TYPE.HELLO || type > COPY_TYPE.TELL) return "TYPE";
  const offset = joinHalves(view.getUint32(20, true), view.getUint32(16, true));
  if (!Number.isSafeInteger(offset)) return "OFFSET";
  header.type = type as CopyType;
  header.slot = view.getUint16(6, true);
  header.argument = view.getUint32(8, true);
  header.byteLength = view.getUint32(12, true);
  header.offset = offset;
  header.runLow = view.getUint32(24, true);
  header.runHigh = view.getUint32(28, true);
  header.path = readByteText(bytes, COPY_HEADER_BYTES, length);
  return null;
}

/** The blocks of a file are as large as a request can carry, in whole pages. */
export function copyBlockBytes(maxIoBytes: number): number {
  return Math.max(512, Math.floor(maxIoBytes / 4096) * 4096);
}
