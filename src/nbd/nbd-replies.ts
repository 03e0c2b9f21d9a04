// SPDX-License-Identifier: MIT
// The answers of the transmission phase, in the form that was negotiated: simple, structured or
// extended replies (proto.md, "Transmission").
//
// Replies go out in the order in which requests finish. One kind needs the stream for itself: a
// long READ whose data must leave in one piece of payload (a simple reply, or a structured one with
// DF) though it is read in parts. While such an ordered reply is under way, all others are
// deferred.

import { assert, IntRing } from "../base/index.js";
import { BLOCK_OPERATION, type BlockExtent } from "../block/index.js";
import {
  NBD_CHUNK,
  NBD_COMMAND,
  NBD_COMMAND_FLAG,
  NBD_ERROR_CHUNK_BYTES,
  NBD_REPLY_FLAG_DONE,
  NBD_STATE,
  writeNbdErrorChunk,
  writeNbdExtendedReply,
  writeNbdSimpleReply,
  writeNbdStructuredReply,
  writeNbdU64,
} from "../wire/index.js";
import type { NbdCounters } from "./nbd-counters.js";
import { NO_TOKEN, type ReplyQueue } from "./reply-queue.js";
import type { RequestPool, RequestSlot, Segment } from "./request-pool.js";

export const REPLY_FORM = { SIMPLE: 0, STRUCTURED: 1, EXTENDED: 2 } as const;
export type ReplyForm = (typeof REPLY_FORM)[keyof typeof REPLY_FORM];

/** The ID under which clients know the one metadata context that there is. */
export const ALLOCATION_CONTEXT_ID = 1;

const OFFSET_BYTES = 8;

export class NbdReplies {
  private readonly pool: RequestPool;
  private readonly queue: ReplyQueue;
  private readonly view: DataView;
  private readonly counters: NbdCounters;
  private readonly form: ReplyForm;
  /** The ordered reply under way, or null. */
  private active: RequestSlot | null = null;
  /** Tokens of slots and segments whose replies wait for the end of `active`. */
  private readonly deferred: IntRing;

  constructor(pool: RequestPool, queue: ReplyQueue, counters: NbdCounters, form: ReplyForm) {
    this.pool = pool;
    this.queue = queue;
    this.view = pool.memory.view;
    this.counters = counters;
    this.form = form;
    this.deferred = new IntRing(pool.slots.length + pool.segments.length);
  }

  /** Whether data travels in chunks, so that an error can follow it. */
  get hasChunks(): boolean {
    return this.form !== REPLY_FORM.SIMPLE;
  }

  /** Whether a READ longer than one part must leave in order. */
  needsOrder(flags: number): boolean {
    return this.form === REPLY_FORM.SIMPLE || (flags & NBD_COMMAND_FLAG.DF) !== 0;
  }

  /**
   * Answers a request that is over: failed, without data, or with all its data in place. An ordered
   * READ may come as soon as its first parts are there.
   */
  finish(slot: RequestSlot): void {
    if (slot.queued) return;
    slot.queued = true;
    if (this.active !== null) this.deferred.push(slot.index);
    else this.emitSlot(slot);
  }

  /** Sends one part of a structured READ; any order. */
  sendPart(segment: Segment): void {
    if (this.active !== null) this.deferred.push(segment.token);
    else this.emitPart(segment);
  }

  /** Sends what has become ready of the ordered reply under way. */
  advance(slot: RequestSlot): void {
    assert(slot === this.active, "the reply under way is the one that advances");
    this.emitReadyParts(slot);
    while (this.active === null && this.deferred.count > 0) {
      const token = this.deferred.shift();
      const slotCount = this.pool.slots.length;
      if (token < slotCount) this.emitSlot(this.pool.slots[token] as RequestSlot);
      else this.emitPart(this.pool.segments[token - slotCount] as Segment);
    }
  }

  private emitSlot(slot: RequestSlot): void {
    slot.queued = false;
    if (slot.command === NBD_COMMAND.READ && slot.ordered) {
      // Parts at the device after an error, or of a reply that was deferred: it comes again when
      // they are back.
      if (slot.outstanding > 0 && slot.error !== 0) return;
      if (slot.error === 0) {
        this.startOrdered(slot);
        return;
      }
      this.dropParts(slot);
    }
    if (slot.error !== 0) this.emitError(slot);
    else if (slot.command === NBD_COMMAND.READ && slot.length > 0) this.emitRead(slot);
    else if (slot.command === NBD_COMMAND.BLOCK_STATUS) this.emitStatus(slot);
    else this.emitSuccess(slot, slot.index);
  }

