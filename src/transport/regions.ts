// SPDX-License-Identifier: MIT
// Memory regions of a device and the keys that name them (IBTA vol1 §10.6, §11.2.8; facts page,
// section 16). An L_Key and an R_Key are the same number here, as in most hardware: what tells the
// two apart is which rights a use needs.
//
// Keys are 32 random bits, so that a peer that was given one can't guess another; a hash table in
// typed arrays leads from a key to a dense region index. Every change to a region raises its
// generation: whoever has checked a region once keeps its index and generation and asks `isCurrent`
// per packet instead of checking again.
//
// A region stands on one range of bytes, or on pages (region-pages.ts), all of them pinned or some
// of them absent until a fault brings them in. What becomes of single pages is not a change of the
// region: it is asked for at every access.

import {
  assert,
  FarpageError,
  highOf,
  lowOf,
  type Memory,
  offsetFrom,
  type PageWaker,
  type Random,
  type RegionPages,
} from "../base/index.js";
import type { KeyTable } from "./key-table.js";
import { NO_KEY, RegionKeys } from "./region-keys.js";
import {
  copyFromPages,
  copyIntoPages,
  type PagesResult,
  readyPages,
  touchPages,
} from "./region-pages.js";
import { ViewCache } from "./view-cache.js";
import { ACCESS } from "./work-request.js";

/** What a region index stands for. */
const REGION_STATE = {
  /** Nothing. */
  FREE: 0,
  /** A fast-register region between LOCAL_INV (or its creation) and REG_MR. */
  INVALID: 1,
  /** Memory that its key opens. */
  VALID: 2,
} as const;

/** Shared by the regions that have no memory, so that `bytesOf` has one type. */
const NO_BYTES = new Uint8Array(0);
const NO_VIEW = new DataView(new ArrayBuffer(0));
/** Of a table that nobody waits at. */
const NO_WAKER: PageWaker = { pagesServed: () => {} };

/** All memory regions of one device. */
export class RegionTable {
  readonly countMax: number;
  /** Kept views of registered memory and receive buffers, for copies that allocate nothing. */
  readonly viewCache = new ViewCache();
  private readonly keys: RegionKeys;
  private readonly indexByKey: KeyTable;
  /** Per region. */
  private readonly states: Uint8Array;
  private readonly isFast: Uint8Array;
  private readonly rights: Uint8Array;
  private readonly pdIndexes: Int32Array;
  private readonly generations: Int32Array;
  private readonly addressHighs: Uint32Array;
  private readonly addressLows: Uint32Array;
  private readonly lengths: Float64Array;
  private readonly memoryOffsets: Float64Array;
  /** Of a valid region one of these: its range, or its pages. */
  private readonly memories: (Memory | null)[];
  private readonly pages: (RegionPages | null)[];
  private readonly bytes: Uint8Array[];
  private readonly views: DataView[];
  /** Of a fast region: the ordinary one whose memory it shows, -1 if none. */
  private readonly baseIndexes: Int32Array;
  /** Of an ordinary region: valid fast ones on top of it. */
  private readonly dependentCounts: Int32Array;
  private readonly freeIndexes: Int32Array;
  private freeCount: number;
  /** Hears of faults that were served, and of regions on pages that go. */
  private readonly waker: PageWaker;

  /** @param countMax regions at once, 1 .. 2^22. */
  constructor(countMax: number, random: Random, waker: PageWaker = NO_WAKER) {
    assert(countMax >= 1 && countMax <= 1 << 22, "region count in range");
    this.countMax = countMax;
    this.keys = new RegionKeys(countMax, random);
    this.indexByKey = this.keys.indexByKey;
    this.waker = waker;
    this.states = new Uint8Array(countMax);
    this.isFast = new Uint8Array(countMax);
    this.rights = new Uint8Array(countMax);
    this.pdIndexes = new Int32Array(countMax).fill(-1);
    this.generations = new Int32Array(countMax);
    this.addressHighs = new Uint32Array(countMax);
    this.addressLows = new Uint32Array(countMax);
    this.lengths = new Float64Array(countMax);
    this.memoryOffsets = new Float64Array(countMax);
    this.memories = new Array<Memory | null>(countMax).fill(null);
    this.pages = new Array<RegionPages | null>(countMax).fill(null);
    this.bytes = new Array<Uint8Array>(countMax).fill(NO_BYTES);
    this.views = new Array<DataView>(countMax).fill(NO_VIEW);
    this.baseIndexes = new Int32Array(countMax).fill(-1);
    this.dependentCounts = new Int32Array(countMax);
    this.freeIndexes = new Int32Array(countMax);
    for (let i = 0; i < countMax; i++) this.freeIndexes[i] = countMax - 1 - i;
    this.freeCount = countMax;
  }

