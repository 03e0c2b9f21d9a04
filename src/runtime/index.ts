// SPDX-License-Identifier: MIT
export { FarpageError, IpAddress, type Memory } from "../base/index.js";
export { localAddressTowards, makeFolder } from "../os/index.js";
export {
  type AccessRule,
  parseAccessFile,
  parseAccessRule,
  RTRS_PATH_POLICIES,
  type RtrsPathPolicy,
} from "../rtrs/index.js";
export { type AttachedVolume, AttachHost, type AttachHostOptions } from "./attach-host.js";
export {
  BENCH_TEST,
  type BenchResult,
  type BenchRun,
  type BenchTest,
  runBenchTest,
  startBenchResponder,
} from "./bench/index.js";
export type { CmChannel, CmChannelUser } from "./cm-channel.js";
export {
  Connection,
  connectError,
  type LocalRange,
  type QueueSizes,
  type ReceivedMessage,
  type RemotePlace,
} from "./connection.js";
export { type CopyClientOptions, type CopyStatus, runCopyClient } from "./copy/index.js";
export {
  ConnectionRequest,
  type ConnectOptions,
  Host,
  type HostOptions,
  Incoming,
  openHost,
} from "./host.js";
export type { Log } from "./log.js";
export { readMachineMemory } from "./machine-memory.js";
export {
  ControlClient,
  type HostStatistics,
  helloOf,
  type Instance,
  listInstances,
  MEMORY_STATISTICS,
  type MemoryStatistics,
  type ObserveOptions,
  openTraceFile,
  receiveTrace,
  type SessionControlRequest,
  STATISTICS,
  type TraceControlRequest,
  type TraceResult,
  type TraceSink,
} from "./observe/index.js";
export { type PciMachine, readPciMachine } from "./pci-machine.js";
export {
  Process,
  type ProcessMapOptions,
  type ProcessOptions,
  ProcessRange,
} from "./process.js";
export { type ExportedVolume, ServerHost, type ServerHostOptions } from "./server-host.js";
export {
  type PathSpec,
  type PathStatus,
  parsePath,
  SESSION_STATUS,
  type SessionStatus,
} from "./session/index.js";
export {
  formatSize,
  type NbdEndpointAddress,
  nbdUri,
  parseExport,
  parseNbdEndpoint,
  parseRnbdUri,
  parseRtrsUri,
  parseSize,
  parseVolume,
  type RnbdUri,
  type RtrsUri,
  type VolumeSpec,
} from "./uri.js";
