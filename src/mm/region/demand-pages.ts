// SPDX-License-Identifier: MIT
// The page table of an on-demand memory region: absent until a packet or an advice asks for a page,
// filled by faults of the process (fault-queue.ts), emptied by the notifier whenever mappings
// change. Nothing is pinned and no reference is held: a page stays in its place because whoever
// wants to move it says so first. In the manner of Linux' ib_umem_odp and hmm_range_fault.
//
// Packets ask by pages of 4 KiB; entries are of 2 MiB wherever the memory allows (demand-table.ts).

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
import {
  FRAME_BYTES,
  FRAME_FLAG,
  PAGE_BLOCK_ORDER,
  type Pfn,
  type PhysicalMemory,
  ZONE,
} from "../frames/index.js";
import { type DemandNotifier, type DemandSpace, FAULT_RETRY, FAULT_SHORT } from "./demand-space.js";
import { DemandTable, ENTRY, type EntryState, LEAF_PAGES } from "./demand-table.js";
import { FailedFaults } from "./failed-faults.js";
import type { FaultQueue } from "./fault-queue.js";
import { SectionList } from "./section-list.js";

const QUEUED = { READ: 1, WRITE: 2 } as const;
/** A fault whose pages change under it is tried again at once so often, then in a later turn. */
const TRIES_AT_ONCE = 4;
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

export class DemandPages implements RegisteredPages, DemandNotifier {
  readonly pageBytes = FRAME_BYTES;
  readonly pageCount: number;
  readonly address: number;
  readonly isOnDemand = true;
  readonly contiguous: Memory | null = null;
  bytes: Uint8Array = NO_BYTES;
  view: DataView = NO_VIEW;
  offset = 0;
  span: number = FRAME_BYTES;
  /** Times that pages were taken away. */
  invalidatedCount = 0;

