// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "./ip.js";
import { IpPrefix } from "./ip-prefix.js";

describe("IpPrefix", () => {
  it.each([
    ["192.0.2.0/24", "192.0.2.0", "192.0.2.255", "192.0.3.0"],
    ["192.0.2.128/25", "192.0.2.128", "192.0.2.255", "192.0.2.127"],
    ["0.0.0.0/0", "0.0.0.0", "255.255.255.255", "::"],
    ["192.0.2.7", "192.0.2.7", "::ffff:192.0.2.7", "192.0.2.6"],
    ["2001:db8::/33", "2001:db8::", "2001:db8:7fff::1", "2001:db8:8000::"],
    ["2001:db8::/96", "2001:db8::", "2001:db8::ffff:ffff", "2001:db8::1:0:0"],
    ["::/0", "::", "ffff::", "192.0.2.1"],
    ["::1/128", "::1", "::1", "127.0.0.1"],
  ])("%s: %s and %s are in it, %s is not", (text, first, last, beyond) => {
    const prefix = IpPrefix.parse(text);
    expect(prefix.contains(IpAddress.parse(first))).toBe(true);
    expect(prefix.contains(IpAddress.parse(last))).toBe(true);
    expect(prefix.contains(IpAddress.parse(beyond))).toBe(false);
    expect(IpPrefix.parse(prefix.toString())).toEqual(prefix);
  });

  it.each([
    ["192.0.2.1/24", /bits behind \/24: write 192\.0\.2\.0\/24/],
    ["192.0.2.0/33", /write ADDRESS\/0 to \/32/],
    ["::/129", /write ADDRESS\/0 to \/128/],
    ["::/", /is no network/],
    ["192.0.2.0/024", /is no network/],
    ["192.0.2.0/24/1", /is no network/],
    ["192.0.2/24", /is not an IPv4 or IPv6 address/],
    ["", /is not an IPv4 or IPv6 address/],
  ])("%s → EINVAL with the reason", (text, reason) => {
    expect(() => IpPrefix.parse(text)).toThrow(reason);
  });
});
