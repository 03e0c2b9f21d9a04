// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { interfaceOf, isLinkLocal, localAddresses } from "./interfaces.js";

describe("interfaces", () => {
  it("loopback → all of 127.0.0.0/8; elsewhere → unknown, with Ethernet's MTU", () => {
    expect(interfaceOf(IpAddress.parse("127.0.0.1")).mtu).toBeGreaterThan(1500);
    expect(interfaceOf(IpAddress.parse("127.9.8.7")).name).not.toBeNull();
    expect(interfaceOf(IpAddress.parse("192.0.2.77"))).toEqual({
      name: null,
      mtu: 1500,
      scopeId: 0,
    });
    expect(localAddresses().join()).toContain("127.0.0.1");
  });

  it("fe80::/10 → link-local; its neighbours → not", () => {
    const links = ["fe80::1", "febf::1", "fe7f::1", "fec0::1", "::ffff:254.128.0.1"];
    expect(links.map((text) => isLinkLocal(IpAddress.parse(text)))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });
});
