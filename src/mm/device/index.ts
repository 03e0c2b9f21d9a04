// SPDX-License-Identifier: MIT

export {
  AtomicError,
  type AtomicReason,
  compareSwap64,
  fetchAdd64,
  type Word64,
} from "./cpu-atomics.js";
export {
  type DeviceCounters,
  DeviceMemory,
  DMA_FAULT,
  type PathRefusal,
} from "./device-memory.js";
export { P2pFile, P2pMemory, type P2pOptions } from "./p2p-memory.js";
export {
  type MigrationResult,
  PrivateMemory,
  type PrivateOptions,
  type StayReason,
} from "./private-memory.js";
export {
  RANGE_REQUEST,
  RANGE_RESULT,
  RANGE_STATE,
  RangeFault,
  type RangeResult,
} from "./range-fault.js";
