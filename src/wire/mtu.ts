// SPDX-License-Identifier: MIT
// Path MTUs of InfiniBand (RoCEv2 facts §5): payload bytes of a full packet, and the
// codes by which verbs and CM messages name them.

/** Smallest and largest path MTU, bytes of payload. */
export const MTU_MIN = 256;
export const MTU_MAX = 4096;

/** Bytes of payload that codes 1 .. 5 name: 256 .. 4096; 0 for any other number. */
export function mtuOfCode(code: number): number {
  return Number.isInteger(code) && code >= 1 && code <= 5 ? 128 << code : 0;
}

/** The code, 1 .. 5, of a path MTU in bytes; 0 when there is no such MTU. */
export function codeOfMtu(mtu: number): number {
  for (let code = 1; code <= 5; code++) if (128 << code === mtu) return code;
  return 0;
}
