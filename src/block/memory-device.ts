// SPDX-License-Identifier: MIT
// A RAM disk: pages of ordinary memory, by default made when first written. For tests, for a first
// look, and for measuring everything above it without a disk's share. Its contents end with it.

import { assert, ERRNO, FarpageError } from "../base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockDevice,
  type BlockExtent,
  type BlockLimits,
  type BlockRequest,
} from "./block-device.js";
import { checkBlockRequest } from "./check-request.js";
import { RequestLedger } from "./request-list.js";

export interface MemoryDeviceOptions {
  readonly name: string;
  /** A multiple of the logical block. */
  readonly sizeBytes: number;
  /** A power of two, 512 .. 65,536. Default 512. */
  readonly logicalBlockBytes?: number;
  /** A multiple of the logical block. Default 4096, or the logical block where that is larger. */
  readonly physicalBlockBytes?: number;
  readonly readOnly?: boolean;
  /** Make pages when they are first written and drop them when discarded. Default true. */
  readonly sparse?: boolean;
  /** Pages hold at most this many bytes; a write that needs more fails with ENOSPC. */
  readonly residentBytesMax?: number;
  /** Default 32 MiB. */
  readonly transferBytesMax?: number;
  /** Default 256. */
  readonly queueDepth?: number;
}

const PAGE_BYTES = 65_536;
const TRANSFER_BYTES_MAX = 32 << 20;
const RANGE_BYTES_MAX = 0x7fff_0000;

/** A `BlockDevice` in memory; every request runs inside `submit` and completes from `pump`. */
export class MemoryDevice implements BlockDevice {
  readonly name: string;
  onResize: (() => void) | null = null;
  private currentLimits: BlockLimits;
  private readonly sparse: boolean;
  private readonly pageCountMax: number;
  /** Page i holds bytes i x 64 KiB on; a page that is not there reads as zeroes. */
  private readonly pages = new Map<number, Uint8Array>();
  private readonly ledger = new RequestLedger();
  private resized = false;

  /** @throws FarpageError EINVAL when a size can't be. */
  constructor(options: MemoryDeviceOptions) {
    const block = options.logicalBlockBytes ?? 512;
    if (block < 512 || block > PAGE_BYTES || (block & (block - 1)) !== 0) {
      throw new FarpageError(
        "EINVAL",
        `${block} is not a block size (a power of two, 512 .. 65536)`,
      );
    }
    this.name = options.name;
    this.sparse = options.sparse ?? true;
    this.pageCountMax = Math.floor((options.residentBytesMax ?? Infinity) / PAGE_BYTES);
    const sizeBytes = requireSize(options.sizeBytes, block);
    this.currentLimits = {
      sizeBytes,
      logicalBlockBytes: block,
      physicalBlockBytes: options.physicalBlockBytes ?? Math.max(block, 4096),
      readOnly: options.readOnly ?? false,
      transferBytesMax: options.transferBytesMax ?? TRANSFER_BYTES_MAX,
      queueDepth: options.queueDepth ?? 256,
      // Nothing is behind this memory that a flush could make it safer with.
      volatileCache: false,
      fua: true,
      discardBytesMax: RANGE_BYTES_MAX,
      discardGranularityBytes: PAGE_BYTES,
      writeZeroesBytesMax: RANGE_BYTES_MAX,
      rotational: false,
    };
    this.makePages(sizeBytes);
  }

  get limits(): BlockLimits {
    return this.currentLimits;
  }

  get inflight(): number {
    return this.ledger.inflight;
  }

  /** Bytes of memory that hold the disk's contents now. */
  get residentBytes(): number {
    return this.pages.size * PAGE_BYTES;
  }

  submit(request: BlockRequest): void {
    this.ledger.admit(request);
    this.ledger.finish(
      request,
      checkBlockRequest(this.currentLimits, request) || this.run(request),
    );
  }

  pump(_nowNs: number): void {
    if (this.resized) {
      this.resized = false;
      this.onResize?.();
    }
    this.ledger.deliver();
  }

  deadlineNs(): number {
    return this.ledger.finishedCount > 0 || this.resized ? 0 : Infinity;
  }

  /**
   * Grows or shrinks the disk; what is cut off is gone, what is added reads as zeroes.
   * @throws FarpageError EINVAL when `sizeBytes` is no multiple of the logical block.
   */
  resize(sizeBytes: number): void {
    requireSize(sizeBytes, this.currentLimits.logicalBlockBytes);
    if (sizeBytes === this.currentLimits.sizeBytes) return;
    this.cutPages(sizeBytes);
    this.makePages(sizeBytes);
    this.currentLimits = { ...this.currentLimits, sizeBytes };
    this.resized = true;
  }

