// SPDX-License-Identifier: MIT
// The block device interface: what the RNBD server opens, what the RNBD client is, and what the NBD
// endpoint serves. Offsets and lengths are bytes.

import type { Machine, Memory } from "../base/index.js";

export const BLOCK_OPERATION = {
  READ: 0,
  WRITE: 1,
  /** Everything completed before this was submitted is durable when it completes. */
  FLUSH: 2,
  /** The range's contents become undefined (reads give old bytes or zeroes); space may be freed. */
  DISCARD: 3,
  /** The range reads as zeroes. */
  WRITE_ZEROES: 4,
  /** Loads the range into the cache, if there is one; never changes data. */
  CACHE: 5,
  /** Which parts of the range are data, which holes: fills `BlockRequest.extents`. */
  STATUS: 6,
} as const;
export type BlockOperation = (typeof BLOCK_OPERATION)[keyof typeof BLOCK_OPERATION];

/** Bits of `BlockRequest.flags`. */
export const BLOCK_FLAG = {
  /** WRITE, WRITE_ZEROES, DISCARD: durable when it completes. */
  FUA: 1,
  /** WRITE_ZEROES: keep the space allocated. */
  NO_UNMAP: 2,
  /** WRITE_ZEROES: EOPNOTSUPP at once rather than slowly writing zeroes. */
  FAST_ONLY: 4,
} as const;

/** One run of a STATUS answer. */
export interface BlockExtent {
  readonly length: number;
  /** Not backed by space. */
  readonly hole: boolean;
  /** Reads as zeroes. */
  readonly zero: boolean;
}

/** Who gets a finished request back. */
export interface BlockRequestOwner {
  /** Called from the device's `pump` (never from inside `submit`), once per request. */
  onBlockComplete(request: BlockRequest): void;
}

/**
 * One request. Owned, kept and reused by its submitter; from `submit` to `onBlockComplete` it and
 * the memory it names belong to the device.
 */
export class BlockRequest {
  operation: BlockOperation = BLOCK_OPERATION.READ;
  /** `BLOCK_FLAG` bits. */
  flags = 0;
  offset = 0;
  length = 0;
  /** READ: where data goes; WRITE: where it comes from: `length` bytes at `memoryOffset`. */
  memory: Memory | null = null;
  memoryOffset = 0;
  /** After completion: 0 or a Linux errno. */
  errno = 0;
  /**
   * After a successful STATUS: runs from `offset` on, covering at least one byte, at most `length`.
   */
  extents: readonly BlockExtent[] = [];
  readonly owner: BlockRequestOwner;
  /** The owner's own number for it. */
  readonly tag: number;
  // The rest belongs to the device, from `submit` to completion: what it must remember of a request
  // lives in the request, so that a device's queues need neither memory nor a bound of their own.
  /** The next request of the device's queue that this one is in; null otherwise. */
  next: BlockRequest | null = null;
  /** Bytes of the range done, or handed on. */
  position = 0;
  /** Parts of the range that are under way. */
  parts = 0;
  /** The device's own stage number. */
  stage = 0;

  constructor(owner: BlockRequestOwner, tag: number) {
    this.owner = owner;
    this.tag = tag;
  }
}

/** What a device can do; constant but for `sizeBytes` (see `BlockDevice.onResize`). */
export interface BlockLimits {
  readonly sizeBytes: number;
  /** Offsets and lengths must be multiples of this; a power of two, 512 .. 65,536. */
  readonly logicalBlockBytes: number;
  /** Multiples of this are served without read-modify-write. */
  readonly physicalBlockBytes: number;
  readonly readOnly: boolean;
  /** Largest READ or WRITE, bytes. */
  readonly transferBytesMax: number;
  /** Requests that may be in flight at once. */
  readonly queueDepth: number;
  /** Completed writes may be lost by a crash until FLUSH (a write-back cache). */
  readonly volatileCache: boolean;
  readonly fua: boolean;
  /** Largest DISCARD and WRITE_ZEROES, bytes; 0 where the device has none. */
  readonly discardBytesMax: number;
  readonly discardGranularityBytes: number;
  readonly writeZeroesBytesMax: number;
  readonly rotational: boolean;
}

/**
 * A disk. `submit` never blocks, never fails and never completes a request itself: a request that
 * can't be valid completes with EINVAL (EROFS, EOPNOTSUPP, ENOSPC) from the next `pump` like any
 * other. Requests in flight at the same time may run in any order.
 */
export interface BlockDevice extends Machine {
  readonly name: string;
  readonly limits: BlockLimits;
  /** Called from `pump` when `limits.sizeBytes` has changed. */
  onResize: (() => void) | null;
  /**
   * More than `limits.queueDepth` requests may be submitted; the rest wait their turn in the
   * device, in the order of submission.
   */
  submit(request: BlockRequest): void;
  /**
   * Looks at once whether the size has changed: `limits` is right on return, `onResize` follows.
   */
  refreshSize?(): void;
  /** Requests submitted and not completed. */
  readonly inflight: number;
  /** Frees what the device holds. Preconditions: `inflight` is 0. */
  close(): void;
}
