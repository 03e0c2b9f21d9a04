// SPDX-License-Identifier: MIT
// What a file-backed device needs of the system. `os/` implements it on real files, `sim/` on a
// disk that fails and loses unflushed writes.

import type { Memory } from "../base/index.js";

export const FILE_OPERATION = {
  READ: 0,
  WRITE: 1,
  /** fdatasync. */
  SYNC: 2,
  /** Frees the range, which then reads as zeroes (fallocate PUNCH_HOLE, KEEP_SIZE; BLKDISCARD). */
  PUNCH: 3,
  /** The range reads as zeroes, space kept (fallocate ZERO_RANGE; BLKZEROOUT). */
  ZERO: 4,
  /** Reads the range into the page cache (posix_fadvise WILLNEED). */
  CACHE: 5,
  /** Finds data and holes (lseek SEEK_DATA, SEEK_HOLE): fills `extents`. */
  EXTENTS: 6,
} as const;
export type FileOperation = (typeof FILE_OPERATION)[keyof typeof FILE_OPERATION];

/** One operation that runs where blocking hurts nobody; kept and reused by its submitter. */
export class FileIo {
  operation: FileOperation = FILE_OPERATION.READ;
  offset = 0;
  length = 0;
  memory: Memory | null = null;
  memoryOffset = 0;
  /** After completion: bytes moved, or -errno. A short READ is the end of the file. */
  result = 0;
  /** After EXTENTS: runs from `offset` on, [length, isHole] each. */
  extents: readonly (readonly [length: number, hole: boolean])[] = [];
  readonly owner: FileIoOwner;
  readonly tag: number;

  constructor(owner: FileIoOwner, tag: number) {
    this.owner = owner;
    this.tag = tag;
  }
}

export interface FileIoOwner {
  /** Called from `BlockFile.poll`, once per started operation. */
  onFileIoComplete(io: FileIo): void;
}

/** An open regular file or block special file. */
export interface BlockFile {
  readonly path: string;
  readonly kind: "file" | "block-special";
  readonly readOnly: boolean;
  /** Size when opened or last refreshed. */
  readonly sizeBytes: number;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly rotational: boolean;
  /** Whether PUNCH and ZERO work here. */
  readonly canPunch: boolean;
  readonly canZero: boolean;
  /** Reads the size again (a file can be truncated or grown by others). */
  refreshSize(): number;
  /**
   * Reads or writes without blocking.
   * @returns bytes moved (may be short), or -errno; -EAGAIN: it would block, use `start`.
   */
  tryRead(offset: number, memory: Memory, memoryOffset: number, length: number): number;
  tryWrite(offset: number, memory: Memory, memoryOffset: number, length: number): number;
  /** Starts `io` on another thread; its owner hears of it from `poll`. */
  start(io: FileIo): void;
  /** Delivers finished operations. @returns how many. */
  poll(): number;
  /** Operations started and not yet delivered. */
  readonly inflight: number;
  close(): void;
}
