// SPDX-License-Identifier: MIT
// A folder of this machine as a `CopyTree`. Every name is walked component by component from a
// descriptor of the root, with O_NOFOLLOW (openat(2)): no symbolic link, whoever made it and when,
// leads out. Files are made under a name of their own and renamed when all is there.

import { constants, readdirSync } from "node:fs";
import { ERRNO, FarpageError, type Memory } from "../base/index.js";
import {
  type CopyAttributes,
  type CopyFile,
  type CopyIo,
  CopyStat,
  type CopyTree,
  decodeExtra,
  type ExtendedAttribute,
  encodeExtra,
  folderOf,
  isCopiedAttribute,
  NO_EXTRA,
  nameOf,
  readByteText,
} from "../copy/index.js";
import { CallRoom, type CopyLibc, copyLibc, readStatx } from "./copy-calls.js";
import { OpenCopyFile } from "./copy-file.js";
import { isOwnPart, type OwnPart, partName } from "./copy-part.js";
import type { Poller } from "./door.js";
import { failure, nodeFailure } from "./failure.js";
import { nativeAddressOf } from "./memory-source.js";
import { loadNative } from "./native.js";

const O_PATH = 0x20_0000;
const O_CLOEXEC = 0x8_0000;
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } =
  constants;
const OPEN_FOLDER = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
const OPEN_TO_READ = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_STATS = 0x7ff;
/** Descriptors of folders that are kept open. */
const FOLDERS_MAX = 512;
/** Of folders and files until they have their own: for this user alone. */
const PRIVATE_FOLDER = 0o700;
const PRIVATE_FILE = 0o600;
const LINK_BYTES_MAX = 4096;

/** A tree that can be closed, and give trees below it. */
export interface OsCopyTree extends CopyTree {
  /**
   * The tree of a folder in this one.
   * @param makes whether to make it, and what lies on the way, where it is missing.
   * @returns a negative errno when it can't be had.
   */
  below(path: string, makes: boolean): OsCopyTree | number;
}

/**
 * Opens a folder.
 * @throws FarpageError ENOENT, ENOTDIR, EACCES; EOPNOTSUPP where foreign calls can't be had.
 */
