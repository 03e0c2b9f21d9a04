// SPDX-License-Identifier: MIT
// One connection's share of the server's memory: request slots, each with a small buffer of its
// own, and segments, the larger buffers in which long requests move part by part. All of it is made
// once and handed from one connection to the next; nothing here is allocated per request.
//
// Two rules keep a connection from locking itself up, whatever its client asks for:
// - READs never take the last `WRITE_RESERVE` segments, so that a WRITE always finds one. A segment
//   of a WRITE comes back when the device is done, whether or not the client takes its replies.
// - A slot or a segment with data to send comes back when the stream has taken that data, and only
//   the oldest long READ is given segments; it can finish with a single one.

import { assert, type Memory } from "../base/index.js";
import { BlockRequest, type BlockRequestOwner } from "../block/index.js";
import type { NbdCounters } from "./nbd-counters.js";
import type { NbdExport } from "./nbd-export.js";
import { type NbdLimits, type PoolLayout, poolLayout } from "./nbd-limits.js";

/** Segments that only WRITEs may take. */
const WRITE_RESERVE = 2;

/** A request in progress. `block` carries it to the device unless it moves in parts. */
export class RequestSlot {
  /** Its index in the pool, and the release token of the reply queue. */
  readonly index: number;
  /** Its own buffer in the pool's memory. */
  readonly inlineOffset: number;
  readonly block: BlockRequest;
  command = 0;
  /** `NBD_COMMAND_FLAG` bits. */
  flags = 0;
  /**
   * The client's cookie and offset as they came; 32 bits each, signed so that they are small ints.
   */
  cookieHigh = 0;
  cookieLow = 0;
  offsetHigh = 0;
  offsetLow = 0;
  /** First byte, and bytes asked for. */
  offset = 0;
  length = 0;
  /** The first error, an `NBD_ERROR`; 0 while all is well. */
  error = 0;
  /** Bytes of `length` handed to the device so far, in parts or in pieces; 0 .. end. */
  assigned = 0;
  /** Where handing out stops: `length`, or `assigned` at the time of an error. */
  end = 0;
  /** Parts at the device. */
  outstanding = 0;
  /** Bytes of parts that are in the reply queue or have failed; done when === end. */
  settled = 0;
  /** READ: the parts must leave in order, in one piece of payload. */
  ordered = false;
  /** Ordered READ: its header is in the reply queue. */
  started = false;
  /** Ordered READ: it waits for the reply queue. */
  queued = false;
  /** Taken since the pool's last `reset`. */
  isUsed = false;
  /** Parts of a READ that holds them in order; the oldest first. */
  firstPart: Segment | null = null;
  lastPart: Segment | null = null;

  constructor(owner: BlockRequestOwner, index: number, inlineOffset: number) {
    this.index = index;
    this.inlineOffset = inlineOffset;
    this.block = new BlockRequest(owner, index);
  }
}

/** A part of a long READ or WRITE. */
export class Segment {
  /** Its release token in the reply queue: slots come first. */
  readonly token: number;
  readonly memoryOffset: number;
  readonly block: BlockRequest;
  slot: RequestSlot | null = null;
  /** Ordered READ: the device is done with it. */
  isDone = false;
  /** Taken since the pool's last `reset`. */
  isUsed = false;
  next: Segment | null = null;

  constructor(owner: BlockRequestOwner, token: number, memoryOffset: number) {
    this.token = token;
    this.memoryOffset = memoryOffset;
    this.block = new BlockRequest(owner, token);
  }
}

/** Who hears of finished block requests: the transmission phase that sent them. */
export interface PoolUser {
  onSlotComplete(slot: RequestSlot): void;
  onPartComplete(segment: Segment): void;
}

export class RequestPool implements BlockRequestOwner {
  readonly memory: Memory;
  readonly layout: PoolLayout;
  readonly slots: readonly RequestSlot[];
  readonly segments: readonly Segment[];
  /** Block requests submitted and not come back, waiting ones included. */
  inflight = 0;
  user: PoolUser | null = null;
  private readonly counters: NbdCounters;
  private readonly inlineBytes: number;
  private readonly segmentBytes: number;
  /** Free slots and segments, most recently used last: their memory is still in the cache. */
  private readonly freeSlots: Int32Array;
  private readonly freeSegments: Int32Array;
  private freeSlotCount = 0;
  private freeSegmentCount = 0;

