// SPDX-License-Identifier: MIT
// Faults that packets have asked for, served in a machine's turn, some per turn, in the order in
// which they came: the packet path never waits for memory, and a burst of faults never holds up a
// lane. Several requests for a page are one fault. One that can't be served now is put off by
// itself: nobody else's waits for it.

import { assert, type Machine } from "../../base/index.js";
import { type DemandPages, SERVED } from "./demand-pages.js";

const FAULTS_PER_TURN = 64;
const QUEUE_DEPTH = 1 << 16;
/** How long a fault is put off whose mapping is changing, or for which there is no memory. */
const RETRY_NS = 50_000;
const SHORT_RETRY_NS = 1_000_000;
/** Tries of a fault for which there is no memory. */
const SHORT_TRIES_MAX = 16;
const NONE = -1;

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

/** Faults in the order in which they came, linked by slot. */
class FaultList {
  head = NONE;
  tail = NONE;
  count = 0;
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
  private readonly depth: number;
  private readonly owners: (DemandPages | null)[];
  private readonly pages: Float64Array;
  private readonly writes: Uint8Array;
  /** Tries that found no memory. */
  private readonly shortTries: Uint8Array;
  private readonly dueNs: Float64Array;
  private readonly next: Int32Array;
  /** Slots that no fault has. */
  private readonly free = new FaultList();
  /** What is served next. */
  private readonly ready = new FaultList();
  /** What is put off, each for the same time, so that the oldest is due first. */
  private readonly changing = new FaultList();
  private readonly short = new FaultList();
  /** Whose faults were dealt with in this turn, or found the queue full before it. */
  private toWake: DemandPages[] = [];
  /** The list of the turn before, empty. */
  private toWakeNext: DemandPages[] = [];

  constructor(options: FaultQueueOptions = {}) {
    let depth = 1;
    while (depth < (options.depth ?? QUEUE_DEPTH)) depth *= 2;
    this.perTurn = options.faultsPerTurn ?? FAULTS_PER_TURN;
    this.depth = depth;
    this.owners = new Array<DemandPages | null>(depth).fill(null);
    this.pages = new Float64Array(depth);
    this.writes = new Uint8Array(depth);
    this.shortTries = new Uint8Array(depth);
    this.dueNs = new Float64Array(depth);
    this.next = new Int32Array(depth);
    for (let slot = 0; slot < depth; slot++) this.append(this.free, slot);
  }

  /** Faults that wait. */
  get count(): number {
    return this.depth - this.free.count;
  }

  /** Pages only: queues a fault. @returns false when the queue is full: it tells when it isn't. */
  add(owner: DemandPages, page: number, isWrite: boolean): boolean {
    if (this.free.count === 0) {
      this.counters.overflowed++;
      this.noteWake(owner);
      return false;
    }
    const slot = this.takeFirst(this.free);
    this.owners[slot] = owner;
    this.pages[slot] = page;
    this.writes[slot] = isWrite ? 1 : 0;
    this.shortTries[slot] = 0;
    this.append(this.ready, slot);
    return true;
  }

  /** Pages only: they are released, none of their faults matters any more. */
  forget(owner: DemandPages): void {
    for (const list of [this.ready, this.changing, this.short]) {
      for (let slot = list.head; slot !== NONE; slot = this.next[slot] as number) {
        if (this.owners[slot] === owner) this.owners[slot] = null;
      }
    }
    const at = this.toWake.indexOf(owner);
    if (at >= 0) this.toWake.splice(at, 1);
  }

  pump(nowNs: number): void {
    this.nowNs = nowNs;
    this.takeDue(this.changing);
    this.takeDue(this.short);
    if (this.ready.count === 0) return;
    // What is put off or asked for meanwhile is for another turn.
    for (let left = Math.min(this.perTurn, this.ready.count); left > 0; left--) this.serveOldest();
    // Who is told may ask again, and find the queue full again.
    const { toWake } = this;
    this.toWake = this.toWakeNext;
    this.toWakeNext = toWake;
    for (let i = 0; i < toWake.length; i++) (toWake[i] as DemandPages).wake();
    toWake.length = 0;
  }

  deadlineNs(): number {
    if (this.ready.count > 0) return 0;
    return Math.min(this.dueOf(this.changing), this.dueOf(this.short));
  }

  checkInvariants(): void {
    const { changing, free, ready, short } = this;
    const counts = free.count + ready.count + changing.count + short.count;
    assert(counts === this.depth, "every slot is in one list");
    for (const list of [free, ready, changing, short]) {
      let count = 0;
      for (let slot = list.head; slot !== NONE; slot = this.next[slot] as number) count++;
      assert(count === list.count, "a list has as many slots as it says");
    }
    const isHeard = this.toWake.length === 0 || this.count > 0;
    assert(isHeard, "everybody has been told, or will be");
  }

  private serveOldest(): void {
    const slot = this.takeFirst(this.ready);
    const owner = this.owners[slot] as DemandPages | null;
    if (owner === null) {
      this.append(this.free, slot);
      return;
    }
    const page = this.pages[slot] as number;
    const isWrite = this.writes[slot] === 1;
    const result = owner.serve(page, isWrite);
    if (result === SERVED.RETRY) {
      this.counters.retried++;
      this.putOff(this.changing, slot, RETRY_NS);
      return;
    }
    const tries = (this.shortTries[slot] as number) + 1;
    if (result === SERVED.SHORT && tries < SHORT_TRIES_MAX) {
      this.counters.short++;
      this.shortTries[slot] = tries;
      this.putOff(this.short, slot, SHORT_RETRY_NS);
      return;
    }
    this.owners[slot] = null;
    this.append(this.free, slot);
    owner.noteQueued(page, isWrite, false);
    if (result === SERVED.DONE) {
      this.counters.served++;
    } else {
      this.counters.failed++;
      owner.noteFailure(page, isWrite, this.nowNs);
    }
    this.noteWake(owner);
  }

  private noteWake(owner: DemandPages): void {
    if (!this.toWake.includes(owner)) this.toWake.push(owner);
  }

  private putOff(list: FaultList, slot: number, holdNs: number): void {
    this.dueNs[slot] = this.nowNs + holdNs;
    this.append(list, slot);
  }

  /** What was put off and is due goes behind what waits to be served. */
  private takeDue(list: FaultList): void {
    while (this.dueOf(list) <= this.nowNs) this.append(this.ready, this.takeFirst(list));
  }

  private dueOf(list: FaultList): number {
    return list.head === NONE ? Number.POSITIVE_INFINITY : (this.dueNs[list.head] as number);
  }

  private append(list: FaultList, slot: number): void {
    this.next[slot] = NONE;
    if (list.tail === NONE) list.head = slot;
    else this.next[list.tail] = slot;
    list.tail = slot;
    list.count++;
  }

  private takeFirst(list: FaultList): number {
    const slot = list.head;
    assert(slot !== NONE, "a list that is taken from has a slot");
    list.head = this.next[slot] as number;
    if (list.head === NONE) list.tail = NONE;
    list.count--;
    return slot;
  }
}
