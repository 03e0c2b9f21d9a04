// SPDX-License-Identifier: MIT
type Crc32 = (bytes: Uint8Array, start: number, end: number, state: number) => number;
export const nativeCrc32: Crc32 | null = null;
