// SPDX-License-Identifier: MIT
// Spoils bytes: the mutations that find most bugs in parsers (bit flips, boundary values,
// truncation, splices), and edits of known fields.

import { type Random, randomBelow } from "../../src/base/index.js";

/** A field at a place that the format gives it: a number of 1 .. 8 bytes. */
export interface Field {
  readonly name: string;
  readonly offset: number;
  readonly bytes: 1 | 2 | 3 | 4 | 8;
  /** Little-endian; big-endian otherwise. */
  readonly isLittle?: boolean;
}

/** Numbers at the edges of things. */
const EDGES: readonly number[] = [
  0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024, 4095, 4096,
  65_535, 65_536, 0x7fffff, 0x800000, 0xffffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
];

/** Mutated copies of byte strings, by a seed. */
export class Mutator {
  readonly random: Random;

  constructor(random: Random) {
    this.random = random;
  }

  below(bound: number): number {
    return randomBelow(this.random, bound);
  }

  /** True once in `n`. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  /** An edge, one off an edge, or anything, cut to `bits` bits (1 .. 32). */
  number(bits: number): number {
    const kind = this.below(4);
    let value = this.random.nextU32();
    if (kind < 2) value = this.pick(EDGES);
    else if (kind === 2) value = this.pick(EDGES) - 1 + this.below(3);
    return bits === 32 ? value >>> 0 : (value & ((1 << bits) - 1)) >>> 0;
  }

  /**
   * One to four mutations of a copy of `bytes`.
   * @param other something else of the kind, for splices.
   * @param lengthMax longest result.
   */
  mutate(bytes: Uint8Array, other: Uint8Array, lengthMax: number): Uint8Array {
    let result = bytes.slice();
    for (let count = 1 + this.below(4); count > 0; count--) {
      result = this.mutateOnce(result, other).subarray(0, lengthMax).slice();
    }
    return result;
  }

  /** Changes one field in place: an edge, a neighbour of its value, or a copy of another field. */
  editField(bytes: Uint8Array, fields: readonly Field[]): void {
    const field = this.pick(fields);
    if (field.offset < 0 || field.offset + field.bytes > bytes.length) return;
    const kind = this.below(4);
    const place = bytes.subarray(field.offset, field.offset + field.bytes);
    if (kind === 0) {
      if (field.isLittle) place.reverse();
      this.addTo(bytes, field, this.below(2) === 0 ? 1 : -1);
      if (field.isLittle) place.reverse();
    } else if (kind === 1) {
      const from = this.pick(fields);
      if (from.offset < 0 || from.offset + field.bytes > bytes.length) return;
      bytes.copyWithin(field.offset, from.offset, from.offset + field.bytes);
    } else {
      for (let left = field.bytes; left > 0; ) {
        const width = Math.min(left, 4);
        const value = this.number(width * 8);
        for (let i = 0; i < width; i++) {
          bytes[field.offset + field.bytes - left + i] = value >>> (8 * (width - 1 - i));
        }
        left -= width;
      }
      if (field.isLittle) place.reverse();
    }
  }

  private addTo(bytes: Uint8Array, field: Field, delta: number): void {
    for (let i = field.offset + field.bytes - 1; i >= field.offset; i--) {
      const sum = (bytes[i] as number) + delta;
      bytes[i] = sum;
      if (sum >= 0 && sum <= 255) return;
    }
  }

  private mutateOnce(bytes: Uint8Array, other: Uint8Array): Uint8Array {
    if (bytes.length === 0) return other.slice();
    switch (this.below(8)) {
      case 0:
      case 1: {
        const bit = this.below(bytes.length * 8);
        bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
        return bytes;
      }
      case 2:
        bytes[this.below(bytes.length)] = this.number(8);
        return bytes;
      case 3:
        return this.overwriteNumber(bytes);
      case 4:
        return bytes.subarray(0, this.below(bytes.length + 1));
      case 5:
        return this.insert(bytes);
      case 6:
        return this.splice(bytes, other);
      default:
        return this.repeat(bytes);
    }
  }

  /** A 16- or 32-bit number of either byte order anywhere. */
  private overwriteNumber(bytes: Uint8Array): Uint8Array {
    const width = this.below(2) === 0 ? 2 : 4;
    if (bytes.length < width) return bytes;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const offset = this.below(bytes.length - width + 1);
    const isLittle = this.below(2) === 0;
    if (width === 2) view.setUint16(offset, this.number(16), isLittle);
    else view.setUint32(offset, this.number(32), isLittle);
    return bytes;
  }

  private insert(bytes: Uint8Array): Uint8Array {
    const at = this.below(bytes.length + 1);
    const count = 1 + this.below(this.oneIn(8) ? 256 : 8);
    const result = new Uint8Array(bytes.length + count);
    result.set(bytes.subarray(0, at));
    for (let i = 0; i < count; i++) result[at + i] = this.number(8);
    result.set(bytes.subarray(at), at + count);
    return result;
  }

  /** The head of one and the tail of the other. */
  private splice(bytes: Uint8Array, other: Uint8Array): Uint8Array {
    const head = bytes.subarray(0, this.below(bytes.length + 1));
    const tail = other.subarray(this.below(other.length + 1));
    const result = new Uint8Array(head.length + tail.length);
    result.set(head);
    result.set(tail, head.length);
    return result;
  }

  private repeat(bytes: Uint8Array): Uint8Array {
    const from = this.below(bytes.length);
    const count = Math.min(1 + this.below(16), bytes.length - from);
    bytes.copyWithin(this.below(bytes.length), from, from + count);
    return bytes;
  }
}
