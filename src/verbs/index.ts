// SPDX-License-Identifier: MIT
// `farpage/verbs`: RDMA in the vocabulary of libibverbs, synchronous and without promises.
export {
  ADVICE,
  type Advice,
  FarpageError,
  IpAddress,
  type Memory,
  type MemorySource,
  type RegionSpace,
  type RegisteredPages,
  SeededRandom,
} from "../base/index.js";
export {
  ACCESS,
  type Destination,
  Device,
  type DeviceOptions,
  type PathMtu,
  QP_STATE,
  QP_STATE_NAMES,
  type QpAttributeName,
  type QpAttributes,
  type QpCounterValues,
  type QpState,
  type QpStateName,
  RecvWorkRequest,
  type ScatterGatherEntry,
  SEND_FLAG,
  SendWorkRequest,
  SGE_COUNT_MAX,
  type TxFlow,
  WC_FLAG,
  WC_OPCODE,
  WC_STATUS,
  type WcOpcode,
  type WcStatus,
  WorkCompletion,
  WR_OPCODE,
  type WrOpcode,
} from "../transport/index.js";
export { decodeGrh, GRH_BYTES, type Grh } from "../wire/index.js";
export { AddressHandle, type AddressHandleOptions } from "./address-handle.js";
export type { AsyncEvent, AsyncEventType } from "./async-event.js";
export { CompletionQueue } from "./completion-queue.js";
export { Context, type ContextOptions } from "./context.js";
export type { DeviceAttributes, PortAttributes } from "./device-attributes.js";
export { type AddressRange, MemoryRegion, type RegisterOptions } from "./memory-region.js";
export { ProtectionDomain } from "./protection-domain.js";
export {
  type QpAttributeValues,
  QueuePair,
  type QueuePairOptions,
  type QueuePairType,
} from "./queue-pair.js";
export { SharedReceiveQueue, type SharedReceiveQueueOptions } from "./shared-receive-queue.js";
export { VerbsObject } from "./verbs-object.js";
