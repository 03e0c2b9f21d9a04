// SPDX-License-Identifier: MIT
// The options of the handshake that carry data: where their parts lie, or null for malformed ones.
// Strings stay where they are; only those that mean something are looked at.

import { NBD_CONTEXT_ALLOCATION, NBD_INFO, NBD_STRING_BYTES_MAX } from "../wire/index.js";

/** An export's name: `bytes[nameStart .. nameEnd)`. */
interface NamedRequest {
  readonly nameStart: number;
  readonly nameEnd: number;
}

export interface InfoRequest extends NamedRequest {
  readonly wantsName: boolean;
  readonly wantsDescription: boolean;
}

/**
 * INFO and GO: length of the name (4), name, count (2), that many kinds of information (2 each).
 * Kinds that nobody knows are ignored.
 */
export function parseInfoRequest(view: DataView, at: number, length: number): InfoRequest | null {
  if (length < 6) return null;
  const nameBytes = view.getUint32(at);
  if (nameBytes > NBD_STRING_BYTES_MAX || 6 + nameBytes > length) return null;
  const nameEnd = at + 4 + nameBytes;
  const count = view.getUint16(nameEnd);
  if (length !== 6 + nameBytes + 2 * count) return null;
  let wantsName = false;
  let wantsDescription = false;
  for (let i = 0; i < count; i++) {
    const kind = view.getUint16(nameEnd + 2 + 2 * i);
    if (kind === NBD_INFO.NAME) wantsName = true;
    if (kind === NBD_INFO.DESCRIPTION) wantsDescription = true;
  }
  return { nameStart: at + 4, nameEnd, wantsName, wantsDescription };
}

export interface ExportQuery extends NamedRequest {
  /** Queries in all. */
  readonly count: number;
  /** One of them is "base:allocation", or the whole namespace "base:". */
  readonly hasAllocation: boolean;
  readonly hasBase: boolean;
}

/**
 * LIST_META_CONTEXT and SET_META_CONTEXT: length of the name (4), name, count (4), that many
 * queries: length (4), text. Queries for contexts that nobody knows are ignored.
 */
export function parseExportQuery(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  length: number,
): ExportQuery | null {
  const end = at + length;
  if (length < 8) return null;
  const nameBytes = view.getUint32(at);
  if (nameBytes > NBD_STRING_BYTES_MAX || 8 + nameBytes > length) return null;
  const nameEnd = at + 4 + nameBytes;
  const count = view.getUint32(nameEnd);
  let hasAllocation = false;
  let hasBase = false;
  let next = nameEnd + 4;
  for (let i = 0; i < count; i++) {
    if (next + 4 > end) return null;
    const start = next + 4;
    const queryBytes = view.getUint32(next);
    if (queryBytes > NBD_STRING_BYTES_MAX || start + queryBytes > end) return null;
    next = start + queryBytes;
    if (isText(bytes, start, next, NBD_CONTEXT_ALLOCATION)) hasAllocation = true;
    if (isText(bytes, start, next, "base:")) hasBase = true;
  }
  if (next !== end) return null;
  return { nameStart: at + 4, nameEnd, count, hasAllocation, hasBase };
}

function isText(bytes: Uint8Array, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (bytes[start + i] !== text.charCodeAt(i)) return false;
  }
  return true;
}
