// SPDX-License-Identifier: MIT
// What happens to a device's objects without a work request being to blame
// (ibv_get_async_event(3)).

import type { CqCore } from "./completion-queue.js";
import type { QpCore } from "./queue-pair.js";
import type { SrqCore } from "./receive-queue.js";

/** Kinds of events, in the vocabulary of ibv_event_type. */
export const DEVICE_EVENT = {
  /** A completion queue overflowed; its queue pairs go to ERR. */
  CQ_ERR: 1,
  /** The queue pair went to ERR by itself, on the responder's account. */
  QP_FATAL: 2,
  /** The peer's request was malformed or not allowed (NAK 0x61); also in ERR. */
  QP_REQ_ERR: 3,
  /** The peer's request broke a key's rules (NAK 0x62); also in ERR. */
  QP_ACCESS_ERR: 4,
  /** First packet on a queue pair that is not in RTS yet: stands for the RTU. */
  COMM_EST: 5,
  /** Everything that had been started when the queue pair went to SQD has completed. */
  SQ_DRAINED: 6,
  /** In ERR with a shared receive queue: no receive will complete any more. */
  QP_LAST_WQE_REACHED: 7,
  /** A shared receive queue fell below its limit. */
  SRQ_LIMIT_REACHED: 8,
} as const;
export type DeviceEventType = (typeof DEVICE_EVENT)[keyof typeof DEVICE_EVENT];

/** One event; `Device.pollEvent` fills an object that the caller keeps. */
export class DeviceEvent {
  type: DeviceEventType = DEVICE_EVENT.QP_FATAL;
  /** The one object that it happened to; the others are null. */
  qp: QpCore | null = null;
  cq: CqCore | null = null;
  srq: SrqCore | null = null;
}
