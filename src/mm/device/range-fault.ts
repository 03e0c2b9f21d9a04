// SPDX-License-Identifier: MIT
// Addresses and rights of a range of pages, for a device's page table: nothing is pinned, and what
// was found is forgotten when the mapping changes. Read first: Linux `Documentation/mm/hmm.rst` and
// `mm/hmm.c`, hmm_range_fault.
//
//   const range = new RangeFault(space, devices, notifier, page, count, client);
//   do { if (range.run() !== RANGE_RESULT.DONE) ... } while (range.isStale());
//   // use range.frames and range.states until the notifier is invalidated

import { assert } from "../../base/index.js";
import { type Pfn, ZONE } from "../frames/index.js";
import type { DmaDevice } from "../pin/index.js";
import { ACCESS, type AddressSpace, PAGE_BYTES, PROT, type RangeNotifier } from "../space/index.js";
import { type DeviceMemory, DMA_FAULT } from "./device-memory.js";

/** What is asked of a page. */
export const RANGE_REQUEST = {
  /** As it is; nothing is faulted in. */
  SNAPSHOT: 0,
  /** At least to be read. */
  READ: 1,
  /** To be read and written. */
  WRITE: 3,
} as const;

/** What is known of a page: bits. */
export const RANGE_STATE = {
  /** There is a frame, which may be read. */
  VALID: 1,
  WRITABLE: 2,
  /** The mapping allows no access at all. */
  FORBIDDEN: 4,
  /** The frame is of another device's BAR. */
  PEER: 8,
  /** The frame is in the client's own memory. */
  OWN: 16,
} as const;

export const RANGE_RESULT = {
  DONE: 0,
  /** The mapping changes again and again, or a page must stay as it is for now: later. */
  BUSY: 1,
  /** A page that was asked for can't be had, or the process is gone: `failedPage`, `failure`. */
  FAILED: 2,
} as const;
export type RangeResult = (typeof RANGE_RESULT)[keyof typeof RANGE_RESULT];

const ATTEMPTS_MAX = 8;

export class RangeFault {
  readonly startPage: number;
  readonly pageCount: number;
  /** RANGE_REQUEST of all pages (`default_flags` of Linux). */
  defaults: number = RANGE_REQUEST.SNAPSHOT;
  /** RANGE_REQUEST of each page, beside the defaults (`pfn_flags_mask` of Linux: all of it). */
  readonly requests: Uint8Array;
  /** Of pages that are VALID: the frame. */
  readonly frames: Uint32Array;
  /** Bits of RANGE_STATE. */
  readonly states: Uint8Array;
  /** log2 of the pages of the aligned block that the page and its neighbours here are in. */
  readonly orders: Uint8Array;
  /** After FAILED: which page, and a DMA_FAULT: SHORT for no memory, else WRONG. */
  failedPage = -1;
  failure = 0;
  private readonly space: AddressSpace;
  private readonly devices: DeviceMemory;
  private readonly notifier: RangeNotifier;
  private readonly client: DmaDevice | null;
  private sequence = -1;

  /**
   * @param notifier is added to the address space, and covers the range.
   * @param client the device whose page table it is for: its own memory is found where it is, that
   *   of others where it can reach it.
   */
  constructor(
    space: AddressSpace,
    devices: DeviceMemory,
    notifier: RangeNotifier,
    startPage: number,
    pageCount: number,
    client: DmaDevice | null,
  ) {
    assert(pageCount > 0, "a range has pages");
    const end = (startPage + pageCount) * PAGE_BYTES;
    const isCovered = notifier.start <= startPage * PAGE_BYTES && notifier.end >= end;
    assert(isCovered, "a range lies in that of its notifier");
    this.space = space;
    this.devices = devices;
    this.notifier = notifier;
    this.client = client;
    this.startPage = startPage;
    this.pageCount = pageCount;
    this.requests = new Uint8Array(pageCount);
    this.frames = new Uint32Array(pageCount);
    this.states = new Uint8Array(pageCount);
    this.orders = new Uint8Array(pageCount);
  }

