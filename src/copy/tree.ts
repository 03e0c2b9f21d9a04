// SPDX-License-Identifier: MIT
// What a copy needs of a file system, as an interface: `os/` has it for a folder of this machine,
// tests have it in memory. Paths are relative to the tree's root and byte strings (byte-text.ts).
// Nothing follows a symbolic link, in no component: a tree can't be left.
//
// Calls on names are synchronous, since a system call is cheaper than a thread where a million of
// them are made; what moves the bytes of large files is started and heard of from `poll`. Results
// are 0 or more, or a negative errno.

import type { Memory } from "../base/index.js";

export type CopyKind = "file" | "directory" | "symlink" | "other";

/** What a file is like. Reused: every call writes all fields. */
export class CopyStat {
  kind: CopyKind = "other";
  /** Permission bits with set-user-id, set-group-id and sticky: 12 bits. */
  mode = 0;
  uid = 0;
  gid = 0;
  size = 0;
  mtimeSeconds = 0;
  mtimeNanoseconds = 0;
  /** Of the last change of anything, as text: differs when the file has been touched. */
  changed = "";
  linkCount = 1;
  /** Device and inode: the same for two names of one file. */
  identity = "";
}

/** What is set on a file when its bytes are there. */
export interface CopyAttributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  /** Extended attributes, see attributes.ts; borrowed for the call. */
  readonly extra: Uint8Array;
}

/** A read or write of an open file, on another thread. Its owner's again when it is told of. */
export class CopyIo {
  readonly owner: CopyIoOwner;
  memory: Memory | null = null;
  memoryOffset = 0;
  /** In the file. */
  offset = 0;
  length = 0;
  /** Bytes moved (fewer at the end of the file), or a negative errno. */
  result = 0;

  constructor(owner: CopyIoOwner) {
    this.owner = owner;
  }
}

export interface CopyIoOwner {
  /** From `CopyTree.poll`, never from within `start…`. */
  onCopyIo(io: CopyIo): void;
}

/** An open file. */
export interface CopyFile {
  /** Bytes when it was opened. */
  readonly size: number;
  startRead(io: CopyIo): void;
  startWrite(io: CopyIo): void;
  /** Where the first byte at or behind `offset` is that is not in a hole; `size` for none. */
  nextData(offset: number): number;
  /** Where the first hole at or behind `offset` begins; the file's end counts as one. */
  nextHole(offset: number): number;
  /** Source: what the file is like now. */
  stat(into: CopyStat): number;
  /** Source: its extended attributes. */
  readExtra(): Uint8Array;
  /** Sink: makes it exactly `size` bytes long, sets all attributes and gives it its name. */
  finish(size: number, attributes: CopyAttributes): number;
  /** A file that was not finished stays, under its name of a part. Preconditions: no I/O. */
  close(): void;
}

export interface CopyTree {
  /** Whether owner and group can be set here. */
  readonly keepsOwners: boolean;
  stat(path: string, into: CopyStat): number;
  /** Names in a directory, without "." and "..", in no order. */
  list(path: string): string[] | number;
  readLink(path: string): string | number;
  /** Extended attributes of a directory; empty where there are none. */
  readExtra(path: string): Uint8Array;
  /**
   * Reads a whole file of `length` bytes to `memory`, from `at` on.
   * @returns `length`; -EBUSY when the file is longer or shorter by now; another negative errno.
   *   `extraOfLast` has its extended attributes.
   */
  readFile(path: string, memory: Memory, at: number, length: number): number;
  readonly extraOfLast: Uint8Array;
  openFile(path: string): CopyFile | number;

  // What follows changes the tree, and makes parents that are missing.

  /** @returns 0 when it was made, 1 when there is one. */
  makeDirectory(path: string): number;
  /** Attributes of a directory. */
  setDirectory(path: string, attributes: CopyAttributes): number;
  /** A whole small file, under its name only when all is there. */
  putFile(
    path: string,
    memory: Memory,
    at: number,
    length: number,
    attributes: CopyAttributes,
  ): number;
  makeSymlink(path: string, target: string, attributes: CopyAttributes): number;
  makeHardLink(path: string, existing: string): number;
  /** The part of a large file, with what an earlier attempt has left. -EBUSY: open already. */
  openPart(path: string): CopyFile | number;

  /** Tells owners of I/O that has finished. @returns how many. */
  poll(): number;
  /** Preconditions: no I/O under way, and all files closed. */
  close(): void;
}
