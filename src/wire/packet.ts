// SPDX-License-Identifier: MIT
// A RoCEv2 packet as a whole: the UDP payload BTH | extended headers | payload | pad | ICRC. One
// check decides whether it can be taken apart; after it no accessor of this room can read out of
// bounds.

import { bthPadCount, bthVersion } from "./bth.js";
import { OPCODE_FLAG, OPCODE_FLAGS, OPCODE_HEADER_BYTES } from "./opcode.js";

export const ICRC_BYTES = 4;
/** UDP destination port of RoCEv2, and farpage's source port. */
export const ROCE_PORT = 4791;
/** The smallest packet: a zero-length SEND ONLY. */
export const PACKET_BYTES_MIN = 16;
/**
 * Most bytes in front of the payload: the AtomicETH's. (With payload: WRITE ONLY with immediate,
 * 32.)
 */
export const PACKET_HEADER_BYTES_MAX = 40;

/**
 * What is wrong with a packet's shape. 0 is nothing; the others are reasons to drop it silently.
 */
export const PACKET_FAULT = {
  NONE: 0,
  /** Shorter than a BTH and an ICRC. */
  SHORT: 1,
  /** Transport header version not 0. */
  VERSION: 2,
  /** An opcode that nobody has defined for RC, UC, UD or congestion notification. */
  OPCODE: 3,
  /** Shorter than its opcode's headers, pad and ICRC. */
  LENGTH: 4,
  /** Payload and pad are not a multiple of four bytes (facts §5), or an opcode that has no
   * payload carries some. */
  PAYLOAD: 5,
} as const;
export type PacketFault = (typeof PACKET_FAULT)[keyof typeof PACKET_FAULT];

/**
 * Checks the shape of the UDP payload of `length` bytes at `offset`. Reads nothing outside it.
 * With `PACKET_FAULT.NONE` every header that the opcode promises is inside, and `payloadLength` is
 * not negative.
 */
export function checkPacket(view: DataView, offset: number, length: number): PacketFault {
  if (length < PACKET_BYTES_MIN) return PACKET_FAULT.SHORT;
  if (bthVersion(view, offset) !== 0) return PACKET_FAULT.VERSION;
  const opcode = view.getUint8(offset);
  const headerBytes = OPCODE_HEADER_BYTES[opcode] as number;
  if (headerBytes === 0) return PACKET_FAULT.OPCODE;
  const padded = length - headerBytes - ICRC_BYTES;
  if (padded < bthPadCount(view, offset)) return PACKET_FAULT.LENGTH;
  if ((padded & 3) !== 0) return PACKET_FAULT.PAYLOAD;
  const mayCarry = ((OPCODE_FLAGS[opcode] as number) & OPCODE_FLAG.HAS_PAYLOAD) !== 0;
  return padded === 0 || mayCarry ? PACKET_FAULT.NONE : PACKET_FAULT.PAYLOAD;
}

/** Where the payload begins, counted from the BTH. Precondition: `checkPacket` found no fault. */
export function payloadOffset(view: DataView, offset: number): number {
  return OPCODE_HEADER_BYTES[view.getUint8(offset)] as number;
}

/** Bytes of payload, pad excluded. Precondition: `checkPacket` found no fault. */
export function payloadLength(view: DataView, offset: number, length: number): number {
  return length - payloadOffset(view, offset) - bthPadCount(view, offset) - ICRC_BYTES;
}

/** Pad bytes that a payload of `length` bytes needs, 0 .. 3. */
export function padCountOf(length: number): number {
  return -length & 3;
}
