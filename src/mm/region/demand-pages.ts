// SPDX-License-Identifier: MIT
// The page table of an on-demand memory region: absent until a packet or an advice asks for a page,
// filled by faults of the process (fault-queue.ts), emptied by the notifier whenever mappings
// change. Nothing is pinned and no reference is held: a page stays in its place because whoever
// wants to move it says so first. In the manner of Linux' ib_umem_odp and hmm_range_fault.
//
// Pages are 4 KiB; entries are in leaves of 512, in a directory of two levels, so that the whole
// address space (implicit ODP) costs nothing before it is used.

import {
  ADVICE,
  type Advice,
  assert,
  type Memory,
  PAGE_FAULT,
  type PageFault,
  type PageWaker,
  type RegisteredPages,
} from "../../base/index.js";
import { FRAME_BYTES, FRAME_FLAG, type Pfn, type PhysicalMemory } from "../frames/index.js";
import { type DemandNotifier, type DemandSpace, FAULT_RETRY, FAULT_SHORT } from "./demand-space.js";
import type { FaultQueue } from "./fault-queue.js";

const STATE = { ABSENT: 0, READABLE: 1, WRITABLE: 2 } as const;
const QUEUED = { READ: 1, WRITE: 2 } as const;

const LEAF_PAGES = 512;
/** Leaves of one node of the directory: 16 GiB. */
const NODE_LEAVES = 8192;
/** A fault whose pages change under it is tried again at once so often, then in a later turn. */
const TRIES_AT_ONCE = 4;
/** How long a fault that has failed is remembered for those who waited for it. */
const FAILURE_NS = 50_000_000;
/**
 * A fault brings in at most so many pages, those behind the first being advice. Where memory is so
 * short that they drive each other out, fewer: a page that is missed so soon after it came halves
 * the number, any other fault adds to it. Two are what one packet can need.
 */
const WINDOW_PAGES_MAX = 256;
const WINDOW_PAGES_MIN = 2;
const WINDOW_GROWTH = 8;
const MISSED_SOON_SERVICES = 2 * WINDOW_PAGES_MAX;
const NO_BYTES = new Uint8Array(0);
const NO_VIEW = new DataView(new ArrayBuffer(0));

/** What serving a fault has come to. */
export const SERVED = { DONE: 0, RETRY: 1, SHORT: 2, FAILED: 3 } as const;
export type Served = (typeof SERVED)[keyof typeof SERVED];

/** Entries of 512 pages. */
class Leaf {
  readonly states = new Uint8Array(LEAF_PAGES);
  /** Faults that are in the queue, `QUEUED` bits. */
  readonly queued = new Uint8Array(LEAF_PAGES);
  readonly sections = new Uint16Array(LEAF_PAGES);
  readonly offsets = new Float64Array(LEAF_PAGES);
  readonly frames = new Float64Array(LEAF_PAGES);
  /** Faults that the queue had served when the page came last, modulo 2^32; 0 for never. */
  readonly arrivals = new Uint32Array(LEAF_PAGES);
}

type Node = (Leaf | null)[];

export class DemandPages implements RegisteredPages, DemandNotifier {
  readonly pageBytes = FRAME_BYTES;
  readonly pageCount: number;
  readonly address: number;
  readonly isOnDemand = true;
  readonly contiguous: Memory | null = null;
  bytes: Uint8Array = NO_BYTES;
  view: DataView = NO_VIEW;
  offset = 0;
  /** Pages that are there now. */
  presentCount = 0;
  /** Times that pages were taken away. */
  invalidatedCount = 0;

  private readonly queue: FaultQueue;
  private readonly space: DemandSpace;
  private readonly memory: PhysicalMemory;
  private readonly isWrite: boolean;
  private readonly firstVpn: number;
  private readonly nodes: (Node | null)[];
  /** Sections met so far, by the numbers that leaves have. */
  private readonly sections: Uint8Array[] = [];
  private readonly views: DataView[] = [];
  private readonly wakers: PageWaker[] = [];
  /** Faults that failed of late: page * 2 + (write ? 1 : 0) → when that is forgotten. */
  private readonly failures = new Map<number, number>();
  private windowPages = WINDOW_PAGES_MAX;
  private isLive = true;
  /** The leaf looked at last. */
  private lastNumber = -1;
  private lastLeaf: Leaf | null = null;

