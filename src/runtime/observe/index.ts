// SPDX-License-Identifier: MIT
export { ControlClient, helloOf, type Instance, listInstances } from "./control-client.js";
export {
  MEMORY_STATISTICS,
  type MemoryStatistics,
  memoryStatisticsOf,
} from "./memory-statistics.js";
export {
  type LaneTraces,
  type ObserveOptions,
  Observer,
  type OtherLanes,
  observed,
} from "./observer.js";
export type { SessionControlRequest, TraceControlRequest } from "./protocol.js";
export { makeRuntimeFolder, runtimeFolder } from "./runtime-folder.js";
export { type HostStatistics, STATISTICS, statisticsOf } from "./statistics.js";
export { receiveTrace, type TraceResult } from "./trace-client.js";
export { openTraceFile } from "./trace-file.js";
export type { TraceSession, TraceSink } from "./trace-session.js";
export { TracedLink } from "./traced-link.js";
