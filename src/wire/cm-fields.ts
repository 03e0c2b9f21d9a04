// SPDX-License-Identifier: MIT
// What the codecs of the CM messages share (IBTA vol1 §12.6; RoCEv2 facts §18). Offsets count from
// the start of the message, which is byte 24 of its MAD. Not exported from the room but for the
// sizes.

import { assert } from "../base/index.js";
import { MAD_BYTES, MAD_HEADER_BYTES } from "./mad.js";

/** Every CM message fills the MAD behind its header. */
export const CM_MESSAGE_BYTES = MAD_BYTES - MAD_HEADER_BYTES;

/** Whether a whole message lies at `offset`. */
export function hasMessage(view: DataView, offset: number): boolean {
  return offset >= 0 && offset + CM_MESSAGE_BYTES <= view.byteLength;
}

/** Zeroes the whole message, so that what a codec doesn't write is 0 as reserved fields must be. */
export function clearMessage(view: DataView, offset: number): void {
  assert(hasMessage(view, offset), "there is room for a CM message");
  new Uint8Array(view.buffer, view.byteOffset + offset, CM_MESSAGE_BYTES).fill(0);
}

/** A copy of `length` bytes at `offset`. */
export function readBytes(view: DataView, offset: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + offset, length).slice();
}

/** Puts `bytes` at `offset`, in a field of `capacity` bytes that holds zeroes. */
export function writeBytes(
  view: DataView,
  offset: number,
  capacity: number,
  bytes: Uint8Array,
): void {
  assert(bytes.length <= capacity, "the bytes fit their field");
  new Uint8Array(view.buffer, view.byteOffset + offset, bytes.length).set(bytes);
}

/** The upper 24 bits of the word at `offset`. */
export function readU24(view: DataView, offset: number): number {
  return view.getUint32(offset) >>> 8;
}

/** Writes 24 bits, and 8 bits in the byte behind them. */
export function writeU24(view: DataView, offset: number, value: number, next: number): void {
  view.setInt32(offset, (value << 8) | next);
}
