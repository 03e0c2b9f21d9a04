// SPDX-License-Identifier: MIT
// A large file at the sink: blocks come in any order, each with its CRC; what an earlier attempt
// left is told block by block, so that only what differs is sent again; the whole is checked before
// the file gets its name.

import {
  assert,
  type Crc32,
  ERRNO,
  FarpageError,
  type Memory,
  type MemorySource,
} from "../base/index.js";
import type { ServerRequest } from "../rtrs/index.js";
import { BlockSums, type SumsBudget } from "./block-sums.js";
import { crcOf } from "./records.js";
import { type CopyAttributes, type CopyFile, CopyIo, type CopyIoOwner } from "./tree.js";

/** Larger files than this are refused: what is kept of each block must fit a process. */
const SIZE_MAX = 2 ** 50;

/** What sink files share. */
export interface SinkContext {
  readonly crc32: Crc32;
  readonly memory: MemorySource;
  /** Room for the CRCs of all their blocks. */
  readonly sums: SumsBudget;
  /** Something could not be stored, and why. */
  readonly failed: (path: string, errno: number) => void;
}

/** A BLOCK being written. */
class BlockWrite {
  readonly io: CopyIo;
  request: ServerRequest | null = null;
  index = 0;
  crc = 0;

  constructor(owner: CopyIoOwner) {
    this.io = new CopyIo(owner);
  }
}

/** What a sink has done; files that it had already count too. */
export interface CopySinkCounters {
  files: number;
  bytes: number;
  skippedFiles: number;
  skippedBytes: number;
  failures: number;
}

export function newCounters(): CopySinkCounters {
  return { files: 0, bytes: 0, skippedFiles: 0, skippedBytes: 0, failures: 0 };
}

export class SinkFile implements CopyIoOwner {
  readonly path: string;
  readonly size: number;
  /** Bytes that an earlier attempt left. */
  readonly leftBytes: number;
  /** Bytes that the counters have of it. */
  countedBytes = 0;
  private readonly counters: CopySinkCounters;
  private readonly context: SinkContext;
  private readonly file: CopyFile;
  private readonly sums: BlockSums;
  private readonly writes = new Map<CopyIo, BlockWrite>();
  private readonly spare: BlockWrite[] = [];
  /** The SUMS under way: blocks are read one by one. */
  private summing: ServerRequest | null = null;
  private readonly sumIo = new CopyIo(this);
  private scratch: Memory | null = null;
  private sumFirst = 0;
  private sumCount = 0;
  private sumNext = 0;
  private isClosed = false;
  private hasFailed = false;
  private inflight = 0;

  constructor(
    context: SinkContext,
    file: CopyFile,
    path: string,
    size: number,
    blockBytes: number,
    counters: CopySinkCounters,
  ) {
    this.counters = counters;
    this.context = context;
    this.file = file;
    this.path = path;
    this.size = size;
    this.leftBytes = Math.min(file.size, size);
    this.sums = new BlockSums(blockBytes, context.sums);
  }

  static isTooLarge(size: number): boolean {
    return size > SIZE_MAX;
  }

  /** Whether I/O is under way: it must not be closed or finished. */
  get isBusy(): boolean {
    return this.inflight > 0;
  }

  /** Answers a BLOCK when it is in the file. `crc` and `index` come from outside. */
  takeBlock(request: ServerRequest, index: number, length: number, crc: number): void {
    const { blockBytes } = this.sums;
    const start = index * blockBytes;
    const isWhole = length === Math.min(blockBytes, this.size - start);
    if (start >= this.size || !isWhole || request.isRead || request.dataLength !== length) {
      request.complete(ERRNO.EINVAL);
      return;
    }
    const { memory, memoryOffset } = request;
    const end = memoryOffset + length;
    if (crcOf(this.context.crc32, memory.bytes, memoryOffset, end) !== crc) {
      request.complete(ERRNO.EILSEQ);
      return;
    }
    if (!this.sums.hasRoomFor(index)) {
      request.complete(ERRNO.ENOMEM);
      return;
    }
    const write = this.spare.pop() ?? new BlockWrite(this);
    write.request = request;
    write.index = index;
    write.crc = crc;
    const { io } = write;
    io.memory = memory;
    io.memoryOffset = memoryOffset;
    io.offset = start;
    io.length = length;
    this.writes.set(io, write);
    this.inflight++;
    this.file.startWrite(io);
  }

