// SPDX-License-Identifier: MIT
// The system calls of a copy: names relative to an open directory, as bytes, nothing following a
// symbolic link. node:fs has none of that (its names are paths from the root or from wherever the
// process is, its times are doubles, which hold no nanoseconds of these years).

import { createRequire } from "node:module";
import type Koffi from "koffi";
import type { CopyStat } from "../copy/index.js";
import { mapBlock, unmapBlock } from "./memory-source.js";
import { loadNative, type NativeBlock } from "./native.js";

type Address = number;

/** Functions of the C library; each returns -1 on failure. Names are addresses of C strings. */
export interface CopyLibc {
  readonly openat: (dir: number, name: Address, flags: number, mode: number) => number;
  readonly close: (fd: number) => number;
  readonly statx: (
    dir: number,
    name: Address,
    flags: number,
    mask: number,
    into: Address,
  ) => number;
  readonly read: (fd: number, into: Address, length: number) => number;
  readonly write: (fd: number, from: Address, length: number) => number;
  readonly lseek: (fd: number, offset: number, whence: number) => number;
  readonly ftruncate: (fd: number, length: number) => number;
  readonly fchmod: (fd: number, mode: number) => number;
  readonly fchown: (fd: number, uid: number, gid: number) => number;
  readonly fchownat: (
    dir: number,
    name: Address,
    uid: number,
    gid: number,
    flags: number,
  ) => number;
  readonly futimens: (fd: number, times: Address) => number;
  readonly utimensat: (dir: number, name: Address, times: Address, flags: number) => number;
  readonly mkdirat: (dir: number, name: Address, mode: number) => number;
  readonly unlinkat: (dir: number, name: Address, flags: number) => number;
  readonly renameat: (from: number, name: Address, to: number, target: Address) => number;
  readonly symlinkat: (target: Address, dir: number, name: Address) => number;
  readonly linkat: (
    from: number,
    name: Address,
    to: number,
    target: Address,
    flags: number,
  ) => number;
  readonly readlinkat: (dir: number, name: Address, into: Address, length: number) => number;
  readonly flistxattr: (fd: number, into: Address, length: number) => number;
  readonly fgetxattr: (fd: number, name: Address, into: Address, length: number) => number;
  readonly fsetxattr: (
    fd: number,
    name: Address,
    from: Address,
    length: number,
    flags: number,
  ) => number;
  readonly fremovexattr: (fd: number, name: Address) => number;
}

type KoffiModule = typeof Koffi;

let bound: CopyLibc | null = null;

/** @throws FarpageError EOPNOTSUPP where foreign calls can't be had. */
export function copyLibc(): CopyLibc {
  loadNative();
  bound ??= bind(createRequire(import.meta.url)("koffi") as KoffiModule);
  return bound;
}

function bind(koffi: KoffiModule): CopyLibc {
  const library = koffi.load(null);
  const f = (name: string, result: string, ...parameters: string[]) =>
    library.func(name, result, parameters);
  const name = "uintptr_t";
  return {
    openat: f("openat", "int", "int", name, "int", "uint"),
    close: f("close", "int", "int"),
    statx: f("statx", "int", "int", name, "int", "uint", name),
    read: f("read", "long", "int", name, "size_t"),
    write: f("write", "long", "int", name, "size_t"),
    lseek: f("lseek", "int64_t", "int", "int64_t", "int"),
    ftruncate: f("ftruncate", "int", "int", "int64_t"),
    fchmod: f("fchmod", "int", "int", "uint"),
    fchown: f("fchown", "int", "int", "uint", "uint"),
    fchownat: f("fchownat", "int", "int", name, "uint", "uint", "int"),
    futimens: f("futimens", "int", "int", name),
    utimensat: f("utimensat", "int", "int", name, name, "int"),
    mkdirat: f("mkdirat", "int", "int", name, "uint"),
    unlinkat: f("unlinkat", "int", "int", name, "int"),
    renameat: f("renameat", "int", "int", name, "int", name),
    symlinkat: f("symlinkat", "int", name, "int", name),
    linkat: f("linkat", "int", "int", name, "int", name, "int"),
    readlinkat: f("readlinkat", "long", "int", name, name, "size_t"),
    flistxattr: f("flistxattr", "long", "int", name, "size_t"),
    fgetxattr: f("fgetxattr", "long", "int", name, name, "size_t"),
    fsetxattr: f("fsetxattr", "int", "int", name, name, "size_t", "int"),
    fremovexattr: f("fremovexattr", "int", "int", name),
  };
}