  /** Looks every page up, with the faults that were asked for. */
  run(): RangeResult {
    const { notifiers } = this.space;
    if (this.space.hasExited) {
      this.failedPage = this.startPage;
      this.failure = DMA_FAULT.WRONG;
      return RANGE_RESULT.FAILED;
    }
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      this.sequence = notifiers.readBegin(this.notifier);
      if (this.sequence % 2 !== 0) return RANGE_RESULT.BUSY;
      const result = this.walk();
      if (result !== RANGE_RESULT.DONE) return result;
      // Faults of later pages may have changed earlier ones.
      if (!this.isStale()) return result;
    }
    return RANGE_RESULT.BUSY;
  }

  /** Whether what `run` found must not be used any more. Asked right before it is used. */
  isStale(): boolean {
    return this.space.notifiers.readRetry(this.notifier, this.sequence);
  }

  private walk(): RangeResult {
    for (let i = 0; i < this.pageCount; i++) {
      const request = (this.requests[i] as number) | this.defaults;
      this.look(i);
      if (!this.needsFault(i, request)) continue;
      const isWrite = request === RANGE_REQUEST.WRITE;
      const pfn = this.devices.dmaFault(this.space, this.startPage + i, isWrite, this.client);
      if (pfn === DMA_FAULT.RETRY) return RANGE_RESULT.BUSY;
      if (pfn < 0) {
        this.failedPage = this.startPage + i;
        this.failure = pfn;
        return RANGE_RESULT.FAILED;
      }
      this.look(i);
    }
    this.findOrders();
    return RANGE_RESULT.DONE;
  }

  private needsFault(i: number, request: number): boolean {
    if (request === RANGE_REQUEST.SNAPSHOT) return false;
    const wanted = request === RANGE_REQUEST.WRITE ? RANGE_STATE.WRITABLE : RANGE_STATE.VALID;
    return ((this.states[i] as number) & wanted) === 0;
  }

  /** Notes a page as it is. */
  private look(i: number): void {
    const { client, devices, space } = this;
    const page = this.startPage + i;
    this.states[i] = 0;
    this.frames[i] = 0;
    const area = space.vmaAt(page * PAGE_BYTES);
    if (area === null) return;
    if (area.prot === PROT.NONE) {
      this.states[i] = RANGE_STATE.FORBIDDEN;
      return;
    }
    const pfn = devices.presentFrame(space, page, false, client);
    if (pfn < 0) return;
    let state: number = RANGE_STATE.VALID | this.whereOf(pfn);
    const isWritable = space.permits(page, ACCESS.WRITE);
    if (isWritable && devices.presentFrame(space, page, true, client) === pfn) {
      state |= RANGE_STATE.WRITABLE;
    }
    this.states[i] = state;
    this.frames[i] = pfn;
  }

  private whereOf(pfn: Pfn): number {
    const { kind } = this.space.manager.memory.zoneOf(pfn);
    if (kind === ZONE.P2P) return RANGE_STATE.PEER;
    return kind === ZONE.PRIVATE ? RANGE_STATE.OWN : 0;
  }

  /** The largest aligned blocks of pages whose frames are one, too. */
  private findOrders(): void {
    const { frames, orders, states } = this;
    orders.fill(0);
    let first = 0;
    while (first < this.pageCount) {
      let end = first + 1;
      while (
        end < this.pageCount &&
        states[end] === states[first] &&
        ((states[first] as number) & RANGE_STATE.VALID) !== 0 &&
        (frames[end] as number) === (frames[first] as number) + (end - first)
      ) {
        end++;
      }
      this.markRun(first, end);
      first = end;
    }
  }

  private markRun(first: number, end: number): void {
    for (let i = first; i < end; ) {
      const page = this.startPage + i;
      let order = 0;
      while (order < 18 && i + 2 ** (order + 1) <= end) {
        const size = 2 ** (order + 1);
        if (page % size !== 0 || (this.frames[i] as number) % size !== 0) break;
        order++;
      }
      this.orders.fill(order, i, i + 2 ** order);
      i += 2 ** order;
    }
  }
}
