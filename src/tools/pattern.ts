// SPDX-License-Identifier: MIT
// Bytes that tell what they are: which message, and where in it.

/** Fills `bytes` with the pattern of message number `message`; another number, other bytes. */
export function fillPattern(bytes: Uint8Array, message: number): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (message * 29 + i * 13 + (i >>> 8) + 1) & 255;
}

/** Index of the first byte that is not the same in both, or -1. Preconditions: equal lengths. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (Buffer.compare(a, b) === 0) return -1;
  return a.findIndex((byte, index) => byte !== b[index]);
}
