// SPDX-License-Identifier: MIT
// The transmission phase of one connection (proto.md, "Transmission"): takes requests off the
// staged bytes, checks them, moves them to the block device and back. What they are answered with
// is in `nbd-replies.ts`.
//
// A request up to `inlineBytes` goes to the device as one block request on its slot's own buffer. A
// longer READ or WRITE goes in parts, one segment each, as many at a time as there are segments;
// one longer than a device takes at once without data (TRIM, WRITE_ZEROES, CACHE) goes piece by
// piece.

import { assert, ERRNO, IntRing, joinHalves } from "../base/index.js";
import { BLOCK_OPERATION } from "../block/index.js";
import {
  NBD_COMMAND,
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
import { BlockSubmitter } from "./block-submitter.js";
import type { NbdCloseReason, NbdCounters } from "./nbd-counters.js";
import { nbdError } from "./nbd-errno.js";
import type { NbdExport } from "./nbd-export.js";
import type { NbdLimits } from "./nbd-limits.js";
import { NbdReplies, REPLY_FORM, type ReplyForm } from "./nbd-replies.js";
import { PayloadIntake } from "./payload-intake.js";
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

export class NbdTransmission implements PoolUser {
  readonly target: NbdExport;
  /** Where payload goes; the connection reads long payload straight to its place. */
  readonly payload: PayloadIntake;
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
  private readonly submitter: BlockSubmitter;
  /** READs that need segments, oldest first. */
  private readonly longReads: IntRing;
  /** Requests that continue with their next piece. */
  private readonly continuing: IntRing;

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
    this.inlineBytes = limits.inlineBytes;
    this.submitter = new BlockSubmitter(pool, terms.target, limits);
    this.payload = new PayloadIntake(pool, staging, this.submitter);
    this.longReads = new IntRing(limits.requestCountMax);
    this.continuing = new IntRing(limits.requestCountMax);
    pool.user = this;
  }

  /** A message has begun that the client has not finished. */
  get isInsideMessage(): boolean {
    return this.payload.slot !== null || this.staging.count > 0;
  }

  /** Every request whose bytes are all here has been answered, and the answers have been sent. */
  get isIdle(): boolean {
    const unfinished = this.payload.slot === null ? 0 : 1;
    return this.pool.inflight === 0 && this.pool.slotsInUse === unfinished;
  }

  /** Requests wait for segments. */
  get isStarved(): boolean {
    return this.longReads.count > 0;
  }

  /** Takes what it can off the staged bytes. */
  consume(): Intake {
    for (;;) {
      const slot = this.payload.slot;
      if (slot !== null) {
        const intake = this.payload.consume(slot);
        if (intake !== INTAKE.TAKEN) return intake;
        this.finishPayload(slot);
      }
      if (this.staging.count < this.headerBytes) return INTAKE.NEEDS_MORE;
      const intake = this.takeRequest(this.staging.offset);
      if (intake !== INTAKE.TAKEN) return intake;
    }
  }

  /** Goes on with what waited for room. */
  resume(): void {
    while (this.continuing.count > 0) {
      this.submitter.submitPiece(this.pool.slots[this.continuing.shift()] as RequestSlot);
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
    slot.end = slot.length;
    if (!this.checker.hasPayload(slot)) {
      this.execute(slot);
    } else if (slot.length > this.checker.payloadBytesMax) {
      this.owner.onFatal("PAYLOAD_TOO_LONG");
      return INTAKE.STOPPED;
    } else {
      this.payload.begin(slot);
    }
    return INTAKE.TAKEN;
  }

  private execute(slot: RequestSlot): void {
    if (slot.error !== 0) {
      this.replies.finish(slot);
      this.owner.onProgress();
    } else if (slot.command === NBD_COMMAND.READ) {
      this.executeRead(slot);
    } else if (slot.length === 0 && slot.command !== NBD_COMMAND.FLUSH) {
      this.replies.finish(slot);
      this.owner.onProgress();
    } else {
      this.submitter.submitPiece(slot);
    }
  }

  private executeRead(slot: RequestSlot): void {
    if (slot.length > this.submitter.inlineMax) {
      slot.ordered = slot.length > this.submitter.partBytes && this.replies.needsOrder(slot.flags);
      this.longReads.push(slot.index);
      this.assignSegments();
    } else if (slot.length > 0) {
      this.submitter.submitInline(slot, BLOCK_OPERATION.READ);
    } else {
      this.replies.finish(slot);
      this.owner.onProgress();
    }
  }

  /**
   * Gives free segments to the oldest long READ, until it has all it needs, then to the next. A
   * READ that has failed leaves the line here, before its slot can be free: slots are freed by
   * sending, and `resume` comes before that.
   */
  private assignSegments(): void {
    while (this.longReads.count > 0) {
      const slot = this.pool.slots[this.longReads.peek()] as RequestSlot;
      while (slot.assigned < slot.end) {
        if (!this.pool.hasSegmentForRead) return;
        const segment = this.pool.takeSegment(slot);
        assert(segment !== null, "a segment for a READ is there");
        if (slot.ordered || slot.length <= this.submitter.partBytes) linkPart(slot, segment);
        this.submitter.submitPart(slot, segment, BLOCK_OPERATION.READ);
      }
      this.longReads.shift();
    }
  }

  /** All payload is here. */
  private finishPayload(slot: RequestSlot): void {
    const isInline = slot.length <= this.submitter.inlineMax && slot.length > 0 && slot.error === 0;
    if (isInline) {
      this.submitter.submitInline(slot, BLOCK_OPERATION.WRITE);
    } else if (slot.outstanding === 0) {
      this.finishWrite(slot);
      this.owner.onProgress();
    }
  }

  /** Answers a WRITE, unless part of it is still to come or at the device. */
  private finishWrite(slot: RequestSlot): void {
    if (slot.outstanding > 0 || this.payload.slot === slot) return;
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
    if (slot.length <= this.submitter.partBytes) {
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
    this.payload.checkInvariants();
    assert(this.longReads.count <= this.pool.slotsInUse, "only requests wait for segments");
  }
}

/** Puts `segment` after the other parts of `slot`. */
function linkPart(slot: RequestSlot, segment: Segment): void {
  if (slot.lastPart === null) slot.firstPart = segment;
  else slot.lastPart.next = segment;
  slot.lastPart = segment;
}