  /** @param memory `poolLayout(limits).byteLength` bytes. */
  constructor(memory: Memory, limits: NbdLimits, counters: NbdCounters) {
    this.counters = counters;
    this.memory = memory;
    this.layout = poolLayout(limits);
    assert(memory.length >= this.layout.byteLength, "the memory holds the pool");
    const { requestCountMax, inlineBytes, segmentCount, segmentBytes } = limits;
    this.inlineBytes = inlineBytes;
    this.segmentBytes = segmentBytes;
    this.slots = Array.from(
      { length: requestCountMax },
      (_, i) => new RequestSlot(this, i, this.layout.inlineOffset + i * inlineBytes),
    );
    this.segments = Array.from(
      { length: segmentCount },
      (_, i) =>
        new Segment(this, requestCountMax + i, this.layout.segmentsOffset + i * segmentBytes),
    );
    this.freeSlots = new Int32Array(requestCountMax);
    this.freeSegments = new Int32Array(segmentCount);
    this.reset();
  }

  /**
   * Makes everything free, for another client. What the last one read and wrote is wiped: a device
   * that says a READ is done and has not filled the buffer, such as a volume of a server that
   * lies, would otherwise show it to the next. Within a connection a client can see its own bytes
   * alone.
   *
   * Preconditions: `inflight` is 0.
   */
  reset(): void {
    assert(this.inflight === 0, "no device holds the pool's requests");
    this.user = null;
    this.wipe();
    const slotCount = this.slots.length;
    for (let i = 0; i < slotCount; i++) this.freeSlots[i] = slotCount - 1 - i;
    const segmentCount = this.segments.length;
    for (let i = 0; i < segmentCount; i++) this.freeSegments[i] = segmentCount - 1 - i;
    this.freeSlotCount = slotCount;
    this.freeSegmentCount = segmentCount;
    for (const slot of this.slots) {
      slot.firstPart = null;
      slot.lastPart = null;
    }
    for (const segment of this.segments) {
      segment.slot = null;
      segment.next = null;
    }
  }

  private wipe(): void {
    const { bytes } = this.memory;
    for (const slot of this.slots) {
      if (slot.isUsed) bytes.fill(0, slot.inlineOffset, slot.inlineOffset + this.inlineBytes);
      slot.isUsed = false;
    }
    for (const segment of this.segments) {
      const { memoryOffset } = segment;
      if (segment.isUsed) bytes.fill(0, memoryOffset, memoryOffset + this.segmentBytes);
      segment.isUsed = false;
    }
  }

  get slotsInUse(): number {
    return this.slots.length - this.freeSlotCount;
  }

  get segmentsInUse(): number {
    return this.segments.length - this.freeSegmentCount;
  }

  /** Whether a READ may take a segment. */
  get hasSegmentForRead(): boolean {
    return this.freeSegmentCount > WRITE_RESERVE;
  }

  /** A free slot, its progress fields cleared, or null. */
  takeSlot(): RequestSlot | null {
    if (this.freeSlotCount === 0) return null;
    this.freeSlotCount--;
    const slot = this.slots[this.freeSlots[this.freeSlotCount] as number] as RequestSlot;
    slot.isUsed = true;
    slot.error = 0;
    slot.assigned = 0;
    slot.outstanding = 0;
    slot.settled = 0;
    slot.ordered = false;
    slot.started = false;
    slot.queued = false;
    assert(slot.firstPart === null, "a free slot holds no parts");
    return slot;
  }

  /** A free segment for a part of `slot`, or null. READs ask `hasSegmentForRead` first. */
  takeSegment(slot: RequestSlot): Segment | null {
    if (this.freeSegmentCount === 0) return null;
    this.freeSegmentCount--;
    const index = this.freeSegments[this.freeSegmentCount] as number;
    const segment = this.segments[index] as Segment;
    segment.slot = slot;
    segment.isUsed = true;
    segment.isDone = false;
    segment.next = null;
    return segment;
  }

  putSegment(segment: Segment): void {
    assert(segment.slot !== null, "a segment that comes back was taken");
    segment.slot = null;
    segment.next = null;
    this.freeSegments[this.freeSegmentCount++] = segment.token - this.slots.length;
  }

  /** Frees what a token of the reply queue stands for; below 0 it stands for nothing. */
  release(token: number): void {
    const slotCount = this.slots.length;
    if (token >= slotCount) {
      this.putSegment(this.segments[token - slotCount] as Segment);
    } else if (token >= 0) {
      const slot = this.slots[token] as RequestSlot;
      assert(this.freeSlotCount < slotCount, "a slot that comes back was taken");
      assert(slot.outstanding === 0, "a slot that comes back has no part at the device");
      this.freeSlots[this.freeSlotCount++] = token;
    }
  }

  submit(block: BlockRequest, target: NbdExport): void {
    this.inflight++;
    this.counters.blockRequests++;
    target.submit(block);
  }

  onBlockComplete(block: BlockRequest): void {
    assert(this.inflight > 0, "a block request that comes back was submitted");
    this.inflight--;
    const user = this.user;
    assert(user !== null, "a pool with requests in flight has a user");
    const slotCount = this.slots.length;
    if (block.tag < slotCount) user.onSlotComplete(this.slots[block.tag] as RequestSlot);
    else user.onPartComplete(this.segments[block.tag - slotCount] as Segment);
  }
}
