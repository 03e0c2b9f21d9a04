// SPDX-License-Identifier: MIT
// One IO message on a server: judged, turned into a block request, and run in up to three steps, a
// flush before, the operation, a flush after. One of these stays with each chunk of a session.

import { assert, ERRNO, joinHalves } from "../base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockOperation,
  BlockRequest,
  type BlockRequestOwner,
} from "../block/index.js";
import type { ServerRequest } from "../rtrs/index.js";
import {
  RNBD_ACCESS,
  RNBD_FLAG,
  RNBD_IO_BYTES_MIN,
  RNBD_OP,
  RNBD_SECTOR_BYTES,
  rnbdIoBytes,
  rnbdIoFlags,
  rnbdIoOperation,
  rnbdIoSectorHigh,
  rnbdIoSectorLow,
} from "../wire/index.js";
import type { OpenDevice } from "./device-table.js";

/** Sectors from here on have no byte offset below 2^53. */
const SECTOR_HIGH_END = 0x20_0000 / RNBD_SECTOR_BYTES;

export class ServerIo implements BlockRequestOwner {
  readonly request: ServerRequest;
  readonly block: BlockRequest;
  private open: OpenDevice | null = null;
  private operation: BlockOperation = BLOCK_OPERATION.READ;
  private flushBefore = false;
  private flushAfter = false;

  constructor(request: ServerRequest) {
    this.request = request;
    this.block = new BlockRequest(this, request.chunk);
  }

  /** Runs the IO message that `request` holds on `open`; answers it now or when the device has. */
  run(open: OpenDevice): void {
    const errno = this.prepare(open);
    if (errno !== 0) {
      open.volume.counters.errors++;
      this.request.complete(errno);
      return;
    }
    this.open = open;
    open.requestBegins();
    if (this.flushBefore) this.submitFlush();
    else this.submitOperation();
  }

  onBlockComplete(block: BlockRequest): void {
    const open = this.open as OpenDevice;
    assert(open !== null, "a finished request has its open");
    if (block.errno === 0) {
      if (this.flushBefore) {
        this.flushBefore = false;
        this.submitOperation();
        return;
      }
      if (this.flushAfter) {
        this.flushAfter = false;
        this.submitFlush();
        return;
      }
    } else {
      open.volume.counters.errors++;
      open.volume.onDeviceError?.(block.operation, block.errno);
    }
    this.open = null;
    open.requestEnds();
    this.request.complete(block.errno);
  }

  private submitFlush(): void {
    this.block.operation = BLOCK_OPERATION.FLUSH;
    (this.open as OpenDevice).volume.device.submit(this.block);
  }

  private submitOperation(): void {
    this.block.operation = this.operation;
    (this.open as OpenDevice).volume.device.submit(this.block);
  }

  /**
   * Judges the message and fills `block`. The device checks ranges against its size and its limits;
   * here belongs what only RNBD knows.
   * @returns 0 or the errno to answer.
   */
  private prepare(open: OpenDevice): number {
    const { request, block } = this;
    if (request.userLength < RNBD_IO_BYTES_MIN) return ERRNO.EINVAL;
    const view = request.userView;
    const flags = rnbdIoFlags(view, 0);
    const errno = this.setOperation(rnbdIoOperation(view, 0), rnbdIoBytes(view, 0), open);
    if (errno !== 0) return errno;
    const changes = this.operation !== BLOCK_OPERATION.READ;
    const isFlush = this.operation === BLOCK_OPERATION.FLUSH;
    this.setDurability(flags, changes && !isFlush, open);
    if (changes && !isFlush && (open.access === RNBD_ACCESS.RO || open.volume.readOnly)) {
      // Linux 6.1 lets such writes through (facts page 17).
      return ERRNO.EROFS;
    }
    block.memory = request.memory;
    block.memoryOffset = request.memoryOffset;
    block.length = rnbdIoBytes(view, 0);
    block.offset = 0;
    if (isFlush) return 0; // Its sector is all ones and its length means nothing.
    const sectorHigh = rnbdIoSectorHigh(view, 0);
    if (sectorHigh >= SECTOR_HIGH_END) return ERRNO.EINVAL;
    block.offset = joinHalves(sectorHigh, rnbdIoSectorLow(view, 0)) * RNBD_SECTOR_BYTES;
    return 0;
  }

  /** Takes the operation where direction and data length (`D`) fit it. */
  private setOperation(operation: number, byteCount: number, open: OpenDevice): number {
    const { isRead, dataLength } = this.request;
    const counters = open.volume.counters;
    switch (operation) {
      case RNBD_OP.READ:
        if (!isRead || dataLength !== byteCount) return ERRNO.EINVAL;
        counters.reads++;
        counters.readBytes += byteCount;
        this.operation = BLOCK_OPERATION.READ;
        return 0;
      case RNBD_OP.WRITE:
        if (isRead || dataLength !== byteCount) return ERRNO.EINVAL;
        counters.writes++;
        counters.writeBytes += byteCount;
        this.operation = BLOCK_OPERATION.WRITE;
        return 0;
      case RNBD_OP.FLUSH:
        counters.flushes++;
        this.operation = BLOCK_OPERATION.FLUSH;
        return dataLength === 0 ? 0 : ERRNO.EINVAL;
      case RNBD_OP.DISCARD:
        counters.discards++;
        this.operation = BLOCK_OPERATION.DISCARD;
        return isRead || dataLength !== 0 ? ERRNO.EINVAL : 0;
      case RNBD_OP.WRITE_ZEROES:
        counters.writeZeroes++;
        this.operation = BLOCK_OPERATION.WRITE_ZEROES;
        return isRead || dataLength !== 0 ? ERRNO.EINVAL : 0;
      default:
        // SECURE_ERASE is never offered; Linux 6.1 runs what it doesn't know as a read.
        return ERRNO.EOPNOTSUPP;
    }
  }

  /** FUA by the device where it can, else by a flush behind; PREFLUSH by a flush in front. */
  private setDurability(flags: number, changesData: boolean, open: OpenDevice): void {
    const limits = open.volume.device.limits;
    const fua = changesData && (flags & RNBD_FLAG.FUA) !== 0;
    this.flushBefore = changesData && (flags & RNBD_FLAG.PREFLUSH) !== 0;
    this.flushAfter = fua && !limits.fua && limits.volatileCache;
    let blockFlags = fua && limits.fua ? BLOCK_FLAG.FUA : 0;
    if (this.operation === BLOCK_OPERATION.WRITE_ZEROES && (flags & RNBD_FLAG.NOUNMAP) !== 0) {
      blockFlags |= BLOCK_FLAG.NO_UNMAP;
    }
    this.block.flags = blockFlags;
  }
}
