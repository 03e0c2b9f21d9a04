// SPDX-License-Identifier: MIT
// Wrap-around arithmetic. Nowhere else in farpage is it spelled out.

/** A 24-bit packet sequence number. */
export type Psn = number;

export const PSN_MASK = 0xffffff;

/** `psn + count` modulo 2^24; `count` may be negative. */
export function psnAdd(psn: Psn, count: number): Psn {
  return (psn + count) & PSN_MASK;
}

/** `a - b` as a signed 24-bit number, -2^23 .. 2^23 - 1: above 0 when `a` is after `b`. */
export function psnDiff(a: Psn, b: Psn): number {
  return ((a - b) << 8) >> 8;
}

/** `a - b` of two 16-bit counters as a signed number. */
export function u16Diff(a: number, b: number): number {
  return ((a - b) << 16) >> 16;
}

/** `a - b` of two 32-bit counters as a signed number. */
export function u32Diff(a: number, b: number): number {
  return (a - b) | 0;
}
