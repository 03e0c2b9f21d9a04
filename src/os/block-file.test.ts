// SPDX-License-Identifier: MIT
import { spawn } from "node:child_process";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { FILE_OPERATION, FileIo } from "../block/index.js";
import type { Backend, BlockFileOptions, OsBlockFile, Poller } from "./index.js";
import {
  foreignCallsUnavailable,
  makeMemoryFile,
  openBlockFile,
  openMemorySource,
  openPoller,
} from "./index.js";

const hasNative = foreignCallsUnavailable() === null;
const BACKENDS: readonly Backend[] = hasNative ? ["native", "node"] : ["node"];

/** What a file's first bytes are, read at once. */
function firstByteOf(file: OsBlockFile): number {
  const memory = openMemorySource({ backend: "native" }).allocate(4096);
  expect(file.tryRead(0, memory, 0, 4096)).toBe(4096);
  return memory.bytes[0] as number;
}

describe.skipIf(!hasNative)("a file that several lanes of a process have open", () => {
  it("the second open goes by the first's lock; each sees the other's writes", async () => {
    const directory = mkdtempSync(join(tmpdir(), "farpage-file-"));
    const path = join(directory, "disk");
    writeFileSync(path, Buffer.alloc(65_536, 1));
    const poller = openPoller("native");
    const first = await openBlockFile(path, { poller });
    await expect(openBlockFile(path, { poller })).rejects.toMatchObject({ code: "EBUSY" });
    // By the descriptor, whatever has become of the name.
    rmSync(path);
    const { descriptor } = first;
    const second = await openBlockFile(path, { poller, descriptor });
    expect(second.descriptor).not.toBe(descriptor);
    expect(second.sizeBytes).toBe(65_536);
    const memory = openMemorySource({ backend: "native" }).allocate(4096);
    memory.bytes.fill(7);
    expect(first.tryWrite(0, memory, 0, 4096)).toBe(4096);
    expect(firstByteOf(second)).toBe(7);
    memory.bytes.fill(9);
    expect(second.tryWrite(0, memory, 0, 4096)).toBe(4096);
    expect(firstByteOf(first)).toBe(9);
    second.close();
    first.close();
    poller.close();
    rmSync(directory, { recursive: true });
  });

  it("read-only → its further opens are, too", async () => {
    const descriptor = makeMemoryFile("a volume", 65_536);
    const poller = openPoller("native");
    const file = await openBlockFile("memory", { poller, descriptor, readOnly: true });
    const memory = openMemorySource({ backend: "native" }).allocate(4096);
    expect(file.tryWrite(0, memory, 0, 4096)).toBe(-ERRNO.EBADF);
    file.close();
    closeSync(descriptor);
    poller.close();
    expect(() => makeMemoryFile("a volume", 100)).toThrow("not a multiple of 512");
  });
});

