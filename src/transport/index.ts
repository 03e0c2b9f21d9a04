// SPDX-License-Identifier: MIT
export { CqCore, isReceiveOpcode } from "./completion-queue.js";
export {
  counterValues,
  DeviceCounters,
  DROP_REASON,
  DROP_REASON_NAMES,
  type DropReason,
  type DropReasonName,
  dropsByName,
  QpCounters,
  type QpCounterValues,
} from "./counters.js";
export { CQ_DEPTH_MAX, Device } from "./device.js";
export { DEVICE_EVENT, DeviceEvent, type DeviceEventType } from "./device-event.js";
export type { DeviceOptions } from "./device-options.js";
export {
  type Link,
  RxBurst,
  TX_MESSAGE_BYTES_MAX,
  TX_SEGMENTS_MAX,
  TxBatch,
  type TxFlow,
} from "./link.js";
export {
  checkTransition,
  type PathMtu,
  QP_STATE,
  QP_STATE_NAMES,
  QP_TYPE,
  type QpAttributeName,
  type QpAttributes,
  type QpState,
  type QpStateName,
  type QpType,
} from "./qp-state.js";
export { QpCore, type QpQuery } from "./queue-pair.js";
export { INLINE_BYTES_MAX, type QpInit } from "./queue-pair-init.js";
export { ReceiveQueue, SrqCore } from "./receive-queue.js";
export { RegionTable } from "./regions.js";
export { ViewCache } from "./view-cache.js";
export {
  ACCESS,
  type Destination,
  RecvWorkRequest,
  type ScatterGatherEntry,
  SEND_FLAG,
  SendWorkRequest,
  SGE_COUNT_MAX,
  WC_FLAG,
  WC_OPCODE,
  WC_STATUS,
  type WcOpcode,
  type WcStatus,
  WorkCompletion,
  WR_OPCODE,
  type WrOpcode,
} from "./work-request.js";
