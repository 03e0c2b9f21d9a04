// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../../base/index.js";
import { type PathSpec, pairPaths, parsePath, pathName } from "./path-spec.js";

const ip = (text: string) => IpAddress.parse(text);
const ips = (...texts: readonly string[]) => texts.map(ip);
const named = ({ source, destination }: PathSpec) => `${source}@${destination}`;
const code = (code: string) => expect.objectContaining({ code });

describe("a path as people and Linux write it", () => {
  it.each([
    ["192.0.2.1", "null@192.0.2.1"],
    ["192.0.2.2@192.0.2.1", "192.0.2.2@192.0.2.1"],
    ["ip:192.0.2.2@ip:192.0.2.1", "192.0.2.2@192.0.2.1"],
    ["ip:192.0.2.2,ip:192.0.2.1", "192.0.2.2@192.0.2.1"],
    ["[2001:db8::2]@2001:db8::1", "2001:db8::2@2001:db8::1"],
    ["ip:2001:db8::1", "null@2001:db8::1"],
  ])("%s", (text, expected) => {
    expect(named(parsePath(text))).toBe(expected);
  });

  it.each(["", "@", "a@b", "192.0.2.1@", "192.0.2.1@192.0.2.2@192.0.2.3", "gid:fe80::1"])(
    "%j → EINVAL",
    (text) => {
      expect(() => parsePath(text)).toThrow(code("EINVAL"));
    },
  );
});

describe("which address pairs are meant", () => {
  const own = ips("192.0.2.2", "2001:db8::2", "198.51.100.2");

  it("each address of the server, from those of its family in turn; further ones once", () => {
    const to = ips("192.0.2.1", "198.51.100.1", "2001:db8::1", "203.0.113.1");
    const more = [parsePath("198.51.100.2@192.0.2.1"), parsePath("192.0.2.1")];
    expect(pairPaths(to, more, own).map(pathName)).toEqual([
      "ip:192.0.2.2@ip:192.0.2.1",
      "ip:198.51.100.2@ip:198.51.100.1",
      "ip:2001:db8::2@ip:2001:db8::1",
      "ip:192.0.2.2@ip:203.0.113.1",
      "ip:198.51.100.2@ip:192.0.2.1",
    ]);
  });

  it("no address of that family, one that is not ours, two families → an error each", () => {
    const v4 = ips("192.0.2.2");
    expect(() => pairPaths(ips("2001:db8::1"), [], v4)).toThrow(code("EADDRNOTAVAIL"));
    const stranger = [parsePath("192.0.2.9@192.0.2.1")];
    expect(() => pairPaths([], stranger, v4)).toThrow(code("EADDRNOTAVAIL"));
    const mixed = [parsePath("192.0.2.2@2001:db8::1")];
    expect(() => pairPaths([], mixed, v4)).toThrow(code("EINVAL"));
  });
});
