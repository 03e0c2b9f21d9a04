// SPDX-License-Identifier: MIT
// A disk in a file or on a block special file.
//
// Reads and writes are tried at once, on the caller's thread, where they don't block (preadv2(2)
// RWF_NOWAIT); what would block, and everything else, runs on another thread through
// `BlockFile.start`. Either way a request completes from `pump`.
//
// Durability rests on fdatasync(2), in `SyncGroup`. Everything that the page cache holds survives
// this process (a SIGKILL loses nothing that was acknowledged); only a crash of the machine loses
// what was not flushed. So a FLUSH always syncs, even if this process wrote nothing: a process
// before it may have.

import { assert, ERRNO, IntRing, type Memory, type MemorySource } from "../base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockDevice,
  type BlockLimits,
  type BlockRequest,
} from "./block-device.js";
import {
  type BlockFile,
  FILE_OPERATION,
  FileIo,
  type FileIoOwner,
  type FileOperation,
} from "./block-file.js";
import { checkBlockRequest, isChange } from "./check-request.js";
import { blockExtents } from "./extents.js";
import { RequestLedger, RequestList } from "./request-list.js";
import { SyncGroup } from "./sync-group.js";

export interface FileDeviceOptions {
  readonly name: string;
  /** Refuse changes though the file would take them. A file opened read-only is anyway. */
  readonly readOnly?: boolean;
  /**
   * Whether there is anything below that a flush makes changes safer with; default true. False for
   * a file in memory.
   */
  readonly volatileCache?: boolean;
  /** Operations on other threads at once, 1 .. 4096. Default 32. */
  readonly queueDepth?: number;
  /** Default 32 MiB. */
  readonly transferBytesMax?: number;
  /**
   * Where the zeroes come from that WRITE_ZEROES falls back on; 256 KiB, taken when first needed.
   */
  readonly memory: MemorySource;
  /** How often `pump` looks for a changed size, at most; it never wakes up for it. Default 1 s. */
  readonly sizeCheckNs?: number;
}

const TRANSFER_BYTES_MAX = 32 << 20;
const RANGE_BYTES_MAX = 0x7fff_0000;
const ZERO_BYTES = 256 << 10;
const SIZE_CHECK_NS = 1e9;

/** `BlockRequest.stage` of a WRITE_ZEROES: how it is being done. */
const ZERO_STAGE = { PUNCH: 1, ZERO: 2, WRITE: 3 } as const;

type MutableLimits = { -readonly [Key in keyof BlockLimits]: BlockLimits[Key] };

/** A `BlockDevice` over a `BlockFile`, which it closes when it is closed. */
export class FileDevice implements BlockDevice, FileIoOwner {
  readonly name: string;
  readonly limits: BlockLimits;
  onResize: (() => void) | null = null;

  private readonly file: BlockFile;
  private readonly mutableLimits: MutableLimits;
  private readonly memory: MemorySource;
  private readonly sizeCheckNs: number;
  private readonly ledger = new RequestLedger();
  /** Requests that need another thread while every slot is taken. */
  private readonly waiting = new RequestList();
  /** Slot i: its operation, and the request that has it or null. */
  private readonly ios: FileIo[];
  private readonly requests: (BlockRequest | null)[];
  private readonly freeSlots: IntRing;
  private readonly syncs: SyncGroup;
  private zeroes: Memory | null = null;
  /** What the file turned out to be able to do: a file system can refuse what the kernel offers. */
  private canPunch: boolean;
  private canZero: boolean;
  /** The largest size seen: beyond it a request is wrong, below it the file has shrunk. */
  private sizeBytesSeen: number;
  private sizeCheckedNs = 0;
  private resized = false;

