// SPDX-License-Identifier: MIT
export { EventHeap } from "./event-heap.js";
export { SimClock } from "./sim-clock.js";
export { SimLink, type SimLinkOptions } from "./sim-link.js";
export {
  type CorruptionFilter,
  happens,
  type NetworkCounters,
  type PacketObserver,
  type PathFaults,
  QUIET_PATH,
  SimNetwork,
} from "./sim-network.js";
export { TraceHash } from "./trace-hash.js";
