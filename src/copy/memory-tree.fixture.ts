// SPDX-License-Identifier: MIT
// A file system in memory behind `CopyTree`, with the rules that a real one has: nothing follows a
// link, parents are made, a file has its name only when it is whole. I/O ends in `poll`.

import { ERRNO, type Memory } from "../base/index.js";
import {
  type CopyAttributes,
  type CopyFile,
  type CopyIo,
  type CopyStat,
  type CopyTree,
  folderOf,
  NO_EXTRA,
} from "./index.js";

export interface Node {
  kind: "file" | "directory" | "symlink";
  bytes: Uint8Array;
  /** Ranges that are data; null: all of it. */
  extents: [start: number, end: number][] | null;
  target: string;
  mode: number;
  uid: number;
  gid: number;
  mtimeSeconds: number;
  mtimeNanoseconds: number;
  extra: Uint8Array;
  links: number;
  id: number;
  version: number;
}

let nextId = 1;

export function newNode(kind: Node["kind"], bytes = NO_EXTRA): Node {
  return {
    kind,
    bytes,
    extents: null,
    target: "",
    mode: 0o700,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    extra: NO_EXTRA,
    links: 1,
    id: nextId++,
    version: 0,
  };
}

/** What outlives a process: share it between trees. */
export class Disk {
  readonly nodes = new Map<string, Node>([["", newNode("directory")]]);
  /** Parts of large files, by the path that they are to have. */
  readonly parts = new Map<string, Uint8Array>();
  /** Bytes written by blocks and whole files. */
  writtenBytes = 0;
  /** Bytes that may still be written. */
  spaceBytes = Infinity;

  put(path: string, node: Node): Node {
    this.nodes.set(path, node);
    return node;
  }
}

export class MemoryTree implements CopyTree {
  readonly keepsOwners = true;
  extraOfLast: Uint8Array = NO_EXTRA;
  isClosed = false;
  readonly disk: Disk;
  /** Called when a block is read, with its offset. */
  onRead: ((path: string, offset: number) => void) | null = null;
  private readonly opened = new Set<string>();
  /** How many polls a piece of I/O takes beyond the first. */
  slowness: (io: CopyIo) => number = () => 0;
  private pending: { io: CopyIo; run: () => number; polls: number }[] = [];

  constructor(disk: Disk) {
    this.disk = disk;
  }

  /** Whether I/O waits for `poll`. */
  get isPending(): boolean {
    return this.pending.length > 0;
  }

  stat(path: string, into: CopyStat): number {
    const node = this.find(path);
    if (typeof node === "number") return node;
    fillStat(node, into);
    return 0;
  }

  list(path: string): string[] | number {
    const node = this.find(path);
    if (typeof node === "number") return node;
    if (node.kind !== "directory") return -ERRNO.ENOTDIR;
    const prefix = path === "" ? "" : `${path}/`;
    return [...this.disk.nodes.keys()]
      .filter(
        (key) => key !== "" && key.startsWith(prefix) && !key.slice(prefix.length).includes("/"),
      )
      .map((key) => key.slice(prefix.length));
  }

  readLink(path: string): string | number {
    const node = this.find(path);
    return typeof node === "number" ? node : node.target;
  }

  readExtra(path: string): Uint8Array {
    const node = this.find(path);
    return typeof node === "number" ? NO_EXTRA : node.extra;
  }

  readFile(path: string, memory: Memory, at: number, length: number): number {
    const node = this.find(path);
    if (typeof node === "number") return node;
    this.onRead?.(path, 0);
    if (node.bytes.length !== length) return -ERRNO.EBUSY;
    memory.bytes.set(node.bytes, at);
    this.extraOfLast = node.extra;
    return length;
  }

  openFile(path: string): CopyFile | number {
    const node = this.find(path);
    if (typeof node === "number") return node;
    return new MemoryFile(this, path, node, null);
  }

