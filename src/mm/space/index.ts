// SPDX-License-Identifier: MIT

export { AddressSpace, type AddressSpaceOptions, type SpaceLimits } from "./address-space.js";
export { AnonGroup } from "./anon-group.js";
export {
  ACCESS,
  type Access,
  ADDRESS_END,
  ADDRESS_MIN,
  FAULT,
  type FaultResult,
  INVALIDATE,
  type InvalidateReason,
  PAGE,
  PAGE_BYTES,
  PROT,
} from "./constants.js";
export { faultError } from "./cpu-access.js";
export type { DeviceMapping } from "./device-mapping.js";
export { type FileStore, HeapFileStore } from "./file-store.js";
export { MappedFile, type MappedFileOptions } from "./mapped-file.js";
export type { MapOptions } from "./mapping.js";
export { MemoryManager, type PrivateFault, type SpaceCounters } from "./memory-manager.js";
export { NotifierList, type RangeNotifier } from "./notifiers.js";
export { Vma } from "./vma.js";
export type { Writeback } from "./writeback.js";
