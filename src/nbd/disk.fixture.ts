// SPDX-License-Identifier: MIT
// A RAM disk for the tests of this room: strict about what it is asked, able to fail, to finish in
// any order and as slowly as wanted.

import { assert, ERRNO, type Random, randomBelow } from "../base/index.js";
import {
  BLOCK_OPERATION,
  type BlockDevice,
  type BlockExtent,
  type BlockLimits,
  type BlockRequest,
} from "../block/index.js";

export const DISK_LIMITS: BlockLimits = {
  sizeBytes: 1 << 20,
  logicalBlockBytes: 512,
  physicalBlockBytes: 4096,
  readOnly: false,
  transferBytesMax: 1 << 20,
  queueDepth: 64,
  volatileCache: true,
  fua: true,
  discardBytesMax: 1 << 30,
  discardGranularityBytes: 4096,
  writeZeroesBytesMax: 1 << 30,
  rotational: false,
};

/** What a request asked, after the request object has gone on to other things. */
export interface Asked {
  readonly operation: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
}

export class TestDisk implements BlockDevice {
  readonly name = "test disk";
  limits: BlockLimits;
  onResize: (() => void) | null = null;
  inflight = 0;
  /** Everything it was asked, in order of submission. */
  readonly asked: Asked[] = [];
  readonly bytes: Uint8Array;
  /** Completes at most this many requests in one pump; 0 holds all. */
  perPump = Number.POSITIVE_INFINITY;
  /** Says which errno a request gets; 0 lets it be done. */
  fail: (request: BlockRequest) => number = () => 0;
  /** Answers STATUS; by default it is not supported. */
  status: ((request: BlockRequest) => readonly BlockExtent[]) | null = null;
  /** Picks which request is done next; null: the oldest. */
  random: Random | null = null;
  inflightMax = 0;
  private readonly waiting: BlockRequest[] = [];

  constructor(limits: Partial<BlockLimits> = {}) {
    this.limits = { ...DISK_LIMITS, ...limits };
    this.bytes = new Uint8Array(this.limits.sizeBytes);
  }

  submit(request: BlockRequest): void {
    const { operation, flags, offset, length } = request;
    assert(!this.waiting.includes(request), "a request is submitted once");
    assert(this.inflight < this.limits.queueDepth, "the queue depth is kept");
    assert(operation === BLOCK_OPERATION.FLUSH || length > 0, "requests have a length");
    assert(offset >= 0 && offset + length <= this.limits.sizeBytes, "requests are in bounds");
    assert((offset | length) % this.limits.logicalBlockBytes === 0, "requests are aligned");
    assert(length <= this.maximum(request), "requests keep to the device's limits");
    assert(request.memory === null || request.memoryOffset % 4096 === 0, "buffers are aligned");
    this.asked.push({ operation, flags, offset, length });
    this.waiting.push(request);
    this.inflight++;
    this.inflightMax = Math.max(this.inflightMax, this.inflight);
  }

  pump(_nowNs: number): void {
    // Those submitted meanwhile have their turn in the next pump.
    const count = Math.min(this.waiting.length, this.perPump);
    for (let i = 0; i < count; i++) {
      const index = this.random === null ? 0 : randomBelow(this.random, this.waiting.length);
      const request = this.waiting.splice(index, 1)[0] as BlockRequest;
      request.errno = this.fail(request) || this.run(request);
      this.inflight--;
      request.owner.onBlockComplete(request);
    }
  }

  deadlineNs(): number {
    return this.waiting.length > 0 && this.perPump > 0 ? 0 : Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {}

  close(): void {}

  private maximum(request: BlockRequest): number {
    switch (request.operation) {
      case BLOCK_OPERATION.DISCARD:
        return this.limits.discardBytesMax;
      case BLOCK_OPERATION.WRITE_ZEROES:
        return this.limits.writeZeroesBytesMax;
      case BLOCK_OPERATION.STATUS:
        return Number.POSITIVE_INFINITY;
      default:
        return this.limits.transferBytesMax;
    }
  }

  private run(request: BlockRequest): number {
    const { offset, length, memory, memoryOffset } = request;
    const end = offset + length;
    switch (request.operation) {
      case BLOCK_OPERATION.READ:
        memory?.bytes.set(this.bytes.subarray(offset, end), memoryOffset);
        break;
      case BLOCK_OPERATION.WRITE:
        this.bytes.set(memory?.bytes.subarray(memoryOffset, memoryOffset + length) ?? [], offset);
        break;
      case BLOCK_OPERATION.DISCARD:
      case BLOCK_OPERATION.WRITE_ZEROES:
        this.bytes.fill(0, offset, end);
        break;
      case BLOCK_OPERATION.STATUS:
        if (this.status === null) return ERRNO.EOPNOTSUPP;
        request.extents = this.status(request);
        break;
      default:
    }
    return 0;
  }
}
