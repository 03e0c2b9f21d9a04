// SPDX-License-Identifier: MIT
// rping's messages: where a client's buffer is, and the text that goes through it. The server READs
// the client's source buffer and WRITEs what it got to the client's sink (rocev2 facts section 25).

import { FarpageError } from "../../runtime/index.js";
import type { Place } from "../area.js";

/** Port of RDMA CM's TCP port space. */
export const RPING_PORT = 7174;
/** Address, key, length: every message of either side. A server's contents mean nothing. */
export const RPING_MESSAGE_BYTES = 16;
/** The largest ping of the stock program. Its smallest is 23; here 1 will do. */
export const RPING_SIZE_MAX = 65_535;

/** A buffer of the client's. */
export interface RpingBuffer extends Place {
  readonly length: number;
}

/** Preconditions: `view` holds 16 bytes from `offset`. */
export function encodeRpingBuffer(
  view: DataView,
  offset: number,
  buffer: { readonly address: number; readonly rkey: number; readonly length: number },
): void {
  view.setBigUint64(offset, BigInt(buffer.address));
  view.setUint32(offset + 8, buffer.rkey);
  view.setUint32(offset + 12, buffer.length);
}

/**
 * Reads what a peer says of its buffer.
 * @param byteLength how long its message was.
 * @throws FarpageError EPROTO when that is no message of rping, EMSGSIZE for a ping that is too
 *   long.
 */
export function decodeRpingBuffer(view: DataView, offset: number, byteLength: number): RpingBuffer {
  checkMessage(byteLength);
  const length = view.getUint32(offset + 12);
  if (length > RPING_SIZE_MAX) {
    throw new FarpageError(
      "EMSGSIZE",
      `the client pings with ${length} bytes; rping has ${RPING_SIZE_MAX} at most`,
    );
  }
  return {
    addressHigh: view.getUint32(offset),
    addressLow: view.getUint32(offset + 4),
    rkey: view.getUint32(offset + 8),
    length,
  };
}

/** @throws FarpageError EPROTO when the peer sent another number of bytes. */
export function checkMessage(byteLength: number): void {
  if (byteLength === RPING_MESSAGE_BYTES) return;
  throw new FarpageError(
    "EPROTO",
    `the peer sent ${byteLength} bytes where rping sends ${RPING_MESSAGE_BYTES}`,
  );
}

const LETTER_FIRST = 65;
const LETTER_LAST = 122;
const LETTER_COUNT = LETTER_LAST - LETTER_FIRST + 1;

/**
 * The text of ping number `ping`, as the stock client writes it: "rdma-ping-0: ABC...", letters
 * that begin one later with each ping, and a zero at the end; all of `bytes`.
 */
export function fillPing(bytes: Uint8Array, ping: number): void {
  const title = `rdma-ping-${ping}: `;
  for (let i = 0; i < bytes.length; i++) {
    const letter = (ping + i - title.length) % LETTER_COUNT;
    bytes[i] = i < title.length ? title.charCodeAt(i) : LETTER_FIRST + letter;
  }
  bytes[bytes.length - 1] = 0;
}

/** A ping as text, up to its zero; what can't be shown as dots. */
export function pingText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const shown = bytes.subarray(0, end < 0 ? bytes.length : end);
  return Array.from(shown, (byte) =>
    byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".",
  ).join("");
}
