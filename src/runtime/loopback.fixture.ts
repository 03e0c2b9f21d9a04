// SPDX-License-Identifier: MIT

/**
 * Loopback address number `n`, 1 .. 254, of this process alone: UDP port 4791 can be bound once per
 * address, and tests of several checkouts may run at a time.
 */
export function loopback(n: number): string {
  return `127.${64 + ((process.pid >>> 8) & 63)}.${process.pid & 0xff}.${n}`;
}
