// SPDX-License-Identifier: MIT
// The transmission phase of one connection (proto.md, "Transmission"): takes requests off the staged
// bytes, checks them, moves them to the block device and back. What they are answered with is in
// `nbd-replies.ts`.
//
// A request up to `inlineBytes` goes to the device as one block request on its slot's own buffer. A
// longer READ or WRITE goes in parts, one segment each, as many at a time as there are segments; one
// longer than a device takes at once without data (TRIM, WRITE_ZEROES, CACHE) goes piece by piece.

import { assert, ERRNO, IntRing, joinHalves } from "../base/index.js";
import { BLOCK_FLAG, BLOCK_OPERATION, type BlockOperation } from "../block/index.js";
import {
  NBD_COMMAND,
  NBD_COMMAND_FLAG,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REQUEST_BYTES,
  NBD_REQUEST_MAGIC,
  nbdExtendedLengthHigh,
  nbdExtendedLengthLow,
  nbdRequestCookieHigh,
  nbdRequestCookieLow,
  nbdRequestFlags,
  nbdRequestLength,
  nbdRequestMagic,
  nbdRequestOffsetHigh,
  nbdRequestOffsetLow,
  nbdRequestType,
} from "../wire/index.js";
import type { NbdCloseReason, NbdCounters } from "./nbd-counters.js";
import { nbdError } from "./nbd-errno.js";
import type { NbdExport } from "./nbd-export.js";
import type { NbdLimits } from "./nbd-limits.js";
import { NbdReplies, REPLY_FORM, type ReplyForm } from "./nbd-replies.js";
import type { ReplyQueue } from "./reply-queue.js";
import { RequestChecker } from "./request-checker.js";
import type { PoolUser, RequestPool, RequestSlot, Segment } from "./request-pool.js";
import { INTAKE, type Intake, type Staging } from "./staging.js";

/** What was agreed on in the handshake. */
export interface TransmissionTerms {
  readonly target: NbdExport;
  readonly form: ReplyForm;
  /** base:allocation was selected for this export. */
  readonly hasAllocationContext: boolean;
}

/** What the phase asks of its connection. */
export interface TransmissionOwner {
  /** Something is ready to be sent, or room has become free. */
  onProgress(): void;
  /** The client said goodbye: answer what is in progress, then close. */
  onDisconnect(): void;
  /** The stream can't go on: close it now. */
  onFatal(reason: NbdCloseReason): void;
}

/** A WRITE longer than this tells that more such will follow: gulps become short, see `gulpBytes`. */
const SHORT_GULP_BYTES = 4096;

export class NbdTransmission implements PoolUser {
  readonly target: NbdExport;
  private readonly owner: TransmissionOwner;
  private readonly pool: RequestPool;
  private readonly counters: NbdCounters;
  private readonly replies: NbdReplies;
  private readonly checker: RequestChecker;
  private readonly staging: Staging;
  private readonly view: DataView;
  private readonly isExtended: boolean;
  private readonly headerBytes: number;
  private readonly magic: number;
  private readonly inlineBytes: number;
  /** Longest request that goes in one block request on the slot's buffer. */
  private readonly inlineMax: number;
  /** Longest part. */
  private readonly partBytes: number;
  private readonly hasFua: boolean;
  /** READs that need segments, oldest first. */
  private readonly longReads: IntRing;
  /** Requests that continue with their next piece. */
  private readonly continuing: IntRing;

  /** The WRITE (or refused request) whose payload is being received, or null. */
  private payloadSlot: RequestSlot | null = null;
  /** Bytes of it that are still to come. */
  private payloadLeft = 0;
  /** They are of no use: skip them. */
  private isSkipping = false;
  /** The segment being filled, or null for the slot's own buffer. */
  private fillSegment: Segment | null = null;
  /** Where the next payload byte goes in the pool's memory, and how many more go there. */
  private fillOffset = 0;
  private fillLeft = 0;
  private isShortGulp = false;

