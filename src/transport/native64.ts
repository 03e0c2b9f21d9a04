// SPDX-License-Identifier: MIT
// 64-bit integers in memory in the byte order of this machine: atomic operands travel big-endian
// but work on, and land in, what the host's processor sees as an integer (facts page, section 3).

const IS_LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/** High half of the native integer at `offset`, unsigned. */
export function nativeHigh(view: DataView, offset: number): number {
  return view.getUint32(IS_LITTLE_ENDIAN ? offset + 4 : offset, IS_LITTLE_ENDIAN);
}

/** Low half of the native integer at `offset`, unsigned. */
export function nativeLow(view: DataView, offset: number): number {
  return view.getUint32(IS_LITTLE_ENDIAN ? offset : offset + 4, IS_LITTLE_ENDIAN);
}

/** Stores a native integer from its halves. */
export function writeNative64(view: DataView, offset: number, high: number, low: number): void {
  view.setUint32(IS_LITTLE_ENDIAN ? offset + 4 : offset, high, IS_LITTLE_ENDIAN);
  view.setUint32(IS_LITTLE_ENDIAN ? offset : offset + 4, low, IS_LITTLE_ENDIAN);
}
