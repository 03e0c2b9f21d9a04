// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { updateCrc32 } from "../base/index.js";
import { createCrc32 } from "./index.js";

const nativeCrc32 = createCrc32();

describe("createCrc32", () => {
  it("any bytes, range and register → what the portable one gives", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 3000 }),
        fc.integer(),
        fc.nat(3000),
        (bytes, register, cut) => {
          const at = Math.min(cut, bytes.length);
          const whole = updateCrc32(bytes, 0, bytes.length, register);
          expect(nativeCrc32(bytes, 0, bytes.length, register)).toBe(whole);
          const half = nativeCrc32(bytes, 0, at, register);
          expect(nativeCrc32(bytes, at, bytes.length, half)).toBe(whole);
        },
      ),
    );
  });
});
