// SPDX-License-Identifier: MIT
// The CRC-32 of each block of a large file, and out of them that of the whole. Blocks that nobody
// has named are holes: zeroes. The CRC of two pieces in a row is that of the first, moved over as
// many zero bytes as the second is long, plus that of the second; to move a CRC over zeroes is
// linear over GF(2), so it is done in steps of powers of two (Mark Adler's `crc32_combine`, told in
// zlib's documentation).

import { assert } from "../base/index.js";

const POLYNOMIAL = 0xedb88320;
const GROUP_BITS = 10;
const GROUP = 1 << GROUP_BITS;

/** Product of two polynomials modulo the CRC's; bit 31 is x^0. */
function multiply(a: number, b: number): number {
  let product = 0;
  for (let bit = 31; bit >= 0; bit--) {
    if (((a >>> bit) & 1) !== 0) product ^= b;
    b = (b & 1) !== 0 ? (b >>> 1) ^ POLYNOMIAL : b >>> 1;
  }
  return product >>> 0;
}

/** x^(8 * 2^k) modulo the polynomial, for every k that a length can need. */
const POWERS: readonly number[] = (() => {
  // x^8.
  let power = 0x0080_0000;
  const powers: number[] = [];
  for (let k = 0; k < 53; k++) {
    powers.push(power);
    power = multiply(power, power);
  }
  return powers;
})();

/** What moves a CRC over `byteCount` zero bytes when multiplied with it. */
function zeroesOperator(byteCount: number): number {
  let operator = 0x8000_0000;
  let rest = byteCount;
  for (let k = 0; rest > 0; k++) {
    if (rest % 2 === 1) operator = multiply(operator, POWERS[k] as number);
    rest = Math.floor(rest / 2);
  }
  return operator;
}

/** The CRC-32 of `a` followed by `b`, of which `b` has `bytesOfB` bytes. */
export function combineCrc32(crcOfA: number, crcOfB: number, bytesOfB: number): number {
  return (multiply(zeroesOperator(bytesOfB), crcOfA) ^ crcOfB) >>> 0;
}

/** The CRC-32 of `byteCount` zeroes. */
export function crc32OfZeroes(byteCount: number): number {
  return ~multiply(zeroesOperator(byteCount), 0xffff_ffff) >>> 0;
}

export class BlockSums {
  readonly blockBytes: number;
  private readonly groups = new Map<number, { sums: Uint32Array; known: Uint8Array }>();
  private readonly wholeBlock: number;

  constructor(blockBytes: number) {
    assert(blockBytes > 0, "a block has bytes");
    this.blockBytes = blockBytes;
    this.wholeBlock = zeroesOperator(blockBytes);
  }

  set(index: number, crc: number): void {
    const number = Math.floor(index / GROUP);
    let group = this.groups.get(number);
    if (group === undefined) {
      group = { sums: new Uint32Array(GROUP), known: new Uint8Array(GROUP) };
      this.groups.set(number, group);
    }
    group.sums[index % GROUP] = crc;
    group.known[index % GROUP] = 1;
  }

  /** The CRC of a block, or -1 for one that nobody has named. */
  get(index: number): number {
    const group = this.groups.get(Math.floor(index / GROUP));
    if (group === undefined || group.known[index % GROUP] === 0) return -1;
    return group.sums[index % GROUP] as number;
  }

  /** The CRC of a file of `size` bytes. */
  whole(size: number): number {
    const blockCount = Math.ceil(size / this.blockBytes);
    let crc = 0;
    for (let first = 0; first < blockCount; first += GROUP) {
      const end = Math.min(first + GROUP, blockCount);
      if (this.groups.has(first / GROUP)) {
        for (let index = first; index < end; index++) crc = this.append(crc, index, size);
      } else {
        const bytes = Math.min(size, end * this.blockBytes) - first * this.blockBytes;
        crc = combineCrc32(crc, crc32OfZeroes(bytes), bytes);
      }
    }
    return crc;
  }

  private append(crc: number, index: number, size: number): number {
    const bytes = Math.min(this.blockBytes, size - index * this.blockBytes);
    const known = this.get(index);
    const own = known < 0 ? crc32OfZeroes(bytes) : known;
    if (bytes !== this.blockBytes) return combineCrc32(crc, own, bytes);
    return (multiply(this.wholeBlock, crc) ^ own) >>> 0;
  }
}
