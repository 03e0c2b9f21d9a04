// SPDX-License-Identifier: MIT
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { updateCrc32, updateCrc32Byte, updateCrc32View } from "./crc32.js";

const bytes = fc.uint8Array({ maxLength: 100, size: "max" });

describe("CRC-32", () => {
  it("the check value of the CRC catalogues: 123456789 → CBF43926", () => {
    const text = new TextEncoder().encode("123456789");
    expect(~updateCrc32(text, 0, 9, -1) >>> 0).toBe(0xcbf43926);
  });

  it("equals zlib's for any bytes, at any offset", () => {
    fc.assert(
      fc.property(bytes, fc.nat({ max: 20 }), (all, start) => {
        fc.pre(start <= all.length);
        const crc = ~updateCrc32(all, start, all.length, -1) >>> 0;
        expect(crc).toBe(crc32(all.subarray(start)));
      }),
    );
  });

  it("may be cut anywhere, and cut into bytes", () => {
    fc.assert(
      fc.property(bytes, fc.nat({ max: 100 }), fc.integer(), (all, cut, register) => {
        fc.pre(cut <= all.length);
        const whole = updateCrc32(all, 0, all.length, register);
        const head = updateCrc32(all, 0, cut, register);
        expect(updateCrc32(all, cut, all.length, head)).toBe(whole);
        expect(all.reduce((r, byte) => updateCrc32Byte(byte, r), register)).toBe(whole);
      }),
    );
  });

  it("the form over a view is the same function", () => {
    fc.assert(
      fc.property(bytes, fc.nat({ max: 20 }), fc.integer(), (all, start, register) => {
        fc.pre(start <= all.length);
        const view = new DataView(all.buffer, all.byteOffset, all.byteLength);
        const expected = updateCrc32(all, start, all.length, register);
        expect(updateCrc32View(view, start, all.length, register)).toBe(expected);
      }),
    );
  });

  it("the register stays a signed 32-bit integer", () => {
    fc.assert(
      fc.property(bytes, fc.integer(), (all, register) => {
        const next = updateCrc32(all, 0, all.length, register);
        expect(next).toBe(next | 0);
      }),
    );
  });
});
