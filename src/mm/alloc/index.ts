// SPDX-License-Identifier: MIT

export { BuddyAllocator } from "./buddy.js";
export { AllocatorCounters } from "./counters.js";
export { type AllocatorPolicy, DEFAULT_POLICY, UNDIVIDED_POLICY } from "./policy.js";
