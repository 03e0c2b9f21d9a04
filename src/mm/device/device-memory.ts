// SPDX-License-Identifier: MIT
// The memory of a host's devices, and what happens when somebody else needs a page of it: the CPU,
// or another device (the "DMA fault").
//
// A device that needs a page which is in another device's memory gets it where it is, as
// peer-to-peer memory, if the path allows: the CPU never sees it. Else the page comes to system
// memory and the fault is taken again. Which it was, and why, is counted.

import type { Memory } from "../../base/index.js";
import { NO_FRAME, type Pfn, type Zone } from "../frames/index.js";
import type { DmaDevice, PathVerdict, PeerMemory, PeerPaths, Pinner } from "../pin/index.js";
import {
  ACCESS,
  type Access,
  type AddressSpace,
  FAULT,
  type FaultResult,
  type MemoryManager,
  PAGE,
} from "../space/index.js";
import { P2pMemory, type P2pOptions } from "./p2p-memory.js";
import { PrivateMemory, type PrivateOptions } from "./private-memory.js";

/** Answers of `dmaFault` that are no frames. */
export const DMA_FAULT = {
  /** Not now: mappings are changing, or a page must stay as it is while it is written. */
  RETRY: -1,
  /** There is no memory. */
  SHORT: -2,
  /** The access can't be. */
  WRONG: -3,
} as const;

/** Times that a page is looked at again after it came back from a device. */
const ATTEMPTS_MAX = 4;

/** What has happened since the host began. All only grow. */
export interface DeviceCounters {
  /** The CPU touched a page in a device's memory: it came back. */
  cpuFaults: number;
  /** A device asked for a page that is in its own memory. */
  ownFaults: number;
  /** A device got a page of another one's memory, where it is. */
  peerFaults: number;
  /** It could not, and the page came to system memory: the path forbids, ... */
  pathMigrations: number;
  /** ... the device's BAR doesn't show that page, ... */
  windowMigrations: number;
  /** ... or it was to be written and is shared with another process since a fork. */
  sharedMigrations: number;
  /** A device was refused a BAR's page that a process has mapped: the path forbids. */
  pathRefusals: number;
  /** A page that had to come to system memory and could not, for want of memory or for now. */
  migrationFailures: number;
}

/** Why a device can't reach another's memory, and how often that mattered. */
export interface PathRefusal {
  readonly client: string;
  readonly provider: string;
  why: string;
  count: number;
}

export class DeviceMemory implements PeerMemory {
  readonly counters: DeviceCounters = {
    cpuFaults: 0,
    ownFaults: 0,
    peerFaults: 0,
    pathMigrations: 0,
    windowMigrations: 0,
    sharedMigrations: 0,
    pathRefusals: 0,
    migrationFailures: 0,
  };
  readonly manager: MemoryManager;
  private readonly paths: PeerPaths;
  private readonly pinner: Pinner | null;
  private readonly bars = new Map<Zone, P2pMemory>();
  private readonly privates = new Map<Zone, PrivateMemory>();
  private readonly refusalOf = new Map<string, PathRefusal>();
  /** By client and provider, as Linux keeps them. */
  private readonly verdicts = new Map<DmaDevice, Map<DmaDevice, PathVerdict>>();

  /** @param pinner told of the paths, and asked to give memory back that a device takes back. */
  constructor(manager: MemoryManager, paths: PeerPaths, pinner: Pinner | null = null) {
    this.manager = manager;
    this.paths = paths;
    this.pinner = pinner;
    manager.privateFault = (space, page) => this.cpuFault(space, page);
    if (pinner !== null) pinner.peers = this;
  }

  /** A BAR whose memory is for other devices. */
  addP2p(options: P2pOptions): P2pMemory {
    const bar = new P2pMemory(this.manager, this.pinner, options);
    this.bars.set(bar.zone, bar);
    return bar;
  }

  /** A device's own memory, as a home for processes' pages. */
  addPrivate(options: PrivateOptions): PrivateMemory {
    const window = this.addWindow(options);
    const own = new PrivateMemory(this.manager, options, window);
    this.privates.set(own.zone, own);
    return own;
  }

