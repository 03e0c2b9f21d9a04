// SPDX-License-Identifier: MIT
// The memory that a host's processes share: frames out of one buffer of the host's arena, and what
// works on it by itself in the host's lane: faults that packets ask for, reclaim, compaction.

import type { Memory, RegionSpace } from "../base/index.js";
import {
  type AddressSpace,
  DeviceMemory,
  FaultQueue,
  MemoryBackground,
  MemoryManager,
  PhysicalMemory,
  Pinner,
  ProcessDemand,
  ProcessRegions,
  ZONE,
} from "../mm/index.js";
import type { Lane } from "./lane.js";

/** No place of this host's device is known, so there is no path to judge. */
const NO_PATHS = {
  pathBetween: () => ({ isAllowed: false, why: "nobody knows where the devices are" }),
};

export class ProcessMemory {
  readonly memory = new PhysicalMemory();
  readonly manager: MemoryManager;
  readonly pinner: Pinner;
  /** Faults of on-demand regions. */
  readonly faults = new FaultQueue();
  private readonly devices: DeviceMemory;
  private readonly background: MemoryBackground;
  private readonly lane: Lane;

  /** @param section all of the memory; whole frames, whose bytes are zeroes. */
  constructor(lane: Lane, section: Memory) {
    const { length: bytes } = section;
    this.memory.addZone({ kind: ZONE.NORMAL, name: "processes", bytes, sections: [section] });
    this.manager = new MemoryManager(this.memory);
    this.pinner = new Pinner(this.manager);
    this.devices = new DeviceMemory(this.manager, NO_PATHS, this.pinner);
    this.background = new MemoryBackground(this.memory);
    this.lane = lane;
    lane.add(this.faults);
    lane.add(this.background);
  }

  /** A process's addresses, as the host's device sees them. */
  regionsOf(space: AddressSpace): RegionSpace {
    const demand = new ProcessDemand(space, this.devices, null);
    const pinner = this.pinner.regionPinner(space);
    return new ProcessRegions(this.memory, demand, pinner, this.faults);
  }

  /** The machines get no more turns. Preconditions: all processes have ended. */
  close(): void {
    this.lane.remove(this.faults);
    this.lane.remove(this.background);
  }
}
