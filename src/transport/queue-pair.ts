// SPDX-License-Identifier: MIT
// A queue pair of the device: its attributes and state, and the door through which work is posted.

import type { CqCore } from "./completion-queue.js";
import type { Device } from "./device.js";
import { QP_STATE, type QpAttributes, type QpState, type QpType } from "./qp-state.js";
import type { SrqCore } from "./receive-queue.js";
import type { RecvWorkRequest, SendWorkRequest } from "./work-request.js";

/** What a queue pair is made of; fixed for its life. */
export interface QpInit {
  readonly type: QpType;
  readonly pdIndex: number;
  readonly sendCq: CqCore;
  readonly recvCq: CqCore;
  readonly srq?: SrqCore | null;
  /** Requests that fit into each queue at once, 0 .. `DeviceLimits.wrCountMax`. */
  readonly maxSendWr: number;
  readonly maxRecvWr: number;
  /** 0 .. SGE_COUNT_MAX; 1 if absent. */
  readonly maxSendSge?: number;
  readonly maxRecvSge?: number;
  /** Bytes that an INLINE send may carry; 0 if absent. */
  readonly maxInlineData?: number;
  /** Every send completes as if SIGNALED. */
  readonly signalAll?: boolean;
  /** GSI only: the port whose queue pair 1 it is. */
  readonly port?: number;
}

export class QpCore {
  readonly device: Device;
  readonly qpn: number;
  readonly type: QpType;
  readonly pdIndex: number;
  readonly sendCq: CqCore;
  readonly recvCq: CqCore;
  readonly srq: SrqCore | null;
  state: QpState = QP_STATE.RESET;
  /** RC: a valid packet of the peer has come since RTR; stands for the RTU (IBTA vol1 §12.9.6). */
  hasHeardPeer = false;
  /** The owner's: whatever leads from here to its own object. The device never looks. */
  userContext: unknown = null;

  constructor(device: Device, qpn: number, init: QpInit) {
    this.device = device;
    this.qpn = qpn;
    this.type = init.type;
    this.pdIndex = init.pdIndex;
    this.sendCq = init.sendCq;
    this.recvCq = init.recvCq;
    this.srq = init.srq ?? null;
  }

  /** Every attribute as it is now (unset ones at their defaults). */
  query(): Required<Omit<QpAttributes, "addressVector" | "currentState" | "sqdNotify">> & {
    addressVector: QpAttributes["addressVector"] | null;
  } {
    throw new Error("not yet");
  }

  /**
   * Changes state or attributes (ibv_modify_qp(3)).
   * @throws FarpageError EINVAL naming both states and every attribute missing, superfluous or wrong.
   */
  modify(_attributes: QpAttributes): void {}

  /** @returns 0, EINVAL (invalid request or state), ENOMEM (send queue full). */
  postSend(_wr: SendWorkRequest): number {
    return 22;
  }

  /** @returns 0, EINVAL (invalid request or state, or this queue pair uses an SRQ), ENOMEM. */
  postRecv(_wr: RecvWorkRequest): number {
    return 22;
  }

  /** Requests in the queues: posted and not retired. */
  get sendCount(): number {
    return 0;
  }

  get recvCount(): number {
    return 0;
  }

  checkInvariants(): void {}
}