const NAME_ROOM = 8192;
const ATTRIBUTES_ROOM = 65_536;

/** Memory for what calls take and give: two names, a struct statx, times, attributes. */
export class CallRoom {
  readonly first: Address;
  readonly second: Address;
  readonly stat: Address;
  readonly statView: DataView;
  readonly times: Address;
  /** Of `ATTRIBUTES_ROOM` bytes. */
  readonly attributes: Address;
  readonly attributeBytes: Uint8Array;
  private readonly block: NativeBlock;

  constructor() {
    this.block = mapBlock(2 * NAME_ROOM + 4096 + ATTRIBUTES_ROOM);
    const { address, bytes, view } = this.block;
    const at = 2 * NAME_ROOM;
    this.first = address;
    this.second = address + NAME_ROOM;
    this.stat = address + at;
    this.statView = new DataView(view.buffer, view.byteOffset + at, 1024);
    this.times = address + at + 1024;
    this.attributes = address + at + 4096;
    this.attributeBytes = bytes.subarray(at + 4096, at + 4096 + ATTRIBUTES_ROOM);
  }

  /** @returns the address of `name`, a byte string shorter than a page, as a C string. */
  setFirst(name: string): Address {
    this.write(name, 0);
    return this.first;
  }

  setSecond(name: string): Address {
    this.write(name, NAME_ROOM);
    return this.second;
  }

  /** Times for utimensat: the access time stays. */
  setTimes(seconds: number, nanoseconds: number): Address {
    const { view } = this.block;
    const at = 2 * NAME_ROOM + 1024;
    // UTIME_OMIT.
    view.setUint32(at + 8, 0x3fff_fffe, true);
    view.setUint32(at + 12, 0, true);
    view.setUint32(at + 16, seconds % 0x1_0000_0000, true);
    view.setInt32(at + 20, Math.floor(seconds / 0x1_0000_0000), true);
    view.setUint32(at + 24, nanoseconds, true);
    view.setUint32(at + 28, 0, true);
    return this.times;
  }

  /** Gives the memory back. */
  free(): void {
    unmapBlock(this.block);
  }

  private write(name: string, at: number): void {
    const { bytes } = this.block;
    for (let i = 0; i < name.length; i++) bytes[at + i] = name.charCodeAt(i);
    bytes[at + name.length] = 0;
  }
}

const S_IFMT = 0o170000;
const KINDS = new Map<number, CopyStat["kind"]>([
  [0o100000, "file"],
  [0o040000, "directory"],
  [0o120000, "symlink"],
]);

/**
 * Reads a `struct statx` (include/uapi/linux/stat.h).
 * @param isCompared whether `changed` will be looked at; always for a file of several names.
 */
export function readStatx(view: DataView, into: CopyStat, isCompared: boolean): void {
  const mode = view.getUint16(28, true);
  into.kind = KINDS.get(mode & S_IFMT) ?? "other";
  into.mode = mode & 0o7777;
  into.linkCount = view.getUint32(16, true);
  into.uid = view.getUint32(20, true);
  into.gid = view.getUint32(24, true);
  into.size = view.getUint32(44, true) * 0x1_0000_0000 + view.getUint32(40, true);
  into.mtimeSeconds = view.getInt32(116, true) * 0x1_0000_0000 + view.getUint32(112, true);
  into.mtimeNanoseconds = view.getUint32(120, true);
  const inode = `${view.getUint32(36, true)}.${view.getUint32(32, true)}`;
  into.identity = `${view.getUint32(136, true)}.${view.getUint32(140, true)}.${inode}`;
  into.changed =
    isCompared || into.linkCount > 1
      ? `${inode}.${into.size}.${view.getUint32(96, true)}.${view.getUint32(104, true)}`
      : "";
}
