// SPDX-License-Identifier: MIT
import { isIP } from "node:net";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IpAddress } from "./ip.js";

const u32 = fc.nat({ max: 0xffff_ffff });
/** Words with many zeroes, so that "::" has work to do. */
const word = fc.oneof(u32, fc.constantFrom(0, 1, 0xffff, 0x10000, 0xffff_0000));
const address = fc.tuple(word, word, word, word).map(([a, b, c, d]) => new IpAddress(a, b, c, d));

function parses(text: string): boolean {
  try {
    IpAddress.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe("IpAddress: laws", () => {
  it("parse(toString(a)) equals a", () => {
    fc.assert(
      fc.property(address, (a) => {
        expect(IpAddress.parse(a.toString()).equals(a)).toBe(true);
      }),
    );
  });

  it("fromGid(writeGid(a)) equals a", () => {
    const view = new DataView(new ArrayBuffer(16));
    fc.assert(
      fc.property(address, (a) => {
        a.writeGid(view, 0);
        expect(IpAddress.fromGid(view, 0).equals(a)).toBe(true);
      }),
    );
  });

  it("the IPv6 text is what the URL parser makes of it", () => {
    fc.assert(
      fc.property(
        address.filter((a) => a.family === 6),
        (a) => {
          expect(new URL(`http://[${a}]/`).hostname).toBe(`[${a}]`);
        },
      ),
    );
  });

  it("parse takes exactly what net.isIP takes", () => {
    const piece = fc.constantFrom(
      "0",
      "1",
      "25",
      "256",
      "00",
      "ffff",
      "12345",
      "g",
      ".",
      ":",
      "::",
    );
    const text = fc.oneof(
      fc.array(piece, { maxLength: 16 }).map((parts) => parts.join("")),
      fc.array(piece, { minLength: 4, maxLength: 8 }).map((parts) => parts.join(":")),
      fc.array(piece, { minLength: 4, maxLength: 4 }).map((parts) => parts.join(".")),
      fc.tuple(fc.ipV6(), fc.nat(40)).map(([t, at]) => t.slice(0, at) + t.slice(at + 1)),
      fc.ipV4(),
      fc.ipV6(),
    );
    fc.assert(
      fc.property(text, (t) => {
        expect(parses(t)).toBe(isIP(t) !== 0);
      }),
      { numRuns: 2000 },
    );
  });
});