  /**
   * @param address with `length`: the addresses of the region; whole pages around them.
   * @param isWrite whether anybody may write through the region.
   */
  constructor(
    queue: FaultQueue,
    space: DemandSpace,
    memory: PhysicalMemory,
    address: number,
    length: number,
    isWrite: boolean,
  ) {
    this.queue = queue;
    this.space = space;
    this.memory = memory;
    this.isWrite = isWrite;
    this.firstVpn = Math.floor(address / FRAME_BYTES);
    this.address = this.firstVpn * FRAME_BYTES;
    this.pageCount = Math.ceil((address + length) / FRAME_BYTES) - this.firstVpn;
    const nodes = Math.ceil(this.pageCount / LEAF_PAGES / NODE_LEAVES);
    this.nodes = new Array<Node | null>(nodes).fill(null);
    space.addNotifier(this);
  }

  /** First and first after the last address of the pages (of the notifier). */
  get start(): number {
    return this.address;
  }

  get end(): number {
    return this.address + this.pageCount * FRAME_BYTES;
  }

  locate(page: number, isWrite: boolean): boolean {
    const leaf = this.leafOf(page);
    if (leaf === null) return false;
    const slot = page % LEAF_PAGES;
    if ((leaf.states[slot] as number) < (isWrite ? STATE.WRITABLE : STATE.READABLE)) return false;
    const section = leaf.sections[slot] as number;
    this.bytes = this.sections[section] as Uint8Array;
    this.view = this.views[section] as DataView;
    this.offset = leaf.offsets[slot] as number;
    return true;
  }

  fault(page: number, count: number, isWrite: boolean): PageFault {
    if (!this.allows(page, isWrite)) return PAGE_FAULT.REFUSED;
    if (this.failures.size > 0 && this.hasFailed(page, isWrite)) return PAGE_FAULT.REFUSED;
    this.adaptWindow(page);
    this.ask(page, Math.min(count, this.windowPages), isWrite);
    return PAGE_FAULT.QUEUED;
  }

  touch(page: number, isWrite: boolean): boolean {
    return this.allows(page, isWrite) && this.serve(page, isWrite) === SERVED.DONE;
  }

  advise(page: number, count: number, advice: Advice, flush: boolean): boolean {
    const isWrite = advice === ADVICE.PREFETCH_WRITE;
    assert(page >= 0 && count >= 0 && page + count <= this.pageCount, "advice is inside the pages");
    if (!this.isLive) return false;
    let isAll = true;
    for (let i = page; i < page + count; i++) {
      if (advice === ADVICE.PREFETCH_NO_FAULT) this.mapPresent(i);
      else if (flush) isAll = this.touch(i, isWrite) && isAll;
    }
    if (advice !== ADVICE.PREFETCH_NO_FAULT && !flush) this.ask(page, count, isWrite);
    return isAll;
  }

  attach(waker: PageWaker): void {
    this.wakers.push(waker);
  }

  detach(waker: PageWaker): void {
    const at = this.wakers.indexOf(waker);
    assert(at >= 0, "who goes has come");
    this.wakers.splice(at, 1);
  }

  /** Notifier: takes pages out. On return nothing leads to them from here. */
  invalidate(start: number, end: number): void {
    this.failures.clear();
    const from = Math.max(0, Math.floor(start / FRAME_BYTES) - this.firstVpn);
    const to = Math.min(this.pageCount, Math.ceil(end / FRAME_BYTES) - this.firstVpn);
    const lastLeaf = Math.floor((to - 1) / LEAF_PAGES);
    for (let number = Math.floor(from / LEAF_PAGES); number <= lastLeaf; number++) {
      const node = this.nodes[Math.floor(number / NODE_LEAVES)] ?? null;
      if (node === null) {
        // Nothing of the whole node is there.
        number = (Math.floor(number / NODE_LEAVES) + 1) * NODE_LEAVES - 1;
        continue;
      }
      const leaf = node[number % NODE_LEAVES] ?? null;
      if (leaf === null) continue;
      const first = Math.max(0, from - number * LEAF_PAGES);
      const end = Math.min(LEAF_PAGES, to - number * LEAF_PAGES);
      for (let slot = first; slot < end; slot++) this.takeOut(leaf, slot);
    }
  }

