// SPDX-License-Identifier: MIT
// Acknowledge extended transport header (IBTA vol1 §9.3; RoCEv2 facts §3), 4 bytes: syndrome, then
// the 24-bit message sequence number. The syndrome:
//
//   bit 7     0
//   bits 6..5 kind: 00 ACK, 01 RNR NAK, 10 reserved, 11 NAK
//   bits 4..0 ACK: credit code; RNR NAK: timer code; NAK: error code
//
// Accessors take the view and the offset of the AETH; precondition: 4 bytes are there.

export const AETH_BYTES = 4;

/** Kinds of a syndrome, as `syndromeKind` gives them. */
export const AETH_KIND = { ACK: 0, RNR_NAK: 1, RESERVED: 2, NAK: 3 } as const;
export type AethKind = (typeof AETH_KIND)[keyof typeof AETH_KIND];

/** Whole syndromes that farpage sends. RNR NAK is `RNR_NAK + timer code`. */
export const SYNDROME = {
  /** ACK that carries no credit information: the requester is not limited. */
  ACK_UNLIMITED: 0x1f,
  RNR_NAK: 0x20,
  NAK_PSN_SEQUENCE: 0x60,
  NAK_INVALID_REQUEST: 0x61,
  NAK_REMOTE_ACCESS: 0x62,
  NAK_REMOTE_OPERATIONAL: 0x63,
  NAK_INVALID_RD_REQUEST: 0x64,
} as const;

/** 0 .. 255. */
export function aethSyndrome(view: DataView, offset: number): number {
  return view.getUint8(offset);
}

/** Messages that the responder has completed, modulo 2^24. */
export function aethMsn(view: DataView, offset: number): number {
  return view.getUint32(offset) & 0xffffff;
}

/** The kind of a syndrome; one with bit 7 set is reserved whatever its other bits say. */
export function syndromeKind(syndrome: number): AethKind {
  return syndrome >= 0x80 ? AETH_KIND.RESERVED : ((syndrome >>> 5) as AethKind);
}

/** The five low bits: credit code, timer code or error code. */
export function syndromeValue(syndrome: number): number {
  return syndrome & 31;
}

/** Writes all 4 bytes. Preconditions: syndrome 8 bits, msn 24 bits. */
export function writeAeth(view: DataView, offset: number, syndrome: number, msn: number): void {
  view.setInt32(offset, (syndrome << 24) | msn);
}

/**
 * Waiting time of each RNR timer code, in nanoseconds (IBTA vol1 §9.7.5.2.8). From code 2 on each
 * pair of steps doubles; code 0 is the longest of all, 655.36 ms.
 */
const RNR_TIMER_10_US = [
  65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536,
  2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
] as const;

/** Nanoseconds that an RNR timer code (its low five bits) stands for. */
export function rnrTimerNs(code: number): number {
  return (RNR_TIMER_10_US[code & 31] as number) * 10_000;
}

/**
 * The smallest RNR timer code, 1 .. 31 or 0, that waits at least `timeNs`; code 0 (655.36 ms) when
 * none of the others is long enough.
 */
export function rnrTimerCode(timeNs: number): number {
  for (let code = 1; code < 32; code++) if (rnrTimerNs(code) >= timeNs) return code;
  return 0;
}

/** Credits of the codes 0 .. 30 (RoCEv2 facts §3); 31 is no code of this table. */
const CREDITS = [
  0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768,
] as const;

/** Messages that an ACK's credit code allows beyond its MSN; `Infinity` for 31 (no information). */
export function creditCount(code: number): number {
  return CREDITS[code & 31] ?? Number.POSITIVE_INFINITY;
}
