// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { encodeUtf8 } from "../base/index.js";
import { readTar } from "./tar.js";

const BLOCK = 512;

function header(name: string, size: number, type: string): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const put = (text: string, at: number) => block.set(encodeUtf8(text), at);
  put(name, 0);
  put(`${size.toString(8).padStart(11, "0")} `, 124);
  put("        ", 148);
  put(type, 156);
  put("ustar ", 257);
  const sum = block.reduce((all, byte) => all + byte, 0);
  put(`${sum.toString(8).padStart(6, "0")}  `, 148);
  return block;
}

function padded(bytes: Uint8Array): Uint8Array {
  const all = new Uint8Array(Math.ceil(bytes.length / BLOCK) * BLOCK);
  all.set(bytes);
  return all;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const END = new Uint8Array(2 * BLOCK);

describe("tar archives", () => {
  it("a pax record's name counts, records of other keys don't", () => {
    const records = padded(encodeUtf8("11 atime=0\n25 path=a/long/er/name.t\n"));
    const archive = joined(
      header("PaxHeaders", 36, "x"),
      records,
      header("short", 3, "0"),
      padded(encodeUtf8("abc")),
      END,
    );
    const { entries, problems } = readTar(archive);
    expect([...entries.keys()]).toEqual(["a/long/er/name.t"]);
    expect(problems).toEqual([]);
  });

  it("a pax record with a key of megabytes is passed over", () => {
    const length = 2_000_000;
    const record = new Uint8Array(length).fill(0x61);
    record.set(encodeUtf8(`${length} `));
    record.set(encodeUtf8("=a\n"), length - 3);
    const archive = joined(
      header("PaxHeaders", length, "x"),
      padded(record),
      header("file", 0, "0"),
      END,
    );
    expect([...readTar(archive).entries.keys()]).toEqual(["file"]);
  });

  it("names that leave the archive are left out", () => {
    const names = ["../x", "a/../../x", "/", "/abs", "./a//b/"];
    const archive = joined(...names.map((name) => header(name, 0, "0")), END);
    expect([...readTar(archive).entries.keys()]).toEqual(["abs", "a/b"]);
  });
});
