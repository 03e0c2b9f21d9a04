// SPDX-License-Identifier: MIT
// A file or block special file as a `BlockFile`: what can't block is done at once by a foreign
// call, the rest on libuv's threads.
//
// Reading at once: preadv2 with RWF_NOWAIT, which returns what the page cache has and EAGAIN for
// the rest. tmpfs doesn't know the flag (and has no disk to wait for): plain pread.
//
// Writing at once: pwritev2 with RWF_NOWAIT where the file system takes it (XFS, btrfs, block
// devices); ext4 and tmpfs don't. A write of whole pages into the page cache is a copy all the
// same, and doing it here costs 4 us for 4 KiB against 45 us on a thread. It can block, though: on
// a journal commit, or when too many pages are dirty. Measured on ext4 with an fdatasync always
// running beside: p50 8 us, p99 24 us, p999 1.4 ms, worst 45 ms. So: at once, until one is slow,
// then on threads for a while in proportion. A file system without RWF_NOWAIT for reading (NFS,
// FUSE) may have a network behind it: threads only.

import { closeSync, fstatSync, statfsSync } from "node:fs";
import { assert, ERRNO, type Memory } from "../base/index.js";
import { FILE_OPERATION, type FileIo } from "../block/index.js";
import { monotonicNs } from "./clock.js";
import type { Backend, BlockFileOptions, OsBlockFile, Poller } from "./door.js";
import { runFileIo } from "./file-threads.js";
import { mapBlock, nativeAddressOf, unmapBlock } from "./memory-source.js";
import { choosesNative, loadNative, type NativeBlock } from "./native.js";
import { type OpenFile, openDiskFile, sizeOf } from "./open-file.js";

const RWF_NOWAIT = 8;
const PAGE_BYTES = 4096;
const TWO_32 = 0x1_0000_0000;
/** File systems that live in memory: TMPFS_MAGIC, RAMFS_MAGIC. */
const MEMORY_FILE_SYSTEMS = [0x01021994, 0x858458f6];

/** Copying more than this holds up the lane longer than handing it to a thread does. */
const INLINE_BYTES_MAX = 256 * 1024;
/** A write that took longer than this was blocked (or this thread was preempted: no telling) ... */
const SLOW_WRITE_NS = 1_000_000;
/**
 * ... and for that many times as long, writes go to threads: a fifth of the time is lost at worst.
 */
const SLOW_PERIOD_FACTOR = 4;

/**
 * How a file takes a read or write at once: `NOWAIT` with the flag, `PLAIN` without, `NEVER` not at
 * all.
 */
type Inline = "NOWAIT" | "PLAIN" | "NEVER";

/**
 * Opens a file or block special file as a disk. Only one process at a time can have it open for
 * writing, and none while others read it (an advisory lock; not on the node backend).
 * @throws FarpageError ENOENT, EACCES, EISDIR, EROFS, EINVAL (empty, or no multiple of 512 bytes,
 *   or not a file), EBUSY (locked or in use; says by whom), ENOSPC.
 */
export async function openBlockFile(path: string, options: BlockFileOptions): Promise<OsBlockFile> {
  const isNative = choosesNative(options.backend);
  const opened = openDiskFile(path, options, isNative);
  try {
    return new DiskFile(path, opened, options, isNative);
  } catch (error) {
    closeSync(opened.descriptor);
    throw error;
  }
}

class DiskFile implements OsBlockFile {
  readonly backend: Backend;
  readonly path: string;
  readonly kind: "file" | "block-special";
  readonly readOnly: boolean;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly rotational: boolean;
  readonly canPunch: boolean;
  readonly canZero: boolean;
  sizeBytes: number;
  /** Operations started and not yet delivered: those on threads and those in `finished`. */
  inflight = 0;

  readonly descriptor: number;
  private readonly poller: Poller;
  private readonly isNative: boolean;
  /** struct iovec of the call being made; null on the node backend. */
  private readonly vector: NativeBlock | null;
  private readInline: Inline;
  private writeInline: Inline;
  private slowUntilNs = 0;
  private finished: FileIo[] = [];
  private delivering: FileIo[] = [];
  private isClosed = false;

  constructor(path: string, opened: OpenFile, options: BlockFileOptions, isNative: boolean) {
    this.backend = isNative ? "native" : "node";
    this.path = path;
    this.kind = opened.kind;
    this.readOnly = options.readOnly === true;
    this.logicalBlockBytes = opened.logicalBlockBytes;
    this.physicalBlockBytes = opened.physicalBlockBytes;
    this.rotational = opened.rotational;
    this.canPunch = isNative && !this.readOnly;
    this.canZero = this.canPunch;
    this.sizeBytes = opened.sizeBytes;
    this.descriptor = opened.descriptor;
    this.poller = options.poller;
    this.isNative = isNative;
    this.vector = isNative ? mapBlock(PAGE_BYTES) : null;
    const isNamed = options.descriptor === undefined;
    const place = isNamed ? path : `/proc/self/fd/${opened.descriptor}`;
    this.readInline = isNative ? firstChoice(place, loadNative().libc.preadv2) : "NEVER";
    this.writeInline = isNative ? firstChoice(place, loadNative().libc.pwritev2) : "NEVER";
  }

