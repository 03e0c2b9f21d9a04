// SPDX-License-Identifier: MIT
export {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockDevice,
  type BlockExtent,
  type BlockLimits,
  type BlockOperation,
  BlockRequest,
  type BlockRequestOwner,
} from "./block-device.js";
export {
  type BlockFile,
  FILE_OPERATION,
  FileIo,
  type FileIoOwner,
  type FileOperation,
} from "./block-file.js";
export { checkBlockRequest, isChange } from "./check-request.js";
export { FileDevice, type FileDeviceOptions } from "./file-device.js";
export { MemoryDevice, type MemoryDeviceOptions } from "./memory-device.js";
export { RequestLedger, RequestList } from "./request-list.js";
