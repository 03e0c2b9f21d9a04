// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import {
  readInetAddress,
  readInetPort,
  writeInetAddress,
  writeUnixAddress,
} from "./socket-address.js";

describe("socket addresses", () => {
  const view = new DataView(new ArrayBuffer(128));

  it("IPv4 and IPv6 → read back what was written", () => {
    for (const text of ["192.0.2.1", "2001:db8::1:2", "fe80::1"]) {
      const address = IpAddress.parse(text);
      const length = writeInetAddress(view, 4, address, 4791, 3);
      expect(length).toBe(address.family === 4 ? 16 : 28);
      expect(readInetAddress(view, 4)?.toString()).toBe(text);
      expect(readInetPort(view, 4)).toBe(4791);
    }
  });

  it("a Unix path → its bytes and a zero; too long, empty or with a zero → refused", () => {
    expect(writeUnixAddress(view, 0, "/a/ü")).toBe(2 + 5 + 1);
    expect(readInetAddress(view, 0)).toBeNull();
    expect(writeUnixAddress(view, 0, "x".repeat(107))).toBe(110);
    expect(() => writeUnixAddress(view, 0, "x".repeat(108))).toThrow("107 bytes");
    expect(() => writeUnixAddress(view, 0, "")).toThrow("empty");
    expect(() => writeUnixAddress(view, 0, "a\0b")).toThrow("zero byte");
  });
});
