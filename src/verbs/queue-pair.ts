// SPDX-License-Identifier: MIT

import { FarpageError } from "../base/index.js";
import {
  counterValues,
  QP_STATE_NAMES,
  type QpAttributes,
  type QpCore,
  type QpCounterValues,
  type QpState,
  type QpStateName,
  type RecvWorkRequest,
  type SendWorkRequest,
} from "../transport/index.js";
import type { CompletionQueue } from "./completion-queue.js";
import type { Context } from "./context.js";
import { throwPostRecv, throwPostSend } from "./post-error.js";
import type { ProtectionDomain } from "./protection-domain.js";
import type { SharedReceiveQueue } from "./shared-receive-queue.js";
import { type HandleTable, VerbsObject } from "./verbs-object.js";

/** "RC": reliable connected. "UD": unreliable datagram. "GSI": queue pair 1 of a port, a UD one. */
export type QueuePairType = "RC" | "UD" | "GSI";

/** What a queue pair is made of, for life: ibv_qp_init_attr. */
export interface QueuePairOptions {
  readonly type: "RC" | "UD";
  /** Where sends and receives complete; may be the same. Of the same context. */
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  /**
   * Receives come from here; the queue pair then has no receive queue of its own. Of the same PD.
   */
  readonly srq?: SharedReceiveQueue;
  /** Requests that can be posted and not completed at a time, 0 .. `DeviceAttributes.maxQpWr`. */
  readonly maxSendWr: number;
  readonly maxRecvWr: number;
  /** Scatter/gather entries of one request, 0 .. `DeviceAttributes.maxSge`; default 1. */
  readonly maxSendSge?: number;
  readonly maxRecvSge?: number;
  /** Bytes that an INLINE send may carry; default 0. */
  readonly maxInlineData?: number;
  /** Every send completes visibly, SIGNALED or not. */
  readonly signalAll?: boolean;
}

/** Every attribute with its value now: what `queryQp` gives. */
export type QpAttributeValues = ReturnType<QpCore["query"]>;

/**
 * A queue pair. Requests of one queue complete in the order in which they were posted; a queue pair
 * in ERR completes everything with WR_FLUSH_ERR.
 */
export class QueuePair extends VerbsObject {
  readonly context: Context;
  readonly pd: ProtectionDomain;
  readonly type: QueuePairType;
  /** Its number on the wire, 24 bits. */
  readonly qpn: number;
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  readonly srq: SharedReceiveQueue | null;
  readonly maxSendWr: number;
  readonly maxRecvWr: number;
  readonly maxSendSge: number;
  readonly maxRecvSge: number;
  readonly maxInlineData: number;
  /** The user's. */
  userContext: unknown = null;
  /** Internal: the device's part. */
  readonly core: QpCore;

  /** Internal: use `ProtectionDomain.createQp`. */
  constructor(
    table: HandleTable,
    pd: ProtectionDomain,
    type: QueuePairType,
    core: QpCore,
    options: Omit<QueuePairOptions, "type">,
  ) {
    const parents = [pd, options.sendCq, options.recvCq];
    super(table, "queue pair", options.srq === undefined ? parents : [...parents, options.srq]);
    this.context = pd.context;
    this.pd = pd;
    this.type = type;
    this.qpn = core.qpn;
    this.sendCq = options.sendCq;
    this.recvCq = options.recvCq;
    this.srq = options.srq ?? null;
    this.maxSendWr = options.maxSendWr;
    this.maxRecvWr = options.srq === undefined ? options.maxRecvWr : 0;
    this.maxSendSge = options.maxSendSge ?? 1;
    this.maxRecvSge = options.maxRecvSge ?? 1;
    this.maxInlineData = options.maxInlineData ?? 0;
    this.core = core;
    core.userContext = this;
  }

  /** One of `QP_STATE`. */
  get state(): QpState {
    return this.core.state;
  }

  /** "RTS" and the like. */
  get stateName(): QpStateName {
    return QP_STATE_NAMES[this.core.state] as QpStateName;
  }

  /**
   * RC: whether a valid packet of the peer has come since RTR; it tells a passive side that the
   * connection is up though the CM's RTU was lost (IBTA vol1 §12.9.6).
   */
  get hasHeardPeer(): boolean {
    return this.core.hasHeardPeer;
  }

  /** Requests posted and not completed yet. */
  get sendCount(): number {
    return this.core.sendCount;
  }

  get recvCount(): number {
    return this.core.recvCount;
  }

  /**
   * Changes state or attributes (ibv_modify_qp(3)); a property that is present is a bit of the
   * attribute mask. An `AddressHandle` serves as `addressVector`.
   * @throws FarpageError EINVAL naming both states and every attribute that is missing, superfluous
   *   or out of range; nothing has changed then. EBADF when destroyed.
   */
  modifyQp(attributes: QpAttributes): void {
    this.assertOpen();
    try {
      this.core.modify(attributes);
    } catch (error) {
      if (!(error instanceof FarpageError)) throw error;
      throw new FarpageError(error.code, `${this.name()}: ${error.message}`, { cause: error });
    }
  }

  /** Every attribute as it is now (ibv_query_qp(3)). @throws FarpageError EBADF when destroyed. */
  queryQp(): QpAttributeValues {
    this.assertOpen();
    return this.core.query();
  }

  /**
   * What it has counted since its creation, copied: packets and bytes both ways, retransmissions,
   * NAKs by kind, RNR NAKs, duplicates, drops. Still there after `destroy`.
   */
  counters(): QpCounterValues {
    return counterValues(this.core.counters);
  }

  /**
   * Posts a send, RDMA, atomic or memory request (ibv_post_send(3)). The request is copied; the
   * memory that its entries name is the device's until it has completed (INLINE: copied too).
   * @throws FarpageError ENOMEM when the queue is full; EINVAL, saying why, for a request that
   *   can't be valid or a state that takes none. One that turns out wrong later completes with its
   *   status.
   */
  postSend(wr: SendWorkRequest): void {
    this.assertOpen();
    const errno = this.core.postSend(wr);
    if (errno !== 0) throwPostSend(this, errno, wr);
  }

  /** `postSend` for hot paths: returns 0, EINVAL or ENOMEM instead of throwing. */
  tryPostSend(wr: SendWorkRequest): number {
    return this.core.postSend(wr);
  }

  /**
   * Posts a receive (ibv_post_recv(3)); allowed from INIT on. Receives of UD need 40 bytes more
   * than the datagram, for the GRH.
   * @throws FarpageError ENOMEM, EINVAL as `postSend`.
   */
  postRecv(wr: RecvWorkRequest): void {
    this.assertOpen();
    const errno = this.core.postRecv(wr);
    if (errno === 0) return;
    if (this.srq !== null) {
      throw new FarpageError(
        "EINVAL",
        `${this.name()} receives through ${this.srq.name()}; post the receive there`,
      );
    }
    if (this.stateName === "RESET") {
      throw new FarpageError("EINVAL", `${this.name()} is in RESET, and receives need INIT`);
    }
    throwPostRecv(this, errno, wr, this.maxRecvSge, this.maxRecvWr);
  }

  /** `postRecv` for hot paths: returns 0, EINVAL or ENOMEM instead of throwing. */
  tryPostRecv(wr: RecvWorkRequest): number {
    return this.core.postRecv(wr);
  }

  /**
   * Ends it: nothing of it completes any more, and completions that wait are gone
   * (ibv_destroy_qp(3)). No-op when destroyed already.
   */
  destroy(): void {
    this.closeHandle();
  }

  protected override release(): void {
    this.context.device.destroyQp(this.core);
    this.core.userContext = null;
  }
}
