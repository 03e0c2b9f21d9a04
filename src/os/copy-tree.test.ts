// SPDX-License-Identifier: MIT
// A folder as a tree: attributes to the last bit, and no way out.

import {
  chmodSync,
  closeSync,
  existsSync,
  fchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ERRNO as E } from "../base/index.js";
import { type CopyFile, CopyIo, CopyStat, NO_EXTRA } from "../copy/index.js";
import { partName } from "./copy-part.js";
import { type OsCopyTree, openCopyTree } from "./copy-tree.js";
import type { Poller } from "./door.js";
import { openMemorySource } from "./memory-source.js";
import { foreignCallsUnavailable } from "./native.js";
import { openPoller } from "./poller.js";

const unavailable = foreignCallsUnavailable();
if (unavailable !== null) console.warn(`copy trees are not tested: ${unavailable}`);

let folder: string;
let root: string;
let poller: Poller;
let tree: OsCopyTree;
const memory = unavailable === null ? openMemorySource() : null;
const attributes = {
  mode: 0o640,
  uid: process.getuid?.() ?? 0,
  gid: process.getgid?.() ?? 0,
  mtimeSeconds: -12_345,
  mtimeNanoseconds: 123_456_789,
  extra: NO_EXTRA,
};

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "farpage-tree-"));
  root = join(folder, "root");
  mkdirSync(root);
  mkdirSync(join(folder, "outside"));
  writeFileSync(join(folder, "outside/secret"), "secret");
  poller = openPoller("auto");
  tree = openCopyTree(root, poller);
});

afterEach(() => {
  tree.close();
  poller.close();
  rmSync(folder, { recursive: true, force: true });
});

function buffer(text: string) {
  const block = memory?.allocate(65_536);
  if (block === undefined) throw new Error("there is memory");
  block.bytes.set(Buffer.from(text));
  return block;
}

function put(path: string, text: string): number {
  return tree.putFile(path, buffer(text), 0, text.length, attributes);
}

/** Runs one piece of I/O to its end. */
async function io(file: CopyFile, kind: "read" | "write", offset: number, text: string) {
  const block = buffer(text);
  let result: number | null = null;
  const one = new CopyIo({ onCopyIo: ({ result: told }) => (result = told) });
  Object.assign(one, { memory: block, offset, length: text.length });
  if (kind === "read") file.startRead(one);
  else file.startWrite(one);
  while (tree.poll() === 0) await new Promise((resolve) => setImmediate(resolve));
  return { result, text: Buffer.from(block.bytes.subarray(0, text.length)).toString() };
}

describe.runIf(unavailable === null)("a file that is put", () => {
  it("has its bytes, mode and time to the nanosecond, its parents made; again: replaced", () => {
    expect(put("a/b/file", "hello")).toBe(0);
    const path = join(root, "a/b/file");
    expect(readFileSync(path, "utf8")).toBe("hello");
    const stat = lstatSync(path, { bigint: true });
    expect(Number(stat.mode & 0o7777n)).toBe(0o640);
    expect(stat.mtimeNs).toBe(-12_345n * 1_000_000_000n + 123_456_789n);
    expect(put("a/b/file", "other text")).toBe(0);
    expect(readFileSync(path, "utf8")).toBe("other text");
    const into = new CopyStat();
    expect(tree.stat("a/b/file", into)).toBe(0);
    expect(into).toMatchObject({ kind: "file", mode: 0o640, size: 10, mtimeSeconds: -12_345 });
    expect(readdirSync(join(root, "a/b"))).toEqual(["file"]);
  });

  it("over a file → in its place; over a directory → EISDIR, and nothing is left behind", () => {
    expect(put("file", "x")).toBe(0);
    const [name] = readdirSync(root);
    expect(name).toBe("file");
    mkdirSync(join(root, "dir"));
    expect(put("dir", "x")).toBe(-E.EISDIR);
    expect(readdirSync(root).sort()).toEqual(["dir", "file"]);
  });

  it("is read back whole; shorter or longer than it was said to be → EBUSY", () => {
    put("file", "hello");
    const into = buffer("");
    expect(tree.readFile("file", into, 3, 5)).toBe(5);
    expect(Buffer.from(into.bytes.subarray(3, 8)).toString()).toBe("hello");
    expect(tree.readFile("file", into, 0, 4)).toBe(-E.EBUSY);
    expect(tree.readFile("file", into, 0, 6)).toBe(-E.EBUSY);
    expect(tree.readFile("none", into, 0, 6)).toBe(-E.ENOENT);
  });
});

