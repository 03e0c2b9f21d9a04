// SPDX-License-Identifier: MIT
export { openBlockFile } from "./block-file.js";
export { monotonicNs } from "./clock.js";
export { type OsCopyTree, openCopyTree } from "./copy-tree.js";
export { createCrc32 } from "./crc32.js";
export type {
  Backend,
  BackendChoice,
  BlockFileOptions,
  LaneSocketOptions,
  LaneSockets,
  LinkCounters,
  LinkOptions,
  MemorySourceOptions,
  OsBlockFile,
  OsLink,
  OsMemorySource,
  OsStream,
  PolledDescriptor,
  Poller,
  ReadySource,
  StreamAddress,
  StreamListener,
  StreamOptions,
  SystemPages,
} from "./door.js";
export { type NamedSource, READ_LIMITS, type ReadLimits, readNamedSource } from "./folder.js";
export { BellRinger, freeLaneBox, type LaneBox, makeLaneBox } from "./lane-box.js";
export { LaneLink, type LaneLinkOptions } from "./lane-link.js";
export { bindLaneSockets, openLink } from "./link.js";
export { makeFolder } from "./make-folder.js";
export { openMemorySource } from "./memory-source.js";
export { foreignCallsUnavailable } from "./native.js";
export { adoptStream } from "./native-stream.js";
export { makeMemoryFile } from "./open-file.js";
export { readPciIds } from "./pci-ids-file.js";
export { type PciSysfs, type PciSysfsOptions, readPciSysfs } from "./pci-sysfs.js";
export { openPoller } from "./poller.js";
export { readMemoryFiles } from "./proc-memory.js";
export { SystemRandom } from "./random.js";
export { localAddressTowards } from "./route.js";
export { connectStream, listenStream } from "./stream.js";
export type { BoundSocket } from "./udp-socket.js";