  makeDirectory(path: string): number {
    const there = this.disk.nodes.get(path);
    if (there !== undefined) return there.kind === "directory" ? 1 : -ERRNO.EEXIST;
    const parent = this.makeParents(path);
    if (parent < 0) return parent;
    this.disk.put(path, newNode("directory"));
    return 0;
  }

  setDirectory(path: string, attributes: CopyAttributes): number {
    const node = this.find(path);
    if (typeof node === "number") return node;
    if (node.kind !== "directory") return -ERRNO.ENOTDIR;
    setAttributes(node, attributes);
    return 0;
  }

  putFile(
    path: string,
    memory: Memory,
    at: number,
    length: number,
    attributes: CopyAttributes,
  ): number {
    const space = this.take(length);
    if (space < 0) return space;
    return this.name(path, newNode("file", memory.bytes.slice(at, at + length)), attributes);
  }

  makeSymlink(path: string, target: string, attributes: CopyAttributes): number {
    const node = newNode("symlink");
    node.target = target;
    return this.name(path, node, attributes);
  }

  makeHardLink(path: string, existing: string): number {
    const node = this.find(existing);
    if (typeof node === "number") return node;
    const parent = this.makeParents(path);
    if (parent < 0) return parent;
    if (this.disk.nodes.get(path) !== node) node.links++;
    this.disk.put(path, node);
    return 0;
  }

  openPart(path: string): CopyFile | number {
    const parent = this.makeParents(path);
    if (parent < 0) return parent;
    if (this.opened.has(path)) return -ERRNO.EBUSY;
    this.opened.add(path);
    const bytes = this.disk.parts.get(path) ?? NO_EXTRA;
    this.disk.parts.set(path, bytes);
    return new MemoryFile(this, path, null, bytes);
  }

  poll(): number {
    const ready = this.pending.filter((one) => one.polls-- <= 0);
    this.pending = this.pending.filter((one) => !ready.includes(one));
    for (const { io, run } of ready) {
      io.result = run();
      io.owner.onCopyIo(io);
    }
    return ready.length;
  }

  close(): void {
    if (this.pending.length > 0 || this.opened.size > 0) throw new Error("closed while in use");
    this.isClosed = true;
  }

  /** Gives a node its name. */
  name(path: string, node: Node, attributes: CopyAttributes): number {
    const parent = this.makeParents(path);
    if (parent < 0) return parent;
    if (this.disk.nodes.get(path)?.kind === "directory") return -ERRNO.EISDIR;
    setAttributes(node, attributes);
    this.disk.put(path, node);
    return 0;
  }

  start(io: CopyIo, run: () => number): void {
    this.pending.push({ io, run, polls: this.slowness(io) });
  }

  forget(path: string): void {
    this.opened.delete(path);
  }

  take(bytes: number): number {
    if (this.disk.spaceBytes < bytes) return -ERRNO.ENOSPC;
    this.disk.spaceBytes -= bytes;
    this.disk.writtenBytes += bytes;
    return 0;
  }

  private find(path: string): Node | number {
    for (let folder = path; folder !== ""; ) {
      folder = folderOf(folder);
      const kind = this.disk.nodes.get(folder)?.kind;
      if (kind === "symlink") return -ERRNO.ELOOP;
      if (kind === "file") return -ERRNO.ENOTDIR;
    }
    return this.disk.nodes.get(path) ?? -ERRNO.ENOENT;
  }

  private makeParents(path: string): number {
    const folder = folderOf(path);
    if (folder === path) return 0;
    const node = this.disk.nodes.get(folder);
    if (node?.kind === "symlink") return -ERRNO.ELOOP;
    if (node !== undefined) return node.kind === "directory" ? 0 : -ERRNO.ENOTDIR;
    const above = this.makeParents(folder);
    if (above < 0) return above;
    this.disk.put(folder, newNode("directory"));
    return 0;
  }
}

class MemoryFile implements CopyFile {
  readonly size: number;
  private readonly tree: MemoryTree;
  private readonly path: string;
  private readonly node: Node | null;
  private bytes: Uint8Array;

