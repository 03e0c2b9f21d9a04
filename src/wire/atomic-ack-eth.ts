// SPDX-License-Identifier: MIT
// Atomic acknowledge extended transport header (IBTA vol1 §9.3), 8 bytes behind the AETH: what
// the remote memory held before. Precondition of all: 8 bytes are at `offset`.

export const ATOMIC_ACK_ETH_BYTES = 8;

/** High half of the original value, unsigned. */
export function atomicAckEthOriginalHigh(view: DataView, offset: number): number {
  return view.getUint32(offset);
}

/** Low half of the original value, unsigned. */
export function atomicAckEthOriginalLow(view: DataView, offset: number): number {
  return view.getUint32(offset + 4);
}

/** Preconditions: both halves fit 32 bits. */
export function writeAtomicAckEth(
  view: DataView,
  offset: number,
  originalHigh: number,
  originalLow: number,
): void {
  view.setUint32(offset, originalHigh);
  view.setUint32(offset + 4, originalLow);
}
