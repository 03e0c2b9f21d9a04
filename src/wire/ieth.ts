// SPDX-License-Identifier: MIT
// Invalidate extended transport header (IBTA vol1 §9.3): the R_Key to invalidate, four bytes.

export const IETH_BYTES = 4;

/** The receiver's R_Key. Precondition: 4 bytes are at `offset`. */
export function iethKey(view: DataView, offset: number): number {
  return view.getUint32(offset);
}

/** Precondition: `key` fits 32 bits. */
export function writeIeth(view: DataView, offset: number, key: number): void {
  view.setUint32(offset, key);
}