describe.each(BACKENDS)("openBlockFile, %s", (backend) => {
  let poller: Poller;
  let directory: string;
  let path: string;
  const files: OsBlockFile[] = [];

  beforeEach(() => {
    poller = openPoller(backend);
    directory = mkdtempSync(join(tmpdir(), "farpage-file-"));
    path = join(directory, "disk");
  });
  afterEach(() => {
    for (const file of files.splice(0)) file.close();
    poller.close();
    rmSync(directory, { recursive: true });
  });

  async function open(options: Partial<BlockFileOptions> = {}, at = path): Promise<OsBlockFile> {
    const file = await openBlockFile(at, { poller, backend, ...options });
    files.push(file);
    return file;
  }

  async function run(file: OsBlockFile, operation: FileIo["operation"], length: number) {
    const memory = openMemorySource({ backend }).allocate(65_536);
    let isDone = false;
    const onFileIoComplete = () => {
      isDone = true;
    };
    const io = new FileIo({ onFileIoComplete }, 0);
    Object.assign(io, { operation, length, memory });
    file.start(io);
    while (!isDone) {
      await poller.wait(1e9);
      file.poll();
    }
    return io;
  }

  it("no such file → ENOENT; with create → a sparse file for its owner alone", async () => {
    await expect(open()).rejects.toMatchObject({ code: "ENOENT" });
    const file = await open({ create: true, sizeBytes: 1 << 20 });
    expect(file).toMatchObject({ kind: "file", sizeBytes: 1 << 20, path, backend });
    const stats = statSync(path);
    expect(stats.size).toBe(1 << 20);
    expect(stats.blocks).toBeLessThanOrEqual(8);
    expect(stats.mode & 0o077).toBe(0);
  });

  it("create over an existing file → its size and contents stay", async () => {
    writeFileSync(path, Buffer.alloc(2048, 7));
    const file = await open({ create: true, sizeBytes: 1 << 20 });
    expect(file.sizeBytes).toBe(2048);
    expect(readFileSync(path).every((byte) => byte === 7)).toBe(true);
  });

  it("a directory, an empty or odd-sized file, no disk → refused, and why", async () => {
    await expect(open({}, directory)).rejects.toMatchObject({ code: "EISDIR" });
    await expect(open({ readOnly: true }, directory)).rejects.toMatchObject({ code: "EISDIR" });
    writeFileSync(path, "");
    await expect(open()).rejects.toThrow("is empty");
    writeFileSync(path, "x".repeat(513));
    await expect(open()).rejects.toThrow("513 bytes, not a multiple of 512");
    await expect(open({}, "/dev/null")).rejects.toThrow("neither a file nor a block device");
    const create = { create: true, sizeBytes: 1000 };
    await expect(open(create, `${path}2`)).rejects.toMatchObject({ code: "EINVAL" });
  });

  it("read-only → reads work, and it can't be punched", async () => {
    writeFileSync(path, Buffer.alloc(4096, 5));
    const file = await open({ readOnly: true });
    expect(file).toMatchObject({ readOnly: true, canPunch: false, canZero: false });
    const io = await run(file, FILE_OPERATION.READ, 4096);
    expect(io.result).toBe(4096);
    expect(io.memory?.bytes[4095]).toBe(5);
    expect((await run(file, FILE_OPERATION.WRITE, 4096)).result).toBe(-ERRNO.EBADF);
  });

  it("truncated by somebody else → refreshSize tells, reads are short", async () => {
    const file = await open({ create: true, sizeBytes: 65_536 });
    truncateSync(path, 4096);
    expect(file.sizeBytes).toBe(65_536);
    expect(file.refreshSize()).toBe(4096);
    expect((await run(file, FILE_OPERATION.READ, 65_536)).result).toBe(4096);
  });

  it("a range outside the memory → a bug, caught before the kernel sees it", async () => {
    const file = await open({ create: true, sizeBytes: 65_536 });
    const memory = openMemorySource({ backend }).allocate(4096);
    if (backend === "native") {
      expect(() => file.tryRead(0, memory, 1, 4096)).toThrow("in memory");
      expect(() => file.tryWrite(0, memory, -1, 512)).toThrow("in memory");
    }
    const io = new FileIo({ onFileIoComplete: () => {} }, 0);
    Object.assign(io, { operation: FILE_OPERATION.READ, length: 8192, memory });
    const other = await open({ create: true, sizeBytes: 4096 }, `${path}2`);
    expect(() => other.start(io)).toThrow("in memory");
  });
});

