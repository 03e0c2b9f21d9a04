// SPDX-License-Identifier: MIT

import { FarpageError, type RegionSpace, type RegisteredPages } from "../../base/index.js";
import type { PhysicalMemory } from "../frames/index.js";
import { DemandPages } from "./demand-pages.js";
import type { DemandSpace } from "./demand-space.js";
import type { FaultQueue } from "./fault-queue.js";
import { PinnedPages, type PinnedRuns } from "./pinned-pages.js";

/** Addresses that a process can have. */
const ADDRESS_SPACE_BYTES = 2 ** 48;

/** Pins a process's pages for as long as a device has them. */
export interface RegionPinner {
  /** @throws FarpageError (a `PinError`) with the reason. Nothing stays pinned then. */
  pinForRegion(address: number, length: number, isWrite: boolean): PinnedRuns;
}

/** One process's memory as `pd.registerMr` sees it: whatever is mapped, in one way. */
export class ProcessRegions implements RegionSpace {
  private readonly memory: PhysicalMemory;
  private readonly space: DemandSpace;
  private readonly pinner: RegionPinner;
  private readonly queue: FaultQueue;

  /** @param queue serves on-demand faults; to be pumped with the devices of the host. */
  constructor(memory: PhysicalMemory, space: DemandSpace, pinner: RegionPinner, queue: FaultQueue) {
    this.memory = memory;
    this.space = space;
    this.pinner = pinner;
    this.queue = queue;
  }

  registerPages(
    address: number,
    length: number,
    isWrite: boolean,
    onDemand: boolean,
  ): RegisteredPages {
    const isRange = Number.isSafeInteger(address) && Number.isSafeInteger(length);
    if (!isRange || address < 0 || length <= 0 || address + length > ADDRESS_SPACE_BYTES) {
      throw new FarpageError("EINVAL", "a memory region must lie inside the address space");
    }
    const { memory, queue, space } = this;
    // As Linux: what an on-demand region is mapped to is nobody's business before it is used.
    if (onDemand) return new DemandPages(queue, space, memory, address, length, isWrite);
    const pinned = this.pinner.pinForRegion(address, length, isWrite);
    return new PinnedPages(pinned, memory, address, length, isWrite);
  }

  registerAll(isWrite: boolean): RegisteredPages {
    const { memory, queue, space } = this;
    return new DemandPages(queue, space, memory, 0, ADDRESS_SPACE_BYTES, isWrite);
  }
}