  /** Regions that exist. */
  get count(): number {
    return this.countMax - this.freeCount;
  }

  /**
   * Registers `length` bytes of `memory` from `offset` on. The memory must stay until `deregister`.
   * @param access `ACCESS` bits; REMOTE_WRITE and REMOTE_ATOMIC need LOCAL_WRITE (ibv_reg_mr(3)).
   * @param addressHigh with `addressLow`: the virtual address by which the region is addressed,
   *   any 64 bits; its own local address if absent.
   * @returns the region's index, valid until `deregister`.
   * @throws FarpageError EINVAL for a range outside the memory or such rights; ENOMEM when full.
   */
  register(
    pdIndex: number,
    memory: Memory,
    offset: number,
    length: number,
    access: number,
    addressHigh: number = highOf(memory.address + offset),
    addressLow: number = lowOf(memory.address + offset),
  ): number {
    const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
    if (!isRange || offset < 0 || length < 0 || offset + length > memory.length) {
      throw new FarpageError("EINVAL", "a memory region must lie inside its memory");
    }
    if (!areRightsLegal(access)) {
      throw new FarpageError("EINVAL", "remote write and atomic access need local write access");
    }
    const index = this.take(pdIndex, 0);
    this.map(index, memory, null, offset, length, access, addressHigh, addressLow);
    this.keys.draw(index);
    return index;
  }

  /**
   * Registers `length` bytes of `pages` from local address `address` on. The pages must stay the
   * region's until `deregister`.
   * @param access `addressHigh` `addressLow` as of `register`.
   * @throws FarpageError EINVAL for a range outside the pages or such rights; ENOMEM when full.
   */
  registerPages(
    pdIndex: number,
    pages: RegionPages,
    address: number,
    length: number,
    access: number,
    addressHigh: number = highOf(address),
    addressLow: number = lowOf(address),
  ): number {
    const offset = address - pages.address;
    const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
    const bytes = pages.pageCount * pages.pageBytes;
    if (!isRange || offset < 0 || length < 0 || offset + length > bytes) {
      throw new FarpageError("EINVAL", "a memory region must lie inside its pages");
    }
    if (!areRightsLegal(access)) {
      throw new FarpageError("EINVAL", "remote write and atomic access need local write access");
    }
    const index = this.take(pdIndex, 0);
    this.map(index, null, pages, offset, length, access, addressHigh, addressLow);
    this.keys.draw(index);
    pages.attach(this.waker);
    return index;
  }

  /**
   * Makes a fast-register region: memory and key come with REG_MR.
   * @throws FarpageError ENOMEM when the table is full.
   */
  allocateFast(pdIndex: number): number {
    return this.take(pdIndex, 1);
  }

  /**
   * Reserves an unused unpredictable key for the next REG_MR of a fast region. It opens nothing
   * until then. At most three are reserved at once; a further one takes the place of the oldest.
   * Preconditions: the region exists and is a fast one.
   */
  freshKey(index: number): number {
    assert(this.states[index] !== REGION_STATE.FREE, "the region exists");
    assert(this.isFast[index] === 1, "only fast-register regions change their keys");
    return this.keys.reserve(index);
  }

  /**
   * Ends a region: its keys open nothing from now on, and fast regions on top of its memory become
   * invalid. Preconditions: it exists.
   */
  deregister(index: number): void {
    assert(this.states[index] !== REGION_STATE.FREE, "the region exists");
    if ((this.dependentCounts[index] as number) > 0) this.invalidateDependents(index);
    if (this.states[index] === REGION_STATE.VALID) {
      const pages = this.isFast[index] === 1 ? null : this.pages[index];
      // Views of the sections behind pages are kept: sections outlive regions.
      if (this.memories[index] !== null) this.viewCache.forget(this.bytes[index] as Uint8Array);
      this.unmap(index);
      pages?.detach(this.waker);
    }
    this.keys.removeAll(index);
    this.states[index] = REGION_STATE.FREE;
    this.pdIndexes[index] = -1;
    this.generations[index] = ((this.generations[index] as number) + 1) | 0;
    this.freeIndexes[this.freeCount++] = index;
  }

  /** The key of a valid region, 0 of an invalid one. */
  keyOf(index: number): number {
    return this.keys.current(index);
  }

  /** First address of a region: two halves. Only a valid region has one. */
  addressHighOf(index: number): number {
    return this.addressHighs[index] as number;
  }

  addressLowOf(index: number): number {
    return this.addressLows[index] as number;
  }

  /** Bytes of a valid region. */
  lengthOf(index: number): number {
    return this.lengths[index] as number;
  }

  accessOf(index: number): number {
    return this.rights[index] as number;
  }

  isValid(index: number): boolean {
    return this.states[index] === REGION_STATE.VALID;
  }