  /** The device owns `file` from here on. */
  constructor(file: BlockFile, options: FileDeviceOptions) {
    const queueDepth = options.queueDepth ?? 32;
    assert(queueDepth >= 1 && queueDepth <= 4096, "queue depth in range");
    this.name = options.name;
    this.file = file;
    this.memory = options.memory;
    this.sizeCheckNs = options.sizeCheckNs ?? SIZE_CHECK_NS;
    this.canPunch = file.canPunch;
    this.canZero = file.canZero;
    this.mutableLimits = limitsOf(file, options, queueDepth);
    this.limits = this.mutableLimits;
    this.sizeBytesSeen = this.limits.sizeBytes;
    this.ios = Array.from({ length: queueDepth }, (_, slot) => new FileIo(this, slot));
    this.requests = new Array<BlockRequest | null>(queueDepth).fill(null);
    this.freeSlots = new IntRing(queueDepth);
    for (let slot = 0; slot < queueDepth; slot++) this.freeSlots.push(slot);
    this.syncs = new SyncGroup(file, this.ledger);
  }

  get inflight(): number {
    return this.ledger.inflight;
  }

  /**
   * The errno of the first fdatasync that failed, which every FLUSH since reports; 0 while none
   * did.
   */
  get syncErrno(): number {
    return this.syncs.errno;
  }

  submit(request: BlockRequest): void {
    this.ledger.admit(request);
    const errno = checkBlockRequest(this.limits, request) && this.refusalOf(request);
    if (errno !== 0) {
      this.ledger.finish(request, errno);
      return;
    }
    switch (request.operation) {
      case BLOCK_OPERATION.READ:
      case BLOCK_OPERATION.WRITE:
        this.tryNow(request);
        break;
      case BLOCK_OPERATION.FLUSH:
        // A device that can't be written has nothing of ours to sync, and may not be able to.
        if (this.limits.readOnly) this.ledger.finish(request, 0);
        else this.syncs.join(request);
        break;
      case BLOCK_OPERATION.WRITE_ZEROES:
        this.beginZeroes(request);
        break;
      default:
        this.begin(request);
    }
  }

  pump(nowNs: number): void {
    this.file.poll();
    if (nowNs - this.sizeCheckedNs >= this.sizeCheckNs) {
      this.sizeCheckedNs = nowNs;
      this.refreshSize();
    }
    if (this.resized) {
      this.resized = false;
      this.onResize?.();
    }
    this.ledger.deliver();
  }

  /** The end of an operation on another thread is no deadline: it wakes the loop itself. */
  deadlineNs(): number {
    return this.ledger.finishedCount > 0 || this.resized ? 0 : Infinity;
  }

  refreshSize(): void {
    const sizeBytes = wholeBlocks(this.file.refreshSize(), this.limits.logicalBlockBytes);
    if (sizeBytes === this.limits.sizeBytes) return;
    this.mutableLimits.sizeBytes = sizeBytes;
    this.sizeBytesSeen = Math.max(this.sizeBytesSeen, sizeBytes);
    this.resized = true;
  }

  close(): void {
    assert(this.ledger.inflight === 0, "no request in flight when a device closes");
    if (this.zeroes !== null) this.memory.free(this.zeroes);
    this.zeroes = null;
    this.file.close();
  }

  checkInvariants(): void {
    const running = this.ios.length - this.freeSlots.count;
    const held = this.requests.filter((request) => request !== null).length;
    assert(held === running, "every taken slot has its request");
    assert(this.waiting.count === 0 || running === this.ios.length, "waiting only for slots");
    this.ledger.checkInvariants(running + this.waiting.count + this.syncs.count);
    this.syncs.checkInvariants();
  }

  onFileIoComplete(io: FileIo): void {
    const request = this.requests[io.tag] as BlockRequest;
    assert(request !== null, "a finished operation has a request");
    if (!this.advance(request, io)) this.freeSlot(io.tag);
  }

