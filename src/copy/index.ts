// SPDX-License-Identifier: MIT

export { CopyAsker } from "./asker.js";
export {
  decodeExtra,
  type ExtendedAttribute,
  encodeExtra,
  isCopiedAttribute,
  NO_EXTRA,
} from "./attributes.js";
export { readByteText, showByteText, writeByteText } from "./byte-text.js";
export { COPY_TOKEN_BYTES, COPY_USER_BYTES_MAX } from "./messages.js";
export {
  askedFor,
  COPY_PART_PREFIX,
  checkCopyPath,
  folderOf,
  joinCopyPath,
  nameOf,
} from "./path.js";
export {
  type CopyEnd,
  type CopyPull,
  CopySink,
  type CopySinkHost,
  type CopySinkOptions,
  type CopyTell,
} from "./sink.js";
export type { CopySinkCounters } from "./sink-file.js";
export { CopySource, type CopySourceOptions, type CopySourceState } from "./source.js";
export {
  COPY_SESSION,
  type CopyProblem,
  type CopyProgress,
  type CopySession,
} from "./source-link.js";
export {
  type CopyAttributes,
  type CopyFile,
  CopyIo,
  type CopyIoOwner,
  type CopyKind,
  CopyStat,
  type CopyTree,
} from "./tree.js";
export type { CopyOperand } from "./walk.js";