  /** Answers SUMS with the CRC of each of `count` blocks of what is there. */
  takeSums(request: ServerRequest, first: number, count: number): void {
    const blockCount = Math.ceil(this.leftBytes / this.sums.blockBytes);
    const fits = count > 0 && first + count <= blockCount && count * 4 <= request.dataLength;
    if (!fits || !request.isRead) {
      request.complete(ERRNO.EINVAL);
      return;
    }
    if (this.summing !== null) {
      request.complete(ERRNO.EBUSY);
      return;
    }
    if (!this.openScratch()) {
      request.complete(ERRNO.ENOMEM);
      return;
    }
    this.summing = request;
    this.sumFirst = first;
    this.sumCount = count;
    this.sumNext = 0;
    this.inflight++;
    this.readForSum();
  }

  /**
   * Gives the file its name.
   * @returns 0; EILSEQ when the bytes are not those of the source; an errno of the tree.
   */
  finish(crc: number, attributes: CopyAttributes): number {
    assert(!this.isBusy && !this.isClosed, "a file is finished when nothing moves in it");
    if (!this.isComplete() || this.sums.whole(this.size) !== crc) return ERRNO.EILSEQ;
    const result = this.file.finish(this.size, attributes);
    this.close();
    return result < 0 ? -result : 0;
  }

  close(): void {
    assert(!this.isBusy, "a file is closed when nothing moves in it");
    if (this.isClosed) return;
    this.isClosed = true;
    this.freeScratch();
    this.sums.clear();
    this.file.close();
  }

  onCopyIo(io: CopyIo): void {
    if (io === this.sumIo) {
      this.onSumRead(io.result);
      return;
    }
    const write = this.writes.get(io) as BlockWrite;
    this.writes.delete(io);
    this.inflight--;
    const request = write.request as ServerRequest;
    write.request = null;
    this.spare.push(write);
    if (io.result === io.length) {
      this.counters.bytes += io.length;
      this.countedBytes += io.length;
    }
    // A short write is a full disk that has not said so yet.
    const errno = io.result === io.length ? 0 : io.result < 0 ? -io.result : ERRNO.ENOSPC;
    const outcome = errno === 0 ? this.keep(write.index, write.crc) : errno;
    if (outcome !== 0) this.tellFailure(outcome);
    request.complete(outcome);
  }

  /** Once: the blocks that are under way fail alike. */
  private tellFailure(errno: number): void {
    if (this.hasFailed) return;
    this.hasFailed = true;
    this.counters.failures++;
    this.context.failed(this.path, errno);
  }

  /** Blocks that somebody wrote before must have been compared or written by now. */
  private isComplete(): boolean {
    const leftCount = Math.ceil(this.leftBytes / this.sums.blockBytes);
    for (let index = 0; index < leftCount; index++) if (this.sums.get(index) < 0) return false;
    return true;
  }

  private readForSum(): void {
    const { blockBytes } = this.sums;
    const io = this.sumIo;
    io.memory = this.scratch;
    io.memoryOffset = 0;
    io.offset = (this.sumFirst + this.sumNext) * blockBytes;
    io.length = Math.min(blockBytes, this.size - io.offset);
    this.file.startRead(io);
  }

  private onSumRead(result: number): void {
    const request = this.summing as ServerRequest;
    if (result < 0) {
      this.endSums(request, -result);
      return;
    }
    const { bytes } = this.scratch as Memory;
    // What is not there yet will be a hole.
    bytes.fill(0, result, this.sumIo.length);
    const crc = crcOf(this.context.crc32, bytes, 0, this.sumIo.length);
    const errno = this.keep(this.sumFirst + this.sumNext, crc);
    if (errno !== 0) {
      this.endSums(request, errno);
      return;
    }
    request.memory.view.setUint32(request.memoryOffset + this.sumNext * 4, crc, true);
    this.sumNext++;
    if (this.sumNext < this.sumCount) this.readForSum();
    else this.endSums(request, 0);
  }

  private endSums(request: ServerRequest, errno: number): void {
    this.summing = null;
    this.inflight--;
    this.freeScratch();
    request.complete(errno, errno === 0 ? this.sumCount * 4 : 0);
  }

  /** @returns 0, or ENOMEM when there is no room for it by now. */
  private keep(index: number, crc: number): number {
    if (!this.sums.hasRoomFor(index)) return ERRNO.ENOMEM;
    this.sums.set(index, crc);
    return 0;
  }

  private openScratch(): boolean {
    try {
      this.scratch ??= this.context.memory.allocate(this.sums.blockBytes, "checksums of files");
      return true;
    } catch (error) {
      if (!(error instanceof FarpageError)) throw error;
      return false;
    }
  }

  private freeScratch(): void {
    if (this.scratch !== null) this.context.memory.free(this.scratch);
    this.scratch = null;
  }
}
