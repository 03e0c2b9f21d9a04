// SPDX-License-Identifier: MIT

import { FarpageError, joinHalves } from "../base/index.js";
import type { RegionTable } from "../transport/index.js";
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

  /** Internal: use `ProtectionDomain.registerMr` or `allocMr`. */
  constructor(table: HandleTable, pd: ProtectionDomain, regionIndex: number, isFast: boolean) {
    super(table, "memory region", [pd]);
    this.pd = pd;
    this.regionIndex = regionIndex;
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
  }
}
