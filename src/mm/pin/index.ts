// SPDX-License-Identifier: MIT
// What the walk over pages can be told (`intent.ts`, `page-taker.ts`) is not for others.

export { CpuBorrow, Hold, LongTermPin, RemoteBorrow, ShortDmaPin, type Written } from "./holds.js";
export type {
  DmaDevice,
  FileLease,
  PathVerdict,
  PeerMemory,
  PeerPaths,
  RemoteCaller,
} from "./interfaces.js";
export type {
  CpuCopyOptions,
  LongTermOptions,
  LongTermPeerOptions,
  PinPurpose,
  RegionOptions,
  RemoteOptions,
  ShortDmaOptions,
} from "./options.js";
export { PinError, type PinErrorCode, type PinReason } from "./pin-error.js";
export { Pinner } from "./pinner.js";
export type { PinReport, ProcessPins } from "./report.js";
