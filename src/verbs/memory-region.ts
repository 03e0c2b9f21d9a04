// SPDX-License-Identifier: MIT

import {
  ADVICE,
  type Advice,
  FarpageError,
  joinHalves,
  type Memory,
  type RegionSpace,
  type RegisteredPages,
} from "../base/index.js";
import { ACCESS, type RegionTable } from "../transport/index.js";
import type { ProtectionDomain } from "./protection-domain.js";
import { type HandleTable, VerbsObject } from "./verbs-object.js";

/** What of a memory to register, and for whom: ibv_reg_mr(3). */
export interface RegisterOptions {
  /** First byte of the memory that is registered; default 0. */
  readonly offset?: number;
  /** Bytes; default all from `offset` on. */
  readonly length?: number;
  /** `ACCESS` bits; default LOCAL_WRITE. Remote write and atomic access need LOCAL_WRITE too. */
  readonly access?: number;
  /**
   * Addresses of a process only: nothing is pinned; pages are brought in when packets or advice
   * ask for them, and follow the mapping (IBV_ACCESS_ON_DEMAND). Default: pinned until its end.
   */
  readonly onDemand?: boolean;
}

/**
 * Addresses of a process, whatever is mapped there: anonymous memory, a file, a device's.
 * Without `address` and `length`: all that the process has or will have, on demand only.
 */
export interface AddressRange {
  readonly space: RegionSpace;
  readonly address?: number;
  readonly length?: number;
}

/** What a region is registered on: taken at registration, given back at its end. */
export interface RegionBacking {
  readonly regionIndex: number;
  readonly pages: RegisteredPages | null;
  /** Memory of the host's own that is pinned for it, and which range of it. */
  readonly memory: Memory | null;
  readonly offset: number;
  readonly length: number;
}

/** Registers memory with the device. @throws FarpageError as `ProtectionDomain.registerMr`. */
export function registerBacking(
  regions: RegionTable,
  pdIndex: number,
  memory: Memory | AddressRange,
  options: RegisterOptions,
): RegionBacking {
  const access = options.access ?? ACCESS.LOCAL_WRITE;
  const offset = options.offset ?? 0;
  if (!("space" in memory)) {
    if (options.onDemand === true) {
      throw new FarpageError("EINVAL", "only addresses of a process can be registered on demand");
    }
    const length = options.length ?? memory.length - offset;
    const regionIndex = regions.register(pdIndex, memory, offset, length, access);
    memory.pin?.(offset, length);
    return { regionIndex, pages: null, memory, offset, length };
  }
  const pages = takePages(memory, offset, options, access);
  const address = (memory.address ?? 0) + offset;
  const length = options.length ?? (memory.length ?? pages.pageCount * pages.pageBytes) - offset;
  try {
    const { contiguous } = pages;
    const regionIndex =
      contiguous === null
        ? regions.registerPages(pdIndex, pages, address, length, access)
        : regions.register(pdIndex, contiguous, 0, length, access);
    return { regionIndex, pages, memory: null, offset: 0, length };
  } catch (error) {
    pages.release();
    throw error;
  }
}

function takePages(
  range: AddressRange,
  offset: number,
  options: RegisterOptions,
  access: number,
): RegisteredPages {
  const { space, address } = range;
  const onDemand = options.onDemand ?? false;
  const isWrite = (access & ACCESS.LOCAL_WRITE) !== 0;
  if (address === undefined) {
    const isPart = range.length !== undefined || options.length !== undefined || offset !== 0;
    if (!onDemand || isPart) {
      throw new FarpageError("EINVAL", "all of a process's memory is registered on demand, whole");
    }
    return space.registerAll(isWrite);
  }
  const rangeLength = range.length ?? Number.POSITIVE_INFINITY;
  const length = options.length ?? (range.length ?? 0) - offset;
  if (offset < 0 || offset + length > rangeLength) {
    throw new FarpageError("EINVAL", "a memory region must lie inside its range of addresses");
  }
  return space.registerPages(address + offset, length, isWrite, onDemand);
}

/**
 * A memory region. One made by `registerMr` has its memory and keys for life. One made by `allocMr`
 * (a fast-register region) gets them by a REG_MR work request and loses them by LOCAL_INV or by a
 * peer's SEND with invalidate.
 */
export class MemoryRegion extends VerbsObject {
  readonly pd: ProtectionDomain;
  /**
   * The region's number in the device: what REG_MR takes as `regionIndex`. -1 once deregistered.
   */
  regionIndex: number;
  /** Made by `allocMr`. */
  readonly isFast: boolean;
  private readonly regions: RegionTable;
  private readonly backing: RegionBacking;

  /** Internal: use `ProtectionDomain.registerMr` or `allocMr`. */
  constructor(table: HandleTable, pd: ProtectionDomain, backing: RegionBacking, isFast: boolean) {
    super(table, "memory region", [pd]);
    this.pd = pd;
    this.regionIndex = backing.regionIndex;
    this.backing = backing;
    this.isFast = isFast;
    this.regions = pd.context.device.regions;
  }

