// SPDX-License-Identifier: MIT
// Faults that packets have asked for, served in a machine's turn, some per turn, in the order in
// which they came: the packet path never waits for memory, and a burst of faults never holds up a
// lane. Several requests for a page are one fault.

import { assert, type Machine } from "../../base/index.js";
import { type DemandPages, SERVED } from "./demand-pages.js";

const FAULTS_PER_TURN = 64;
const QUEUE_DEPTH = 1 << 16;
/** When nothing could be served: the time until the next try. */
const RETRY_NS = 50_000;
const SHORT_RETRY_NS = 1_000_000;
/** Tries of a fault for which there is no memory. */
const SHORT_TRIES_MAX = 16;

export interface FaultQueueOptions {
  /** Pages served in one turn; 64 if absent. */
  readonly faultsPerTurn?: number;
  /** Faults that wait at most; 65,536 if absent. Who finds it full asks again. */
  readonly depth?: number;
}

/** Since the queue was made. */
export interface FaultQueueCounters {
  served: number;
  failed: number;
  /** Tries put off because a mapping was just changing, and because there was no memory. */
  retried: number;
  short: number;
  /** Requests that found the queue full. */
  overflowed: number;
}

export class FaultQueue implements Machine {
  readonly counters: FaultQueueCounters = {
    served: 0,
    failed: 0,
    retried: 0,
    short: 0,
    overflowed: 0,
  };
  /** Time of the last turn. */
  nowNs = 0;

  private readonly perTurn: number;
  private readonly mask: number;
  private readonly owners: (DemandPages | null)[];
  private readonly pages: Float64Array;
  private readonly writes: Uint8Array;
  private readonly tries: Uint8Array;
  private head = 0;
  private tail = 0;
  private heldUntilNs = 0;
  /** Whose faults were dealt with in this turn. */
  private readonly toWake: DemandPages[] = [];

  constructor(options: FaultQueueOptions = {}) {
    let depth = 1;
    while (depth < (options.depth ?? QUEUE_DEPTH)) depth *= 2;
    this.perTurn = options.faultsPerTurn ?? FAULTS_PER_TURN;
    this.mask = depth - 1;
    this.owners = new Array<DemandPages | null>(depth).fill(null);
    this.pages = new Float64Array(depth);
    this.writes = new Uint8Array(depth);
    this.tries = new Uint8Array(depth);
  }

  /** Faults that wait. */
  get count(): number {
    return (this.tail - this.head) >>> 0;
  }

  /** Pages only: queues a fault. @returns false when the queue is full. */
  add(owner: DemandPages, page: number, isWrite: boolean): boolean {
    if (this.count > this.mask) {
      this.counters.overflowed++;
      return false;
    }
    this.push(owner, page, isWrite ? 1 : 0, 0);
    return true;
  }

  /** Pages only: they are released, none of their faults matters any more. */
  forget(owner: DemandPages): void {
    for (let at = this.head; at !== this.tail; at = (at + 1) | 0) {
      const slot = at & this.mask;
      if (this.owners[slot] === owner) this.owners[slot] = null;
    }
  }

  pump(nowNs: number): void {
    this.nowNs = nowNs;
    if (this.count === 0 || nowNs < this.heldUntilNs) return;
    let left = Math.min(this.perTurn, this.count);
    let holdNs = 0;
    for (; left > 0; left--) holdNs = Math.max(holdNs, this.serveOldest());
    // What is put off waits for time to pass; what is behind it does not wait for it.
    this.heldUntilNs = this.toWake.length === 0 && holdNs > 0 ? nowNs + holdNs : 0;
    for (let i = 0; i < this.toWake.length; i++) (this.toWake[i] as DemandPages).wake();
    this.toWake.length = 0;
  }

  deadlineNs(): number {
    return this.count === 0 ? Number.POSITIVE_INFINITY : this.heldUntilNs;
  }

  checkInvariants(): void {
    assert(this.count <= this.mask + 1, "the queue holds no more than its depth");
    assert(this.toWake.length === 0, "everybody has been told");
  }

  /** @returns how long it is put off, 0 when it is dealt with. */
  private serveOldest(): number {
    const slot = this.head & this.mask;
    this.head = (this.head + 1) | 0;
    const owner = this.owners[slot] as DemandPages | null;
    const page = this.pages[slot] as number;
    const write = this.writes[slot] as number;
    const tries = (this.tries[slot] as number) + 1;
    this.owners[slot] = null;
    if (owner === null) return 0;
    const result = owner.serve(page, write === 1);
    if (result === SERVED.RETRY) {
      this.counters.retried++;
      this.putOff(owner, page, write, tries & 0x7f);
      return RETRY_NS;
    }
    if (result === SERVED.SHORT && tries < SHORT_TRIES_MAX) {
      this.counters.short++;
      this.putOff(owner, page, write, tries);
      return SHORT_RETRY_NS;
    }
    if (result === SERVED.DONE) {
      this.counters.served++;
    } else {
      this.counters.failed++;
      owner.noteFailure(page, write === 1, this.nowNs);
    }
    if (!this.toWake.includes(owner)) this.toWake.push(owner);
    return 0;
  }

  private putOff(owner: DemandPages, page: number, write: number, tries: number): void {
    this.push(owner, page, write, tries);
    owner.noteQueued(page, write === 1);
  }

  private push(owner: DemandPages, page: number, write: number, tries: number): void {
    const slot = this.tail & this.mask;
    this.owners[slot] = owner;
    this.pages[slot] = page;
    this.writes[slot] = write;
    this.tries[slot] = tries;
    this.tail = (this.tail + 1) | 0;
  }
}
