// SPDX-License-Identifier: MIT
// The records of a BATCH: many small things in one request. Little-endian:
//
//    0       1      2            4       8      12     16              24           28
//   +-------+------+------------+-------+------+------+---------------+------------+--------------
//   | action| 0    | path length| mode  | uid  | gid  | mtime seconds | nanosec.   | extra length
//   +-------+------+------------+-------+------+------+---------------+------------+--------------
//    32              40           44        48
//   +---------------+------------+---------+------+------+-------
//   | size          | data length| CRC-32  | path | data | extra
//   +---------------+------------+---------+------+------+-------
//
// Extra is the target of a link, or extended attributes (attributes.ts).

import { type Crc32, highOf, joinHalves, lowOf } from "../base/index.js";
import { readByteText, writeByteText } from "./byte-text.js";
import { checkCopyPath } from "./path.js";

export const RECORD_BYTES = 48;

export const COPY_ACTION = {
  /** Is a file or link of this size and time there? HAVE or SEND. */
  CHECK: 1,
  /** A directory: MADE or HAVE. */
  DIRECTORY: 2,
  FILE: 3,
  SYMLINK: 4,
  /** Another name of a file that is there; extra is its path. */
  HARDLINK: 5,
  /** A directory is complete: its attributes. */
  ATTRIBUTES: 6,
} as const;
export type CopyAction = (typeof COPY_ACTION)[keyof typeof COPY_ACTION];

/** The result of a record: one of these, or 0x8000 and an errno. */
export const COPY_RESULT = { DONE: 0, HAVE: 1, SEND: 2, MADE: 3, FAILED: 0x8000 } as const;
export const RESULT_BYTES = 2;

export class CopyRecord {
  action: CopyAction = COPY_ACTION.CHECK;
  path = "";
  mode = 0;
  uid = 0;
  gid = 0;
  mtimeSeconds = 0;
  mtimeNanoseconds = 0;
  size = 0;
  /** Where the data lies in the batch. */
  dataOffset = 0;
  dataLength = 0;
  crc = 0;
  extra: Uint8Array = new Uint8Array(0);
}

/** Bytes that a record takes. */
export function recordBytes(path: string, dataLength: number, extraLength: number): number {
  return RECORD_BYTES + path.length + dataLength + extraLength;
}

/**
 * Writes a record at `at`; its data, of `record.dataLength` bytes, is there already, behind the
 * room for head and path. @returns where the record ends. Preconditions: it fits.
 */
export function writeRecord(
  record: CopyRecord,
  bytes: Uint8Array,
  view: DataView,
  at: number,
): number {
  view.setUint8(at, record.action);
  view.setUint8(at + 1, 0);
  view.setUint16(at + 2, record.path.length, true);
  view.setUint32(at + 4, record.mode, true);
  view.setUint32(at + 8, record.uid, true);
  view.setUint32(at + 12, record.gid, true);
  // Times before 1970 are negative: two's complement.
  view.setUint32(at + 16, record.mtimeSeconds % 0x1_0000_0000, true);
  view.setInt32(at + 20, Math.floor(record.mtimeSeconds / 0x1_0000_0000), true);
  view.setUint32(at + 24, record.mtimeNanoseconds, true);
  view.setUint32(at + 28, record.extra.length, true);
  view.setUint32(at + 32, lowOf(record.size), true);
  view.setUint32(at + 36, highOf(record.size), true);
  view.setUint32(at + 40, record.dataLength, true);
  view.setUint32(at + 44, record.crc, true);
  const data = writeByteText(record.path, bytes, at + RECORD_BYTES);
  bytes.set(record.extra, data + record.dataLength);
  return data + record.dataLength + record.extra.length;
}

/**
 * Reads the record at `at` of a batch that ends at `end`. Everything in it is checked: lengths, the
 * path's form. `extra` is a view of the batch.
 * @returns where the record ends, or -1 for one that lies.
 */
export function readRecord(
  record: CopyRecord,
  bytes: Uint8Array,
  view: DataView,
  at: number,
  end: number,
): number {
  if (at + RECORD_BYTES > end) return -1;
  const action = view.getUint8(at);
  if (action < COPY_ACTION.CHECK || action > COPY_ACTION.ATTRIBUTES) return -1;
  const pathEnd = at + RECORD_BYTES + view.getUint16(at + 2, true);
  const dataLength = view.getUint32(at + 40, true);
  const extraAt = pathEnd + dataLength;
  const recordEnd = extraAt + view.getUint32(at + 28, true);
  const nanoseconds = view.getUint32(at + 24, true);
  const size = joinHalves(view.getUint32(at + 36, true), view.getUint32(at + 32, true));
  const seconds = view.getInt32(at + 20, true) * 0x1_0000_0000 + view.getUint32(at + 16, true);
  if (recordEnd > end || nanoseconds >= 1e9) return -1;
  if (!Number.isSafeInteger(size) || !Number.isSafeInteger(seconds)) return -1;
  record.action = action as CopyAction;
  record.path = readByteText(bytes, at + RECORD_BYTES, pathEnd);
  record.mode = view.getUint32(at + 4, true) & 0o7777;
  record.uid = view.getUint32(at + 8, true);
  record.gid = view.getUint32(at + 12, true);
  record.mtimeSeconds = seconds;
  record.mtimeNanoseconds = nanoseconds;
  record.size = size;
  record.dataOffset = pathEnd;
  record.dataLength = dataLength;
  record.crc = view.getUint32(at + 44, true);
  record.extra = bytes.subarray(extraAt, recordEnd);
  return recordEnd;
}

/** Whether a path of a record may be used: see `checkCopyPath`. */
export const checkRecordPath = checkCopyPath;

/** The CRC-32 of `bytes[start .. end)`. */
export function crcOf(crc32: Crc32, bytes: Uint8Array, start: number, end: number): number {
  return ~crc32(bytes, start, end, -1) >>> 0;
}