  private readonly queue: FaultQueue;
  private readonly space: DemandSpace;
  private readonly memory: PhysicalMemory;
  private readonly isWrite: boolean;
  private readonly firstVpn: number;
  /** Pages between the 2 MiB boundary below the region, where the table begins, and its first. */
  private readonly skew: number;
  private readonly table: DemandTable;
  private readonly sections = new SectionList();
  private readonly wakers: PageWaker[] = [];
  private readonly failures = new FailedFaults();
  private windowPages = WINDOW_PAGES_MAX;
  private isLive = true;
  private readonly onGone = (frame: Pfn, count: number, state: number) => {
    // Whether a peer has written isn't known; it could have.
    if (state === ENTRY.WRITABLE) this.markDirty(frame, count);
  };

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
    this.skew = this.firstVpn % LEAF_PAGES;
    this.table = new DemandTable(this.skew + this.pageCount);
    space.addNotifier(this);
  }

  /** First and first after the last address of the pages (of the notifier). */
  get start(): number {
    return this.address;
  }

  get end(): number {
    return this.address + this.pageCount * FRAME_BYTES;
  }

  /** Pages that are there now. */
  get presentCount(): number {
    return this.table.presentCount;
  }

  /** Entries for 2 MiB that there are now. */
  get blockCount(): number {
    return this.table.blockCount;
  }

  locate(page: number, isWrite: boolean): boolean {
    const { table } = this;
    if (!table.locate(this.skew + page, isWrite ? ENTRY.WRITABLE : ENTRY.READABLE)) return false;
    const { section } = table;
    this.bytes = this.sections.bytes[section] as Uint8Array;
    this.view = this.sections.views[section] as DataView;
    this.offset = table.offset;
    this.span = table.span;
    return true;
  }

  fault(page: number, count: number, isWrite: boolean): PageFault {
    if (!this.allows(page, isWrite)) return PAGE_FAULT.REFUSED;
    if (this.failures.has(page, isWrite, this.queue.nowNs)) return PAGE_FAULT.REFUSED;
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
    if (advice === ADVICE.PREFETCH_NO_FAULT) this.enterPresent(page, page + count);
    else if (flush) return this.bringIn(page, page + count, isWrite);
    else this.ask(page, count, isWrite);
    return true;
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
    if (from >= to) return;
    this.invalidatedCount += this.table.takeOut(this.skew + from, this.skew + to, this.onGone);
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

  /** Queue only: a fault is in the queue, or has come to its turn. */
  noteQueued(page: number, isWrite: boolean, isQueued: boolean): void {
    const bit = isWrite ? QUEUED.WRITE : QUEUED.READ;
    const bits = this.table.queuedOf(this.skew + page);
    this.table.setQueued(this.skew + page, isQueued ? bits | bit : bits & ~bit);
  }

  /** Queue only: a fault can't be served; those who wait for it find out. */
  noteFailure(page: number, isWrite: boolean, nowNs: number): void {
    // One that was wrong because nothing was mapped says nothing of what is mapped next.
    if (this.allows(page, isWrite)) this.failures.add(page, isWrite, nowNs);
  }

  /** Queue only: to be called when faults of these pages have been served or have failed. */
  wake(): void {
    for (let i = 0; i < this.wakers.length; i++) (this.wakers[i] as PageWaker).pagesServed();
  }

  checkInvariants(): void {
    this.table.checkInvariants();
    assert(this.isLive || this.presentCount === 0, "nothing is left of released pages");
  }

  private adaptWindow(page: number): void {
    const { table, skew } = this;
    if (table.queuedOf(skew + page) !== 0) return;
    const arrival = table.arrivalOf(skew + page);
    const isMissedSoon =
      arrival !== 0 &&
      !table.locate(skew + page, ENTRY.READABLE) &&
      (this.queue.counters.served - arrival) >>> 0 < MISSED_SOON_SERVICES;
    this.windowPages = isMissedSoon
      ? Math.max(WINDOW_PAGES_MIN, this.windowPages >> 1)
      : Math.min(WINDOW_PAGES_MAX, this.windowPages + WINDOW_GROWTH);
  }

  private ask(page: number, count: number, isWrite: boolean): void {
    const end = Math.min(this.pageCount, page + count);
    const bit = isWrite ? QUEUED.WRITE : QUEUED.READ;
    for (let i = this.nextMapped(page, end); i >= 0; i = this.nextMapped(i + 1, end)) {
      if (i !== page && this.locate(i, isWrite)) continue;
      // A write fault in the queue serves a reader too.
      if (this.table.queuedOf(this.skew + i) >= bit) continue;
      if (!this.queue.add(this, i, isWrite)) return;
      this.noteQueued(i, isWrite, true);
    }
  }

  private allows(page: number, isWrite: boolean): boolean {
    if (!this.isLive || page >= this.pageCount || (isWrite && !this.isWrite)) return false;
    return this.space.isMapped(this.firstVpn + page, isWrite);
  }

  /** @returns -1 for none. The region may be the whole address space, most of it empty. */
  private nextMapped(page: number, end: number): number {
    const vpn = this.space.nextMapped(this.firstVpn + page, this.firstVpn + end);
    return vpn < 0 ? vpn : vpn - this.firstVpn;
  }

  /** @returns whether all of [page, end) is there now. */
  private bringIn(page: number, end: number, isWrite: boolean): boolean {
    let isAll = true;
    let next = page;
    for (let i = this.nextMapped(page, end); i >= 0; i = this.nextMapped(next, end)) {
      const served = this.allows(i, isWrite) ? this.serve(i, isWrite) : SERVED.FAILED;
      // Without memory the pages behind it would push out what was brought in.
      if (served === SERVED.SHORT) return false;
      if (i !== next || served !== SERVED.DONE) isAll = false;
      next = i + 1;
    }
    return isAll && next === end;
  }

  /** Enters what is in memory of [page, end). */
  private enterPresent(page: number, end: number): void {
    const { firstVpn, space } = this;
    const endVpn = firstVpn + end;
    for (let vpn = space.nextPresent(firstVpn + page, endVpn); vpn >= 0; ) {
      this.mapPresent(vpn - firstVpn);
      vpn = space.nextPresent(vpn + 1, endVpn);
    }
  }

  private mapPresent(page: number): void {
    if (this.locate(page, false)) return;
    const sequence = this.space.readBegin(this);
    if (sequence % 2 !== 0) return;
    const frame = this.space.presentFrame(this.firstVpn + page, false);
    if (frame >= 0 && !this.space.readRetry(this, sequence)) this.putIn(page, frame, false);
  }

  /** @param isForWrite the frame was got for a write; else it may be writable all the same. */
  private putIn(page: number, frame: Pfn, isForWrite: boolean): void {
    const { memory } = this;
    const isWritable = isForWrite || this.space.isWritable(this.firstVpn + page);
    const state = this.isWrite && isWritable ? ENTRY.WRITABLE : ENTRY.READABLE;
    // 0 is for pages that never came.
    const arrival = (this.queue.counters.served + 1) >>> 0 || 1;
    const at = this.skew + page;
    const zone = memory.zoneOf(frame);
    if (zone.kind === ZONE.PRIVATE) {
      this.putInOwn(at, state, frame, arrival);
      return;
    }
    const section = this.sections.numberOf(memory.bytesOf(frame), memory.viewOf(frame));
    const offset = memory.offsetOf(frame);
    const inBlock = at % LEAF_PAGES;
    const isLarge = memory.orderOf(frame) >= PAGE_BLOCK_ORDER;
    if (isLarge && this.isBlock(page - inBlock, frame - inBlock, isWritable)) {
      const first = offset - inBlock * FRAME_BYTES;
      this.table.enterBlock(at, state, frame - inBlock, section, first, arrival);
    } else {
      this.table.enter(at, state, frame, section, offset, arrival);
    }
  }

  /** A page in the memory of the very device whose region it is. */
  private putInOwn(at: number, state: EntryState, frame: Pfn, arrival: number): void {
    const own = this.space.ownMemory?.(frame) ?? null;
    assert(own !== null, "a device that finds a page in its own memory has it");
    const section = this.sections.numberOf(own.bytes, own.view);
    const offset = (frame - this.memory.zoneOf(frame).basePfn) * FRAME_BYTES;
    this.table.enter(at, state, frame, section, offset, arrival);
  }

  /**
   * Whether the 2 MiB that begin with a page are an aligned block of memory from `frame` on, which
   * the device can use as it is. (Single frames that lie so are found by the table, when all are
   * in.) Preconditions: `frame` is of a block of 2 MiB and more.
   */
  private isBlock(first: number, frame: Pfn, isWrite: boolean): boolean {
    const { memory, space } = this;
    if (frame % LEAF_PAGES !== 0) return false;
    if (first < 0 || first + LEAF_PAGES > this.pageCount) return false;
    // A zone may have its 2 MiB in two sections.
    const last = frame + LEAF_PAGES - 1;
    if (memory.bytesOf(frame) !== memory.bytesOf(last)) return false;
    const vpn = this.firstVpn + first;
    for (let i = LEAF_PAGES - 1; i >= 0; i--) {
      if (space.presentFrame(vpn + i, isWrite) !== frame + i) return false;
    }
    return true;
  }

  private markDirty(frame: Pfn, count: number): void {
    const { memory } = this;
    // A device's memory has no other copy that it could differ from.
    if (memory.zoneOf(frame).kind !== ZONE.NORMAL) return;
    for (let at = frame; at < frame + count; ) {
      memory.setFlag(at, FRAME_FLAG.DIRTY);
      at = memory.headOf(at) + 2 ** memory.orderOf(at);
    }
  }
}
