// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import {
  formatSize,
  nbdUri,
  parseExport,
  parseNbdEndpoint,
  parseRnbdUri,
  parseRtrsUri,
  parseSize,
  parseVolume,
} from "./uri.js";

describe("sizes", () => {
  it("reads bytes and powers of 1024", () => {
    expect(parseSize("4096")).toBe(4096);
    expect(parseSize("64K")).toBe(65_536);
    expect(parseSize("1.5G")).toBe(1.5 * 1024 ** 3);
    expect(parseSize("2TiB")).toBe(2 * 1024 ** 4);
  });
  it.each(["", "x", "-1", "1Q", "1e3", "9999999T"])("refuses %j", (text) => {
    expect(() => parseSize(text)).toThrow(/is not a size/);
  });
  it("formats for people", () => {
    expect(formatSize(512)).toBe("512 bytes");
    expect(formatSize(64 * 1024 ** 2)).toBe("64 MiB");
    expect(formatSize(1.5 * 1024 ** 3)).toBe("1.5 GiB");
  });
});

describe("volumes", () => {
  it("reads a path with its options", () => {
    expect(parseVolume("disk=/a,b=c,size=1G,readonly")).toEqual({
      name: "disk",
      path: "/a,b=c",
      sizeBytes: 1024 ** 3,
      readOnly: true,
    });
  });
  it("reads a volume in memory", () => {
    expect(parseVolume("m=memory:1M")).toEqual({
      name: "m",
      path: null,
      sizeBytes: 1024 ** 2,
      readOnly: false,
    });
  });
  it.each([
    "",
    "x",
    "=p",
    "x=",
    "../x=p",
    "/x=p",
    "x=memory:",
    "x=memory:100",
    "x=memory:1M,redonly",
    "x=p,size=7",
  ])("refuses %j", (text) => {
    expect(() => parseVolume(text)).toThrow();
  });
});

describe("RNBD URIs", () => {
  it("reads several addresses, a port and an escaped name", () => {
    const uri = parseRnbdUri("rnbd://192.0.2.1,[fd00::2]:4321/a%20b");
    expect(uri.addresses.map(String)).toEqual(["192.0.2.1", "fd00::2"]);
    expect(uri.port).toBe(4321);
    expect(uri.volume).toBe("a b");
  });
  it("takes a bare IPv6 address as an address, not as a port", () => {
    const uri = parseRnbdUri("rnbd://fd00::2/v");
    expect(uri.addresses.map(String)).toEqual(["fd00::2"]);
    expect(uri.port).toBe(1234);
  });
  it.each([
    "rnbd:/x",
    "rnbd://1.2.3.4",
    "rnbd://1.2.3/v",
    "rnbd://1.2.3.4:0/v",
    "rnbd://1.2.3.4/%",
    "http://1.2.3.4/v",
  ])("refuses %j", (text) => {
    expect(() => parseRnbdUri(text)).toThrow();
  });
});

describe("places that are copied to and from", () => {
  it("reads address, port and path, as written", () => {
    const uri = parseRtrsUri("rtrs://192.0.2.1/photos/2026%20a/");
    expect({ ...uri, addresses: uri.addresses.map(String) }).toEqual({
      addresses: ["192.0.2.1"],
      port: 1235,
      path: "photos/2026 a/",
    });
    expect(parseRtrsUri("rtrs://[2001:db8::1]:77/x").port).toBe(77);
  });
  it.each(["rtrs://192.0.2.1", "rtrs://192.0.2.1/", "rtrs://a/b", "rnbd://192.0.2.1/x", "x"])(
    "refuses %j",
    (text) => {
      expect(() => parseRtrsUri(text)).toThrow();
    },
  );
  it("refuses two addresses, since a copy has one", () => {
    expect(() => parseRtrsUri("rtrs://192.0.2.1,192.0.2.2/x")).toThrow(/one address/);
  });
  it("reads exports", () => {
    expect(parseExport("a=/srv/b=c")).toEqual({ name: "a", path: "/srv/b=c", readOnly: false });
    expect(parseExport("a=dir,ro")).toEqual({ name: "a", path: "dir", readOnly: true });
  });
  it.each(["a", "=x", "a=", "a/b=x", "..=x", "a=,ro"])("refuses export %j", (text) => {
    expect(() => parseExport(text)).toThrow(/NAME=DIR/);
  });
});

describe("NBD endpoints", () => {
  it("reads both kinds and writes their URIs", () => {
    expect(nbdUri(parseNbdEndpoint("unix:/run/x.sock"), "vol 1")).toBe(
      "nbd+unix:///vol%201?socket=/run/x.sock",
    );
    expect(nbdUri(parseNbdEndpoint("tcp:[::1]:9"), "v")).toBe("nbd://[::1]:9/v");
    expect(parseNbdEndpoint("tcp:127.0.0.1")).toEqual({
      kind: "tcp",
      host: "127.0.0.1",
      port: 10_809,
    });
  });
  it.each(["", "unix:", "tcp:", "tcp:a:b", "tcp:a:99999", "/path"])("refuses %j", (text) => {
    expect(() => parseNbdEndpoint(text)).toThrow(/is not/);
  });
});