  private emitError(slot: RequestSlot): void {
    this.counters.requestErrors++;
    const at = this.queue.headerOffset();
    if (this.form === REPLY_FORM.SIMPLE) {
      const length = writeNbdSimpleReply(
        this.view,
        at,
        slot.error,
        slot.cookieHigh,
        slot.cookieLow,
      );
      this.queue.pushHeader(length, slot.index);
      return;
    }
    const header = this.writeChunk(slot, at, true, NBD_CHUNK.ERROR, NBD_ERROR_CHUNK_BYTES);
    const payload = writeNbdErrorChunk(this.view, at + header, slot.error);
    this.queue.pushHeader(header + payload, slot.index);
  }

  /** Success without data; a simple reply where the form allows, being the shortest. */
  private emitSuccess(slot: RequestSlot, token: number): void {
    const at = this.queue.headerOffset();
    const isChunk =
      this.form === REPLY_FORM.EXTENDED ||
      (this.form === REPLY_FORM.STRUCTURED && slot.command === NBD_COMMAND.READ);
    const length = isChunk
      ? this.writeChunk(slot, at, true, NBD_CHUNK.NONE, 0)
      : writeNbdSimpleReply(this.view, at, 0, slot.cookieHigh, slot.cookieLow);
    this.queue.pushHeader(length, token);
  }

  /** A READ whose data lies in one place: the slot's own buffer or one segment. */
  private emitRead(slot: RequestSlot): void {
    const segment = slot.firstPart;
    this.counters.readBytes += slot.length;
    const length = this.writeDataHeader(slot, slot.offset, slot.length, true);
    if (segment === null) {
      this.queue.pushHeader(length, NO_TOKEN);
      this.queue.push(slot.inlineOffset, slot.length, slot.index);
    } else {
      slot.firstPart = null;
      slot.lastPart = null;
      this.queue.pushHeader(length, slot.index);
      this.queue.push(segment.memoryOffset, slot.length, segment.token);
    }
  }

  /** Writes, at the queue's next header place, what comes before READ data. @returns its length. */
  private writeDataHeader(
    slot: RequestSlot,
    offset: number,
    length: number,
    isLast: boolean,
  ): number {
    const at = this.queue.headerOffset();
    if (this.form === REPLY_FORM.SIMPLE) {
      return writeNbdSimpleReply(this.view, at, 0, slot.cookieHigh, slot.cookieLow);
    }
    const header = this.writeChunk(slot, at, isLast, NBD_CHUNK.OFFSET_DATA, OFFSET_BYTES + length);
    return header + writeNbdU64(this.view, at + header, offset);
  }

  /** A part of a structured READ; the last one to go says that the reply is done. */
  private emitPart(segment: Segment): void {
    const slot = segment.slot;
    assert(slot !== null, "a part that is sent belongs to a request");
    const block = segment.block;
    slot.settled += block.length;
    const isLast = slot.settled === slot.end && slot.error === 0;
    if (isLast) this.counters.readBytes += slot.length;
    const length = this.writeDataHeader(slot, block.offset, block.length, isLast);
    this.queue.pushHeader(length, isLast ? slot.index : NO_TOKEN);
    this.queue.push(segment.memoryOffset, block.length, segment.token);
    if (slot.settled === slot.end && slot.error !== 0) this.emitError(slot);
  }

  private startOrdered(slot: RequestSlot): void {
    this.active = slot;
    slot.started = true;
    const length = this.writeDataHeader(slot, slot.offset, slot.length, false);
    this.queue.pushHeader(length, NO_TOKEN);
    this.emitReadyParts(slot);
  }