  constructor(
    owner: TransmissionOwner,
    pool: RequestPool,
    queue: ReplyQueue,
    staging: Staging,
    counters: NbdCounters,
    limits: NbdLimits,
    terms: TransmissionTerms,
  ) {
    this.owner = owner;
    this.pool = pool;
    this.counters = counters;
    this.staging = staging;
    this.view = pool.memory.view;
    this.target = terms.target;
    this.replies = new NbdReplies(pool, queue, counters, terms.form);
    this.checker = new RequestChecker(terms, limits.requestBytesMax);
    this.isExtended = terms.form === REPLY_FORM.EXTENDED;
    this.headerBytes = this.isExtended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    this.magic = this.isExtended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC;
    const device = terms.target.device.limits;
    const block = device.logicalBlockBytes;
    const transferMax = Math.min(limits.segmentBytes, Math.max(device.transferBytesMax, block));
    this.partBytes = transferMax - (transferMax % block);
    this.inlineBytes = limits.inlineBytes;
    this.inlineMax = Math.min(limits.inlineBytes, this.partBytes);
    this.hasFua = device.fua;
    this.longReads = new IntRing(limits.requestCountMax);
    this.continuing = new IntRing(limits.requestCountMax);
    pool.user = this;
  }

  /** A message has begun that the client has not finished. */
  get isInsideMessage(): boolean {
    return this.payloadSlot !== null || this.staging.count > 0;
  }

  /** Every request whose bytes are all here has been answered, and the answers have been sent. */
  get isIdle(): boolean {
    return this.pool.inflight === 0 && this.pool.slotsInUse === (this.payloadSlot === null ? 0 : 1);
  }

  /** Requests wait for segments. */
  get isStarved(): boolean {
    return this.longReads.count > 0;
  }

  /** How much to stage at once; little, where payload can go straight to its place. */
  get gulpBytes(): number {
    return this.isShortGulp ? SHORT_GULP_BYTES : this.staging.capacity;
  }

  /** Where a read of the stream may place payload directly; its length is `directBytes`, may be 0. */
  get directOffset(): number {
    return this.fillOffset;
  }

  get directBytes(): number {
    return this.isSkipping || this.staging.count > 0 ? 0 : this.fillLeft;
  }

  /** `count` bytes of payload have been read to `directOffset`. */
  onDirect(count: number): void {
    assert(count <= this.fillLeft, "payload stays within its buffer");
    this.filled(count);
  }

  /** Takes what it can off the staged bytes. */
  consume(): Intake {
    for (;;) {
      if (this.payloadSlot !== null) {
        const intake = this.consumePayload(this.payloadSlot);
        if (intake !== INTAKE.TAKEN) return intake;
      }
      if (this.staging.count < this.headerBytes) return INTAKE.NEEDS_MORE;
      const intake = this.takeRequest(this.staging.offset);
      if (intake !== INTAKE.TAKEN) return intake;
    }
  }

  /** Goes on with what waited for room. */
  resume(): void {
    while (this.continuing.count > 0) {
      this.submitPiece(this.pool.slots[this.continuing.shift()] as RequestSlot);
    }
    this.assignSegments();
  }

  /** Takes one request; its header is staged at `at`. */
  private takeRequest(at: number): Intake {
    const view = this.view;
    if (nbdRequestMagic(view, at) !== this.magic) {
      this.owner.onFatal("BAD_REQUEST_MAGIC");
      return INTAKE.STOPPED;
    }
    const command = nbdRequestType(view, at);
    if (command === NBD_COMMAND.DISC) {
      this.counters.requests[NBD_COMMAND.DISC]!++;
      this.staging.take(this.headerBytes);
      this.owner.onDisconnect();
      return INTAKE.STOPPED;
    }
    const slot = this.pool.takeSlot();
    if (slot === null) return INTAKE.BLOCKED;
    slot.command = command;
    slot.flags = nbdRequestFlags(view, at);
    slot.cookieHigh = nbdRequestCookieHigh(view, at) | 0;
    slot.cookieLow = nbdRequestCookieLow(view, at) | 0;
    slot.offsetHigh = nbdRequestOffsetHigh(view, at) | 0;
    slot.offsetLow = nbdRequestOffsetLow(view, at) | 0;
    slot.offset = joinHalves(slot.offsetHigh >>> 0, slot.offsetLow >>> 0);
    slot.length = this.isExtended
      ? joinHalves(nbdExtendedLengthHigh(view, at), nbdExtendedLengthLow(view, at))
      : nbdRequestLength(view, at);
    this.staging.take(this.headerBytes);
    this.counters.requests[command <= NBD_COMMAND.BLOCK_STATUS ? command : 8]!++;
    slot.error = this.checker.check(slot);
    return this.checker.hasPayload(slot) ? this.beginPayload(slot) : this.execute(slot);
  }

