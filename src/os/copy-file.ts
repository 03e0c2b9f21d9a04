// SPDX-License-Identifier: MIT
// An open file of a copy: its bytes move on libuv's threads.

import { read, write } from "node:fs";
import { ERRNO, type Memory } from "../base/index.js";
import type { CopyAttributes, CopyFile, CopyIo, CopyStat } from "../copy/index.js";
import type { CopyLibc } from "./copy-calls.js";
import { mapBlock, unmapBlock } from "./memory-source.js";
import { loadNative } from "./native.js";

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const F_OFD_SETLK = 37;
const F_WRLCK = 1;

/** What a file needs of its tree. */
export interface CopyFileOwner {
  onFinished(io: CopyIo): void;
  finishPart(path: string, descriptor: number, attributes: CopyAttributes): number;
  statOfDescriptor(descriptor: number, into: CopyStat): number;
  extraOf(descriptor: number): Uint8Array;
}

/**
 * Parts that are open in this process, by device and inode. Whoever begins a file last has it: the
 * one before is mostly a client that was killed, of which nobody has heard yet.
 */
const openParts = new Map<string, OpenCopyFile>();

export class OpenCopyFile implements CopyFile {
  readonly size: number;
  private readonly owner: CopyFileOwner;
  private readonly libc: CopyLibc;
  private readonly descriptor: number;
  /** The path that a part is to have; null for a file that is read. */
  private readonly part: string | null;
  /** Of a part that is locked. */
  private identity: string | null = null;
  private inflight = 0;
  private isClosed = false;

  constructor(
    owner: CopyFileOwner,
    libc: CopyLibc,
    descriptor: number,
    size: number,
    part: string | null,
  ) {
    this.owner = owner;
    this.libc = libc;
    this.descriptor = descriptor;
    this.size = size;
    this.part = part;
  }

  /** Keeps other processes' copies from it, until it is closed. @returns 0 or -EBUSY. */
  lock(identity: string): number {
    const former = openParts.get(identity);
    if (former !== undefined) {
      if (former.inflight > 0) return -ERRNO.EBUSY;
      former.release();
    }
    const block = mapBlock(4096);
    // struct flock: type, whence, start, length (0: to the end).
    block.view.setInt16(0, F_WRLCK, true);
    const result = loadNative().libc.fcntl(this.descriptor, F_OFD_SETLK, block.address);
    const errno = result < 0 ? loadNative().errno() : 0;
    unmapBlock(block);
    // A file system without locks can't be asked.
    if (errno === ERRNO.EAGAIN || errno === ERRNO.EACCES) return -ERRNO.EBUSY;
    this.identity = identity;
    openParts.set(identity, this);
    return 0;
  }

  startRead(io: CopyIo): void {
    this.inflight++;
    this.start(read, io);
  }

  startWrite(io: CopyIo): void {
    this.inflight++;
    this.start(write, io);
  }

  nextData(offset: number): number {
    const found = this.libc.lseek(this.descriptor, offset, SEEK_DATA);
    if (found >= 0) return found;
    // No data behind; or a file system that does not tell: all is data.
    return loadNative().errno() === ERRNO.ENXIO ? this.size : offset;
  }

  nextHole(offset: number): number {
    const found = this.libc.lseek(this.descriptor, offset, SEEK_HOLE);
    return found > offset ? Math.min(found, this.size) : this.size;
  }

  stat(into: CopyStat): number {
    return this.owner.statOfDescriptor(this.descriptor, into);
  }

  readExtra(): Uint8Array {
    return this.owner.extraOf(this.descriptor);
  }

  finish(size: number, attributes: CopyAttributes): number {
    if (this.part === null || this.isClosed) return -ERRNO.EBUSY;
    if (this.libc.ftruncate(this.descriptor, size) < 0) return -loadNative().errno();
    return this.owner.finishPart(this.part, this.descriptor, attributes);
  }

  close(): void {
    this.release();
  }

  /** Closes it, with its lock. What is asked of it from then on fails. */
  private release(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.libc.close(this.descriptor);
    if (this.identity !== null) openParts.delete(this.identity);
  }

  private start(call: typeof read | typeof write, io: CopyIo): void {
    if (!this.isClosed) {
      this.move(call, io, 0);
      return;
    }
    io.result = -ERRNO.EBUSY;
    setImmediate(() => this.finished(io));
  }

  private finished(io: CopyIo): void {
    this.inflight--;
    this.owner.onFinished(io);
  }

  /** Moves until all is there, the file ends, or an error comes. */
  private move(call: typeof read | typeof write, io: CopyIo, done: number): void {
    const { offset, length, memoryOffset } = io;
    const { bytes } = io.memory as Memory;
    (call as typeof read)(
      this.descriptor,
      bytes,
      memoryOffset + done,
      length - done,
      offset + done,
      (error, count) => {
        if (error !== null) io.result = -(ERRNO[error.code as keyof typeof ERRNO] ?? ERRNO.EIO);
        else if (count > 0 && done + count < length) {
          this.move(call, io, done + count);
          return;
        } else io.result = done + count;
        this.finished(io);
      },
    );
  }
}
