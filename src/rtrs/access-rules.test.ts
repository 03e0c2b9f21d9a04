// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { AccessRules, parseAccessFile, parseAccessRule } from "./access-rules.js";

const rulesOf = (...texts: string[]) => new AccessRules(texts.map(parseAccessRule));
const level = (rules: AccessRules, client: string, session: string, volume: string) =>
  rules.find(IpAddress.parse(client), session, volume)?.level ?? null;

describe("access rules", () => {
  it("none given → loopback may do everything, nobody else is let in", () => {
    const rules = rulesOf();
    for (const [client, is] of [
      ["127.0.0.1", "rw"],
      ["127.255.255.255", "rw"],
      ["::1", "rw"],
      ["128.0.0.0", null],
      ["192.0.2.1", null],
      ["::2", null],
      ["2001:db8::1", null],
    ] as const) {
      expect(level(rules, client, "s", "v")).toBe(is);
      expect(rules.admits(IpAddress.parse(client))).toBe(is !== null);
    }
  });

  it("the first that fits decides, by address, session and volume", () => {
    const rules = rulesOf(
      "192.0.2.9,none",
      "192.0.2.0/24,volume=disk,session=backup*,ro",
      "192.0.2.0/24,volume=disk",
      "any,volume=public,ro",
      "2001:db8::/32,volume=own,exclusive",
      "loopback,volume=disk,none",
    );
    expect(level(rules, "192.0.2.9", "s", "disk")).toBe("none");
    expect(level(rules, "192.0.2.9", "s", "public")).toBe("none");
    expect(level(rules, "192.0.2.1", "backup-7", "disk")).toBe("ro");
    expect(level(rules, "192.0.2.1", "Backup", "disk")).toBe("rw");
    expect(level(rules, "192.0.2.1", "s", "disk2")).toBeNull();
    expect(level(rules, "192.0.3.1", "s", "disk")).toBeNull();
    expect(level(rules, "192.0.3.1", "s", "public")).toBe("ro");
    expect(level(rules, "2001:db8::5", "s", "own")).toBe("exclusive");
    expect(level(rules, "127.0.0.1", "s", "disk")).toBe("none");
    expect(level(rules, "127.0.0.1", "s", "other")).toBe("rw");
  });

  it("an address that no rule gives anything → not let in", () => {
    const rules = rulesOf("192.0.2.9,none", "192.0.2.0/24,volume=a,none", "192.0.2.0/25,volume=b");
    expect(rules.admits(IpAddress.parse("192.0.2.9"))).toBe(false);
    expect(rules.admits(IpAddress.parse("192.0.2.8"))).toBe(true);
    expect(rules.admits(IpAddress.parse("192.0.2.200"))).toBe(false);
    expect(rulesOf("loopback,none").admits(IpAddress.parse("127.0.0.1"))).toBe(false);
  });

  it("names with commas, stars and percent signs → escaped", () => {
    const rules = rulesOf("any,session=a%2Cb%2A,volume=100%25");
    expect(level(rules, "192.0.2.1", "a,b*", "100%")).toBe("rw");
    expect(level(rules, "192.0.2.1", "a,bc", "100%")).toBeNull();
  });

  it.each([
    ["", /is not an IPv4/],
    ["192.0.2.1/24", /write 192\.0\.2\.0\/24/],
    ["any,readonly", /"readonly" is unknown/],
    ["any,ro,rw", /"rw" is unknown or there twice/],
    ["any,volume=", /"volume=" is unknown/],
    ["any,volume=a,volume=b", /there twice/],
    ["any,volume=%", /bad %-escape/],
    ["any,volume=a*b", /not its last/],
  ])('"%s" → EINVAL naming the rule', (text, reason) => {
    expect(() => parseAccessRule(text)).toThrow(reason);
    expect(() => parseAccessRule(text)).toThrow(`rule "${text}"`);
  });

  it("a file → rules in order, comments left out, the line named", () => {
    const rules = parseAccessFile("# who\n\n any,ro # all\r\n192.0.2.1\n");
    expect(rules.map(({ text, level: is }) => [text, is])).toEqual([
      ["any,ro", "ro"],
      ["192.0.2.1", "rw"],
    ]);
    expect(() => parseAccessFile("any\n\nanyone\n")).toThrow(/^line 3: rule "anyone"/);
  });
});
