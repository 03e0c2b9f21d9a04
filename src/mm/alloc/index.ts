// SPDX-License-Identifier: MIT

export {
  ArenaMemory,
  ArenaMemorySource,
  type ArenaOptions,
  SECTION_BYTES,
  type SectionSource,
} from "./arena-memory-source.js";
export { MemoryBackground } from "./background.js";
export { BuddyAllocator } from "./buddy.js";
export { Compactor, unusableShare } from "./compactor.js";
export { ContiguousAllocator } from "./contiguous.js";
export { AllocatorCounters } from "./counters.js";
export { HugePool, type HugePoolOptions } from "./huge-pool.js";
export { type AllocatorPolicy, DEFAULT_POLICY, POLICIES, UNDIVIDED_POLICY } from "./policy.js";
export {
  NO_OBJECT,
  type ObjectAddress,
  type ObjectMover,
  SlabCache,
  type SlabCacheOptions,
} from "./slab.js";