  release(): void {
    assert(this.isLive, "pages are released once");
    this.invalidate(this.start, this.end);
    this.isLive = false;
    this.space.removeNotifier(this);
    this.queue.forget(this);
  }

  /** Queue only: serves one fault. */
  serve(page: number, isWrite: boolean): Served {
    const leaf = this.leafOf(page);
    const slot = page % LEAF_PAGES;
    if (leaf !== null) leaf.queued[slot] = 0;
    const vpn = this.firstVpn + page;
    for (let tries = 0; tries < TRIES_AT_ONCE; tries++) {
      if (!this.isLive) return SERVED.FAILED;
      if (this.locate(page, isWrite)) return SERVED.DONE;
      const sequence = this.space.readBegin(this);
      if (sequence % 2 !== 0) return SERVED.RETRY;
      const frame = this.space.deviceFrame(vpn, isWrite);
      if (frame === FAULT_RETRY) return SERVED.RETRY;
      if (frame === FAULT_SHORT) return SERVED.SHORT;
      if (frame < 0) return SERVED.FAILED;
      if (!this.space.readRetry(this, sequence)) this.putIn(page, frame, isWrite);
    }
    return this.locate(page, isWrite) ? SERVED.DONE : SERVED.RETRY;
  }

  /** Queue only: a fault goes back to the queue's end. */
  noteQueued(page: number, isWrite: boolean): void {
    const leaf = this.makeLeaf(page);
    const slot = page % LEAF_PAGES;
    leaf.queued[slot] = (leaf.queued[slot] as number) | (isWrite ? QUEUED.WRITE : QUEUED.READ);
  }

  /** Queue only: a fault can't be served; those who wait for it find out. */
  noteFailure(page: number, isWrite: boolean, nowNs: number): void {
    // One that was wrong because nothing was mapped says nothing of what is mapped next.
    if (!this.allows(page, isWrite)) return;
    this.failures.set(page * 2 + (isWrite ? 1 : 0), nowNs + FAILURE_NS);
  }

  /** Queue only: to be called when faults of these pages have been served or have failed. */
  wake(): void {
    for (let i = 0; i < this.wakers.length; i++) (this.wakers[i] as PageWaker).pagesServed();
  }

  checkInvariants(): void {
    let present = 0;
    for (const node of this.nodes) {
      for (const leaf of node ?? []) {
        if (leaf === null) continue;
        for (const state of leaf.states) present += state === STATE.ABSENT ? 0 : 1;
      }
    }
    assert(present === this.presentCount, "every present page is counted");
    assert(this.isLive || present === 0, "nothing is left of released pages");
  }

  private adaptWindow(page: number): void {
    const leaf = this.makeLeaf(page);
    const slot = page % LEAF_PAGES;
    if ((leaf.queued[slot] as number) !== 0) return;
    const arrival = leaf.arrivals[slot] as number;
    const isMissedSoon =
      arrival !== 0 &&
      leaf.states[slot] === STATE.ABSENT &&
      (this.queue.counters.served - arrival) >>> 0 < MISSED_SOON_SERVICES;
    this.windowPages = isMissedSoon
      ? Math.max(WINDOW_PAGES_MIN, this.windowPages >> 1)
      : Math.min(WINDOW_PAGES_MAX, this.windowPages + WINDOW_GROWTH);
  }

