// SPDX-License-Identifier: MIT
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readNamedSource } from "./folder.js";

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "farpage-folder-"));
});
afterEach(() => rmSync(root, { recursive: true }));

const EMPTY = Readable.from([]);
const SMALL = { bytesMax: 1000, entryCountMax: 5 };
/** A Buffer, as Node's own calls give: equal to no Uint8Array. */
const bytesOf = (content: string) => Buffer.concat([new TextEncoder().encode(content)]);
const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);

async function readBytes(path: string, limits = SMALL) {
  const found = await readNamedSource(path, EMPTY, limits);
  if (found.kind !== "read" || !("bytes" in found.source)) throw new Error(`${path}: no file`);
  return { bytes: found.source.bytes, notices: found.notices };
}

async function readFolder(path: string, limits = SMALL) {
  const found = await readNamedSource(path, EMPTY, limits);
  if (found.kind !== "read" || !("entries" in found.source)) throw new Error(`${path}: no folder`);
  return { entries: found.source.entries, notices: found.notices };
}

describe("a dump's file", () => {
  it("is read, gzip unpacked, also from standard input", async () => {
    writeFileSync(join(root, "plain"), "00:00.0 Host bridge");
    writeFileSync(join(root, "packed.gz"), gzipSync("00:01.0 Host bridge"));
    expect(text((await readBytes(join(root, "plain"))).bytes)).toBe("00:00.0 Host bridge");
    expect(text((await readBytes(join(root, "packed.gz"))).bytes)).toBe("00:01.0 Host bridge");
    const input = Readable.from([bytesOf("00:0"), bytesOf("2.0")]);
    const found = await readNamedSource("-", input, SMALL);
    expect(found).toMatchObject({ source: { name: "standard input" } });
    expect(found.kind === "read" && "bytes" in found.source && text(found.source.bytes)).toBe(
      "00:02.0",
    );
  });

  it("that is a pipe is read to its end", async () => {
    const pipe = join(root, "pipe");
    execFileSync("mkfifo", [pipe]);
    // Another process: opening a pipe waits for the other end.
    const writer = spawn("sh", ["-c", 'printf 00:00.0 >"$0"', pipe]);
    const ended = once(writer, "exit");
    expect(text((await readBytes(pipe)).bytes)).toBe("00:00.0");
    await ended;
  });

  it("above the limit is EFBIG, plain, endless, or unpacked from little", async () => {
    writeFileSync(join(root, "big"), new Uint8Array(1001));
    writeFileSync(join(root, "bomb.gz"), gzipSync(new Uint8Array(100_000)));
    for (const path of [join(root, "big"), join(root, "bomb.gz"), "/dev/zero"]) {
      const error = { code: "EFBIG", message: `${path} has more than 0 MiB, unpacked` };
      await expect(readBytes(path)).rejects.toMatchObject(error);
    }
  });

  it("whose gzip is cut off is read as far as it goes, and that is said", async () => {
    const noise = Array.from({ length: 900 }, (_, i) => "0123456789abcdef\n"[(i * i) % 17]).join(
      "",
    );
    const whole = gzipSync(noise);
    writeFileSync(join(root, "cut.gz"), whole.subarray(0, whole.length - 12));
    const { bytes, notices } = await readBytes(join(root, "cut.gz"));
    expect(bytes.length).toBeGreaterThan(0);
    expect(noise.startsWith(text(bytes))).toBe(true);
    expect(notices.join()).toMatch(/cut off/);
  });

  it("whose gzip is broken, and one packed otherwise, are EINVAL", async () => {
    const broken = gzipSync("x".repeat(500));
    broken[2] = 9; // No such compression method.
    writeFileSync(join(root, "broken.gz"), broken);
    writeFileSync(join(root, "dump.xz"), Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]));
    await expect(readBytes(join(root, "broken.gz"))).rejects.toThrow(/gzip is broken/);
    await expect(readBytes(join(root, "dump.xz"))).rejects.toThrow(/packed with xz: unpack it/);
  });

  it("that isn't there is ENOENT with its name", async () => {
    const reading = readBytes(join(root, "nowhere"));
    await expect(reading).rejects.toMatchObject({ code: "ENOENT" });
    await expect(readBytes(join(root, "nowhere"))).rejects.toThrow(/nowhere/);
  });
});

describe("a dump's folder", () => {
  it("is read with what lies below, links told and not followed", async () => {
    mkdirSync(join(root, "a/b"), { recursive: true });
    writeFileSync(join(root, "a/b/config"), "c");
    writeFileSync(join(root, "outside"), "secret");
    symlinkSync("../outside", join(root, "a/link"));
    const { entries } = await readFolder(join(root, "a"));
    expect([...entries]).toEqual([
      ["b", { kind: "folder" }],
      ["b/config", { kind: "file", bytes: bytesOf("c") }],
      ["link", { kind: "link", target: "../outside" }],
    ]);
  });

  it("leaves device memory out, and says which packed file it could not read", async () => {
    writeFileSync(join(root, "resource0"), "memory");
    writeFileSync(join(root, "resource"), "0x0 0x0 0x0");
    writeFileSync(join(root, "x.zip"), Buffer.from([0x50, 0x4b, 3, 4]));
    const { entries, notices } = await readFolder(root);
    expect([...entries.keys()]).toEqual(["resource"]);
    expect(notices.join()).toMatch(/x\.zip.*zip/);
  });

  it("above the limits is EFBIG: entries, bytes, bytes when unpacked", async () => {
    for (let i = 0; i < 3; i++) writeFileSync(join(root, `${i}`), new Uint8Array(400));
    await expect(readFolder(root)).rejects.toMatchObject({ code: "EFBIG" });
    const many = { bytesMax: 10_000, entryCountMax: 2 };
    await expect(readFolder(root, many)).rejects.toMatchObject({ code: "EFBIG" });
    writeFileSync(join(root, "bomb.gz"), gzipSync(new Uint8Array(100_000)));
    const bomb = { bytesMax: 10_000, entryCountMax: 10 };
    await expect(readFolder(root, bomb)).rejects.toMatchObject({ code: "EFBIG" });
  });

  it("where sysfs is mounted is told apart: it isn't for reading blindly", async () => {
    expect(await readNamedSource("/sys", EMPTY, SMALL)).toEqual({ kind: "sysfs", name: "/sys" });
  });
});