describe.runIf(unavailable === null)("a symbolic link", () => {
  it("in any component → refused, in every call; nothing outside is read or made", () => {
    symlinkSync("../outside", join(root, "way"));
    symlinkSync("../outside/secret", join(root, "leaf"));
    const into = buffer("");
    const refused = [-E.ENOTDIR, -E.ELOOP];
    expect(refused).toContain(put("way/new", "x"));
    expect(refused).toContain(tree.makeDirectory("way/new"));
    expect(refused).toContain(tree.makeSymlink("way/new", "x", attributes));
    expect(refused).toContain(tree.makeHardLink("mine", "way/secret"));
    expect(refused).toContain(tree.setDirectory("way", attributes));
    expect(refused).toContain(tree.openPart("way/new"));
    expect(refused).toContain(tree.openFile("way/secret"));
    expect(refused).toContain(tree.openFile("leaf"));
    expect(refused).toContain(tree.readFile("leaf", into, 0, 6));
    expect(refused).toContain(tree.readFile("way/secret", into, 0, 6));
    expect(refused).toContain(tree.list("way"));
    expect(refused).toContain(tree.stat("way/secret", new CopyStat()));
    expect(refused).toContain(tree.below("way", true));
    expect(readdirSync(join(folder, "outside"))).toEqual(["secret"]);
    // A file in a link's place replaces the link, not what it leads to.
    expect(put("leaf", "mine")).toBe(0);
    expect(lstatSync(join(root, "leaf")).isFile()).toBe(true);
    expect(readFileSync(join(folder, "outside/secret"), "utf8")).toBe("secret");
  });

  it("put in a folder's place after that was walked → what is made lands in the folder", () => {
    expect(put("sub/one", "1")).toBe(0);
    renameSync(join(root, "sub"), join(root, "moved"));
    symlinkSync("../outside", join(root, "sub"));
    expect(put("sub/two", "2")).toBe(0);
    expect(readdirSync(join(root, "moved")).sort()).toEqual(["one", "two"]);
    expect(readdirSync(join(folder, "outside"))).toEqual(["secret"]);
  });

  it("is made with its own time, and again without harm", () => {
    expect(tree.makeSymlink("sub/link", "any\xffwhere", attributes)).toBe(0);
    expect(tree.makeSymlink("sub/link", "any\xffwhere", attributes)).toBe(0);
    const path = join(root, "sub/link");
    expect(readlinkSync(path, { encoding: "latin1" })).toBe("any\xffwhere");
    expect(tree.readLink("sub/link")).toBe("any\xffwhere");
    expect(lstatSync(path, { bigint: true }).mtimeNs % 1_000_000_000n).not.toBe(0n);
  });
});

describe.runIf(unavailable === null)("the part of a large file", () => {
  it("keeps what was written when it is closed; has its name when it is finished", async () => {
    const first = tree.openPart("sub/big") as CopyFile;
    expect(first.size).toBe(0);
    expect((await io(first, "write", 8192, "data")).result).toBe(4);
    first.close();
    expect(existsSync(join(root, "sub/big"))).toBe(false);
    const second = tree.openPart("sub/big") as CopyFile;
    expect(second.size).toBe(8196);
    expect(await io(second, "read", 8192, "....")).toEqual({ result: 4, text: "data" });
    expect(second.finish(20_000, attributes)).toBe(0);
    second.close();
    const stat = statSync(join(root, "sub/big"));
    expect(stat.size).toBe(20_000);
    expect(stat.mode & 0o7777).toBe(0o640);
    expect(readdirSync(join(root, "sub"))).toEqual(["big"]);
  });

  it("that is another name of somebody's file → that stays as it is", async () => {
    const victim = join(folder, "outside/secret");
    linkSync(victim, join(root, partName("big")));
    const file = tree.openPart("big") as CopyFile;
    expect(file.size).toBe(0);
    expect((await io(file, "write", 0, "data")).result).toBe(4);
    expect(file.finish(4, attributes)).toBe(0);
    file.close();
    expect(readFileSync(victim, "utf8")).toBe("secret");
    expect(statSync(victim).mode & 0o777).not.toBe(0o640);
    expect(readFileSync(join(root, "big"), "utf8")).toBe("data");
  });

  it.runIf(process.geteuid?.() === 0)("that somebody else made → a new one", async () => {
    const theirs = openSync(join(root, partName("big")), "w");
    fchownSync(theirs, 12_345, 12_345);
    const file = tree.openPart("big") as CopyFile;
    expect((await io(file, "write", 0, "data")).result).toBe(4);
    expect(file.finish(4, attributes)).toBe(0);
    file.close();
    writeSync(theirs, "evil", 0);
    closeSync(theirs);
    expect(readFileSync(join(root, "big"), "utf8")).toBe("data");
  });

  it("opened by another copy → the newer has it, the older is told EBUSY", async () => {
    const older = tree.openPart("big") as CopyFile;
    const other = openCopyTree(root, poller);
    const newer = other.openPart("big") as CopyFile;
    expect(typeof newer).toBe("object");
    expect((await io(older, "write", 0, "late")).result).toBe(-E.EBUSY);
    expect(older.finish(4, attributes)).toBe(-E.EBUSY);
    older.close();
    newer.close();
    other.close();
  });
});

describe.runIf(unavailable === null)("a directory", () => {
  it("gets its attributes at the end; a closed one opens for who has no right to all", () => {
    expect(tree.makeDirectory("d")).toBe(0);
    expect(tree.makeDirectory("d")).toBe(1);
    expect(tree.setDirectory("d", { ...attributes, mode: 0o500 })).toBe(0);
    expect(statSync(join(root, "d")).mode & 0o7777).toBe(0o500);
    expect(tree.makeDirectory("d")).toBe(1);
    expect(put("d/file", "x")).toBe(0);
    chmodSync(join(root, "d"), 0o700);
    writeFileSync(join(root, "file"), "");
    expect(tree.makeDirectory("file")).toBe(-E.ENOTDIR);
    expect((tree.list("") as string[]).sort()).toEqual(["d", "file"]);
  });

  it("that is not there, or no directory → ENOENT, ENOTDIR when it is opened", () => {
    expect(() => openCopyTree(join(root, "none"), poller)).toThrow(/no such file/);
    expect(() => openCopyTree(join(folder, "outside/secret"), poller)).toThrow(/ENOTDIR/);
  });
});
