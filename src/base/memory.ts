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
}

/** Where a host's memory comes from; implemented by `os/` (mapped) and by `HeapMemorySource`. */
export interface MemorySource {
  /**
   * Maps `length` bytes of zeroes, page aligned.
   * @throws FarpageError ENOMEM when the system or the configured limit has no more.
   */
  allocate(length: number): Memory;
  /** Gives the memory back. Nobody may touch `bytes` afterwards. */
  free(memory: Memory): void;
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
