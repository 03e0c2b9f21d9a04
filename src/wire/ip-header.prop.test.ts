// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { decodeGrh, GRH_BYTES, internetChecksum, writeGrh } from "./ip-header.js";

const u32 = fc.nat({ max: 0xffff_ffff });
const v4 = u32.map((word) => IpAddress.v4(word));
const v6 = fc
  .tuple(u32, u32, u32, u32)
  .map(([a, b, c, d]) => new IpAddress((a | 0x2000_0000) >>> 0, b, c, d));
const pair = fc.oneof(fc.tuple(v4, v4), fc.tuple(v6, v6));

describe("GRH area: laws", () => {
  it("decodeGrh(writeGrh(x)) is x, and nothing beside the 40 bytes is touched", () => {
    const lengths = fc.integer({ min: 24, max: 4180 });
    fc.assert(
      fc.property(pair, fc.nat({ max: 255 }), lengths, ([source, destination], tc, length) => {
        const bytes = new Uint8Array(GRH_BYTES + 8).fill(0xcd);
        const view = new DataView(bytes.buffer);
        const { word0, word1, word2, word3 } = source;
        writeGrh(view, 4, word0, word1, word2, word3, destination, tc, length);
        const grh = decodeGrh(view, 4);
        expect(grh?.source.equals(source)).toBe(true);
        expect(grh?.destination.equals(destination)).toBe(true);
        expect(grh?.trafficClass).toBe(tc);
        expect([...bytes.subarray(0, 4), ...bytes.subarray(44)]).toEqual(new Array(8).fill(0xcd));
        const expected = source.family === 4 ? length + 28 : length + 8;
        expect(view.getUint16(source.family === 4 ? 26 : 8)).toBe(expected);
      }),
    );
  });

  it("IPv4: a header with a right checksum behind 20 zeroes; one wrong bit → null", () => {
    fc.assert(
      fc.property(v4, v4, fc.nat({ max: 159 }), (source, destination, bit) => {
        const bytes = new Uint8Array(GRH_BYTES).fill(0xcd);
        const view = new DataView(bytes.buffer);
        writeGrh(view, 0, 0, 0, 0xffff, source.word3, destination, 0, 280);
        expect(bytes.subarray(0, 20)).toEqual(new Uint8Array(20));
        expect(internetChecksum(view, 20, 20)).toBe(0);
        bytes[20 + (bit >>> 3)] = (bytes[20 + (bit >>> 3)] as number) ^ (1 << (bit & 7));
        expect(decodeGrh(view, 0)).toBeNull();
      }),
    );
  });

  it("any bytes, any offset → an answer or null, never an exception", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 60, size: "max" }),
        fc.integer({ min: -2, max: 70 }),
        (b, at) => {
          const view = new DataView(b.buffer, b.byteOffset, b.byteLength);
          const inside = at >= 0 && at + GRH_BYTES <= b.length;
          if (!inside) expect(decodeGrh(view, at)).toBeNull();
          else expect(() => decodeGrh(view, at)).not.toThrow();
        },
      ),
    );
  });

  it("the checksum example of RFC 1071", () => {
    const bytes = Uint8Array.from([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    expect(internetChecksum(new DataView(bytes.buffer), 0, 8)).toBe(0xffff - 0xddf2);
  });
});