  private emitReadyParts(slot: RequestSlot): void {
    for (let part = slot.firstPart; part?.isDone === true; part = slot.firstPart) {
      slot.firstPart = part.next;
      if (part.next === null) slot.lastPart = null;
      slot.settled += part.block.length;
      this.queue.push(part.memoryOffset, part.block.length, part.token);
    }
    if (slot.settled < slot.length) return;
    this.active = null;
    if (slot.error !== 0) {
      this.emitError(slot);
    } else {
      this.counters.readBytes += slot.length;
      // After a simple reply's data nothing follows: an empty piece gives the slot back.
      if (this.form === REPLY_FORM.SIMPLE) this.queue.push(slot.inlineOffset, 0, slot.index);
      else this.emitSuccess(slot, slot.index);
    }
  }

  /** Gives back the parts of an ordered READ that failed before its reply began. */
  private dropParts(slot: RequestSlot): void {
    for (let part = slot.firstPart; part !== null; part = slot.firstPart) {
      slot.firstPart = part.next;
      this.pool.putSegment(part);
    }
    slot.lastPart = null;
  }

  /** The descriptors lie in the slot's buffer; `settled` is their length. */
  private emitStatus(slot: RequestSlot): void {
    const at = this.queue.headerOffset();
    const type =
      this.form === REPLY_FORM.EXTENDED ? NBD_CHUNK.BLOCK_STATUS_EXT : NBD_CHUNK.BLOCK_STATUS;
    this.queue.pushHeader(this.writeChunk(slot, at, true, type, slot.settled), NO_TOKEN);
    this.queue.push(slot.inlineOffset, slot.settled, slot.index);
  }

  /** A chunk's header, structured or extended. @returns its length. */
  private writeChunk(
    slot: RequestSlot,
    at: number,
    isLast: boolean,
    type: number,
    length: number,
  ): number {
    const flags = isLast ? NBD_REPLY_FLAG_DONE : 0;
    const { cookieHigh, cookieLow } = slot;
    if (this.form !== REPLY_FORM.EXTENDED) {
      return writeNbdStructuredReply(this.view, at, flags, type, cookieHigh, cookieLow, length);
    }
    return writeNbdExtendedReply(
      this.view,
      at,
      flags,
      type,
      cookieHigh,
      cookieLow,
      slot.offsetHigh,
      slot.offsetLow,
      length,
    );
  }

  /**
   * Writes the payload of a BLOCK_STATUS chunk into the slot's buffer: the context's ID, then runs
   * from the request's first byte on, neighbours of one kind joined.
   * @param capacity bytes of the slot's buffer.
   */
  writeStatus(slot: RequestSlot, extents: readonly BlockExtent[], capacity: number): void {
    assert(slot.block.operation === BLOCK_OPERATION.STATUS, "the request asked for status");
    const isExtended = this.form === REPLY_FORM.EXTENDED;
    const entryBytes = isExtended ? 16 : 8;
    const headBytes = isExtended ? 8 : 4;
    const isOne = (slot.flags & NBD_COMMAND_FLAG.REQ_ONE) !== 0;
    const countMax = isOne ? 1 : Math.floor((capacity - headBytes) / entryBytes);
    let at = slot.inlineOffset + headBytes;
    let count = 0;
    let covered = 0;
    let run = 0;
    let runFlags = -1;
    for (const extent of extents) {
      const length = Math.min(extent.length, slot.length - covered);
      if (length <= 0) break;
      const flags = (extent.hole ? NBD_STATE.HOLE : 0) | (extent.zero ? NBD_STATE.ZERO : 0);
      if (flags !== runFlags && run > 0) {
        if (count + 1 === countMax) break;
        at += this.writeDescriptor(at, run, runFlags);
        count++;
        run = 0;
      }
      runFlags = flags;
      run += length;
      covered += length;
    }
    // A device that knows nothing of the range: data, for all that can be said.
    if (run === 0) at += this.writeDescriptor(at, slot.length, 0);
    else at += this.writeDescriptor(at, run, runFlags);
    count++;
    this.view.setUint32(slot.inlineOffset, ALLOCATION_CONTEXT_ID);
    if (isExtended) this.view.setUint32(slot.inlineOffset + 4, count);
    slot.settled = at - slot.inlineOffset;
  }

  private writeDescriptor(at: number, length: number, flags: number): number {
    if (this.form === REPLY_FORM.EXTENDED) {
      writeNbdU64(this.view, at, length);
      writeNbdU64(this.view, at + OFFSET_BYTES, flags);
      return 16;
    }
    this.view.setUint32(at, length);
    this.view.setUint32(at + 4, flags);
    return 8;
  }
}
