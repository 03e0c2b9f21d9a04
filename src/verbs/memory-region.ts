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
  /** The region's number in the device: what REG_MR takes as `regionIndex`. -1 once deregistered. */
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

  /** Ends it: its keys open nothing from now on (ibv_dereg_mr(3)). No-op when ended already. */
  deregister(): void {
    this.closeHandle();
  }

  protected override release(): void {
    this.regions.deregister(this.regionIndex);
    this.regionIndex = -1;
  }
}
