// SPDX-License-Identifier: MIT
// RDMA extended transport header (IBTA vol1 §9.3), 16 bytes, big-endian:
//
//   0        virtual address, high half
//   4        virtual address, low half
//   8        R_Key
//   12       DMA length of the whole message, 0 .. 2^31
//
// Accessors take the view and the offset of the RETH; precondition: 16 bytes are there.

export const RETH_BYTES = 16;

/** High half of the peer-chosen 64-bit address; unsigned. */
export function rethAddressHigh(view: DataView, offset: number): number {
  return view.getUint32(offset);
}

/** Low half of the address; unsigned. */
export function rethAddressLow(view: DataView, offset: number): number {
  return view.getUint32(offset + 4);
}

export function rethKey(view: DataView, offset: number): number {
  return view.getUint32(offset + 8);
}

/** Bytes of the message (WRITE) or wanted (READ); a hostile peer may send up to 2^32 - 1. */
export function rethLength(view: DataView, offset: number): number {
  return view.getUint32(offset + 12);
}

/** Writes all 16 bytes. Preconditions: every argument fits 32 bits. */
export function writeReth(
  view: DataView,
  offset: number,
  addressHigh: number,
  addressLow: number,
  key: number,
  length: number,
): void {
  view.setUint32(offset, addressHigh);
  view.setUint32(offset + 4, addressLow);
  view.setUint32(offset + 8, key);
  view.setUint32(offset + 12, length);
}
