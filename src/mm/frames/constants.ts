// SPDX-License-Identifier: MIT
// The numbers of the memory room. Read first: Linux `include/linux/mmzone.h` for the field's words.

/** Bytes of a frame: the smallest piece of physical memory. */
export const FRAME_BYTES = 4096;
export const FRAME_SHIFT = 12;

/**
 * Number of a frame in the one flat physical space of a host: 0 .. 2^32 - 1. Memory of every kind
 * has frame numbers, also memory that the CPU can't reach.
 */
export type Pfn = number;
export const NO_FRAME = -1;

/** A block of order n is 2^n frames, aligned to its size. The largest is 1 GiB. */
export const ORDER_MAX = 18;
/** Order of a page block, 2 MiB: the unit in which memory is set apart by mobility. */
export const PAGE_BLOCK_ORDER = 9;
export const PAGE_BLOCK_FRAMES = 512;

export const ZONE = {
  /** Memory that the CPU and every device reach. */
  NORMAL: 0,
  /** A volume pool's mapping: bytes that are the medium. */
  PMEM: 1,
  /** A PCI BAR that other devices may reach. */
  P2P: 2,
  /** Device memory that the CPU can't touch. */
  PRIVATE: 3,
} as const;
export type ZoneKind = (typeof ZONE)[keyof typeof ZONE];

/** What a record of the frame table is. */
export const FRAME_STATE = {
  ABSENT: 0,
  /** First frame of a free block of 2^order. */
  FREE: 1,
  /** A later frame of a free block. */
  FREE_TAIL: 2,
  /** First frame of an allocated block of 2^order: counts, flags and owner are here. */
  USED: 3,
  /** A later frame of an allocated block. */
  TAIL: 4,
  /** On its way: of a block whose contents move, or taken off the free lists for a while. */
  ISOLATED: 5,
} as const;
export type FrameState = (typeof FRAME_STATE)[keyof typeof FRAME_STATE];

export const FRAME_FLAG = {
  DIRTY: 1,
  WRITEBACK: 2,
  ACTIVE: 4,
  ANON: 8,
  FILE: 16,
  SLAB: 32,
  KERNEL: 64,
  /** Somebody waits for the end of a writeback, to write a stable page. */
  STABLE_WAIT: 128,
  REFERENCED: 256,
  UP_TO_DATE: 512,
  /** Not to be reclaimed: locked by its process, or pinned for long. */
  UNEVICTABLE: 1024,
  LOCKED: 2048,
} as const;

/** Bits of the flags that belong to the allocator, the others to whoever uses the frame. */
export const USER_FLAGS = 0x0fff;
/** The mobility that the block was asked for with, two bits. */
export const MOBILITY_SHIFT = 12;
export const MOBILITY_MASK = 0x3000;
/** A free frame's bytes may be other than zero: somebody had it before. */
export const SOILED = 0x8000;

/** Whether a block can be moved or emptied later; what a page block holds. */
export const MIGRATE = { UNMOVABLE: 0, MOVABLE: 1, RECLAIMABLE: 2 } as const;
export type MigrateType = (typeof MIGRATE)[keyof typeof MIGRATE];

/** Types of page blocks: the three, and the reserve for requests of 2 MiB and more. */
export const BLOCK_TYPE = { ...MIGRATE, HUGE: 3 } as const;
export type BlockType = (typeof BLOCK_TYPE)[keyof typeof BLOCK_TYPE];
export const BLOCK_TYPE_COUNT = 4;
/** Names for people, by number. */
export const BLOCK_TYPE_NAMES = ["unmovable", "movable", "reclaimable", "huge"];

export const ALLOCATE = {
  /** All bytes are zero. */
  ZERO: 1,
  /** May go below the lowest watermark; nothing is reclaimed or moved for it. */
  ATOMIC: 2,
  /** Nothing is moved for it. */
  NO_COMPACT: 4,
  /** Nothing is reclaimed for it. */
  NO_RECLAIM: 8,
} as const;

export const MOVE_RESULT = {
  DONE: 0,
  /** Somebody outside the CPU's page tables reads or writes its bytes. */
  PINNED: 1,
  /** A reference that the owner can't account for, a writeback, or the owner said so. */
  BUSY: 2,
  NO_MEMORY: 3,
  /** No owner who could move it, or not a frame of a normal zone. */
  UNMOVABLE: 4,
} as const;
export type MoveResult = (typeof MOVE_RESULT)[keyof typeof MOVE_RESULT];

/** Smallest order of a block that holds `frameCount` frames. Preconditions: 1 .. 2^31 frames. */
export function orderFor(frameCount: number): number {
  return frameCount <= 1 ? 0 : 32 - Math.clz32(frameCount - 1);
}