  /** Changes with every change of the region, never otherwise. */
  generationOf(index: number): number {
    return this.generations[index] as number;
  }

  /** Whether nothing has changed since `generation` was read. */
  isCurrent(index: number, generation: number): boolean {
    return this.generations[index] === generation;
  }

  /** Whether a valid region stands on pages: then every access must ask `ready` first. */
  isPaged(index: number): boolean {
    return this.pages[index] !== null;
  }

  /**
   * Whether the pages for an access of `length` bytes at `position` are there; if not, asks for
   * them and for what follows of the `ahead` bytes that the message has from there on.
   * Preconditions: the region is paged; `check` has approved of the range; 0 < length <= ahead.
   */
  ready(
    index: number,
    position: number,
    length: number,
    ahead: number,
    isWrite: boolean,
  ): PagesResult {
    return readyPages(this.pages[index] as RegionPages, position, length, ahead, isWrite);
  }

  /** The same for the process's own CPU: pages are brought in at once. @returns whether so. */
  touch(index: number, position: number, length: number, isWrite: boolean): boolean {
    return touchPages(this.pages[index] as RegionPages, position, length, isWrite);
  }

  /** All bytes of the memory that a valid region on one range lies in; positions index it. */
  bytesOf(index: number): Uint8Array {
    return this.bytes[index] as Uint8Array;
  }

  /**
   * Copies into a paged region. Preconditions: `check` has approved of the range, `ready` has just
   * said that it is there.
   */
  write(
    index: number,
    position: number,
    source: Uint8Array,
    sourceOffset: number,
    length: number,
  ): void {
    const pages = this.pages[index] as RegionPages;
    copyIntoPages(pages, this.viewCache, position, source, sourceOffset, length);
  }

  /** Copies out of a paged region. Preconditions: as of `write`. */
  read(
    index: number,
    position: number,
    target: Uint8Array,
    targetOffset: number,
    length: number,
  ): void {
    const pages = this.pages[index] as RegionPages;
    copyFromPages(pages, this.viewCache, position, target, targetOffset, length);
  }

  /** The view in which `position` lies, at `placeOf(index, position)`. As of `write`. */
  viewAt(index: number, position: number): DataView {
    const pages = this.pages[index] as RegionPages | null;
    if (pages === null) return this.views[index] as DataView;
    assert(pages.locate(Math.floor(position / pages.pageBytes), true), "the page is there");
    return pages.view;
  }

  placeOf(index: number, position: number): number {
    const pages = this.pages[index] as RegionPages | null;
    if (pages === null) return position;
    assert(pages.locate(Math.floor(position / pages.pageBytes), true), "the page is there");
    return pages.offset + (position % pages.pageBytes);
  }

  /**
   * Position of an address inside a valid region: in `bytesOf`, or what `read` and `write` take.
   * Preconditions: `check` has just approved of it.
   */
  offsetIn(index: number, addressHigh: number, addressLow: number): number {
    const high = this.addressHighs[index] as number;
    const low = this.addressLows[index] as number;
    return offsetFrom(addressHigh, addressLow, high, low) + (this.memoryOffsets[index] as number);
  }

  /** The region that `key` opens now, or -1. */
  find(key: number): number {
    const index = this.indexByKey.get(key);
    if (index < 0 || this.states[index] !== REGION_STATE.VALID) return -1;
    return this.keys.current(index) === key ? index : -1;
  }

  /**
   * The one test of every access: key, protection domain, rights, bounds.
   * @param access all of these `ACCESS` bits are needed; 0 for a local read.
   * @param length bytes, 0 .. 2^53 - 1.
   * @returns the region's index, or -1.
   */
  check(
    key: number,
    pdIndex: number,
    access: number,
    addressHigh: number,
    addressLow: number,
    length: number,
  ): number {
    const index = this.find(key);
    if (index < 0) return -1;
    if (this.pdIndexes[index] !== pdIndex) return -1;
    if (((this.rights[index] as number) & access) !== access) return -1;
    const offset = offsetFrom(
      addressHigh,
      addressLow,
      this.addressHighs[index] as number,
      this.addressLows[index] as number,
    );
    if (offset < 0 || offset + length > (this.lengths[index] as number)) return -1;
    return index;
  }

