// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { FarpageError } from "./errors.js";
import { IpAddress } from "./ip.js";

describe("IpAddress.parse", () => {
  it.each([
    ["192.0.2.1", "192.0.2.1", 4],
    ["0.0.0.0", "0.0.0.0", 4],
    ["255.255.255.255", "255.255.255.255", 4],
    ["::ffff:192.0.2.1", "192.0.2.1", 4],
    ["::ffff:c000:201", "192.0.2.1", 4],
    ["::", "::", 6],
    ["::1", "::1", 6],
    ["fd00:79::2", "fd00:79::2", 6],
    ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1", 6],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1", 6],
    ["1:0:0:2:0:0:0:3", "1:0:0:2::3", 6],
    ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0", 6],
    ["64:ff9b::192.0.2.33", "64:ff9b::c000:221", 6],
  ])("%s → %s, IPv%i", (text, canonical, family) => {
    const address = IpAddress.parse(text);
    expect(address.toString()).toBe(canonical);
    expect(address.family).toBe(family);
  });

  it.each([
    "",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "1.2.3.4 ",
    "1.2..4",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "12345::",
    "g::",
    "::1%eth0",
    "[::1]",
    "1.2.3.4::",
    "::1.2.3",
    "::ffff:1.2.3.4:5",
    "localhost",
  ])("%o → EINVAL", (text) => {
    let code = "";
    try {
      IpAddress.parse(text);
    } catch (error) {
      code = error instanceof FarpageError ? error.code : "another error";
    }
    expect(code).toBe("EINVAL");
  });
});

describe("IpAddress as a GID", () => {
  it("IPv4 → ::ffff: and the address, most significant byte first", () => {
    const view = new DataView(new ArrayBuffer(20));
    IpAddress.parse("10.79.0.2").writeGid(view, 4);
    const bytes = [...new Uint8Array(view.buffer)];
    expect(bytes).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 79, 0, 2]);
  });

  it("addresses that differ in one word → not equal", () => {
    const address = new IpAddress(1, 2, 3, 4);
    expect(address.equals(new IpAddress(1, 2, 3, 4))).toBe(true);
    expect(address.equals(new IpAddress(9, 2, 3, 4))).toBe(false);
    expect(address.equals(new IpAddress(1, 9, 3, 4))).toBe(false);
    expect(address.equals(new IpAddress(1, 2, 9, 4))).toBe(false);
    expect(address.equals(new IpAddress(1, 2, 3, 9))).toBe(false);
  });
});
