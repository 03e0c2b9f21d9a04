// SPDX-License-Identifier: MIT

/**
 * A range of a host's memory that devices can be given access to.
 *
 * `bytes` and `view` show the same bytes and stay valid until the memory is freed. `address` is the
 * local virtual address of `bytes[0]`, below 2^48: the mapping's native address where `os/` maps
 * it, a synthetic one in the simulator. Ranges of one host never overlap.
 */
export interface Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: number;
  readonly length: number;
  /**
   * Of memory that has frames behind it: a device has been given `length` bytes from `offset` on.
   * What lies there stays where it is, and alive if the memory is freed, until `unpin` of the same
   * range. Absent where nothing ever moves.
   */
  pin?(offset: number, length: number): void;
  /** The device has let go. */
  unpin?(offset: number, length: number): void;
}

/** Where a host's memory comes from; implemented by `os/` (mapped) and by `HeapMemorySource`. */
export interface MemorySource {
  /**
   * Maps `length` bytes of zeroes, page aligned.
   * @param use what they are for, for people: `"RTRS chunks"`.
   * @throws FarpageError ENOMEM when the system or the configured limit has no more.
   */
  allocate(length: number, use?: string): Memory;
  /** Gives the memory back. Nobody may touch `bytes` afterwards. */
  free(memory: Memory): void;
}

/** What `RegionPages.fault` answers. */
export const PAGE_FAULT = {
  /** The fault is queued (or was already); the waker hears of it. */
  QUEUED: 0,
  /** No access of that kind can ever succeed there, as far as is known now. */
  REFUSED: 1,
} as const;
export type PageFault = (typeof PAGE_FAULT)[keyof typeof PAGE_FAULT];

/** Advice about pages that will be needed, as ibv_advise_mr(3). */
export const ADVICE = {
  /** Bring them in, to be read. */
  PREFETCH: 0,
  /** Bring them in, to be written. */
  PREFETCH_WRITE: 1,
  /** Enter those that are in memory anyhow; fault for none. */
  PREFETCH_NO_FAULT: 2,
} as const;
export type Advice = (typeof ADVICE)[keyof typeof ADVICE];

/** Told by `RegionPages` when it is worthwhile to look again. */
export interface PageWaker {
  /** Faults were served or have failed. Called from a machine's pump, not from the packet path. */
  pagesServed(): void;
}

/**
 * The pages behind a memory region: its page table. Page p holds the region's local addresses from
 * `address + p * pageBytes` on. The packet path asks `locate` for every page and every access, and
 * keeps nothing that it says beyond the copy: whoever takes a page away (a notifier's invalidation)
 * can be sure on return that no packet touches it any more.
 */
export interface RegionPages {
  /** A power of two, 4096 or more: the largest page that all of the memory allows. */
  readonly pageBytes: number;
  readonly pageCount: number;
  /** Local virtual address of page 0, a multiple of `pageBytes`. */
  readonly address: number;
  /** Pages may be absent: filled by faults, emptied by notifiers. */
  readonly isOnDemand: boolean;
  /**
   * Finds a page. Allocates nothing.
   * @param isWrite whether the access writes: a page that may only be read is then absent.
   * @returns whether it is there; `bytes`, `view` and `offset` then say where, until the next call.
   */
  locate(page: number, isWrite: boolean): boolean;
  /** Of the page located last: it begins at `bytes[offset]`. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly offset: number;
  /** Bytes from `offset` on that are one range: one page, or several of a larger entry. */
  readonly span: number;
  /**
   * Asks for `count` pages from `page` on, the first of which is absent for the access: queues the
   * fault and returns at once. Those behind the first are advice.
   */
  fault(page: number, count: number, isWrite: boolean): PageFault;
  /**
   * Brings a page in at once, as a touch by the process's own CPU does; not for the packet path.
   * @returns whether it is there now.
   */
  touch(page: number, isWrite: boolean): boolean;
  /** A device begins, or ceases, to use these pages. */
  attach(waker: PageWaker): void;
  detach(waker: PageWaker): void;
}

/** Pages that registration has taken for one region, and that it gives back. */
export interface RegisteredPages extends RegionPages {
  /**
   * Where all of it is one contiguous range: that memory (with `address` as its local address), so
   * that it costs one entry. null where it is not, or on demand.
   */
  readonly contiguous: Memory | null;
  /** Unpins, or stops following the mapping. What peers may have written is dirty. Once. */
  release(): void;
  /**
   * Takes advice about `count` pages from `page` on; those that can't be had are left out.
   * @param flush at once, not in a later turn.
   * @returns with `flush` whether all of them are there.
   */
  advise(page: number, count: number, advice: Advice, flush: boolean): boolean;
}

/** A process's memory as registration sees it (ibv_reg_mr(3) names addresses of the caller). */
export interface RegionSpace {
  /**
   * Takes the pages of `length` bytes at `address`.
   * @param isWrite whether the region lets anybody write.
   * @param onDemand filled by faults as packets come, else pinned now and for as long as it lives.
   * @throws FarpageError with the errno and a reason that a person can act on: EFAULT for addresses
   *   that are not mapped, EACCES for writes to what may only be read, ENOMEM for the limit of
   *   pinned memory or when there is none, and others of the memory manager's.
   */
  registerPages(
    address: number,
    length: number,
    isWrite: boolean,
    onDemand: boolean,
  ): RegisteredPages;
  /** The whole address space, on demand (implicit ODP): nothing is looked up before it is used. */
  registerAll(isWrite: boolean): RegisteredPages;
}

const PAGE_BYTES = 4096;

/** Ordinary garbage-collected buffers with made-up addresses: for simulation and as a fallback. */
export class HeapMemorySource implements MemorySource {
  private nextAddress: number;

  /** @param firstAddress page-aligned address of the first allocation, below 2^48. */
  constructor(firstAddress = 0x10_0000_0000) {
    this.nextAddress = firstAddress;
  }

  allocate(length: number): Memory {
    const buffer = new ArrayBuffer(length);
    const address = this.nextAddress;
    // One unmapped guard page between ranges, so that an overrun hits no neighbour.
    this.nextAddress += (Math.ceil(length / PAGE_BYTES) + 1) * PAGE_BYTES;
    return { bytes: new Uint8Array(buffer), view: new DataView(buffer), address, length };
  }

  free(_memory: Memory): void {
    // The garbage collector's work.
  }
}
