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

/** How many groups of blocks all `BlockSums` that share it may keep. */
export class SumsBudget {
  groupsLeft: number;

  constructor(groupCount: number) {
    this.groupsLeft = groupCount;
  }
}

/** Consecutive blocks, `GROUP` of them. */
interface Group {
  readonly sums: Uint32Array;
  readonly known: Uint8Array;
  knownCount: number;
  /** Of all its blocks in a row; -1 while not all are known. */
  whole: number;
}

export class BlockSums {
  readonly blockBytes: number;
  private readonly groups = new Map<number, Group>();
  private readonly budget: SumsBudget;
  private readonly blockOperator: number;
  private readonly groupOperator: number;

  /** @param budget default: as many as there is memory for. */
  constructor(blockBytes: number, budget = new SumsBudget(Infinity)) {
    assert(blockBytes > 0, "a block has bytes");
    this.blockBytes = blockBytes;
    this.budget = budget;
    this.blockOperator = zeroesOperator(blockBytes);
    this.groupOperator = zeroesOperator(blockBytes * GROUP);
  }

  /** Whether the block's CRC can be kept. */
  hasRoomFor(index: number): boolean {
    return this.budget.groupsLeft > 0 || this.groups.has(Math.floor(index / GROUP));
  }

  /** Preconditions: `hasRoomFor(index)`. */
  set(index: number, crc: number): void {
    const group = this.groups.get(Math.floor(index / GROUP)) ?? this.addGroup(index);
    const at = index % GROUP;
    group.knownCount += 1 - (group.known[at] as number);
    group.known[at] = 1;
    group.sums[at] = crc;
    group.whole = -1;
    if (group.knownCount < GROUP) return;
    let whole = 0;
    for (let i = 0; i < GROUP; i++) {
      whole = multiply(this.blockOperator, whole) ^ (group.sums[i] as number);
    }
    group.whole = whole >>> 0;
  }

  /** The CRC of a block, or -1 for one that nobody has named. */
  get(index: number): number {
    const group = this.groups.get(Math.floor(index / GROUP));
    if (group === undefined || group.known[index % GROUP] === 0) return -1;
    return group.sums[index % GROUP] as number;
  }

  /**
   * The CRC of a file of `size` bytes. It takes time for what is known, not for the holes: those
   * a peer makes with nothing but a large number.
   */
  whole(size: number): number {
    let crc = 0;
    let endBytes = 0;
    const append = (startBytes: number, blocksCrc: number, operator: number): void => {
      if (startBytes > endBytes) crc = appendZeroes(crc, startBytes - endBytes);
      crc = (multiply(operator, crc) ^ blocksCrc) >>> 0;
    };
    for (const number of [...this.groups.keys()].sort((a, b) => a - b)) {
      const { whole, known, sums } = this.groups.get(number) as Group;
      const startBytes = number * GROUP * this.blockBytes;
      if (startBytes >= size) break;
      if (whole >= 0 && startBytes + GROUP * this.blockBytes <= size) {
        append(startBytes, whole, this.groupOperator);
        endBytes = startBytes + GROUP * this.blockBytes;
        continue;
      }
      for (let i = 0; i < GROUP; i++) {
        const at = startBytes + i * this.blockBytes;
        if (known[i] === 0 || at >= size) continue;
        const bytes = Math.min(this.blockBytes, size - at);
        const isWhole = bytes === this.blockBytes;
        append(at, sums[i] as number, isWhole ? this.blockOperator : zeroesOperator(bytes));
        endBytes = at + bytes;
      }
    }
    return endBytes < size ? appendZeroes(crc, size - endBytes) : crc;
  }

  /** Forgets all, and gives its room back. */
  clear(): void {
    this.budget.groupsLeft += this.groups.size;
    this.groups.clear();
  }

  private addGroup(index: number): Group {
    assert(this.budget.groupsLeft > 0, "there is room for the block's CRC");
    this.budget.groupsLeft--;
    const [sums, known] = [new Uint32Array(GROUP), new Uint8Array(GROUP)];
    const group = { sums, known, knownCount: 0, whole: -1 };
    this.groups.set(Math.floor(index / GROUP), group);
    return group;
  }
}

function appendZeroes(crc: number, byteCount: number): number {
  return combineCrc32(crc, crc32OfZeroes(byteCount), byteCount);
}