  private ask(page: number, count: number, isWrite: boolean): void {
    const end = Math.min(this.pageCount, page + count);
    const bit = isWrite ? QUEUED.WRITE : QUEUED.READ;
    for (let i = page; i < end; i++) {
      if (i !== page && this.locate(i, isWrite)) continue;
      const leaf = this.makeLeaf(i);
      const slot = i % LEAF_PAGES;
      // A write fault in the queue serves a reader too.
      if ((leaf.queued[slot] as number) >= bit) continue;
      if (!this.queue.add(this, i, isWrite)) return;
      this.noteQueued(i, isWrite);
    }
  }

  private allows(page: number, isWrite: boolean): boolean {
    if (!this.isLive || page >= this.pageCount || (isWrite && !this.isWrite)) return false;
    return this.space.isMapped(this.firstVpn + page, isWrite);
  }

  private hasFailed(page: number, isWrite: boolean): boolean {
    const untilNs = this.failures.get(page * 2 + (isWrite ? 1 : 0));
    return untilNs !== undefined && this.queue.nowNs < untilNs;
  }

  private mapPresent(page: number): void {
    const sequence = this.space.readBegin(this);
    if (sequence % 2 !== 0) return;
    const frame = this.space.presentFrame(this.firstVpn + page, false);
    if (frame >= 0 && !this.space.readRetry(this, sequence)) this.putIn(page, frame, false);
  }

  /** @param isForWrite the frame was got for a write; else it may be writable all the same. */
  private putIn(page: number, frame: Pfn, isForWrite: boolean): void {
    const { memory } = this;
    const leaf = this.makeLeaf(page);
    const slot = page % LEAF_PAGES;
    if (leaf.states[slot] === STATE.ABSENT) this.presentCount++;
    const isWritable = isForWrite || this.space.isWritable(this.firstVpn + page);
    const canWrite = this.isWrite && isWritable;
    leaf.states[slot] = canWrite ? STATE.WRITABLE : STATE.READABLE;
    leaf.frames[slot] = frame;
    leaf.arrivals[slot] = this.queue.counters.served + 1;
    leaf.sections[slot] = this.sectionNumber(memory.bytesOf(frame), frame);
    leaf.offsets[slot] = memory.offsetOf(frame);
  }

  private takeOut(leaf: Leaf, slot: number): void {
    const state = leaf.states[slot] as number;
    if (state === STATE.ABSENT) return;
    // Whether a peer has written isn't known; it could have.
    if (state === STATE.WRITABLE) this.memory.setFlag(leaf.frames[slot] as Pfn, FRAME_FLAG.DIRTY);
    leaf.states[slot] = STATE.ABSENT;
    this.presentCount--;
    this.invalidatedCount++;
  }

  private sectionNumber(bytes: Uint8Array, frame: Pfn): number {
    const known = this.sections.indexOf(bytes);
    if (known >= 0) return known;
    assert(this.sections.length < 0x1_0000, "sections are numbered in 16 bits");
    this.sections.push(bytes);
    this.views.push(this.memory.viewOf(frame));
    return this.sections.length - 1;
  }

  private leafOf(page: number): Leaf | null {
    const number = Math.floor(page / LEAF_PAGES);
    if (number === this.lastNumber) return this.lastLeaf;
    const node = this.nodes[Math.floor(number / NODE_LEAVES)] ?? null;
    const leaf = node === null ? null : (node[number % NODE_LEAVES] ?? null);
    if (leaf !== null) {
      this.lastNumber = number;
      this.lastLeaf = leaf;
    }
    return leaf;
  }

  private makeLeaf(page: number): Leaf {
    const known = this.leafOf(page);
    if (known !== null) return known;
    const number = Math.floor(page / LEAF_PAGES);
    const nodeNumber = Math.floor(number / NODE_LEAVES);
    let node = this.nodes[nodeNumber] ?? null;
    if (node === null) {
      const leaves = Math.ceil(this.pageCount / LEAF_PAGES) - nodeNumber * NODE_LEAVES;
      node = new Array<Leaf | null>(Math.min(NODE_LEAVES, leaves)).fill(null);
      this.nodes[nodeNumber] = node;
    }
    const leaf = new Leaf();
    node[number % NODE_LEAVES] = leaf;
    return leaf;
  }
}
