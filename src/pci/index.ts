// SPDX-License-Identifier: MIT

export { formatAddress, parseAddress } from "./address.js";
export { CLASS_NAMES } from "./class-names.js";
export {
  type Fact,
  isKnown,
  type Tri,
  triAnd,
  triOr,
  UNKNOWN,
  type Unknown,
} from "./fact.js";
export { type PciId, PciIds } from "./ids.js";
export { bytesPerSecond } from "./links.js";
export { p2pPath, p2pVerdicts } from "./path.js";
export { type PeerVerdict, TopologyPaths } from "./peer-paths.js";
export { readTopology } from "./read.js";
export {
  NOTICES_MAX,
  type Notice,
  type NoticeCode,
  type ParseReport,
  type SourceKind,
} from "./report.js";
export { isNewerThanKnown, KERNEL_RELEASES, NEWEST_KERNEL, type PathErrorCode } from "./rules.js";
export {
  type FileSource,
  type FolderEntry,
  type FolderSource,
  type ReadErrorCode,
  type ReadOptions,
  SOURCE_BYTES_MAX,
  type Source,
} from "./source.js";
export * from "./topology.js";
export type * from "./verdict.js";
export * from "./view/index.js";
