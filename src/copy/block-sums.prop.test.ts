// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { updateCrc32 } from "../base/index.js";
import { decodeExtra, encodeExtra } from "./attributes.js";
import { BlockSums, combineCrc32, crc32OfZeroes, SumsBudget } from "./block-sums.js";

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

  it("thousands of blocks, whole groups of them and groups with holes, some set again", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 4000, max: 9000 }),
        fc.integer({ min: 2, max: 3 }),
        fc.integer({ min: 0, max: 4000 }),
        fc.integer({ min: 0, max: 1500 }),
        fc.integer({ min: 0, max: 8999 }),
        (length, blockBytes, holeStart, holeBlocks, again) => {
          const bytes = Uint8Array.from({ length }, (_, at) => (at * 7 + (at >> 8)) & 255);
          bytes.fill(0, holeStart * blockBytes, (holeStart + holeBlocks) * blockBytes);
          const sums = new BlockSums(blockBytes);
          const blockCount = Math.ceil(length / blockBytes);
          const set = (index: number) => {
            sums.set(index, crc(bytes.subarray(index * blockBytes, (index + 1) * blockBytes)));
          };
          for (let index = blockCount - 1; index >= 0; index--) {
            if (index < holeStart || index >= holeStart + holeBlocks) set(index);
          }
          expect(sums.whole(length)).toBe(crc(bytes));
          bytes[again % length] = 99;
          set(Math.floor((again % length) / blockBytes));
          expect(sums.whole(length)).toBe(crc(bytes));
        },
      ),
      { numRuns: 20 },
    );
  });

  it("a hole costs no time, however long it is", () => {
    const sums = new BlockSums(258_048);
    sums.set(4_000_000_000, crc(new Uint8Array(258_048).fill(1)));
    expect(sums.whole(2 ** 50)).toBeGreaterThan(0);
    expect(sums.get(4_000_000_001)).toBe(-1);
  });

  it("room that several files share: taken by groups of 1024 blocks, and given back", () => {
    const budget = new SumsBudget(2);
    const [one, other] = [new BlockSums(512, budget), new BlockSums(512, budget)];
    one.set(0, 1);
    other.set(5000, 2);
    expect([one.hasRoomFor(1023), one.hasRoomFor(1024), other.hasRoomFor(5001)]).toEqual([
      true,
      false,
      true,
    ]);
    one.clear();
    expect(one.get(0)).toBe(-1);
    expect(other.hasRoomFor(0)).toBe(true);
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
