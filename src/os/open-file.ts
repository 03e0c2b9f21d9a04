// SPDX-License-Identifier: MIT
// Opens what a disk is to be made of, finds out how large it is and how its blocks lie, and locks
// it.

import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname } from "node:path";
import { FarpageError } from "../base/index.js";
import { lockHolder, processName } from "./diagnosis.js";
import type { BlockFileOptions } from "./door.js";
import { failure, nodeFailure } from "./failure.js";
import { mapBlock, unmapBlock } from "./memory-source.js";
import { loadNative } from "./native.js";

const SECTOR_BYTES = 512;
const PAGE_BYTES = 4096;
/** Sizes travel through 64-bit fields, but a JavaScript number must hold them exactly. */
const SIZE_BYTES_MAX = Number.MAX_SAFE_INTEGER;

const BLKROGET = 0x125e;
const BLKSSZGET = 0x1268;
const BLKPBSZGET = 0x127b;
const BLKGETSIZE64 = 0x80081272;

const MFD_CLOEXEC = 1;
const MEMORY_NAME_MAX = 60;

const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;

/** An open file or device and what it is like. */
export interface OpenFile {
  readonly descriptor: number;
  readonly kind: "file" | "block-special";
  readonly sizeBytes: number;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly rotational: boolean;
}

/**
 * Opens `path`.
 * @throws FarpageError ENOENT, EACCES, EISDIR, EROFS, EINVAL (no disk can be made of it), EBUSY
 *   (another process has it locked, or the system uses the device).
 */
export function openDiskFile(path: string, options: BlockFileOptions, isNative: boolean): OpenFile {
  const readOnly = options.readOnly === true;
  const descriptor = openOrCreate(path, options, readOnly);
  try {
    const stats = fstatSync(descriptor);
    const isBlock = stats.isBlockDevice();
    if (stats.isDirectory()) {
      throw new FarpageError("EISDIR", `"${path}" is a directory, not a file or block device`);
    }
    if (!stats.isFile() && !isBlock) {
      throw new FarpageError("EINVAL", `"${path}" is neither a file nor a block device`);
    }
    if (isNative && options.descriptor === undefined) lock(path, descriptor, readOnly);
    const sizeBytes = sizeOf(descriptor, stats, isNative);
    checkSize(path, sizeBytes);
    const shape = isBlock ? deviceShape(path, descriptor, stats, isNative, readOnly) : FILE_SHAPE;
    const rotational = isRotational(isBlock ? stats.rdev : stats.dev);
    return {
      descriptor,
      kind: isBlock ? "block-special" : "file",
      sizeBytes,
      rotational,
      ...shape,
    };
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}

/**
 * Makes a file that is nowhere but in memory, all zeroes, for `BlockFileOptions.descriptor`.
 * @param name for people who look at the process's descriptors.
 * @returns its descriptor, to be closed by `closeSync`.
 * @throws FarpageError EINVAL for a size that can't be; EOPNOTSUPP where the C library is too old.
 */
export function makeMemoryFile(name: string, sizeBytes: number): number {
  checkSize(name, sizeBytes);
  const { libc, errno } = loadNative();
  if (libc.memfd_create === null) {
    throw new FarpageError("EOPNOTSUPP", "the C library knows no files in memory (memfd_create)");
  }
  const descriptor = libc.memfd_create(name.slice(0, MEMORY_NAME_MAX), MFD_CLOEXEC);
  if (descriptor < 0) throw failure(`make a file in memory for "${name}"`, errno());
  try {
    ftruncateSync(descriptor, sizeBytes);
  } catch (error) {
    closeSync(descriptor);
    throw nodeFailure(`make a file of ${sizeBytes} bytes in memory`, error);
  }
  return descriptor;
}

/**
 * A file takes any offset, but less than a page of the cache means reading the rest of the page.
 */
const FILE_SHAPE = { logicalBlockBytes: SECTOR_BYTES, physicalBlockBytes: PAGE_BYTES };

function openOrCreate(path: string, options: BlockFileOptions, readOnly: boolean): number {
  // O_NONBLOCK: a FIFO must not hold us up before it can be refused.
  let flags = (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK;
  const what = `open "${path}"`;
  try {
    if (options.descriptor !== undefined) {
      // Another description of the same file, with errors of writeback of its own to report; the
      // first one has the lock.
      return openSync(`/proc/self/fd/${options.descriptor}`, flags);
    }
    const isBlock = statSync(path, { throwIfNoEntry: false })?.isBlockDevice() === true;
    // On a block device O_EXCL without O_CREAT refuses one that is mounted or otherwise in use.
    if (isBlock && !readOnly) flags |= constants.O_EXCL;
    if (options.create !== true || isBlock) return openSync(path, flags);
  } catch (error) {
    throw explainOpenFailure(nodeFailure(what, error), path);
  }
  const sizeBytes = options.sizeBytes ?? 0;
  checkSize(path, sizeBytes);
  let descriptor: number;
  try {
    // Disks hold secrets: for this user alone, unless the user says otherwise.
    descriptor = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_CREAT, 0o600);
  } catch (error) {
    throw explainOpenFailure(nodeFailure(what, error), path);
  }
  try {
    // Empty: new, or left so by a crash between the two calls.
    const stats = fstatSync(descriptor);
    if (stats.isFile() && stats.size === 0) {
      ftruncateSync(descriptor, sizeBytes);
      syncName(path);
    }
  } catch (error) {
    closeSync(descriptor);
    throw nodeFailure(`make "${path}" ${sizeBytes} bytes long`, error);
  }
  return descriptor;
}

/**
 * Makes a new file's name durable, as fdatasync on the file doesn't: fsync(2). Where a directory
 * can't be opened or synced (no right to read it, some file systems, other systems) nobody can do
 * better.
 */
function syncName(path: string): void {
  let folder = -1;
  try {
    folder = openSync(dirname(path), constants.O_RDONLY);
    fsyncSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EIO") throw error;
  } finally {
    if (folder >= 0) closeSync(folder);
  }
}

function explainOpenFailure(error: Error, path: string): Error {
  if (error instanceof FarpageError && error.code === "EBUSY") {
    const message = `"${path}" is in use by this system (mounted, or part of another device)`;
    return new FarpageError("EBUSY", message, { cause: error });
  }
  return error;
}

function checkSize(path: string, sizeBytes: number): void {
  if (sizeBytes === 0) throw new FarpageError("EINVAL", `"${path}" is empty: a disk needs a size`);
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > SIZE_BYTES_MAX) {
    throw new FarpageError("EINVAL", `${sizeBytes} bytes can't be the size of a disk`);
  }
  if (sizeBytes % SECTOR_BYTES !== 0) {
    throw new FarpageError(
      "EINVAL",
      `the size of "${path}" is ${sizeBytes} bytes, not a multiple of ${SECTOR_BYTES}`,
    );
  }
}

