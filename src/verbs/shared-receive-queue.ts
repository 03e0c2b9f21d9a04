// SPDX-License-Identifier: MIT

import type { RecvWorkRequest, SrqCore } from "../transport/index.js";
import { checkDepth } from "./completion-queue.js";
import { throwPostRecv } from "./post-error.js";
import type { ProtectionDomain } from "./protection-domain.js";
import { type HandleTable, VerbsObject } from "./verbs-object.js";

/** Size of a shared receive queue: ibv_srq_init_attr. */
export interface SharedReceiveQueueOptions {
  /** Receives that can be posted at a time. */
  readonly depth: number;
  /** Scatter/gather entries of one receive; default 1. */
  readonly maxSge?: number;
}

/**
 * A shared receive queue (ibv_create_srq(3)): receives that several queue pairs of one PD take
 * from.
 */
export class SharedReceiveQueue extends VerbsObject {
  readonly pd: ProtectionDomain;
  /** Internal: the device's part. */
  readonly core: SrqCore;

  /** Internal: use `ProtectionDomain.createSrq`. */
  constructor(table: HandleTable, pd: ProtectionDomain, core: SrqCore) {
    super(table, "shared receive queue", [pd]);
    this.pd = pd;
    this.core = core;
  }

  get depth(): number {
    return this.core.depth;
  }

  /** Receives posted and not taken yet. */
  get count(): number {
    return this.core.count;
  }

  /**
   * Posts a receive (ibv_post_srq_recv(3)); the request is copied, its memory is the device's until
   * the completion.
   * @throws FarpageError ENOMEM when full, EINVAL when the request can't be valid, EBADF.
   */
  postRecv(wr: RecvWorkRequest): void {
    const errno = this.tryPostRecv(wr);
    if (errno !== 0) throwPostRecv(this, errno, wr, this.core.queue.sgeCountMax, this.depth);
  }

  /** `postRecv` that returns an errno instead of throwing: 0, EINVAL or ENOMEM. */
  tryPostRecv(wr: RecvWorkRequest): number {
    return this.core.postRecv(wr);
  }

  /**
   * Asks for one `SRQ_LIMIT_REACHED` event of the context when fewer than `limit` receives are
   * left; 0 asks for none (ibv_modify_srq(3)).
   * @throws FarpageError EINVAL, EBADF.
   */
  armLimit(limit: number): void {
    this.assertOpen();
    checkDepth("the limit of a shared receive queue", limit, 0, this.depth);
    this.core.armLimit(limit);
  }

  /** @throws FarpageError EBUSY while a queue pair uses it. No-op when destroyed already. */
  destroy(): void {
    this.closeHandle();
  }

  protected override release(): void {
    this.pd.context.device.destroySrq(this.core);
  }
}