export function openCopyTree(root: string, poller: Poller): OsCopyTree {
  const libc = copyLibc();
  const room = new CallRoom();
  const bytes = Buffer.from(root).toString("latin1");
  if (bytes.length >= LINK_BYTES_MAX) throw new FarpageError("ENAMETOOLONG", `"${root}": too long`);
  // The root is named by a person: what it leads to is what is meant.
  const name = room.setFirst(bytes);
  const descriptor = libc.openat(AT_FDCWD, name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
  if (descriptor < 0) throw failure(`open the folder "${root}"`);
  return new FolderTree(libc, room, descriptor, poller);
}

class FolderTree implements OsCopyTree {
  readonly keepsOwners = process.geteuid?.() === 0;
  extraOfLast: Uint8Array = NO_EXTRA;
  private readonly libc: CopyLibc;
  private readonly room: CallRoom;
  private readonly root: number;
  private readonly poller: Poller;
  private readonly folders = new Map<string, number>();
  private finished: CopyIo[] = [];

  constructor(libc: CopyLibc, room: CallRoom, root: number, poller: Poller) {
    this.libc = libc;
    this.room = room;
    this.root = root;
    this.poller = poller;
  }

  below(path: string, makes: boolean): OsCopyTree | number {
    const folder = this.folder(path, makes);
    if (folder < 0) return folder;
    const flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    const descriptor = this.libc.openat(folder, this.room.setFirst("."), flags, 0);
    if (descriptor < 0) return -loadNative().errno();
    return new FolderTree(this.libc, new CallRoom(), descriptor, this.poller);
  }

  // --------------------------------------------------------------------------------------- reading

  stat(path: string, into: CopyStat): number {
    if (path === "") return this.statOf(this.root, "", AT_EMPTY_PATH, into);
    const folder = this.folder(folderOf(path), false);
    if (folder < 0) return folder;
    return this.statOf(folder, nameOf(path), AT_SYMLINK_NOFOLLOW, into);
  }

  list(path: string): string[] | number {
    const folder = this.folder(path, false);
    if (folder < 0) return folder;
    try {
      // By its descriptor: this is the folder that was walked to, whatever its name leads to now.
      return readdirSync(`/proc/self/fd/${folder}`, { encoding: "latin1" });
    } catch (error) {
      const code = (nodeFailure("list", error) as FarpageError).code;
      return -(ERRNO[code as keyof typeof ERRNO] ?? ERRNO.EIO);
    }
  }

  readLink(path: string): string | number {
    const folder = this.folder(folderOf(path), false);
    if (folder < 0) return folder;
    const { attributes, attributeBytes } = this.room;
    const name = this.room.setFirst(nameOf(path));
    const length = this.libc.readlinkat(folder, name, attributes, LINK_BYTES_MAX);
    if (length < 0) return -loadNative().errno();
    return readByteText(attributeBytes, 0, length);
  }

  readExtra(path: string): Uint8Array {
    const descriptor = this.open(path, OPEN_TO_READ | O_DIRECTORY);
    if (descriptor < 0) return NO_EXTRA;
    const extra = this.extraOf(descriptor);
    this.libc.close(descriptor);
    return extra;
  }

  readFile(path: string, memory: Memory, at: number, length: number): number {
    const descriptor = this.open(path, OPEN_TO_READ);
    if (descriptor < 0) return descriptor;
    const result = this.readAll(descriptor, nativeAddressOf(memory) + at, length);
    this.extraOfLast = result < 0 ? NO_EXTRA : this.extraOf(descriptor);
    this.libc.close(descriptor);
    return result;
  }

  openFile(path: string): CopyFile | number {
    const descriptor = this.open(path, OPEN_TO_READ);
    return descriptor < 0 ? descriptor : this.openCopyFile(descriptor);
  }

  // -------------------------------------------------------------------------------------- changing

  makeDirectory(path: string): number {
    if (path === "") return 1;
    const parent = this.folder(folderOf(path), true);
    if (parent < 0) return parent;
    const name = this.room.setFirst(nameOf(path));
    if (this.libc.mkdirat(parent, name, PRIVATE_FOLDER) === 0) return 0;
    const errno = loadNative().errno();
    if (errno !== ERRNO.EEXIST) return -errno;
    const stat = new CopyStat();
    const result = this.statOf(parent, nameOf(path), AT_SYMLINK_NOFOLLOW, stat);
    if (result < 0) return result;
    if (stat.kind !== "directory") return -ERRNO.ENOTDIR;
    // Its own attributes come last; until then it must be open to us.
    if ((stat.mode & PRIVATE_FOLDER) !== PRIVATE_FOLDER && !this.keepsOwners) {
      return this.with(path, OPEN_TO_READ | O_DIRECTORY, (descriptor) => {
        const done = this.libc.fchmod(descriptor, stat.mode | PRIVATE_FOLDER);
        return done < 0 ? -loadNative().errno() : 1;
      });
    }
    return 1;
  }

  setDirectory(path: string, attributes: CopyAttributes): number {
    return this.with(path, OPEN_TO_READ | O_DIRECTORY, (descriptor) => {
      const kept = decodeExtra(attributes.extra) ?? [];
      for (const { name } of this.attributesOf(descriptor)) {
        if (kept.some((other) => other.name === name)) continue;
        this.libc.fremovexattr(descriptor, this.room.setFirst(name));
      }
      return this.setAttributes(descriptor, attributes);
    });
  }

  putFile(
    path: string,
    memory: Memory,
    at: number,
    length: number,
    attributes: CopyAttributes,
  ): number {
    const folder = this.folder(folderOf(path), true);
    if (folder < 0) return folder;
    const name = nameOf(path);
    const part = `${partName(name)}.new`;
    const descriptor = this.create(folder, part);
    if (descriptor < 0) return descriptor;
    let result = this.writeAll(descriptor, nativeAddressOf(memory) + at, length);
    if (result === 0) result = this.setAttributes(descriptor, attributes);
    if (this.libc.close(descriptor) < 0 && result === 0) result = -loadNative().errno();
    return this.rename(folder, part, name, result);
  }

  makeSymlink(path: string, target: string, attributes: CopyAttributes): number {
    const folder = this.folder(folderOf(path), true);
    if (folder < 0) return folder;
    if (target.length >= LINK_BYTES_MAX) return -ERRNO.ENAMETOOLONG;
    const name = nameOf(path);
    if (this.isSameLink(path, target, attributes)) return 0;
    const part = `${partName(name)}.new`;
    const { libc, room } = this;
    const make = () => libc.symlinkat(room.setSecond(target), folder, room.setFirst(part));
    let result = make() < 0 ? -loadNative().errno() : 0;
    if (result === -ERRNO.EEXIST) {
      libc.unlinkat(folder, room.setFirst(part), 0);
      result = make() < 0 ? -loadNative().errno() : 0;
    }
    if (result === 0 && this.keepsOwners) {
      const { uid, gid } = attributes;
      result = this.check(
        libc.fchownat(folder, room.setFirst(part), uid, gid, AT_SYMLINK_NOFOLLOW),
      );
    }
    if (result === 0) {
      const times = room.setTimes(attributes.mtimeSeconds, attributes.mtimeNanoseconds);
      result = this.check(libc.utimensat(folder, room.setFirst(part), times, AT_SYMLINK_NOFOLLOW));
    }
    return this.rename(folder, part, name, result);
  }

  makeHardLink(path: string, existing: string): number {
    const [mine, theirs] = [new CopyStat(), new CopyStat()];
    const found = this.stat(existing, theirs);
    if (found < 0) return found;
    if (theirs.kind !== "file") return -ERRNO.EINVAL;
    if (this.stat(path, mine) >= 0 && mine.identity === theirs.identity) return 0;
    const opened = this.folder(folderOf(path), true);
    if (opened < 0) return opened;
    const from = this.folder(folderOf(existing), false);
    if (from < 0) return from;
    // The second look may have closed the first.
    const folder = this.folder(folderOf(path), true);
    if (folder < 0) return folder;
    const { libc, room } = this;
    const part = `${partName(nameOf(path))}.new`;
    libc.unlinkat(folder, room.setFirst(part), 0);
    const source = room.setFirst(nameOf(existing));
    const result = this.check(libc.linkat(from, source, folder, room.setSecond(part), 0));
    return this.rename(folder, part, nameOf(path), result);
  }

  openPart(path: string): CopyFile | number {
    const folder = this.folder(folderOf(path), true);
    if (folder < 0) return folder;
    const part = partName(nameOf(path));
    const opened = this.openOwnPart(folder, part);
    if (typeof opened === "number") return opened;
    const file = new OpenCopyFile(this, this.libc, opened.descriptor, opened.stat.size, path);
    // Another process may be at the same file.
    const locked = file.lock(opened.stat.identity);
    if (locked >= 0) return file;
    file.close();
    return locked;
  }

  poll(): number {
    const ready = this.finished;
    if (ready.length === 0) return 0;
    this.finished = [];
    for (const io of ready) io.owner.onCopyIo(io);
    return ready.length;
  }

  close(): void {
    for (const descriptor of this.folders.values()) this.libc.close(descriptor);
    this.folders.clear();
    this.libc.close(this.root);
    this.room.free();
  }

  // ---------------------------------------------------------------------- for files of this tree

  onFinished(io: CopyIo): void {
    this.finished.push(io);
    this.poller.wake();
  }

  /** Gives a part its name. */
  finishPart(path: string, descriptor: number, attributes: CopyAttributes): number {
    const result = this.setAttributes(descriptor, attributes);
    const folder = this.folder(folderOf(path), true);
    if (folder < 0) return folder;
    if (result < 0) return result;
    const { libc, room } = this;
    const from = room.setFirst(partName(nameOf(path)));
    return this.check(libc.renameat(folder, from, folder, room.setSecond(nameOf(path))));
  }

  statOfDescriptor(descriptor: number, into: CopyStat): number {
    return this.statOf(descriptor, "", AT_EMPTY_PATH, into);
  }

  /** The extended attributes that go along. */
  extraOf(descriptor: number): Uint8Array {
    const attributes = this.attributesOf(descriptor);
    return attributes.length === 0 ? NO_EXTRA : encodeExtra(attributes);
  }

  // ---------------------------------------------------------------------------------------- inside

  /** A descriptor of a folder, kept open. @returns a negative errno where it can't be had. */
  private folder(path: string, makes: boolean): number {
    if (path === "") return this.root;
    const known = this.folders.get(path);
    if (known !== undefined) return known;
    const parent = this.folder(folderOf(path), makes);
    if (parent < 0) return parent;
    const { libc, room } = this;
    const name = room.setFirst(nameOf(path));
    let descriptor = libc.openat(parent, name, OPEN_FOLDER, 0);
    if (descriptor < 0 && makes && loadNative().errno() === ERRNO.ENOENT) {
      if (libc.mkdirat(parent, name, PRIVATE_FOLDER) < 0) return -loadNative().errno();
      descriptor = libc.openat(parent, name, OPEN_FOLDER, 0);
    }
    if (descriptor < 0) return -loadNative().errno();
    if (this.folders.size >= FOLDERS_MAX) this.closeOldest();
    this.folders.set(path, descriptor);
    return descriptor;
  }

  private closeOldest(): void {
    for (const [path, descriptor] of this.folders) {
      this.folders.delete(path);
      this.libc.close(descriptor);
      return;
    }
  }

  private open(path: string, flags: number): number {
    if (path === "") {
      return this.check(this.libc.openat(this.root, this.room.setFirst("."), flags, 0));
    }
    const folder = this.folder(folderOf(path), false);
    if (folder < 0) return folder;
    return this.check(this.libc.openat(folder, this.room.setFirst(nameOf(path)), flags, 0));
  }

  private with(path: string, flags: number, use: (descriptor: number) => number): number {
    const descriptor = this.open(path, flags);
    if (descriptor < 0) return descriptor;
    const result = use(descriptor);
    this.libc.close(descriptor);
    return result;
  }

  private openCopyFile(descriptor: number): OpenCopyFile | number {
    const stat = new CopyStat();
    const result = this.statOfDescriptor(descriptor, stat);
    if (result >= 0 && stat.kind === "file") {
      return new OpenCopyFile(this, this.libc, descriptor, stat.size, null);
    }
    this.libc.close(descriptor);
    return result < 0 ? result : -ERRNO.EINVAL;
  }

  /** The part that is there, where it is an earlier copy's of ours; else a new one. */
  private openOwnPart(folder: number, part: string): OwnPart | number {
    const { libc, room } = this;
    const flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    for (const more of [0, O_EXCL]) {
      const name = room.setFirst(part);
      const descriptor = this.check(libc.openat(folder, name, flags | more, PRIVATE_FILE));
      if (descriptor < 0) return descriptor;
      const stat = new CopyStat();
      const result = this.statOfDescriptor(descriptor, stat);
      if (result >= 0 && isOwnPart(stat)) return { descriptor, stat };
      libc.close(descriptor);
      if (result < 0) return result;
      libc.unlinkat(folder, room.setFirst(part), 0);
    }
    return -ERRNO.EBUSY;
  }

  /** The result of a call: itself, or the negative errno. */
  private check(result: number): number {
    return result < 0 ? -loadNative().errno() : result;
  }

  private create(folder: number, part: string): number {
    const { libc, room } = this;
    const flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const name = room.setFirst(part);
    const descriptor = this.check(libc.openat(folder, name, flags, PRIVATE_FILE));
    if (descriptor !== -ERRNO.EEXIST) return descriptor;
    // A copy that was killed has left it.
    libc.unlinkat(folder, name, 0);
    return this.check(libc.openat(folder, name, flags, PRIVATE_FILE));
  }

  /** Renames a part that is complete, or takes it away when `result` says that it is not. */
  private rename(folder: number, part: string, name: string, result: number): number {
    const { libc, room } = this;
    const from = room.setFirst(part);
    if (result >= 0) result = this.check(libc.renameat(folder, from, folder, room.setSecond(name)));
    if (result < 0) libc.unlinkat(folder, from, 0);
    return result;
  }

  private isSameLink(path: string, target: string, attributes: CopyAttributes): boolean {
    const stat = new CopyStat();
    if (this.stat(path, stat) < 0 || stat.kind !== "symlink") return false;
    const { mtimeSeconds, mtimeNanoseconds, uid, gid } = stat;
    const isSameOwner = uid === attributes.uid && gid === attributes.gid;
    return (
      this.readLink(path) === target &&
      mtimeSeconds === attributes.mtimeSeconds &&
      mtimeNanoseconds === attributes.mtimeNanoseconds &&
      (isSameOwner || !this.keepsOwners)
    );
  }

  private readAll(descriptor: number, address: number, length: number): number {
    for (let done = 0; done < length; ) {
      const count = this.libc.read(descriptor, address + done, length - done);
      if (count < 0) return -loadNative().errno();
      if (count === 0) return -ERRNO.EBUSY;
      done += count;
    }
    // One byte more than there should be: it has grown.
    return this.libc.read(descriptor, this.room.attributes, 1) === 0 ? length : -ERRNO.EBUSY;
  }

  private writeAll(descriptor: number, address: number, length: number): number {
    for (let done = 0; done < length; ) {
      const count = this.libc.write(descriptor, address + done, length - done);
      if (count < 0) return -loadNative().errno();
      done += count;
    }
    return 0;
  }

  /** Owner first, which takes set-user-id bits away; the time last, which everything changes. */
  private setAttributes(descriptor: number, attributes: CopyAttributes): number {
    const { libc, room } = this;
    if (this.keepsOwners && libc.fchown(descriptor, attributes.uid, attributes.gid) < 0) {
      return -loadNative().errno();
    }
    if (libc.fchmod(descriptor, attributes.mode) < 0) return -loadNative().errno();
    for (const { name, value } of decodeExtra(attributes.extra) ?? []) {
      if (!isCopiedAttribute(name, this.keepsOwners)) return -ERRNO.EPERM;
      room.attributeBytes.set(value);
      const key = room.setFirst(name);
      if (libc.fsetxattr(descriptor, key, room.attributes, value.length, 0) < 0) {
        return -loadNative().errno();
      }
    }
    const times = room.setTimes(attributes.mtimeSeconds, attributes.mtimeNanoseconds);
    return libc.futimens(descriptor, times) < 0 ? -loadNative().errno() : 0;
  }

  private attributesOf(descriptor: number): ExtendedAttribute[] {
    const { libc, room } = this;
    const { attributeBytes } = room;
    const length = libc.flistxattr(descriptor, room.attributes, attributeBytes.length);
    if (length <= 0) return [];
    const names = readByteText(attributeBytes, 0, length).split("\0");
    const found: ExtendedAttribute[] = [];
    for (const name of names) {
      if (name === "" || !isCopiedAttribute(name, this.keepsOwners)) continue;
      const key = room.setFirst(name);
      const bytes = libc.fgetxattr(descriptor, key, room.attributes, attributeBytes.length);
      if (bytes >= 0) found.push({ name, value: attributeBytes.slice(0, bytes) });
    }
    return found;
  }

  private statOf(folder: number, name: string, flags: number, into: CopyStat): number {
    const { libc, room } = this;
    const address = room.setFirst(name);
    if (libc.statx(folder, address, flags, STATX_BASIC_STATS, room.stat) < 0) {
      return -loadNative().errno();
    }
    // Text is made only where somebody compares it: for files with several names, and large ones.
    readStatx(room.statView, into, flags === AT_EMPTY_PATH);
    return 0;
  }
}
