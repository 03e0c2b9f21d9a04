// SPDX-License-Identifier: MIT
// The rules of allocation that can be chosen, so that they can be compared (docs/memory.md).

/** How a host hands its memory out. */
export interface AllocatorPolicy {
  readonly name: string;
  /** Page blocks are set apart by mobility; else one undivided pool. */
  readonly groupByMobility: boolean;
  /** `"split-ends"`: blocks below 2 MiB from the bottom, others from the top. */
  readonly placement: "any" | "split-ends";
  /**
   * Frames kept for requests of 2 MiB and more, which then come from there first; -1: half of the
   * first normal zone.
   */
  readonly hugeReserveFrames: number;
  /** The smallest block that is handed out: 4 KiB, or 64 KiB with what is unused in it. */
  readonly baseShift: 12 | 16;
  /** Slab caches that know where their objects are referenced from may be moved. */
  readonly movableSlabs: boolean;
  /** A long-term pin first moves the frame to where the unmovable are. */
  readonly migrateBeforeLongTermPin: boolean;
  readonly compaction: "none" | "direct" | "background" | "both";
  /**
   * An unmovable request that finds no room among its like moves movable frames out of a block that
   * has unmovable ones already, before it takes a block that has none.
   */
  readonly evictBeforeSteal: boolean;
}

/** Keeps 2 MiB blocks available for as long as there is memory for them. */
export const DEFAULT_POLICY: AllocatorPolicy = {
  name: "grouped",
  groupByMobility: true,
  placement: "any",
  hugeReserveFrames: 0,
  baseShift: 12,
  movableSlabs: true,
  migrateBeforeLongTermPin: true,
  compaction: "both",
  evictBeforeSteal: true,
};

/** One pool for everything: what the others are measured against. */
export const UNDIVIDED_POLICY: AllocatorPolicy = {
  name: "undivided",
  groupByMobility: false,
  placement: "any",
  hugeReserveFrames: 0,
  baseShift: 12,
  movableSlabs: false,
  migrateBeforeLongTermPin: false,
  compaction: "none",
  evictBeforeSteal: false,
};

/** The policies that are compared. Each differs from the first or the last in one rule. */
export const POLICIES: readonly AllocatorPolicy[] = [
  UNDIVIDED_POLICY,
  { ...UNDIVIDED_POLICY, name: "split-ends", placement: "split-ends" },
  { ...UNDIVIDED_POLICY, name: "two-tier", hugeReserveFrames: -1 },
  { ...UNDIVIDED_POLICY, name: "64k-base", baseShift: 16 },
  { ...DEFAULT_POLICY, name: "grouped-fixed-slabs", movableSlabs: false },
  { ...DEFAULT_POLICY, name: "grouped-pins-anywhere", migrateBeforeLongTermPin: false },
  DEFAULT_POLICY,
];
