// SPDX-License-Identifier: MIT
// Turns requests of the transmission phase into block requests that the device takes: in one piece
// on the request's own buffer, in parts of a segment each, or piece by piece where no data moves.

import { assert } from "../base/index.js";
import { BLOCK_FLAG, BLOCK_OPERATION, type BlockOperation } from "../block/index.js";
import { NBD_COMMAND, NBD_COMMAND_FLAG } from "../wire/index.js";
import type { NbdExport } from "./nbd-export.js";
import type { NbdLimits } from "./nbd-limits.js";
import type { RequestPool, RequestSlot, Segment } from "./request-pool.js";

export class BlockSubmitter {
  /** Longest request that goes in one block request on the slot's buffer. */
  readonly inlineMax: number;
  /** Longest part. */
  readonly partBytes: number;
  private readonly pool: RequestPool;
  private readonly target: NbdExport;
  private readonly hasFua: boolean;

  constructor(pool: RequestPool, target: NbdExport, limits: NbdLimits) {
    this.pool = pool;
    this.target = target;
    const device = target.device.limits;
    const block = device.logicalBlockBytes;
    const transferMax = Math.min(limits.segmentBytes, Math.max(device.transferBytesMax, block));
    this.partBytes = transferMax - (transferMax % block);
    this.inlineMax = Math.min(limits.inlineBytes, this.partBytes);
    this.hasFua = device.fua;
  }

  /** The whole of a READ or WRITE on the slot's own buffer. */
  submitInline(slot: RequestSlot, operation: BlockOperation): void {
    const block = slot.block;
    block.operation = operation;
    block.flags = this.blockFlags(slot);
    block.offset = slot.offset;
    block.length = slot.length;
    block.memory = this.pool.memory;
    block.memoryOffset = slot.inlineOffset;
    slot.assigned = slot.length;
    this.pool.submit(block, this.target);
  }

  /** Submits the next piece of a request that moves no data. */
  submitPiece(slot: RequestSlot): void {
    const block = slot.block;
    const limits = this.target.device.limits;
    let pieceMax = slot.length;
    switch (slot.command) {
      case NBD_COMMAND.FLUSH:
        block.operation = BLOCK_OPERATION.FLUSH;
        break;
      case NBD_COMMAND.TRIM:
        block.operation = BLOCK_OPERATION.DISCARD;
        pieceMax = limits.discardBytesMax;
        break;
      case NBD_COMMAND.WRITE_ZEROES:
        block.operation = BLOCK_OPERATION.WRITE_ZEROES;
        pieceMax = limits.writeZeroesBytesMax;
        break;
      case NBD_COMMAND.CACHE:
        block.operation = BLOCK_OPERATION.CACHE;
        pieceMax = limits.transferBytesMax;
        break;
      default:
        assert(slot.command === NBD_COMMAND.BLOCK_STATUS, "only known commands are executed");
        block.operation = BLOCK_OPERATION.STATUS;
    }
    pieceMax = Math.max(pieceMax - (pieceMax % limits.logicalBlockBytes), limits.logicalBlockBytes);
    block.flags = this.blockFlags(slot);
    block.offset = slot.offset + slot.assigned;
    block.length = Math.min(slot.length - slot.assigned, pieceMax);
    block.memory = null;
    block.memoryOffset = 0;
    slot.assigned += block.length;
    this.pool.submit(block, this.target);
  }

  /** The next part of a READ or WRITE, in `segment`. */
  submitPart(slot: RequestSlot, segment: Segment, operation: BlockOperation): void {
    const block = segment.block;
    block.operation = operation;
    block.flags = this.blockFlags(slot);
    block.offset = slot.offset + slot.assigned;
    block.length = Math.min(slot.length - slot.assigned, this.partBytes);
    block.memory = this.pool.memory;
    block.memoryOffset = segment.memoryOffset;
    slot.assigned += block.length;
    slot.outstanding++;
    this.pool.submit(block, this.target);
  }

  /** `BLOCK_FLAG` bits; FUA only where there is a cache that it must pass. */
  private blockFlags(slot: RequestSlot): number {
    const flags = slot.flags;
    if (flags === 0) return 0;
    let result = 0;
    if ((flags & NBD_COMMAND_FLAG.FUA) !== 0 && this.hasFua && isWriting(slot.command)) {
      result |= BLOCK_FLAG.FUA;
    }
    if ((flags & NBD_COMMAND_FLAG.NO_HOLE) !== 0) result |= BLOCK_FLAG.NO_UNMAP;
    if ((flags & NBD_COMMAND_FLAG.FAST_ZERO) !== 0) result |= BLOCK_FLAG.FAST_ONLY;
    return result;
  }
}

/** Whether FUA means anything on `command`. */
function isWriting(command: number): boolean {
  return (
    command === NBD_COMMAND.WRITE ||
    command === NBD_COMMAND.TRIM ||
    command === NBD_COMMAND.WRITE_ZEROES
  );
}
