// SPDX-License-Identifier: MIT
import { expect, it } from "vitest";
import { readTopology } from "../../src/pci/index.js";
import { sourceOf } from "../support/topologies.js";
import { fuzzSeeds, longCount } from "./long-run.js";
import { PciFuzzer } from "./pci-fuzz.js";

it("PCI dumps: a million mutated ones", () => {
  const count = longCount(1_000_000);
  const mutated = fuzzSeeds(count, (seed) => new PciFuzzer(seed).run(5_000).mutated);
  expect(mutated).toBeGreaterThanOrEqual(count);
});

/** The 517-function server under as many domains as make so many bytes. */
function manyServers(bytesMin: number): Uint8Array {
  const one = new TextDecoder().decode(sourceOf("dell-xe9680-h100", "lspci-vvv.txt").bytes);
  const parts: string[] = [];
  for (let domain = 0, length = 0; length < bytesMin; domain++) {
    const prefix = domain.toString(16).padStart(4, "0");
    const part = one.replaceAll(/^([0-9a-f]{2}:[01][0-9a-f]\.[0-7] )/gm, `${prefix}:$1`);
    parts.push(part);
    length += part.length;
  }
  return new TextEncoder().encode(parts.join(""));
}

/** What costs a careless reader more than its share: one long line, many small ones, deep trees. */
const HOSTILE: Readonly<Record<string, (length: number) => string>> = {
  "one line": (length) => "a".repeat(length),
  "empty lines": (length) => "\n".repeat(length),
  quotes: (length) => "> > > > > > > >\n".repeat(length / 16),
  ats: (length) => `${"@".repeat(16_000)}\n`.repeat(length / 16_000),
  brackets: (length) => `00:00.0 PCI bridge: ${"[".repeat(16_000)}\n`.repeat(length / 16_000),
  tree: (length) => `-[0000:00]-${"--00.0-[01]-".repeat(1_300)}\n`.repeat(length / 16_000),
  columns: (length) => `${" ".repeat(15_000)}+-00.0\n`.repeat(length / 15_000),
  wrapped: (length) =>
    `\tCapabilities: ${"x".repeat(60)}\n${"y ".repeat(30)}\n`.repeat(length / 136),
};

it("PCI dumps: time is linear in their length", () => {
  const time = (bytes: Uint8Array): number => {
    const start = process.hrtime.bigint();
    const topology = readTopology([{ name: "servers", bytes }]);
    expect(topology.functions.size).toBeGreaterThan(500);
    return Number(process.hrtime.bigint() - start) / 1e6;
  };
  time(manyServers(2 << 20));
  const small = time(manyServers(6 << 20));
  const bytes = manyServers(50 << 20);
  const big = time(bytes);
  console.log(`${bytes.length} bytes in ${big.toFixed(0)} ms, an eighth in ${small.toFixed(0)} ms`);
  // Eight times as much; caches and the collector take their part.
  expect(big / small).toBeLessThan(30);
});

/** A tar whose headers hold no zero where a name could end: each is searched for one. */
function endlessNames(length: number): Uint8Array {
  const header = new TextEncoder().encode("a".repeat(512));
  const put = (text: string, at: number) => header.set(new TextEncoder().encode(text), at);
  put("00000000000 ", 124);
  put("        0", 148);
  put("ustar ", 257);
  const sum = header.reduce((all, byte) => all + byte, 0);
  put(`${sum.toString(8).padStart(6, "0")}  `, 148);
  const archive = new Uint8Array(length);
  for (let at = 0; at < length; at += header.length) archive.set(header, at);
  return archive;
}

const HEAD = "00:00.0 Host bridge: Intel Corporation Device 09a2\n";
const HOSTILE_BYTES: readonly (readonly [name: string, (length: number) => Uint8Array])[] = [
  ...Object.entries(HOSTILE).map(([name, make]) => {
    const bytes = (length: number) => new TextEncoder().encode(HEAD + make(length));
    return [name, bytes] as const;
  }),
  ["endless names", endlessNames],
];

it.each(HOSTILE_BYTES)("PCI dumps: %s: linear", (_name, make) => {
  const head = { name: "head", bytes: new TextEncoder().encode(HEAD) };
  const time = (length: number): number => {
    const folder = new Map([["hostile", { kind: "file", bytes: make(length) } as const]]);
    const start = process.hrtime.bigint();
    // In a folder: a file in it need not be a dump.
    readTopology([head, { name: "folder", entries: folder }]);
    return Number(process.hrtime.bigint() - start) / 1e6;
  };
  time(1 << 20);
  const small = time(4 << 20);
  const big = time(32 << 20);
  console.log(`${_name}: 4 MiB in ${small.toFixed(0)} ms, 32 MiB in ${big.toFixed(0)} ms`);
  expect(big).toBeLessThan(30 * Math.max(small, 20));
});
