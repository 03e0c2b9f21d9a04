// SPDX-License-Identifier: MIT
// Memory of a PCI BAR that other devices may reach. The CPU maps it uncached, from a device file
// and shared alone, as Linux' `p2pmem/allocate` in sysfs does.

import { assert, FarpageError, type Memory } from "../../base/index.js";
import {
  ALLOCATE,
  FRAME_BYTES,
  type GranuleShift,
  MIGRATE,
  NO_FRAME,
  orderFor,
  type Pfn,
  ZONE,
  type Zone,
} from "../frames/index.js";
import type { DmaDevice, Pinner } from "../pin/index.js";
import type { DeviceMapping, MemoryManager } from "../space/index.js";

export interface P2pOptions {
  /** Whose BAR it is. */
  readonly device: DmaDevice;
  /** For people. Default: the device's. */
  readonly name?: string;
  /** The BAR's bytes, a multiple of the granule. */
  readonly memory: Memory;
  /** Default: 2 MiB where the length allows it. */
  readonly granuleShift?: GranuleShift;
}

export class P2pMemory {
  readonly device: DmaDevice;
  readonly zone: Zone;
  /** First frames of what is handed out; each has one reference for that. */
  readonly held = new Set<Pfn>();
  private readonly manager: MemoryManager;
  private readonly pinner: Pinner | null;

  /** DeviceMemory only: `addP2p`. */
  constructor(manager: MemoryManager, pinner: Pinner | null, options: P2pOptions) {
    const { device, memory } = options;
    this.manager = manager;
    this.pinner = pinner;
    this.device = device;
    this.zone = manager.memory.addZone({
      kind: ZONE.P2P,
      name: options.name ?? `p2p of ${device.name}`,
      bytes: memory.length,
      sections: [memory],
      granuleShift: options.granuleShift ?? granuleOf(memory.length),
    });
  }

  /**
   * Some of it as a device file, that can be mapped and pinned.
   * @throws FarpageError ENOMEM when the BAR has no such piece left.
   */
  allocate(length: number): P2pFile {
    const count = Math.ceil(length / FRAME_BYTES);
    assert(count > 0, "device memory that is allocated has bytes");
    const { memory } = this.manager;
    // Nobody sees what the process before had in it.
    const order = orderFor(count);
    const pfn = memory.allocateIn(this.zone, order, MIGRATE.UNMOVABLE, ALLOCATE.ZERO);
    if (pfn === NO_FRAME) {
      const free = this.zone.freeFrames * FRAME_BYTES;
      const what = `${this.zone.name} has no ${length} bytes in one piece (${free} are free)`;
      throw new FarpageError("ENOMEM", `${what}: free some, or enlarge the BAR (resizable BAR)`);
    }
    this.held.add(pfn);
    return new P2pFile(this, this.manager, this.pinner, pfn, count);
  }

  /** Takes all of it out of the allocator, for who says himself what is where. */
  claimAll(): void {
    const { memory } = this.manager;
    for (let pfn = this.zone.basePfn; pfn < this.zone.endPfn; ) {
      let order = this.zone.buddy.orderMax + this.zone.granuleOrder;
      const offset = pfn - this.zone.basePfn;
      while (offset % 2 ** order !== 0 || pfn + 2 ** order > this.zone.endPfn) order--;
      const isClaimed = memory.claim(pfn, order, MIGRATE.UNMOVABLE);
      assert(isClaimed, "what is claimed at first is free");
      this.held.add(pfn);
      pfn += 2 ** order;
    }
  }
}

/** A piece of a BAR, to be mapped by processes (shared), until it is closed or revoked. */
export class P2pFile implements DeviceMapping {
  readonly name: string;
  /** A BAR is mapped uncached. */
  readonly cached = false;
  readonly pfn: Pfn;
  readonly pageCount: number;
  private readonly bar: P2pMemory;
  private readonly manager: MemoryManager;
  private readonly pinner: Pinner | null;
  private isLive = true;

  /** P2pMemory only: `allocate`. */
  constructor(
    bar: P2pMemory,
    manager: MemoryManager,
    pinner: Pinner | null,
    pfn: Pfn,
    pageCount: number,
  ) {
    this.bar = bar;
    this.manager = manager;
    this.pinner = pinner;
    this.name = bar.zone.name;
    this.pfn = pfn;
    this.pageCount = pageCount;
  }

  frameAt(index: number): Pfn {
    return this.isLive && index >= 0 && index < this.pageCount ? this.pfn + index : NO_FRAME;
  }

  /**
   * Takes it back (the device is reset, or goes): out of every process, from on-demand regions, and
   * from who has pinned it for long. Who has it in a transfer keeps it alive until that is over.
   */
  revoke(): void {
    assert(this.isLive, "device memory is taken back once");
    this.isLive = false;
    this.manager.unmapDevice(this, 0, this.pageCount);
    this.pinner?.revoke(this.pfn, this.pageCount);
    this.bar.held.delete(this.pfn);
    this.manager.memory.put(this.pfn);
  }
}

function granuleOf(length: number): GranuleShift {
  return length % 2 ** 21 === 0 ? 21 : 12;
}