  close(): void {
    assert(this.ledger.inflight === 0, "no request in flight when a device closes");
    this.pages.clear();
  }

  checkInvariants(): void {
    this.ledger.checkInvariants(0);
    assert(this.pages.size <= this.pageCountMax, "no more pages than allowed");
  }

  private run(request: BlockRequest): number {
    switch (request.operation) {
      case BLOCK_OPERATION.READ:
        this.read(request);
        return 0;
      case BLOCK_OPERATION.WRITE:
        return this.write(request);
      case BLOCK_OPERATION.DISCARD:
        this.clear(request.offset, request.length, this.sparse);
        return 0;
      case BLOCK_OPERATION.WRITE_ZEROES:
        this.clear(request.offset, request.length, this.drops(request));
        return 0;
      case BLOCK_OPERATION.STATUS:
        request.extents = this.extentsOf(request.offset, request.length);
        return 0;
      default:
        return 0;
    }
  }

  private drops(request: BlockRequest): boolean {
    return this.sparse && (request.flags & BLOCK_FLAG.NO_UNMAP) === 0;
  }

  private read(request: BlockRequest): void {
    const target = (request.memory as NonNullable<BlockRequest["memory"]>).bytes;
    const end = request.offset + request.length;
    let to = request.memoryOffset;
    for (let at = request.offset; at < end; ) {
      const within = at % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - within, end - at);
      const page = this.pages.get(Math.floor(at / PAGE_BYTES));
      if (page === undefined) target.fill(0, to, to + count);
      else target.set(count === PAGE_BYTES ? page : page.subarray(within, within + count), to);
      at += count;
      to += count;
    }
  }

  private write(request: BlockRequest): number {
    const source = (request.memory as NonNullable<BlockRequest["memory"]>).bytes;
    const end = request.offset + request.length;
    let from = request.memoryOffset;
    for (let at = request.offset; at < end; ) {
      const within = at % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - within, end - at);
      const page = this.pageForWrite(Math.floor(at / PAGE_BYTES));
      if (page === null) return ERRNO.ENOSPC;
      page.set(source.subarray(from, from + count), within);
      at += count;
      from += count;
    }
    return 0;
  }

  private pageForWrite(index: number): Uint8Array | null {
    const page = this.pages.get(index);
    if (page !== undefined) return page;
    if (this.pages.size >= this.pageCountMax) return null;
    const fresh = new Uint8Array(PAGE_BYTES);
    this.pages.set(index, fresh);
    return fresh;
  }

  /** Makes a range read as zeroes; with `drop`, whole pages give their memory back. */
  private clear(offset: number, length: number, drop: boolean): void {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / PAGE_BYTES);
      const within = at % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - within, end - at);
      if (drop && count === PAGE_BYTES) this.pages.delete(index);
      else this.pages.get(index)?.fill(0, within, within + count);
      at += count;
    }
  }

  private extentsOf(offset: number, length: number): readonly BlockExtent[] {
    const extents: BlockExtent[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const hole = this.isHole(at);
      let stop = at;
      while (stop < end && this.isHole(stop) === hole) stop += PAGE_BYTES - (stop % PAGE_BYTES);
      stop = Math.min(stop, end);
      extents.push({ length: stop - at, hole, zero: hole });
      at = stop;
    }
    return extents;
  }

  private isHole(offset: number): boolean {
    return !this.pages.has(Math.floor(offset / PAGE_BYTES));
  }

  /** Forgets what lies beyond `sizeBytes`. */
  private cutPages(sizeBytes: number): void {
    const count = Math.ceil(sizeBytes / PAGE_BYTES);
    for (const index of [...this.pages.keys()]) if (index >= count) this.pages.delete(index);
    const within = sizeBytes % PAGE_BYTES;
    if (within > 0) this.pages.get(count - 1)?.fill(0, within);
  }

  /** Not sparse: all pages from the start. */
  private makePages(sizeBytes: number): void {
    if (this.sparse) return;
    for (let index = 0; index * PAGE_BYTES < sizeBytes; index++) {
      if (this.pageForWrite(index) === null) {
        throw new FarpageError("ENOMEM", `${this.name}: no memory for ${sizeBytes} bytes`);
      }
    }
  }
}

function requireSize(sizeBytes: number, block: number): number {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes % block !== 0) {
    throw new FarpageError(
      "EINVAL",
      `${sizeBytes} bytes are no whole number of ${block}-byte blocks`,
    );
  }
  return sizeBytes;
}