  private execute(slot: RequestSlot): Intake {
    slot.end = slot.length;
    if (slot.error !== 0) {
      this.replies.finish(slot);
      this.owner.onProgress();
    } else if (slot.command === NBD_COMMAND.READ) {
      this.executeRead(slot);
    } else if (slot.length === 0 && slot.command !== NBD_COMMAND.FLUSH) {
      this.replies.finish(slot);
      this.owner.onProgress();
    } else {
      this.submitPiece(slot);
    }
    return INTAKE.TAKEN;
  }

  private executeRead(slot: RequestSlot): void {
    if (slot.length > this.inlineMax) {
      slot.ordered = slot.length > this.partBytes && this.replies.needsOrder(slot.flags);
      this.longReads.push(slot.index);
      this.assignSegments();
    } else if (slot.length > 0) {
      this.submitInline(slot, BLOCK_OPERATION.READ);
    } else {
      this.replies.finish(slot);
      this.owner.onProgress();
    }
  }

  private submitInline(slot: RequestSlot, operation: BlockOperation): void {
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
  private submitPiece(slot: RequestSlot): void {
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

  /**
   * Gives free segments to the oldest long READ, until it has all it needs, then to the next. A READ
   * that has failed leaves the line here, before its slot can be free: slots are freed by sending,
   * and `resume` comes before that.
   */
  private assignSegments(): void {
    while (this.longReads.count > 0) {
      const slot = this.pool.slots[this.longReads.peek()] as RequestSlot;
      while (slot.assigned < slot.end) {
        if (!this.pool.hasSegmentForRead) return;
        const segment = this.pool.takeSegment(slot);
        assert(segment !== null, "a segment for a READ is there");
        if (slot.ordered || slot.length <= this.partBytes) linkPart(slot, segment);
        this.submitPart(slot, segment, BLOCK_OPERATION.READ);
      }
      this.longReads.shift();
    }
  }

  private submitPart(slot: RequestSlot, segment: Segment, operation: BlockOperation): void {
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

  private beginPayload(slot: RequestSlot): Intake {
    slot.end = slot.length;
    if (slot.length > this.checker.payloadBytesMax) {
      this.owner.onFatal("PAYLOAD_TOO_LONG");
      return INTAKE.STOPPED;
    }
    this.payloadSlot = slot;
    this.payloadLeft = slot.length;
    this.isSkipping = slot.error !== 0;
    this.isShortGulp = slot.length > this.inlineMax;
    this.fillSegment = null;
    this.fillLeft = 0;
    if (!this.isSkipping && slot.length <= this.inlineMax) {
      this.fillOffset = slot.inlineOffset;
      this.fillLeft = slot.length;
    }
    return INTAKE.TAKEN;
  }

  /** Moves staged payload to its place; TAKEN when the request has all of it. */
  private consumePayload(slot: RequestSlot): Intake {
    const staging = this.staging;
    while (this.payloadLeft > 0) {
      if (this.fillLeft === 0 && !this.isSkipping && !this.nextFill(slot)) return INTAKE.BLOCKED;
      const count = Math.min(staging.count, this.isSkipping ? this.payloadLeft : this.fillLeft);
      if (count === 0) return INTAKE.NEEDS_MORE;
      if (this.isSkipping) {
        this.payloadLeft -= count;
      } else {
        const from = staging.offset;
        this.pool.memory.bytes.copyWithin(this.fillOffset, from, from + count);
        this.filled(count);
      }
      staging.take(count);
    }
    this.payloadSlot = null;
    this.finishPayload(slot);
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
    this.fillLeft = Math.min(this.payloadLeft, this.partBytes);
    return true;
  }

  private filled(count: number): void {
    this.fillOffset += count;
    this.fillLeft -= count;
    this.payloadLeft -= count;
    const segment = this.fillSegment;
    if (this.fillLeft > 0 || segment === null) return;
    this.fillSegment = null;
    this.submitPart(segment.slot as RequestSlot, segment, BLOCK_OPERATION.WRITE);
  }

  /** All payload is here. */
  private finishPayload(slot: RequestSlot): void {
    const isInline = slot.length <= this.inlineMax && slot.length > 0 && slot.error === 0;
    this.isSkipping = false;
    if (isInline) {
      this.submitInline(slot, BLOCK_OPERATION.WRITE);
    } else if (slot.outstanding === 0) {
      this.finishWrite(slot);
      this.owner.onProgress();
    }
  }

  /** Answers a WRITE, unless part of it is still to come or at the device. */
  private finishWrite(slot: RequestSlot): void {
    if (slot.outstanding > 0 || this.payloadSlot === slot) return;
    if (slot.error === 0) this.counters.writtenBytes += slot.length;
    this.replies.finish(slot);
  }

  onSlotComplete(slot: RequestSlot): void {
    const block = slot.block;
    this.owner.onProgress();
    if (slot.command === NBD_COMMAND.BLOCK_STATUS) {
      this.completeStatus(slot);
      return;
    }
    slot.error = nbdError(block.errno, slot.flags);
    if (slot.error === 0) {
      if (slot.command === NBD_COMMAND.WRITE) {
        this.counters.writtenBytes += slot.length;
      } else if (slot.assigned < slot.length) {
        this.continuing.push(slot.index);
        return;
      }
    }
    this.replies.finish(slot);
  }

  private completeStatus(slot: RequestSlot): void {
    const block = slot.block;
    const isUnknown = block.errno === ERRNO.EOPNOTSUPP;
    slot.error = isUnknown ? 0 : nbdError(block.errno, slot.flags);
    if (slot.error === 0) {
      this.replies.writeStatus(slot, isUnknown ? [] : block.extents, this.inlineBytes);
    }
    this.replies.finish(slot);
  }

  onPartComplete(segment: Segment): void {
    const slot = segment.slot;
    assert(slot !== null, "a part that comes back belongs to a request");
    this.owner.onProgress();
    slot.outstanding--;
    if (slot.error === 0) slot.error = nbdError(segment.block.errno, slot.flags);
    if (slot.command === NBD_COMMAND.WRITE) {
      this.pool.putSegment(segment);
      this.finishWrite(slot);
    } else if (slot.ordered) {
      this.completeOrderedPart(slot, segment);
    } else {
      this.completePart(slot, segment);
    }
  }

  /** A part of a READ whose parts are free to leave as they come, or that has only one. */
  private completePart(slot: RequestSlot, segment: Segment): void {
    if (slot.length <= this.partBytes) {
      if (slot.error !== 0) {
        slot.firstPart = null;
        slot.lastPart = null;
        this.pool.putSegment(segment);
      }
      this.replies.finish(slot);
      return;
    }
    if (segment.block.errno === 0) {
      this.replies.sendPart(segment);
      return;
    }
    slot.end = slot.assigned;
    slot.settled += segment.block.length;
    this.pool.putSegment(segment);
    if (slot.settled === slot.end) this.replies.finish(slot);
  }

  /** A part of a READ that leaves in order. */
  private completeOrderedPart(slot: RequestSlot, segment: Segment): void {
    segment.isDone = true;
    if (!slot.started) {
      if (slot.error !== 0) slot.end = slot.assigned;
      if (slot.outstanding === 0) this.replies.finish(slot);
      return;
    }
    if (segment.block.errno !== 0) {
      if (!this.replies.hasChunks) {
        this.owner.onFatal("READ_FAILED_IN_REPLY");
        return;
      }
      // The chunk has promised its length: zeroes take the place of what could not be read.
      const start = segment.memoryOffset;
      this.pool.memory.bytes.fill(0, start, start + segment.block.length);
    }
    this.replies.advance(slot);
  }

  checkInvariants(): void {
    assert(this.payloadLeft >= this.fillLeft, "a buffer is filled only as far as payload goes");
    assert(this.payloadSlot !== null || this.payloadLeft === 0, "payload belongs to a request");
    assert(this.longReads.count <= this.pool.slotsInUse, "only requests wait for segments");
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

/** Puts `segment` after the other parts of `slot`. */
function linkPart(slot: RequestSlot, segment: Segment): void {
  if (slot.lastPart === null) slot.firstPart = segment;
  else slot.lastPart.next = segment;
  slot.lastPart = segment;
}
