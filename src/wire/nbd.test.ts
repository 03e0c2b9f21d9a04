// SPDX-License-Identifier: MIT

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_MAGIC_HIGH,
  NBD_MAGIC_LOW,
  NBD_OPTION_MAGIC_HIGH,
  NBD_OPTION_MAGIC_LOW,
  NBD_REQUEST_BYTES,
  NBD_REQUEST_MAGIC,
  nbdExtendedLengthHigh,
  nbdExtendedLengthLow,
  nbdRequestCookieHigh,
  nbdRequestCookieLow,
  nbdRequestFlags,
  nbdRequestLength,
  nbdRequestMagic,
  nbdRequestOffsetHigh,
  nbdRequestOffsetLow,
  nbdRequestType,
  writeNbdErrorChunk,
  writeNbdExtendedReply,
  writeNbdExtendedRequest,
  writeNbdRequest,
  writeNbdSimpleReply,
  writeNbdStructuredReply,
} from "./nbd.js";

const hex = (view: DataView, length: number) =>
  Array.from(new Uint8Array(view.buffer, 0, length), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u53 = fc.maxSafeNat();

describe("NBD messages", () => {
  it("the magics are the protocol's texts", () => {
    const view = new DataView(new ArrayBuffer(16));
    const magics = [NBD_MAGIC_HIGH, NBD_MAGIC_LOW, NBD_OPTION_MAGIC_HIGH, NBD_OPTION_MAGIC_LOW];
    for (const [i, magic] of magics.entries()) view.setUint32(4 * i, magic);
    const text = String.fromCharCode(...new Uint8Array(view.buffer));
    expect(text).toBe("NBDMAGICIHAVEOPT");
  });

  it("replies, byte for byte", () => {
    const view = new DataView(new ArrayBuffer(64));
    expect(writeNbdSimpleReply(view, 0, 5, 0x01020304, -2)).toBe(16);
    expect(hex(view, 16)).toBe("674466980000000501020304fffffffe");
    expect(writeNbdStructuredReply(view, 0, 1, 0x8001, 1, 2, 6)).toBe(20);
    expect(writeNbdErrorChunk(view, 20, 22)).toBe(6);
    expect(hex(view, 26)).toBe("668e33ef00018001000000010000000200000006000000160000");
    expect(writeNbdExtendedReply(view, 0, 1, 6, 1, 2, 3, 4, 24)).toBe(32);
    expect(hex(view, 32)).toBe("6e8a278c00010006000000010000000200000003000000040000000000000018");
  });

  it("requests of both forms: written and read again they are the same", () => {
    fc.assert(
      fc.property(u16, u16, u32, u32, u53, u32, u53, fc.nat(7), (...drawn) => {
        const [flags, type, high, low, offset, length, long, at] = drawn;
        const view = new DataView(new ArrayBuffer(64));
        for (const isExtended of [false, true]) {
          const written = isExtended
            ? writeNbdExtendedRequest(view, at, flags, type, high, low, offset, long)
            : writeNbdRequest(view, at, flags, type, high, low, offset, length);
          expect(written).toBe(isExtended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES);
          const magic = isExtended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC;
          expect(nbdRequestMagic(view, at)).toBe(magic);
          expect(nbdRequestFlags(view, at)).toBe(flags);
          expect(nbdRequestType(view, at)).toBe(type);
          expect(nbdRequestCookieHigh(view, at)).toBe(high);
          expect(nbdRequestCookieLow(view, at)).toBe(low);
          expect(nbdRequestOffsetHigh(view, at) * 2 ** 32 + nbdRequestOffsetLow(view, at)).toBe(
            offset,
          );
        }
        expect(nbdExtendedLengthHigh(view, at) * 2 ** 32 + nbdExtendedLengthLow(view, at)).toBe(
          long,
        );
        writeNbdRequest(view, at, flags, type, high, low, offset, length);
        expect(nbdRequestLength(view, at)).toBe(length);
      }),
    );
  });
});
