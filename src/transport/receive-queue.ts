// SPDX-License-Identifier: MIT
// Queues of receive work requests: one ring in typed arrays, used as a queue pair's own receive
// queue and, with a limit event, as a shared receive queue (IBTA vol1 §10.2.9; ibv_create_srq(3)).

import { assert, ERRNO } from "../base/index.js";
import { SgeTable } from "./sge-table.js";
import type { RecvWorkRequest } from "./work-request.js";

/** A bounded ring of posted receives, oldest first. */
export class ReceiveQueue {
  /** Receives that fit: exactly what was asked for. */
  readonly depth: number;
  readonly sgeCountMax: number;
  /** Scatter lists by slot. */
  readonly sges: SgeTable;
  private readonly wrIds: Float64Array;
  private readonly mask: number;
  private head = 0;
  private tail = 0;

  /** @param depth 0 .. 2^20; 0 for a queue pair that only sends. */
  constructor(depth: number, sgeCountMax: number) {
    assert(depth >= 0 && depth <= 1 << 20, "receive queue depth in range");
    let slots = 1;
    while (slots < depth) slots *= 2;
    this.depth = depth;
    this.sgeCountMax = sgeCountMax;
    this.mask = slots - 1;
    this.wrIds = new Float64Array(slots);
    this.sges = new SgeTable(slots);
  }

  /** Receives posted and not taken yet, 0 .. depth. */
  get count(): number {
    return (this.tail - this.head) >>> 0;
  }

  /**
   * Copies a request to the end of the queue.
   * @returns 0; EINVAL for too many entries or a range that is none; ENOMEM when full.
   */
  post(wr: RecvWorkRequest): number {
    if (!(wr.sgeCount >= 0 && wr.sgeCount <= this.sgeCountMax)) return ERRNO.EINVAL;
    if (this.count >= this.depth) return ERRNO.ENOMEM;
    const slot = this.tail & this.mask;
    if (!this.sges.store(slot, wr.sges, wr.sgeCount)) return ERRNO.EINVAL;
    this.wrIds[slot] = wr.wrId;
    this.tail = (this.tail + 1) | 0;
    return 0;
  }

  /** Slot of the oldest receive. Preconditions: `count` > 0. */
  peekSlot(): number {
    assert(this.head !== this.tail, "a receive is posted");
    return this.head & this.mask;
  }

  wrIdOf(slot: number): number {
    return this.wrIds[slot] as number;
  }

  /** Takes the oldest receive; its slot's contents stay until the next `post`. */
  take(): void {
    assert(this.head !== this.tail, "a receive is posted");
    this.head = (this.head + 1) | 0;
  }

  clear(): void {
    this.head = this.tail;
  }
}

/** What `SrqCore` asks of the device that made it. */
export interface SrqOwner {
  /** Fewer receives than the limit are left; called once per `armLimit`. */
  srqLimitReached(srq: SrqCore): void;
}

/** A receive queue that several queue pairs of one protection domain take from. */
export class SrqCore {
  readonly pdIndex: number;
  readonly queue: ReceiveQueue;
  /** Queue pairs that use it. Idle: 0. */
  userCount = 0;
  isDestroyed = false;
  private readonly owner: SrqOwner;
  /** Receives below which the event comes; 0 when not armed. */
  private limit = 0;

  constructor(owner: SrqOwner, pdIndex: number, depth: number, sgeCountMax: number) {
    this.owner = owner;
    this.pdIndex = pdIndex;
    this.queue = new ReceiveQueue(depth, sgeCountMax);
  }

  get depth(): number {
    return this.queue.depth;
  }

  /** Receives posted and not taken yet. */
  get count(): number {
    return this.queue.count;
  }

  /** See `ReceiveQueue.post`. */
  postRecv(wr: RecvWorkRequest): number {
    return this.isDestroyed ? ERRNO.EINVAL : this.queue.post(wr);
  }

  /** Asks for one SRQ_LIMIT_REACHED when fewer than `limit` receives are left; 0 asks for none. */
  armLimit(limit: number): void {
    this.limit = limit;
  }

  /** Device only: takes the oldest receive out of the queue. */
  take(): void {
    this.queue.take();
    if (this.limit === 0 || this.queue.count >= this.limit) return;
    this.limit = 0;
    this.owner.srqLimitReached(this);
  }
}