  /**
   * What a request that failed the check completes with. A range that was inside this device once
   * is no mistake of the caller: the file has been cut short under it.
   */
  private refusalOf(request: BlockRequest): number {
    const { sizeBytes } = this.limits;
    this.mutableLimits.sizeBytes = this.sizeBytesSeen;
    const errno = checkBlockRequest(this.limits, request) || ERRNO.EIO;
    this.mutableLimits.sizeBytes = sizeBytes;
    return errno;
  }

  /** The fast path: all of it now, or what is left of it on another thread. */
  private tryNow(request: BlockRequest): void {
    const { offset, memoryOffset, length } = request;
    const memory = request.memory as Memory;
    const moved =
      request.operation === BLOCK_OPERATION.READ
        ? this.file.tryRead(offset, memory, memoryOffset, length)
        : this.file.tryWrite(offset, memory, memoryOffset, length);
    if (moved === length) {
      this.afterChange(request);
    } else if (moved < 0 && moved !== -ERRNO.EAGAIN && moved !== -ERRNO.EOPNOTSUPP) {
      this.ledger.finish(request, -moved);
    } else {
      assert(moved < length, "no more moved than asked");
      request.position = Math.max(moved, 0);
      this.begin(request);
    }
  }

  private beginZeroes(request: BlockRequest): void {
    const unmap = (request.flags & BLOCK_FLAG.NO_UNMAP) === 0;
    if (unmap && this.canPunch) request.stage = ZERO_STAGE.PUNCH;
    else if (this.canZero) request.stage = ZERO_STAGE.ZERO;
    else if ((request.flags & BLOCK_FLAG.FAST_ONLY) === 0) request.stage = ZERO_STAGE.WRITE;
    else {
      this.ledger.finish(request, ERRNO.EOPNOTSUPP);
      return;
    }
    this.begin(request);
  }

  private begin(request: BlockRequest): void {
    if (this.freeSlots.count === 0) this.waiting.push(request);
    else this.startIn(this.freeSlots.shift(), request);
  }

  private freeSlot(slot: number): void {
    this.requests[slot] = null;
    const next = this.waiting.shift();
    if (next === null) this.freeSlots.push(slot);
    else this.startIn(slot, next);
  }

  private startIn(slot: number, request: BlockRequest): void {
    const io = this.ios[slot] as FileIo;
    this.requests[slot] = request;
    io.operation = fileOperationOf(request);
    io.offset = request.offset + request.position;
    io.length = request.length - request.position;
    if (request.stage === ZERO_STAGE.WRITE) {
      io.memory = this.zeroMemory();
      io.memoryOffset = 0;
      io.length = Math.min(io.length, ZERO_BYTES);
    } else {
      io.memory = request.memory;
      io.memoryOffset = request.memoryOffset + request.position;
    }
    this.file.start(io);
  }

  /** Takes the outcome of `io`. @returns whether the request goes on in the same slot. */
  private advance(request: BlockRequest, io: FileIo): boolean {
    switch (io.operation) {
      case FILE_OPERATION.READ:
      case FILE_OPERATION.WRITE:
        return this.advanceTransfer(request, io);
      case FILE_OPERATION.EXTENTS:
        this.finishStatus(request, io);
        return false;
      default:
        if (io.result >= 0) this.afterChange(request);
        else if (request.stage === 0) this.ledger.finish(request, -io.result);
        else return this.zeroOtherwise(request, io);
        return false;
    }
  }

  private advanceTransfer(request: BlockRequest, io: FileIo): boolean {
    if (io.result < 0) {
      this.ledger.finish(request, -io.result);
      return false;
    }
    if (io.result === 0) {
      // The file ends before the device does: somebody cut it. There is nothing to read there, and
      // zeroes would be a lie.
      if (io.operation === FILE_OPERATION.READ) this.refreshSize();
      this.ledger.finish(request, ERRNO.EIO);
      return false;
    }
    assert(io.result <= io.length, "no more moved than asked");
    request.position += io.result;
    if (request.position === request.length) {
      this.afterChange(request);
      return false;
    }
    this.startIn(io.tag, request);
    return true;
  }