describe.skipIf(!hasNative)("openBlockFile, native only", () => {
  let poller: Poller;
  let directory: string;
  let path: string;

  beforeEach(() => {
    poller = openPoller("native");
    directory = mkdtempSync(join(tmpdir(), "farpage-file-"));
    path = join(directory, "disk");
    writeFileSync(path, Buffer.alloc(1 << 20, 1));
  });
  afterEach(() => {
    poller.close();
    rmSync(directory, { recursive: true });
  });

  it("open for writing elsewhere → EBUSY, naming the process; closed → free", async () => {
    const first = await openBlockFile(path, { poller });
    for (const readOnly of [false, true]) {
      const opening = openBlockFile(path, { poller, readOnly });
      await expect(opening).rejects.toMatchObject({ code: "EBUSY" });
      await expect(opening).rejects.toThrow(`(process ${process.pid}) has it locked`);
    }
    first.close();
    (await openBlockFile(path, { poller })).close();
  });

  it("readers → share, and keep writers out", async () => {
    const readers = [
      await openBlockFile(path, { poller, readOnly: true }),
      await openBlockFile(path, { poller, readOnly: true }),
    ];
    await expect(openBlockFile(path, { poller })).rejects.toMatchObject({ code: "EBUSY" });
    for (const reader of readers) reader.close();
  });

  it("a holder that was killed → its lock is gone with it", async () => {
    // By its own foreign call, as another program would: struct flock with F_WRLCK, F_OFD_SETLK.
    const script =
      `const fd = require("fs").openSync(${JSON.stringify(path)}, "r+");` +
      "const lock = Buffer.alloc(32); lock.writeInt16LE(1, 0);" +
      'const types = ["int", "int", "void *"];' +
      'const fcntl = require("koffi").load(null).func("fcntl", "int", types);' +
      "console.log(fcntl(fd, 37, lock)); setInterval(() => {}, 1000);";
    const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    const said = await new Promise((resolve) => child.stdout.once("data", resolve));
    expect(Number(said)).toBe(0);
    await expect(openBlockFile(path, { poller })).rejects.toThrow(`(process ${child.pid})`);
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await exited;
    (await openBlockFile(path, { poller })).close();
  });

  it("in the page cache → tryRead and tryWrite do it at once", async () => {
    const file = await openBlockFile(path, { poller });
    const memory = openMemorySource().allocate(8192);
    expect(file.tryRead(4096, memory, 0, 4096)).toBe(4096);
    expect(memory.bytes[0]).toBe(1);
    memory.bytes.fill(9);
    expect([4096, -ERRNO.EAGAIN]).toContain(file.tryWrite(8192, memory, 4096, 4096));
    // Less than a page may need the rest of it from the disk: a thread's work, or the kernel knows.
    expect([512, -ERRNO.EAGAIN]).toContain(file.tryWrite(512, memory, 0, 512));
    expect(file.tryRead(1 << 20, memory, 0, 4096)).toBe(0);
    file.close();
  });

  it("a sparse file → EXTENTS tells data from holes", async () => {
    closeSync(openSync(path, "w"));
    truncateSync(path, 4 << 20);
    const file = await openBlockFile(path, { poller });
    const memory = openMemorySource().allocate(1 << 16);
    memory.bytes.fill(3);
    const done: FileIo[] = [];
    const start = async (operation: FileIo["operation"], offset: number, length: number) => {
      const io = new FileIo({ onFileIoComplete: (finished) => void done.push(finished) }, 0);
      Object.assign(io, { operation, offset, length, memory });
      file.start(io);
      while (!done.includes(io)) {
        await poller.wait(1e9);
        file.poll();
      }
      return io;
    };
    await start(FILE_OPERATION.WRITE, 1 << 20, 1 << 16);
    const { result, extents } = await start(FILE_OPERATION.EXTENTS, 4096, (2 << 20) - 4096);
    expect(result).toBe(0);
    expect(extents).toEqual([
      [(1 << 20) - 4096, true],
      [1 << 16, false],
      [(1 << 20) - (1 << 16), true],
    ]);
    const punched = await start(FILE_OPERATION.PUNCH, 1 << 20, 1 << 16);
    expect(punched.result).toBe(0);
    const after = await start(FILE_OPERATION.EXTENTS, 0, 4 << 20);
    expect(after.extents).toEqual([[4 << 20, true]]);
    file.close();
  });
});
