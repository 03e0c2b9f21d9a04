// SPDX-License-Identifier: MIT
export { assert, unreachable } from "./assert.js";
export {
  CRC32_TABLES,
  type Crc32,
  updateCrc32,
  updateCrc32Byte,
  updateCrc32View,
} from "./crc32.js";
export { ERRNO, type ErrnoName, errnoName } from "./errno.js";
export { FarpageError } from "./errors.js";
export { IpAddress } from "./ip.js";
export { IpPrefix } from "./ip-prefix.js";
export type { Machine } from "./machine.js";
export {
  ADVICE,
  type Advice,
  HeapMemorySource,
  type Memory,
  type MemorySource,
  PAGE_FAULT,
  type PageFault,
  type PageWaker,
  type RegionPages,
  type RegionSpace,
  type RegisteredPages,
} from "./memory.js";
export { type Random, randomBelow, SeededRandom } from "./random.js";
export { IntRing, ObjectRing } from "./ring.js";
export { PSN_MASK, type Psn, psnAdd, psnDiff, u16Diff, u32Diff } from "./serial.js";
export { carryOf, highOf, joinHalves, lowOf, offsetFrom } from "./u64.js";
export { decodeUtf8, encodeUtf8 } from "./utf8.js";