  /** PUNCH or ZERO failed: takes the next best way where there is one. */
  private zeroOtherwise(request: BlockRequest, io: FileIo): boolean {
    if (io.result !== -ERRNO.EOPNOTSUPP) {
      this.ledger.finish(request, -io.result);
      return false;
    }
    if (request.stage === ZERO_STAGE.PUNCH) this.canPunch = false;
    else this.canZero = false;
    if (request.stage === ZERO_STAGE.PUNCH && this.canZero) {
      request.stage = ZERO_STAGE.ZERO;
    } else if ((request.flags & BLOCK_FLAG.FAST_ONLY) === 0) {
      request.stage = ZERO_STAGE.WRITE;
    } else {
      this.ledger.finish(request, ERRNO.EOPNOTSUPP);
      return false;
    }
    this.startIn(io.tag, request);
    return true;
  }

  /** The data is where it belongs: done, or durable first. */
  private afterChange(request: BlockRequest): void {
    const isDurable = (request.flags & BLOCK_FLAG.FUA) === 0 || !isChange(request);
    if (isDurable) this.ledger.finish(request, 0);
    else this.syncs.join(request);
  }

  private finishStatus(request: BlockRequest, io: FileIo): void {
    // A file without SEEK_HOLE is all data.
    const hasNone = io.result === -ERRNO.EOPNOTSUPP || io.result === -ERRNO.EINVAL;
    if (io.result < 0 && !hasNone) {
      this.ledger.finish(request, -io.result);
      return;
    }
    const block = this.limits.logicalBlockBytes;
    request.extents = blockExtents(
      hasNone ? [] : io.extents,
      request.offset,
      request.length,
      block,
    );
    this.ledger.finish(request, 0);
  }

  private zeroMemory(): Memory {
    this.zeroes ??= this.memory.allocate(ZERO_BYTES, "zeroes to be written");
    return this.zeroes;
  }
}

function limitsOf(file: BlockFile, options: FileDeviceOptions, queueDepth: number): MutableLimits {
  return {
    sizeBytes: wholeBlocks(file.sizeBytes, file.logicalBlockBytes),
    logicalBlockBytes: file.logicalBlockBytes,
    physicalBlockBytes: Math.max(file.physicalBlockBytes, file.logicalBlockBytes),
    readOnly: file.readOnly || (options.readOnly ?? false),
    transferBytesMax: options.transferBytesMax ?? TRANSFER_BYTES_MAX,
    queueDepth,
    volatileCache: options.volatileCache ?? true,
    fua: true,
    discardBytesMax: file.canPunch ? RANGE_BYTES_MAX : 0,
    discardGranularityBytes: file.physicalBlockBytes,
    writeZeroesBytesMax: RANGE_BYTES_MAX,
    rotational: file.rotational,
  };
}

/** A tail shorter than a block is no part of the device. */
function wholeBlocks(sizeBytes: number, blockBytes: number): number {
  return Math.max(0, sizeBytes - (sizeBytes % blockBytes));
}

function fileOperationOf(request: BlockRequest): FileOperation {
  switch (request.operation) {
    case BLOCK_OPERATION.READ:
      return FILE_OPERATION.READ;
    case BLOCK_OPERATION.WRITE:
      return FILE_OPERATION.WRITE;
    case BLOCK_OPERATION.DISCARD:
      return FILE_OPERATION.PUNCH;
    case BLOCK_OPERATION.CACHE:
      return FILE_OPERATION.CACHE;
    case BLOCK_OPERATION.STATUS:
      return FILE_OPERATION.EXTENTS;
    default:
      if (request.stage === ZERO_STAGE.PUNCH) return FILE_OPERATION.PUNCH;
      return request.stage === ZERO_STAGE.ZERO ? FILE_OPERATION.ZERO : FILE_OPERATION.WRITE;
  }
}
