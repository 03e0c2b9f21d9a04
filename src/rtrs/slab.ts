// SPDX-License-Identifier: MIT
import type { Memory, MemorySource } from "../base/index.js";
import type { MemoryRegion, ProtectionDomain } from "../verbs/index.js";

/** Memory of an RTRS object's own, registered for its life. */
export class Slab {
  readonly memory: Memory;
  readonly region: MemoryRegion;
  private readonly source: MemorySource;

  /**
   * @param length bytes, zeroed.
   * @param access `ACCESS` bits.
   * @param use for people.
   * @throws FarpageError ENOMEM when there is no more memory, or no more regions.
   */
  constructor(
    source: MemorySource,
    pd: ProtectionDomain,
    length: number,
    access: number,
    use = "RTRS messages",
  ) {
    this.source = source;
    this.memory = source.allocate(length, use);
    try {
      this.region = pd.registerMr(this.memory, { access });
    } catch (error) {
      source.free(this.memory);
      throw error;
    }
  }

  /** Preconditions: no queue pair that knows of it is alive. */
  free(): void {
    this.region.deregister();
    this.source.free(this.memory);
  }
}
