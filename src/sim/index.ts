// SPDX-License-Identifier: MIT
export { type LinkTap, TapLink } from "../trace/index.js";
export { happens } from "./chance.js";
export { EventHeap } from "./event-heap.js";
export { FaultLink, type FaultLinkOptions } from "./fault-link.js";
export { type FileInterceptor, InterceptedFile } from "./intercepted-file.js";
export { SimClock } from "./sim-clock.js";
export {
  type DiskFaults,
  SimDisk,
  type SimDiskOptions,
  SimPlatter,
  SOUND_DISK,
} from "./sim-disk.js";
export { SimLink, type SimLinkOptions } from "./sim-link.js";
export {
  type CorruptionFilter,
  type NetworkCounters,
  type PacketGate,
  type PacketObserver,
  type PathFaults,
  portName,
  QUIET_PATH,
  SimNetwork,
} from "./sim-network.js";
export {
  type PacketDevice,
  SimHost,
  type SimHostOptions,
  type SimWaker,
  SimWorld,
  type SimWorldOptions,
} from "./sim-world.js";
export { TraceHash } from "./trace-hash.js";
