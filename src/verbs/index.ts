// SPDX-License-Identifier: MIT
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
} from "../transport/index.js";
export type {
  DeviceAttributes,
  PathMtu,
  PortAttributes,
  QpAttributes,
  QpState,
  QpType,
} from "./attributes.js";
export {
  AddressHandle,
  CompletionQueue,
  Context,
  type Device,
  MemoryRegion,
  ProtectionDomain,
  QueuePair,
  type QueuePairOptions,
  SharedReceiveQueue,
} from "./skeleton.js";
