// SPDX-License-Identifier: MIT
// The numbers of address spaces. Read first: mmap(2), mremap(2), mprotect(2), and Linux
// `Documentation/mm/process_addrs.rst` for the words.

export const PROT = { NONE: 0, READ: 1, WRITE: 2 } as const;

/** What an access does; a write may also read. */
export const ACCESS = { READ: 1, WRITE: 2 } as const;
export type Access = (typeof ACCESS)[keyof typeof ACCESS];

/** What a fault has come to. */
export const FAULT = {
  /** The page is there and allows the access. */
  READY: 0,
  /** Nothing is mapped there (EFAULT). */
  NOT_MAPPED: 1,
  /** Mapped, but not to be touched at all (EACCES). */
  NO_ACCESS: 2,
  /** Mapped, but not to be written (EACCES). */
  READ_ONLY: 3,
  /** Behind the end of the file that is mapped there (Linux: SIGBUS). */
  PAST_END: 4,
  /** The file's store could not read it. */
  IO_ERROR: 5,
  /** Everything was tried and there is no memory. */
  NO_MEMORY: 6,
  /** Not now: a change of mappings or a writeback of a stable page is under way. Try again. */
  BUSY: 7,
  /** The page is in a device's memory, which the CPU can't touch. */
  DEVICE: 8,
} as const;
export type FaultResult = (typeof FAULT)[keyof typeof FAULT];

/** Why pages are taken away from whoever keeps page tables of their own. */
export const INVALIDATE = {
  UNMAP: 0,
  PROTECT: 1,
  /** A page that was shared becomes one process's own, at another place. */
  COW: 2,
  /** Private pages become shared with a child: no longer writable. */
  FORK: 3,
  REMAP: 4,
  TRUNCATE: 5,
  RECLAIM: 6,
  /** A file's page becomes clean: the next write has to say so. */
  WRITEBACK: 7,
  /** To another frame: compaction, a long-term pin, a device's memory. */
  MOVE: 8,
  EXIT: 9,
} as const;
export type InvalidateReason = (typeof INVALIDATE)[keyof typeof INVALIDATE];

/** Bits of a page table entry. */
export const PAGE = {
  /** The entry holds a frame, and a reference on it. */
  HELD: 1,
  WRITABLE: 2,
  DIRTY: 4,
  ACCESSED: 8,
  /** No other page table has this anonymous page: it may be written, and pinned, where it is. */
  EXCLUSIVE: 16,
  /** The frame is being moved. */
  MOVING: 32,
  /** The frame is in a device's memory, which the CPU can't touch. */
  PRIVATE: 64,
  /** The mapping allows no access. */
  HIDDEN: 128,
} as const;
/** Bits that keep an entry's frame from being reached. */
export const PAGE_BARRED = PAGE.MOVING | PAGE.PRIVATE | PAGE.HIDDEN;

export const PAGE_BYTES = 4096;
/** Pages of a leaf of a page table, and of a block of the size that it covers: 2 MiB. */
export const LEAF_PAGES = 512;
/** Order of that block. */
export const LEAF_ORDER = 9;

/** As Linux' vm.mmap_min_addr: nothing is mapped where null pointers point. */
export const ADDRESS_MIN = 0x1_0000;
/** End of a process's addresses: the lower half of 48 bits. */
export const ADDRESS_END = 2 ** 47;
/** A mapping has fewer pages than this (8 TiB), so that indexes compare in 32 bits. */
export const MAPPING_PAGES_MAX = 2 ** 31 - 1;
/** As Linux' vm.max_map_count. */
export const MAPPING_COUNT_MAX = 65_530;