  /**
   * REG_MR: opens a fast region to a range of an ordinary region's memory, under a key that
   * `freshKey` has reserved.
   * @param baseKey lkey of the ordinary region in which the range lies.
   * @returns whether it was done. It is not when the region is no invalid fast one of this PD, the
   *   key is not reserved for it, or the range or the rights go beyond the ordinary region's.
   */
  registerFast(
    pdIndex: number,
    index: number,
    key: number,
    access: number,
    baseKey: number,
    address: number,
    length: number,
  ): boolean {
    if (index < 0 || index >= this.countMax || this.pdIndexes[index] !== pdIndex) return false;
    if (this.isFast[index] !== 1 || this.states[index] !== REGION_STATE.INVALID) return false;
    if (!this.keys.isReserved(index, key) || !areRightsLegal(access)) return false;
    if (!(Number.isSafeInteger(address) && address >= 0)) return false;
    if (!(Number.isSafeInteger(length) && length >= 0)) return false;
    const high = highOf(address);
    const low = lowOf(address);
    const base = this.check(baseKey, pdIndex, access & ACCESS.LOCAL_WRITE, high, low, length);
    if (base < 0 || this.isFast[base] === 1) return false;
    const memory = this.memories[base] as Memory | null;
    const pages = this.pages[base] as RegionPages | null;
    this.map(index, memory, pages, this.offsetIn(base, high, low), length, access, high, low);
    this.baseIndexes[index] = base;
    this.dependentCounts[base] = (this.dependentCounts[base] as number) + 1;
    this.keys.use(index, key);
    return true;
  }

  /**
   * LOCAL_INV and SEND with invalidate: closes a valid fast region.
   * @returns whether `key` opened a fast region of this PD, which it does no longer.
   */
  invalidate(pdIndex: number, key: number): boolean {
    const index = this.find(key);
    if (index < 0 || this.isFast[index] !== 1 || this.pdIndexes[index] !== pdIndex) return false;
    this.closeFast(index);
    return true;
  }

  checkInvariants(): void {
    this.keys.checkInvariants();
    for (let index = 0; index < this.countMax; index++) {
      const isValid = this.states[index] === REGION_STATE.VALID;
      const hasMemory = this.memories[index] !== null || this.pages[index] !== null;
      assert(isValid === hasMemory, "a region has memory while it is valid");
      assert(isValid === (this.keyOf(index) !== NO_KEY), "a region has a key while it is valid");
    }
  }

  private take(pdIndex: number, isFast: 0 | 1): number {
    if (this.freeCount === 0) {
      throw new FarpageError("ENOMEM", `the device has all its ${this.countMax} memory regions`);
    }
    const index = this.freeIndexes[--this.freeCount] as number;
    this.states[index] = REGION_STATE.INVALID;
    this.isFast[index] = isFast;
    this.pdIndexes[index] = pdIndex;
    this.rights[index] = 0;
    this.baseIndexes[index] = -1;
    this.dependentCounts[index] = 0;
    return index;
  }

  private map(
    index: number,
    memory: Memory | null,
    pages: RegionPages | null,
    offset: number,
    length: number,
    access: number,
    addressHigh: number,
    addressLow: number,
  ): void {
    this.memories[index] = memory;
    this.pages[index] = pages;
    this.bytes[index] = memory === null ? NO_BYTES : memory.bytes;
    this.views[index] = memory === null ? NO_VIEW : memory.view;
    this.memoryOffsets[index] = offset;
    this.lengths[index] = length;
    this.rights[index] = access;
    this.addressHighs[index] = addressHigh;
    this.addressLows[index] = addressLow;
    this.states[index] = REGION_STATE.VALID;
    this.generations[index] = ((this.generations[index] as number) + 1) | 0;
  }

  private unmap(index: number): void {
    const base = this.baseIndexes[index] as number;
    if (base >= 0) this.dependentCounts[base] = (this.dependentCounts[base] as number) - 1;
    this.baseIndexes[index] = -1;
    // Who waits for one of its pages must find out that there is nothing to wait for.
    if (this.pages[index] !== null) this.waker.pagesServed();
    this.memories[index] = null;
    this.pages[index] = null;
    this.bytes[index] = NO_BYTES;
    this.views[index] = NO_VIEW;
    this.lengths[index] = 0;
    this.rights[index] = 0;
    this.states[index] = REGION_STATE.INVALID;
    this.generations[index] = ((this.generations[index] as number) + 1) | 0;
  }

  private closeFast(index: number): void {
    this.keys.removeCurrent(index);
    this.unmap(index);
  }

  private invalidateDependents(base: number): void {
    for (let index = 0; index < this.countMax; index++) {
      if (this.baseIndexes[index] === base) this.closeFast(index);
    }
    assert(this.dependentCounts[base] === 0, "no region stands on one that is gone");
  }
}

/** IBTA vol1 §11.2.8.2: a peer may not be given more than the host has itself. */
function areRightsLegal(access: number): boolean {
  const writes = ACCESS.REMOTE_WRITE | ACCESS.REMOTE_ATOMIC;
  return (access & ~15) === 0 && ((access & writes) === 0 || (access & ACCESS.LOCAL_WRITE) !== 0);
}
