// SPDX-License-Identifier: MIT
// Receives the payload of one request at a time: a WRITE's into the buffers from which the device
// takes it, that of a request which has been refused into nothing.

import { assert } from "../base/index.js";
import { BLOCK_OPERATION } from "../block/index.js";
import type { BlockSubmitter } from "./block-submitter.js";
import type { RequestPool, RequestSlot, Segment } from "./request-pool.js";
import { INTAKE, type Intake, type Staging } from "./staging.js";

/** After a WRITE in parts, how much to stage at once: the next one's payload needs no staging. */
const SHORT_GULP_BYTES = 4096;

export class PayloadIntake {
  /** The request whose payload is being received, or null. */
  slot: RequestSlot | null = null;
  /** How much to stage at once; little, where payload can go straight to its place. */
  gulpBytes: number;
  private readonly pool: RequestPool;
  private readonly staging: Staging;
  private readonly submitter: BlockSubmitter;
  /** Bytes that are still to come. */
  private left = 0;
  /** They are of no use: skip them. */
  private isSkipping = false;
  /** The segment being filled, or null for the slot's own buffer. */
  private fillSegment: Segment | null = null;
  /** Where the next byte goes in the pool's memory, and how many more go there. */
  private fillOffset = 0;
  private fillLeft = 0;

  constructor(pool: RequestPool, staging: Staging, submitter: BlockSubmitter) {
    this.pool = pool;
    this.staging = staging;
    this.submitter = submitter;
    this.gulpBytes = staging.capacity;
  }

  /** Where a read of the stream may place payload directly. */
  get directOffset(): number {
    return this.fillOffset;
  }

  /** How much of it; 0 when payload has to be staged. */
  get directBytes(): number {
    return this.isSkipping || this.staging.count > 0 ? 0 : this.fillLeft;
  }

  /** `count` bytes of payload have been read to `directOffset`. */
  onDirect(count: number): void {
    assert(count <= this.fillLeft, "payload stays within its buffer");
    this.filled(count);
  }

  /** `slot.length` bytes of payload follow; those of a request with an error are skipped. */
  begin(slot: RequestSlot): void {
    assert(this.slot === null, "one payload is received at a time");
    const isInline = slot.length <= this.submitter.inlineMax;
    this.slot = slot;
    this.left = slot.length;
    this.isSkipping = slot.error !== 0;
    this.gulpBytes = isInline ? this.staging.capacity : SHORT_GULP_BYTES;
    this.fillSegment = null;
    this.fillLeft = 0;
    if (!this.isSkipping && isInline) {
      this.fillOffset = slot.inlineOffset;
      this.fillLeft = slot.length;
    }
  }

  /** Moves staged payload to its place; TAKEN when the request has all of it. */
  consume(slot: RequestSlot): Intake {
    const staging = this.staging;
    while (this.left > 0) {
      if (this.fillLeft === 0 && !this.isSkipping && !this.nextFill(slot)) return INTAKE.BLOCKED;
      const count = Math.min(staging.count, this.isSkipping ? this.left : this.fillLeft);
      if (count === 0) return INTAKE.NEEDS_MORE;
      if (this.isSkipping) {
        this.left -= count;
      } else {
        const from = staging.offset;
        this.pool.memory.bytes.copyWithin(this.fillOffset, from, from + count);
        this.filled(count);
      }
      staging.take(count);
    }
    this.slot = null;
    this.isSkipping = false;
    return INTAKE.TAKEN;
  }

  /** A buffer for the next part of a long WRITE. @returns false when none is free. */
  private nextFill(slot: RequestSlot): boolean {
    if (slot.error !== 0) {
      // An earlier part has failed: the rest would be written for nothing.
      slot.end = slot.assigned;
      this.isSkipping = true;
      return true;
    }
    const segment = this.pool.takeSegment(slot);
    if (segment === null) return false;
    this.fillSegment = segment;
    this.fillOffset = segment.memoryOffset;
    this.fillLeft = Math.min(this.left, this.submitter.partBytes);
    return true;
  }

  private filled(count: number): void {
    this.fillOffset += count;
    this.fillLeft -= count;
    this.left -= count;
    const segment = this.fillSegment;
    if (this.fillLeft > 0 || segment === null) return;
    this.fillSegment = null;
    this.submitter.submitPart(segment.slot as RequestSlot, segment, BLOCK_OPERATION.WRITE);
  }

  checkInvariants(): void {
    assert(this.left >= this.fillLeft, "a buffer is filled only as far as payload goes");
    assert(this.slot !== null || this.left === 0, "payload belongs to a request");
  }
}
