// SPDX-License-Identifier: MIT
// 64-bit numbers as two unsigned 32-bit halves, high first. Remote addresses use all 64 bits, which
// a JavaScript number can't hold and a BigInt holds too slowly.

const TWO_32 = 0x1_0000_0000;

/** The high half of `n`. Preconditions: 0 <= n < 2^53. */
export function highOf(n: number): number {
  return Math.floor(n / TWO_32);
}

/** The low half of `n`. Preconditions: 0 <= n < 2^53. */
export function lowOf(n: number): number {
  return n >>> 0;
}

/** The number of two halves. Preconditions: high < 2^21. */
export function joinHalves(high: number, low: number): number {
  return high * TWO_32 + low;
}

/** The carry into the high half when `addend` (0 .. 2^32 - 1) is added to `low`. */
export function carryOf(low: number, addend: number): number {
  return low + addend >= TWO_32 ? 1 : 0;
}

/**
 * `(aHigh:aLow) - (bHigh:bLow)` when it is in 0 .. 2^53 - 1, else -1: the form in which an address
 * becomes an offset inside a region.
 */
export function offsetFrom(aHigh: number, aLow: number, bHigh: number, bLow: number): number {
  // Beyond 2^53 the sum is rounded, but never to below it.
  const difference = (aHigh - bHigh) * TWO_32 + (aLow - bLow);
  return difference < 0 || difference > Number.MAX_SAFE_INTEGER ? -1 : difference;
}
