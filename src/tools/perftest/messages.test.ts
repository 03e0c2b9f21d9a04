// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../../runtime/index.js";
import {
  decodeCacheLineBytes,
  decodeMtu,
  decodePageBytes,
  decodePlaceBinary,
  decodePlaceText,
  decodeReport,
  decodeVersion,
  encodeMtu,
  encodePlaceBinary,
  encodePlaceText,
  encodeReport,
  encodeU32,
  encodeVersion,
  type Place,
} from "./messages.js";

const bytesOf = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/** What stock programs, version 6.06, said to each other (docs/perftest.md). */
const STOCK_TEXT =
  "0000:0080:000014:0f7bc8:0000053d:000055a8fb489000:" +
  "00:00:00:00:00:00:00:00:00:00:ff:ff:0a:4e:00:02:00000000:\0";
const STOCK_BINARY =
  "00000000000000010000001300ffc227000004a700000000000056401df56000" +
  "00000000000000000000ffff0a4e00020000000000000001";

const PLACE: Place = {
  outReads: 128,
  qpn: 0x14,
  psn: 0x0f7bc8,
  rkey: 0x53d,
  addressHigh: 0x55a8,
  addressLow: 0xfb489000,
  gid: IpAddress.parse("10.78.0.2"),
};

describe("a place as text", () => {
  it("what a stock program sends → its numbers, and back to the same bytes", () => {
    expect(decodePlaceText(bytesOf(STOCK_TEXT))).toEqual(PLACE);
    expect(encodePlaceText(PLACE)).toEqual(bytesOf(STOCK_TEXT));
  });

  it("IPv6 and every bit set survive", () => {
    const place = {
      outReads: 0xffff,
      qpn: 0xfffffe,
      psn: 0xffffff,
      rkey: 0xffffffff,
      addressHigh: 0xffffffff,
      addressLow: 0xffffffff,
      gid: IpAddress.parse("fd00:78::ffff:1"),
    };
    expect(decodePlaceText(encodePlaceText(place))).toEqual(place);
    expect(decodePlaceBinary(encodePlaceBinary(place))).toEqual(place);
  });

  it("any one character made wrong, or missing → EPROTO or another number, never a crash", () => {
    for (let at = 0; at < STOCK_TEXT.length; at++) {
      const shorter = STOCK_TEXT.slice(0, at) + STOCK_TEXT.slice(at + 1);
      expect(() => decodePlaceText(bytesOf(shorter))).toThrow(/perftest's language/);
      for (const bad of ["g", " ", "\0", "-", "\xff"]) {
        const text = STOCK_TEXT.slice(0, at) + bad + STOCK_TEXT.slice(at + 1);
        if (text === STOCK_TEXT) continue;
        expect(() => decodePlaceText(bytesOf(text))).toThrow(/perftest's language/);
      }
    }
    expect(() => decodePlaceText(bytesOf(""))).toThrow(/perftest's language/);
  });

  it.each([
    ["queue pair 0", "000014", "000000", /no queue pair/],
    ["queue pair 1", "000014", "000001", /no queue pair/],
    ["the multicast queue pair", "000014", "ffffff", /no queue pair/],
    ["GID 0.0.0.0", "0a:4e:00:02", "00:00:00:00", /no address of a host/],
    ["a multicast GID", "0a:4e:00:02", "e0:00:00:01", /no address of a host/],
    ["an IPv6 multicast GID", `${"00:".repeat(10)}ff:ff`, `ff:0e:${"00:".repeat(9)}01`, /no addr/],
  ])("%s → EPROTO", (_, from, to, message) => {
    const text = STOCK_TEXT.replace(from, to);
    expect(text).not.toBe(STOCK_TEXT);
    expect(() => decodePlaceText(bytesOf(text))).toThrow(message);
  });
});

describe("a place in binary", () => {
  it("what a stock program sends → its numbers", () => {
    const place = decodePlaceBinary(Buffer.from(STOCK_BINARY, "hex"));
    expect(place).toMatchObject({ outReads: 1, qpn: 0x13, psn: 0xffc227, rkey: 0x4a7 });
    expect([place.addressHigh, place.addressLow]).toEqual([0x5640, 0x1df56000]);
    expect(String(place.gid)).toBe("10.78.0.2");
    // The GID's index, last, is the stock program's own.
    expect(hexOf(encodePlaceBinary(place))).toBe(`${STOCK_BINARY.slice(0, -8)}00000000`);
  });

  it("numbers beyond 24 bits, or too many READs → EPROTO", () => {
    for (const [offset, value] of [
      [4, 0x10000],
      [8, 0x1000000],
      [8, 0xffffffff],
      [12, 0x1000000],
    ] as const) {
      const bytes = Buffer.from(STOCK_BINARY, "hex");
      bytes.writeUInt32BE(value, offset);
      expect(() => decodePlaceBinary(bytes)).toThrow(/perftest's language/);
    }
    expect(() => decodePlaceBinary(new Uint8Array(56))).toThrow(/no queue pair/);
  });
});

describe("versions", () => {
  it("6.06 as the stock program says it; newer ones are taken", () => {
    expect(hexOf(encodeVersion())).toBe("362e3036000000000000000000000000");
    expect(decodeVersion(encodeVersion())).toBe("6.06");
    expect(decodeVersion(bytesOf("6.28\0garbage\0\0\0\0"))).toBe("6.28");
    expect(decodeVersion(bytesOf(`5.70${"\0".repeat(12)}`))).toBe("5.70");
  });

  it("too old → EPROTONOSUPPORT; no version → EPROTO with what came", () => {
    expect(() => decodeVersion(bytesOf(`5.33${"\0".repeat(12)}`))).toThrow(
      expect.objectContaining({ code: "EPROTONOSUPPORT", message: expect.stringMatching(/5\.33/) }),
    );
    expect(() => decodeVersion(bytesOf("GET / HTTP/1.1\r\n"))).toThrow(/"GET \/ HTTP/);
    // Nothing of it acts on a terminal.
    expect(() => decodeVersion(bytesOf("\x1b[2J\x7f\x9b1mü"))).toThrow(
      '"\\u001b[2J\\x7f\\x9b1m\\xfc"',
    );
    for (const text of ["", "6", "6.", ".6", "-6.06", "6.06a", "1e9", "9999.1", "\xff\xfe"]) {
      expect(() => decodeVersion(bytesOf(text.padEnd(16, "\0")))).toThrow(
        expect.objectContaining({ code: "EPROTO" }),
      );
    }
  });
});

describe("sizes and MTU", () => {
  it("the digits of the five MTUs; anything else → EPROTO", () => {
    for (const mtu of [256, 512, 1024, 2048, 4096]) expect(decodeMtu(encodeMtu(mtu))).toBe(mtu);
    expect(hexOf(encodeMtu(4096))).toBe("3500");
    for (const text of ["0\0", "6\0", "55", "\0\0", "5", "-1"]) {
      expect(() => decodeMtu(bytesOf(text))).toThrow(/MTU/);
    }
  });

  it("page sizes and cache lines are powers of two in bounds", () => {
    expect(decodePageBytes(encodeU32(65_536))).toBe(65_536);
    expect(decodeCacheLineBytes(encodeU32(64))).toBe(64);
    for (const value of [0, 1, 4095, 1 << 22, 0xffffffff]) {
      expect(() => decodePageBytes(encodeU32(value))).toThrow(/page size/);
    }
    for (const value of [0, 63, 8192]) {
      expect(() => decodeCacheLineBytes(encodeU32(value))).toThrow(/cache line/);
    }
  });
});

describe("reports", () => {
  const report = {
    messageBytes: 4096,
    iterations: 5,
    peak: 0,
    average: 4.1825065,
    messageRate: 0.001071,
  };

  it("five messages of eight bytes, integers and doubles big-endian", () => {
    const parts = encodeReport(report);
    expect(parts.map(hexOf).slice(0, 3)).toEqual([
      "0000000000001000",
      "0000000000000005",
      "0000000000000000",
    ]);
    expect(decodeReport(parts)).toEqual(report);
  });

  it("what a stock program measured", () => {
    const parts = ["0000000000001000", "0000000000000005", "401430e230b55b2f", "4010bae350eb2cd1"];
    const decoded = decodeReport([...parts, "3f518aeefb14d803"].map((h) => Buffer.from(h, "hex")));
    expect(decoded.average).toBeCloseTo(4.18, 2);
    expect(decoded.messageRate).toBeCloseTo(0.001071, 6);
  });

  it.each([
    [0, "ffffffffffffffff"],
    [1, "7fffffffffffffff"],
    [2, "fff0000000000000"],
    [3, "7ff8000000000000"],
    [3, "7ff0000000000000"],
    [4, "bff0000000000000"],
  ])("part %i of 0x%s → EPROTO", (part, hex) => {
    const parts = encodeReport(report);
    parts[part] = Buffer.from(hex, "hex");
    expect(() => decodeReport(parts)).toThrow(expect.objectContaining({ code: "EPROTO" }));
  });
});