  /** Pairs of devices whose path was asked for in vain. */
  get refusals(): PathRefusal[] {
    return [...this.refusalOf.values()];
  }

  judge(pfn: Pfn, client: DmaDevice): PathVerdict {
    const bar = this.bars.get(this.manager.memory.zoneOf(pfn));
    if (bar === undefined) return { isAllowed: false, why: "it is not memory for other devices" };
    if (bar.device === client) return { isAllowed: true, why: "it is the device's own" };
    const verdict = this.verdict(client, bar.device);
    if (!verdict.isAllowed) this.noteRefusal(client, bar.device);
    return verdict;
  }

  /** Paths are asked for anew: the tree, or what is set in it, has changed. */
  forgetPaths(): void {
    this.verdicts.clear();
  }

  /**
   * Makes a page of a process ready for a device's access.
   * @param client who needs it; null: a device of no known place, which has no path to any other.
   * @returns the frame: of system memory, of a BAR that shows another device's memory, or of the
   *   client's own memory; or one of DMA_FAULT. Valid until the range's notifier is told otherwise.
   */
  dmaFault(space: AddressSpace, page: number, isWrite: boolean, client: DmaDevice | null): Pfn {
    const access = isWrite ? ACCESS.WRITE : ACCESS.READ;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      if (this.manager.isChanging) return DMA_FAULT.RETRY;
      const result =
        this.privateOf(space, page) === null
          ? space.fault(page, access)
          : this.dmaFaultPrivate(space, page, access, client);
      if (result !== FAULT.READY) return dmaResult(result);
      const pfn = this.reachable(space, page, isWrite, client);
      if (pfn === NO_FRAME) continue;
      if (!this.isBarRefused(pfn, client)) return pfn;
      this.counters.pathRefusals++;
      this.noteBarRefusal(pfn, client);
      return DMA_FAULT.WRONG;
    }
    return DMA_FAULT.RETRY;
  }

  /** The same without a fault: the frame if it is there and allows the access, else RETRY. */
  presentFrame(space: AddressSpace, page: number, isWrite: boolean, client: DmaDevice | null): Pfn {
    if (this.manager.isChanging) return DMA_FAULT.RETRY;
    const pfn = this.reachable(space, page, isWrite, client);
    return pfn === NO_FRAME || this.isBarRefused(pfn, client) ? DMA_FAULT.RETRY : pfn;
  }

  /** The memory of the device whose own a frame is; null of any other frame. */
  ownMemory(pfn: Pfn): Memory | null {
    return this.privates.get(this.manager.memory.zoneOf(pfn))?.contents ?? null;
  }

  /** References on memory that is handed out: for `checkInvariants` of others. */
  heldFrames(): Map<Pfn, number> {
    const held = new Map<Pfn, number>();
    for (const bar of this.bars.values()) for (const pfn of bar.held) held.set(pfn, 1);
    return held;
  }

  /** The frame that a client can use as things are, or NO_FRAME. */
  private reachable(
    space: AddressSpace,
    page: number,
    isWrite: boolean,
    client: DmaDevice | null,
  ): Pfn {
    const own = this.privateOf(space, page);
    if (own === null) {
      const isReady = !isWrite || space.isWritable(page);
      return isReady ? space.lookup(page) : NO_FRAME;
    }
    if (this.hindrance(space, page, isWrite, client, own) !== null) return NO_FRAME;
    const pfn = space.table.frameOf(page);
    return own.device === client ? pfn : own.windowFrame(pfn);
  }

  /** A page in a device's memory: READY when the client can use it there, or it came back. */
  private dmaFaultPrivate(
    space: AddressSpace,
    page: number,
    access: Access,
    client: DmaDevice | null,
  ): FaultResult {
    const own = this.privateOf(space, page);
    if (own === null) return FAULT.BUSY;
    if (!space.permits(page, access)) return FAULT.READ_ONLY;
    const { counters } = this;
    const isWrite = access === ACCESS.WRITE;
    const hindrance = this.hindrance(space, page, isWrite, client, own);
    if (hindrance === null) {
      counters[own.device === client ? "ownFaults" : "peerFaults"]++;
      space.table.change(page, isWrite ? PAGE.ACCESSED | PAGE.DIRTY : PAGE.ACCESSED, 0);
      return FAULT.READY;
    }
    if (hindrance === "pathMigrations") this.noteRefusal(client, own.device);
    const result = own.moveOut(space.table.frameOf(page));
    counters[result === FAULT.READY ? hindrance : "migrationFailures"]++;
    return result;
  }

  /** What keeps a client from a page in a device's memory, as the counter of it. */
  private hindrance(
    space: AddressSpace,
    page: number,
    isWrite: boolean,
    client: DmaDevice | null,
    own: PrivateMemory,
  ): "pathMigrations" | "windowMigrations" | "sharedMigrations" | null {
    const flags = space.table.flagsOf(page);
    if (isWrite && (flags & PAGE.WRITABLE) === 0) return "sharedMigrations";
    if (own.device === client) return null;
    if (own.windowFrame(space.table.frameOf(page)) === NO_FRAME) return "windowMigrations";
    if (client === null) return "pathMigrations";
    return this.verdict(client, own.device).isAllowed ? null : "pathMigrations";
  }

  /** The CPU touches a page in a device's memory. */
  private cpuFault(space: AddressSpace, page: number): FaultResult {
    const own = this.privateOf(space, page);
    if (own === null) return FAULT.DEVICE;
    const result = own.moveOut(space.table.frameOf(page));
    this.counters[result === FAULT.READY ? "cpuFaults" : "migrationFailures"]++;
    return result;
  }

  /** Whose memory a page is in; null for system memory, and what isn't there. */
  private privateOf(space: AddressSpace, page: number): PrivateMemory | null {
    if ((space.table.flagsOf(page) & PAGE.PRIVATE) === 0) return null;
    const zone = this.manager.memory.zoneOf(space.table.frameOf(page));
    return this.privates.get(zone) ?? null;
  }

  private isBarRefused(pfn: Pfn, client: DmaDevice | null): boolean {
    const bar = this.bars.get(this.manager.memory.zoneOf(pfn)) ?? null;
    if (bar === null || bar.device === client) return false;
    return client === null || !this.verdict(client, bar.device).isAllowed;
  }

  private noteBarRefusal(pfn: Pfn, client: DmaDevice | null): void {
    const bar = this.bars.get(this.manager.memory.zoneOf(pfn));
    if (bar !== undefined) this.noteRefusal(client, bar.device);
  }

  private noteRefusal(client: DmaDevice | null, provider: DmaDevice): void {
    const name = client?.name ?? "an unknown device";
    const why = client === null ? "nobody knows where it is" : this.verdict(client, provider).why;
    const key = `${name} ${provider.name}`;
    const refusal = this.refusalOf.get(key) ?? {
      client: name,
      provider: provider.name,
      why,
      count: 0,
    };
    this.refusalOf.set(key, refusal);
    refusal.why = why;
    refusal.count++;
  }

  private verdict(client: DmaDevice, provider: DmaDevice): PathVerdict {
    let verdicts = this.verdicts.get(client);
    if (verdicts === undefined) {
      verdicts = new Map();
      this.verdicts.set(client, verdicts);
    }
    let verdict = verdicts.get(provider);
    if (verdict === undefined) {
      verdict = this.paths.pathBetween(client, provider);
      verdicts.set(provider, verdict);
    }
    return verdict;
  }

  private addWindow(options: PrivateOptions): P2pMemory | null {
    const length = options.windowBytes ?? 0;
    if (length === 0) return null;
    const { device, memory } = options;
    const { buffer, byteOffset } = memory.bytes;
    const window = {
      bytes: memory.bytes.subarray(0, length),
      view: new DataView(buffer, byteOffset, length),
      address: memory.address,
      length,
    };
    const bar = this.addP2p({ device, name: `window of ${device.name}`, memory: window });
    bar.claimAll();
    return bar;
  }
}

function dmaResult(result: FaultResult): number {
  switch (result) {
    case FAULT.NO_MEMORY:
      return DMA_FAULT.SHORT;
    case FAULT.BUSY:
      return DMA_FAULT.RETRY;
    default:
      return DMA_FAULT.WRONG;
  }
}
