// SPDX-License-Identifier: MIT

export { DemandPages } from "./demand-pages.js";
export {
  type DemandNotifier,
  type DemandSpace,
  FAULT_RETRY,
  FAULT_SHORT,
  FAULT_WRONG,
} from "./demand-space.js";
export { FaultQueue, type FaultQueueCounters, type FaultQueueOptions } from "./fault-queue.js";
export { type FrameRun, PinnedPages, type PinnedRuns, type Revocation } from "./pinned-pages.js";
export { type DeviceFrames, type MappedSpace, ProcessDemand } from "./process-demand.js";
export { ProcessRegions, type RegionPinner } from "./process-regions.js";
