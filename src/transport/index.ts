// SPDX-License-Identifier: MIT
export {
  type Link,
  RxBurst,
  TX_MESSAGE_BYTES_MAX,
  TX_SEGMENTS_MAX,
  TxBatch,
  type TxFlow,
} from "./link.js";
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