  /** Whether its keys open anything now. */
  get isValid(): boolean {
    return this.isOpen && this.regions.isValid(this.regionIndex);
  }

  /** The key for scatter/gather entries of this host; 0 while the region is not valid. */
  get lkey(): number {
    return this.isValid ? this.regions.keyOf(this.regionIndex) : 0;
  }

  /** The key to give to peers; the same number as `lkey`: rights tell the two uses apart. */
  get rkey(): number {
    return this.lkey;
  }

  /** Local address of its first byte; 0 while the region is not valid. */
  get address(): number {
    if (!this.isValid) return 0;
    const index = this.regionIndex;
    return joinHalves(this.regions.addressHighOf(index), this.regions.addressLowOf(index));
  }

  /** Bytes; 0 while the region is not valid. */
  get length(): number {
    return this.isValid ? this.regions.lengthOf(this.regionIndex) : 0;
  }

  /** `ACCESS` bits; 0 while the region is not valid. */
  get access(): number {
    return this.isValid ? this.regions.accessOf(this.regionIndex) : 0;
  }

  /** Whether its pages come when they are asked for and follow the process's mappings. */
  get isOnDemand(): boolean {
    return this.backing.pages?.isOnDemand ?? false;
  }

  /**
   * Says which bytes of an on-demand region will be needed (ibv_advise_mr(3)); pinned ones are
   * there anyhow. Pages that can't be had are left out: an access finds that out.
   * @param flush brings them in before it returns; else in the host's next turns.
   * @throws FarpageError EINVAL for a range outside of the region, or a region of `allocMr`; EPERM
   *   for PREFETCH_WRITE without LOCAL_WRITE; EFAULT with `flush` when some of it can't be had;
   *   EBADF when deregistered.
   */
  advise(advice: Advice, address: number, length: number, flush = false): void {
    this.assertOpen();
    const start = address - this.address;
    if (this.isFast || !(start >= 0 && length >= 0 && start + length <= this.length)) {
      throw new FarpageError("EINVAL", `${this.name()} has no such range to give advice about`);
    }
    if (advice === ADVICE.PREFETCH_WRITE && (this.access & ACCESS.LOCAL_WRITE) === 0) {
      throw new FarpageError("EPERM", `${this.name()} may not be written`);
    }
    const { pages } = this.backing;
    if (pages === null || length === 0) return;
    const first = Math.floor((address - pages.address) / pages.pageBytes);
    const end = Math.ceil((address + length - pages.address) / pages.pageBytes);
    if (!pages.advise(first, end - first, advice, flush)) {
      throw new FarpageError("EFAULT", `not all of that range of ${this.name()} can be had`);
    }
  }

  /**
   * Reserves an unpredictable key that nothing uses, for the next REG_MR of this region
   * (`registerKey`). It opens nothing before that. At most three wait at a time; a fourth takes the
   * place of the oldest.
   * @throws FarpageError EINVAL for a region made by `registerMr`; EBADF when deregistered.
   */
  freshKey(): number {
    this.assertOpen();
    if (!this.isFast) {
      throw new FarpageError(
        "EINVAL",
        `${this.name()} has its key for life; only regions of allocMr take new ones`,
      );
    }
    return this.regions.freshKey(this.regionIndex);
  }

  /**
   * Opens a region of `allocMr` at once, under a fresh unpredictable key: what a REG_MR work
   * request does in its turn of a send queue. A kernel's device can't do this; one in software can,
   * and saves its user a work request per registration. Allocates nothing.
   * @param base a region of `registerMr` of the same protection domain, in which the range lies.
   * @param address local address of the first byte; `length` bytes, 0 or more.
   * @param access `ACCESS` bits; LOCAL_WRITE needs the base to have it.
   * @returns the key.
   * @throws FarpageError EINVAL for a range, rights or base that do not fit, or a region that is
   *   open already (`invalidate` first); EBADF when deregistered.
   */
  fastRegister(base: MemoryRegion, address: number, length: number, access: number): number {
    const key = this.freshKey();
    const { pdIndex } = this.pd;
    const index = this.regionIndex;
    if (!this.regions.registerFast(pdIndex, index, key, access, base.lkey, address, length)) {
      throw new FarpageError("EINVAL", `${this.name()} can't be opened to that range`);
    }
    return key;
  }

  /**
   * Closes a region of `allocMr` at once: what LOCAL_INV does in its turn. A packet that arrives
   * later is refused. Only for keys that no posted work request of this host uses.
   * @returns false when it was closed already, by a peer's SEND with invalidate for instance.
   */
  invalidate(): boolean {
    if (!this.isFast || !this.isValid) return false;
    return this.regions.invalidate(this.pd.pdIndex, this.lkey);
  }

  /** Ends it: its keys open nothing from now on (ibv_dereg_mr(3)). No-op when ended already. */
  deregister(): void {
    this.closeHandle();
  }

  protected override release(): void {
    this.regions.deregister(this.regionIndex);
    this.regionIndex = -1;
    // Only now can no packet reach them.
    const { length, memory, offset, pages } = this.backing;
    pages?.release();
    memory?.unpin?.(offset, length);
  }
}
