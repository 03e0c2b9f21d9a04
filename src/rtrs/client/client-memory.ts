// SPDX-License-Identifier: MIT
// The memory that a client session works with: the user's, registered for as long as it likes, and
// the session's own message slots and receive buffers.

import { FarpageError, type Memory } from "../../base/index.js";
import { ACCESS, type MemoryRegion, type ProtectionDomain } from "../../verbs/index.js";

/** Memory that the user has registered with a session. */
export class RegisteredMemories {
  private readonly pd: ProtectionDomain;
  private readonly access: number;
  private readonly regions = new Map<Memory, MemoryRegion>();
  /** The last one looked up: nearly always the next one, too. */
  private lastMemory: Memory | null = null;
  private lastRegion: MemoryRegion | null = null;

  /** @param isRemoteWritable whether the server may write through the key of the whole memory. */
  constructor(pd: ProtectionDomain, isRemoteWritable: boolean) {
    this.pd = pd;
    this.access = ACCESS.LOCAL_WRITE | (isRemoteWritable ? ACCESS.REMOTE_WRITE : 0);
  }

  /** @throws FarpageError EEXIST when it is registered already, ENOMEM when the device is full. */
  add(memory: Memory): void {
    if (this.regions.has(memory)) {
      throw new FarpageError("EEXIST", "this memory is registered with the session already");
    }
    this.regions.set(memory, this.pd.registerMr(memory, { access: this.access }));
  }

  /** @throws FarpageError ENOENT when it is not registered. */
  remove(memory: Memory): void {
    const region = this.regions.get(memory);
    if (region === undefined) {
      throw new FarpageError("ENOENT", "this memory is not registered with the session");
    }
    this.regions.delete(memory);
    this.lastMemory = null;
    this.lastRegion = null;
    region.deregister();
  }

  /** The region of `memory`, or null. */
  regionOf(memory: Memory): MemoryRegion | null {
    if (memory === this.lastMemory) return this.lastRegion;
    const region = this.regions.get(memory) ?? null;
    this.lastMemory = memory;
    this.lastRegion = region;
    return region;
  }

  removeAll(): void {
    for (const region of this.regions.values()) region.deregister();
    this.regions.clear();
    this.lastMemory = null;
    this.lastRegion = null;
  }
}