  constructor(tree: MemoryTree, path: string, node: Node | null, part: Uint8Array | null) {
    this.tree = tree;
    this.path = path;
    this.node = node;
    this.bytes = part ?? NO_EXTRA;
    this.size = node?.bytes.length ?? this.bytes.length;
  }

  startRead(io: CopyIo): void {
    this.tree.start(io, () => {
      this.tree.onRead?.(this.path, io.offset);
      const from = (this.node?.bytes ?? this.bytes).subarray(io.offset, io.offset + io.length);
      (io.memory as Memory).bytes.set(from, io.memoryOffset);
      return from.length;
    });
  }

  startWrite(io: CopyIo): void {
    this.tree.start(io, () => {
      const space = this.tree.take(io.length);
      if (space < 0) return space;
      const end = io.offset + io.length;
      if (this.bytes.length < end) {
        const longer = new Uint8Array(end);
        longer.set(this.bytes);
        this.bytes = longer;
      }
      const { memory, memoryOffset, length } = io;
      const from = (memory as Memory).bytes.subarray(memoryOffset, memoryOffset + length);
      this.bytes.set(from, io.offset);
      this.tree.disk.parts.set(this.path, this.bytes);
      return io.length;
    });
  }

  nextData(offset: number): number {
    const extents = this.node?.extents ?? [[0, this.size]];
    const found = extents.find(([, end]) => end > offset);
    return found === undefined ? this.size : Math.max(offset, found[0] as number);
  }

  nextHole(offset: number): number {
    const extents = this.node?.extents ?? [[0, this.size]];
    const found = extents.find(
      ([start, end]) => (start as number) <= offset && (end as number) > offset,
    );
    return found === undefined ? offset : (found[1] as number);
  }

  stat(into: CopyStat): number {
    fillStat(this.node as Node, into);
    return 0;
  }

  readExtra(): Uint8Array {
    return (this.node as Node).extra;
  }

  finish(size: number, attributes: CopyAttributes): number {
    const bytes = new Uint8Array(size);
    bytes.set(this.bytes.subarray(0, size));
    this.tree.disk.parts.delete(this.path);
    return this.tree.name(this.path, newNode("file", bytes), attributes);
  }

  close(): void {
    if (this.node === null) this.tree.forget(this.path);
  }
}

function fillStat(node: Node, into: CopyStat): void {
  into.kind = node.kind;
  into.mode = node.mode;
  into.uid = node.uid;
  into.gid = node.gid;
  into.size = node.bytes.length;
  into.mtimeSeconds = node.mtimeSeconds;
  into.mtimeNanoseconds = node.mtimeNanoseconds;
  into.changed = `${node.id}.${node.version}`;
  into.linkCount = node.links;
  into.identity = `${node.id}`;
}

function setAttributes(node: Node, attributes: CopyAttributes): void {
  node.mode = attributes.mode;
  node.uid = attributes.uid;
  node.gid = attributes.gid;
  node.mtimeSeconds = attributes.mtimeSeconds;
  node.mtimeNanoseconds = attributes.mtimeNanoseconds;
  node.extra = attributes.extra.slice();
}

/** A disk as lines: everything about every node. */
export function describeDisk(disk: Disk, prefix = ""): string[] {
  return [...disk.nodes]
    .filter(([path]) => path !== prefix && (prefix === "" || path.startsWith(`${prefix}/`)))
    .map(([path, node]) => {
      const { kind, mode, uid, gid, mtimeSeconds, mtimeNanoseconds, target } = node;
      const what = kind === "file" ? sumOf(node.bytes) : target;
      const extra = [...node.extra].join(",");
      const name = prefix === "" ? path : path.slice(prefix.length + 1);
      const time = `${mtimeSeconds}.${mtimeNanoseconds}`;
      return `${name} ${kind} ${mode.toString(8)} ${uid}:${gid} ${time} ${what} ${extra}`;
    })
    .sort();
}

function sumOf(bytes: Uint8Array): string {
  let sum = 7;
  for (const byte of bytes) sum = (Math.imul(sum, 31) + byte) | 0;
  return `${bytes.length}/${sum}`;
}
