// SPDX-License-Identifier: MIT
// Immediate extended transport header (IBTA vol1 §9.3): four bytes that the transport hands
// through.

export const IMM_DT_BYTES = 4;

/** The immediate as a big-endian number, unsigned. Precondition: 4 bytes are at `offset`. */
export function immediateOf(view: DataView, offset: number): number {
  return view.getUint32(offset);
}

/** Precondition: `immediate` fits 32 bits. */
export function writeImmediate(view: DataView, offset: number, immediate: number): void {
  view.setUint32(offset, immediate);
}
