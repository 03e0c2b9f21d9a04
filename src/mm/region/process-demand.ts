// SPDX-License-Identifier: MIT

import type { Memory } from "../../base/index.js";
import type { Pfn } from "../frames/index.js";
import type { DemandNotifier, DemandSpace } from "./demand-space.js";

/** What is asked of an address space itself; `AddressSpace` is one. */
export interface MappedSpace {
  readonly notifiers: {
    add(notifier: DemandNotifier): void;
    remove(notifier: DemandNotifier): void;
    readBegin(notifier: DemandNotifier): number;
    readRetry(notifier: DemandNotifier, sequence: number): boolean;
  };
  /** Whether a page is mapped in a way that allows the access: 1 read, 2 write. */
  permits(page: number, access: 1 | 2): boolean;
  /** First page of [page, end) that is mapped, that is in the page table; -1 for none. */
  nextMapped(page: number, end: number): number;
  nextPresent(page: number, end: number): number;
  isWritable(page: number): boolean;
}

/** Who finds the frame that a device may use for a page; `DeviceMemory` does. */
export interface DeviceFrames<Space, Client> {
  /** The frame, or FAULT_RETRY, FAULT_SHORT, FAULT_WRONG. */
  dmaFault(space: Space, vpn: number, isWrite: boolean, client: Client): Pfn;
  /** The same without a fault. */
  presentFrame(space: Space, vpn: number, isWrite: boolean, client: Client): Pfn;
  /** See `DemandSpace.ownMemory`. */
  ownMemory?(pfn: Pfn): Memory | null;
}

/** The on-demand side of a process: its address space, as seen by one device. */
export class ProcessDemand<Space extends MappedSpace, Client> implements DemandSpace {
  private readonly space: Space;
  private readonly frames: DeviceFrames<Space, Client>;
  private readonly client: Client;

  /** @param client the device that accesses, where it matters which. */
  constructor(space: Space, frames: DeviceFrames<Space, Client>, client: Client) {
    this.space = space;
    this.frames = frames;
    this.client = client;
  }

  addNotifier(notifier: DemandNotifier): void {
    this.space.notifiers.add(notifier);
  }

  removeNotifier(notifier: DemandNotifier): void {
    this.space.notifiers.remove(notifier);
  }

  readBegin(notifier: DemandNotifier): number {
    return this.space.notifiers.readBegin(notifier);
  }

  readRetry(notifier: DemandNotifier, sequence: number): boolean {
    return this.space.notifiers.readRetry(notifier, sequence);
  }

  isMapped(vpn: number, isWrite: boolean): boolean {
    return this.space.permits(vpn, isWrite ? 2 : 1);
  }

  nextMapped(vpn: number, end: number): number {
    return this.space.nextMapped(vpn, end);
  }

  nextPresent(vpn: number, end: number): number {
    return this.space.nextPresent(vpn, end);
  }

  deviceFrame(vpn: number, isWrite: boolean): Pfn {
    return this.frames.dmaFault(this.space, vpn, isWrite, this.client);
  }

  presentFrame(vpn: number, isWrite: boolean): Pfn {
    return this.frames.presentFrame(this.space, vpn, isWrite, this.client);
  }

  ownMemory(pfn: Pfn): Memory | null {
    return this.frames.ownMemory?.(pfn) ?? null;
  }

  isWritable(vpn: number): boolean {
    return this.space.isWritable(vpn);
  }
}
