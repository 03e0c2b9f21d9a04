// SPDX-License-Identifier: MIT
// What a queue pair is asked to be when it is made, and what of that can be.

import { FarpageError } from "../base/index.js";
import type { CqCore } from "./completion-queue.js";
import { QP_TYPE, type QpType } from "./qp-state.js";
import type { SrqCore } from "./receive-queue.js";
import { SGE_COUNT_MAX } from "./work-request.js";

/** Most bytes of an INLINE send. */
export const INLINE_BYTES_MAX = 4096;

/** What a queue pair is made of; fixed for its life. */
export interface QpInit {
  readonly type: QpType;
  readonly pdIndex: number;
  readonly sendCq: CqCore;
  readonly recvCq: CqCore;
  readonly srq?: SrqCore | null;
  /** Requests that fit into each queue at once, 0 .. `DeviceOptions.wrCountMax`. */
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

/**
 * Checks what a queue pair is to be made of.
 * @param wrCountMax requests that a queue of this device holds at most.
 * @param portCount ports of the device.
 * @throws FarpageError EINVAL for a bound out of range, and for objects that are gone or don't fit.
 */
export function checkQpInit(init: QpInit, wrCountMax: number, portCount: number): void {
  const refuse = (why: string): never => {
    throw new FarpageError("EINVAL", why);
  };
  const isBetween = (value: number, max: number): boolean =>
    Number.isInteger(value) && value >= 0 && value <= max;
  if (init.type !== QP_TYPE.RC && init.type !== QP_TYPE.UD && init.type !== QP_TYPE.GSI) {
    refuse("a queue pair is RC, UD or GSI");
  }
  if (!isBetween(init.maxSendWr, wrCountMax) || !isBetween(init.maxRecvWr, wrCountMax)) {
    refuse(`a queue holds at most ${wrCountMax} requests`);
  }
  const sges = Math.max(init.maxSendSge ?? 1, init.maxRecvSge ?? 1);
  if (!isBetween(sges, SGE_COUNT_MAX)) refuse(`a request has at most ${SGE_COUNT_MAX} entries`);
  if (!isBetween(init.maxInlineData ?? 0, INLINE_BYTES_MAX)) {
    refuse(`inline data is at most ${INLINE_BYTES_MAX} bytes`);
  }
  if (init.sendCq.isDestroyed || init.recvCq.isDestroyed) refuse("the completion queue is gone");
  const srq = init.srq ?? null;
  if (srq !== null && (srq.isDestroyed || srq.pdIndex !== init.pdIndex)) {
    refuse("the shared receive queue is gone or of another protection domain");
  }
  if (init.type !== QP_TYPE.GSI) return;
  const port = init.port ?? -1;
  if (!isBetween(port, portCount - 1)) refuse("a GSI needs a port of the device");
}