  refreshSize(): number {
    try {
      this.sizeBytes = sizeOf(this.descriptor, fstatSync(this.descriptor), this.isNative);
    } catch {
      // A network file system that is away, or has lost the file: the next read or write says so.
    }
    return this.sizeBytes;
  }

  tryRead(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    assert(!this.isClosed, "the file is open");
    if (this.readInline === "NEVER" || length > INLINE_BYTES_MAX) return -ERRNO.EAGAIN;
    const address = addressOfRange(memory, memoryOffset, length);
    const { libc } = loadNative();
    const count =
      this.readInline === "NOWAIT" && libc.preadv2 !== null
        ? libc.preadv2(this.descriptor, this.setVector(address, length), 1, offset, RWF_NOWAIT)
        : libc.pread(this.descriptor, address, length, offset);
    if (count >= 0) return count;
    const errno = loadNative().errno();
    if (errno === ERRNO.EOPNOTSUPP) {
      this.readInline = "NEVER";
      // What can't promise not to block when reading isn't trusted with writing either.
      if (this.writeInline === "PLAIN") this.writeInline = "NEVER";
      return -ERRNO.EAGAIN;
    }
    return errno === ERRNO.EINTR ? -ERRNO.EAGAIN : -errno;
  }

  tryWrite(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    assert(!this.isClosed, "the file is open");
    if (this.writeInline === "NEVER" || length > INLINE_BYTES_MAX) return -ERRNO.EAGAIN;
    const address = addressOfRange(memory, memoryOffset, length);
    return this.writeInline === "NOWAIT"
      ? this.writeNoWait(address, length, offset)
      : this.writePlain(address, length, offset);
  }

  start(io: FileIo): void {
    assert(!this.isClosed, "the file is open");
    const moves = io.operation === FILE_OPERATION.READ || io.operation === FILE_OPERATION.WRITE;
    if (moves) checkRange(io.memory as Memory, io.memoryOffset, io.length);
    this.inflight++;
    runFileIo(io, this.descriptor, this.isNative, (result) => {
      io.result = result;
      this.finished.push(io);
      this.poller.wake();
    });
  }

  poll(): number {
    const batch = this.finished;
    if (batch.length === 0) return 0;
    // Owners start new operations from their callback; those go to the other list.
    this.finished = this.delivering;
    this.delivering = batch;
    for (const io of batch) {
      this.inflight--;
      io.owner.onFileIoComplete(io);
    }
    const count = batch.length;
    batch.length = 0;
    return count;
  }

  close(): void {
    if (this.isClosed) return;
    assert(this.inflight === 0, "a file is closed when its operations are done");
    this.isClosed = true;
    if (this.vector !== null) unmapBlock(this.vector);
    closeSync(this.descriptor);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private writeNoWait(address: number, length: number, offset: number): number {
    const { libc } = loadNative();
    assert(libc.pwritev2 !== null, "chosen only where there is one");
    const vector = this.setVector(address, length);
    const count = libc.pwritev2(this.descriptor, vector, 1, offset, RWF_NOWAIT);
    if (count >= 0) return count;
    const errno = loadNative().errno();
    if (errno === ERRNO.EOPNOTSUPP) {
      this.writeInline = this.readInline === "NEVER" ? "NEVER" : "PLAIN";
      return this.writeInline === "PLAIN"
        ? this.writePlain(address, length, offset)
        : -ERRNO.EAGAIN;
    }
    return errno === ERRNO.EINTR ? -ERRNO.EAGAIN : -errno;
  }

  private writePlain(address: number, length: number, offset: number): number {
    // Part of a page would have to be read first.
    if (offset % PAGE_BYTES !== 0 || length % PAGE_BYTES !== 0) return -ERRNO.EAGAIN;
    const startNs = monotonicNs();
    if (startNs < this.slowUntilNs) return -ERRNO.EAGAIN;
    const { libc } = loadNative();
    const count = libc.pwrite(this.descriptor, address, length, offset);
    const errno = count < 0 ? loadNative().errno() : 0;
    const endNs = monotonicNs();
    const tookNs = endNs - startNs;
    if (tookNs > SLOW_WRITE_NS) this.slowUntilNs = endNs + SLOW_PERIOD_FACTOR * tookNs;
    if (count >= 0) return count;
    return errno === ERRNO.EINTR ? -ERRNO.EAGAIN : -errno;
  }

  /** @returns the address of the vector. */
  private setVector(address: number, length: number): number {
    const { view, address: at } = this.vector as NativeBlock;
    view.setUint32(0, address >>> 0, true);
    view.setUint32(4, Math.floor(address / TWO_32), true);
    view.setUint32(8, length, true);
    return at;
  }
}

/** What to try first on the file system of `path`; a refusal teaches better. */
function firstChoice(path: string, call: unknown): Inline {
  try {
    if (MEMORY_FILE_SYSTEMS.includes(statfsSync(path).type)) return "PLAIN";
  } catch {
    // Not told: like any other.
  }
  return call === null ? "NEVER" : "NOWAIT";
}

/** Beside the memory is something else, which the kernel would write over without asking. */
function checkRange(memory: Memory, offset: number, length: number): void {
  assert(offset >= 0 && length >= 0 && offset + length <= memory.length, "the range is in memory");
}

function addressOfRange(memory: Memory, offset: number, length: number): number {
  checkRange(memory, offset, length);
  return nativeAddressOf(memory) + offset;
}
