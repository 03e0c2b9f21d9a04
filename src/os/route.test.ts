// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { localAddressTowards } from "./index.js";

describe("localAddressTowards", () => {
  it("loopback → the loopback address of the same family", async () => {
    expect(String(await localAddressTowards(IpAddress.parse("127.0.0.1")))).toBe("127.0.0.1");
    expect(String(await localAddressTowards(IpAddress.parse("::1")))).toBe("::1");
  });

  it("an address that can't be a destination → the system's error, with the address", async () => {
    const refused = localAddressTowards(IpAddress.parse("255.255.255.255"));
    await expect(refused).rejects.toMatchObject({
      code: expect.stringMatching(/^E/),
      message: expect.stringContaining("255.255.255.255"),
    });
  });
});
