// SPDX-License-Identifier: MIT
// Atomic extended transport header (IBTA vol1 §9.3), 28 bytes, big-endian:
//
//   0        virtual address (64 bits; 8-byte aligned, which the responder checks)
//   8        R_Key
//   12       swap data (compare-swap) or add data (fetch-add), 64 bits
//   20       compare data, 64 bits; 0 for fetch-add
//
// 64-bit values are read and written in two unsigned halves. Precondition: 28 bytes are at
// `offset`.

export const ATOMIC_ETH_BYTES = 28;

export function atomicEthAddressHigh(view: DataView, offset: number): number {
  return view.getUint32(offset);
}

export function atomicEthAddressLow(view: DataView, offset: number): number {
  return view.getUint32(offset + 4);
}

export function atomicEthKey(view: DataView, offset: number): number {
  return view.getUint32(offset + 8);
}

/** High half of the swap or add data. */
export function atomicEthSwapAddHigh(view: DataView, offset: number): number {
  return view.getUint32(offset + 12);
}

/** Low half of the swap or add data. */
export function atomicEthSwapAddLow(view: DataView, offset: number): number {
  return view.getUint32(offset + 16);
}

export function atomicEthCompareHigh(view: DataView, offset: number): number {
  return view.getUint32(offset + 20);
}

export function atomicEthCompareLow(view: DataView, offset: number): number {
  return view.getUint32(offset + 24);
}

/** Writes all 28 bytes. Preconditions: every argument fits 32 bits. */
export function writeAtomicEth(
  view: DataView,
  offset: number,
  addressHigh: number,
  addressLow: number,
  key: number,
  swapAddHigh: number,
  swapAddLow: number,
  compareHigh: number,
  compareLow: number,
): void {
  view.setUint32(offset, addressHigh);
  view.setUint32(offset + 4, addressLow);
  view.setUint32(offset + 8, key);
  view.setUint32(offset + 12, swapAddHigh);
  view.setUint32(offset + 16, swapAddLow);
  view.setUint32(offset + 20, compareHigh);
  view.setUint32(offset + 24, compareLow);
}