/** The size now. */
export function sizeOf(descriptor: number, stats: Stats, isNative: boolean): number {
  if (!stats.isBlockDevice()) return stats.size;
  if (isNative) return deviceNumber(descriptor, BLKGETSIZE64, 8);
  return sysfsNumber(stats.rdev, "size") * SECTOR_BYTES;
}

function deviceShape(
  path: string,
  descriptor: number,
  stats: Stats,
  isNative: boolean,
  readOnly: boolean,
): { logicalBlockBytes: number; physicalBlockBytes: number } {
  if (!isNative) {
    const logicalBlockBytes = sysfsNumber(stats.rdev, "queue/logical_block_size") || SECTOR_BYTES;
    const physical = sysfsNumber(stats.rdev, "queue/physical_block_size");
    return { logicalBlockBytes, physicalBlockBytes: Math.max(physical, logicalBlockBytes) };
  }
  if (!readOnly && deviceNumber(descriptor, BLKROGET, 4) !== 0) {
    throw new FarpageError("EROFS", `the device "${path}" is set read-only`);
  }
  const logicalBlockBytes = deviceNumber(descriptor, BLKSSZGET, 4) || SECTOR_BYTES;
  const physicalBlockBytes = deviceNumber(descriptor, BLKPBSZGET, 4) || logicalBlockBytes;
  return { logicalBlockBytes, physicalBlockBytes };
}

/** A number that an ioctl writes; 0 when the device doesn't know it. */
function deviceNumber(descriptor: number, request: number, bytes: 4 | 8): number {
  const block = mapBlock(PAGE_BYTES);
  const { libc } = loadNative();
  const result = libc.ioctl(descriptor, request, block.address);
  const low = block.view.getUint32(0, true);
  const high = bytes === 8 ? block.view.getUint32(4, true) : 0;
  unmapBlock(block);
  return result < 0 ? 0 : high * 0x1_0000_0000 + low;
}

/** The numbers of a device as the C library packs them into dev_t (glibc and musl alike). */
function deviceNumbers(device: number): string {
  const wide = BigInt(device);
  const major = ((wide >> 8n) & 0xfffn) | ((wide >> 32n) & ~0xfffn);
  const minor = (wide & 0xffn) | ((wide >> 12n) & ~0xffn);
  return `${major}:${minor & 0xffff_ffffn}`;
}

/** @returns 0 where there is none. */
function sysfsNumber(device: number, attribute: string): number {
  const directory = `/sys/dev/block/${deviceNumbers(device)}`;
  // A partition's queue is its disk's.
  for (const path of [`${directory}/${attribute}`, `${directory}/../${attribute}`]) {
    try {
      return Number(readFileSync(path, "utf8"));
    } catch {
      // The next place.
    }
  }
  return 0;
}

function isRotational(device: number): boolean {
  return sysfsNumber(device, "queue/rotational") === 1;
}

/**
 * Locks the whole file until the descriptor is closed: shared for reading, else exclusive. A lock
 * of the open file description, which qemu honours too.
 */
function lock(path: string, descriptor: number, readOnly: boolean): void {
  const block = mapBlock(PAGE_BYTES);
  const { libc, errno } = loadNative();
  // struct flock: type, whence (start), start 0, length 0 (to the end), pid 0.
  block.view.setInt16(0, readOnly ? F_RDLCK : F_WRLCK, true);
  const failed = libc.fcntl(descriptor, F_OFD_SETLK, block.address) < 0;
  const code = failed ? errno() : 0;
  unmapBlock(block);
  // Other errors: the file system knows no locks; that is no reason not to serve it.
  if (code !== 11 && code !== 13) return;
  const pid = lockHolder(path, descriptor);
  const holder = pid === null ? "another process" : processName(pid);
  throw new FarpageError("EBUSY", `"${path}" is in use: ${holder} has it locked`);
}
