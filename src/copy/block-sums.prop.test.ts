// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { updateCrc32 } from "../base/index.js";
import { decodeExtra, encodeExtra } from "./attributes.js";
import { BlockSums, combineCrc32, crc32OfZeroes } from "./block-sums.js";

const crc = (bytes: Uint8Array) => ~updateCrc32(bytes, 0, bytes.length, -1) >>> 0;

describe("CRC-32 of a whole from its parts", () => {
  it("two parts: the CRC of both in a row", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 300 }), (a, b) => {
        expect(combineCrc32(crc(a), crc(b), b.length)).toBe(crc(Uint8Array.of(...a, ...b)));
      }),
    );
  });

  it("zeroes of any length", () => {
    for (const length of [0, 1, 2, 7, 8, 63, 4096, 100_001]) {
      expect(crc32OfZeroes(length)).toBe(crc(new Uint8Array(length)));
    }
  });

  it("blocks set in any order, holes left out: the CRC of the file", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 500 }),
        fc.integer({ min: 1, max: 64 }),
        fc.infiniteStream(fc.boolean()),
        (bytes, blockBytes, holes) => {
          const sums = new BlockSums(blockBytes);
          const indexes = [...Array(Math.ceil(bytes.length / blockBytes)).keys()].reverse();
          for (const index of indexes) {
            const block = bytes.subarray(index * blockBytes, (index + 1) * blockBytes);
            if (holes.next().value) block.fill(0);
            else sums.set(index, crc(block));
          }
          expect(sums.whole(bytes.length)).toBe(crc(bytes));
        },
      ),
    );
  });

  it("a hole of a tebibyte costs no time", () => {
    const sums = new BlockSums(258_048);
    sums.set(4_000_000, crc(new Uint8Array(258_048).fill(1)));
    expect(sums.whole(2 ** 40)).toBeGreaterThan(0);
    expect(sums.get(4_000_001)).toBe(-1);
  });
});

describe("extended attributes", () => {
  const attribute = fc.record({
    name: fc
      .uint8Array({ minLength: 1, maxLength: 20 })
      .map((bytes) => [...bytes].map((byte) => String.fromCharCode(byte || 1)).join("")),
    value: fc.uint8Array({ maxLength: 50 }),
  });

  it("decode to what was encoded; cut anywhere inside one: null", () => {
    fc.assert(
      fc.property(fc.array(attribute, { maxLength: 5 }), fc.nat(), (list, cut) => {
        const bytes = encodeExtra(list);
        expect(decodeExtra(bytes)).toEqual(list);
        const part = bytes.subarray(0, cut % (bytes.length + 1));
        const decoded = decodeExtra(part);
        if (decoded !== null) expect(encodeExtra(decoded)).toEqual(part);
      }),
    );
  });
});
