// SPDX-License-Identifier: MIT

import type { Memory } from "../../base/index.js";
import type { Pfn } from "../frames/index.js";

/** Negative answers of `DemandSpace.deviceFrame`. */
export const FAULT_RETRY = -1;
/** There is no memory now, though everything was tried. */
export const FAULT_SHORT = -2;
/** The access can't be: nothing is mapped, it may not be written, it is behind a file's end. */
export const FAULT_WRONG = -3;

/** A range of addresses that its owner keeps a device's page table of. */
export interface DemandNotifier {
  readonly start: number;
  readonly end: number;
  /**
   * Mappings in [start, end) are about to change. When this returns, no access of the device to
   * them goes on or begins.
   */
  invalidate(start: number, end: number): void;
}

/** What on-demand regions need of an address space. */
export interface DemandSpace {
  addNotifier(notifier: DemandNotifier): void;
  removeNotifier(notifier: DemandNotifier): void;
  /** Sequence number of the notifier's range, odd while an invalidation is under way. */
  readBegin(notifier: DemandNotifier): number;
  /** Whether the range has changed since: what was looked up since must be forgotten. */
  readRetry(notifier: DemandNotifier, sequence: number): boolean;
  /** Whether something is mapped there that allows the access; looks up no page. */
  isMapped(vpn: number, isWrite: boolean): boolean;
  /** First page of [vpn, end) where something is mapped, whatever it allows; -1 for none. */
  nextMapped(vpn: number, end: number): number;
  /** First page of [vpn, end) that is there, whatever may be done with it; -1 for none. */
  nextPresent(vpn: number, end: number): number;
  /**
   * Makes a page ready for a device's access, as a fault of the process does.
   * @returns the frame whose bytes the device may use (of a private page that another device
   *   can reach, its P2P memory), or one of the negative answers.
   */
  deviceFrame(vpn: number, isWrite: boolean): Pfn;
  /** The same without a fault: the frame if it is there and allows it, else FAULT_RETRY. */
  presentFrame(vpn: number, isWrite: boolean): Pfn;
  /**
   * Of a frame of the device's own memory, that the CPU can't touch: all of that memory, as the
   * device has it, from the zone's first frame on; null: it has none.
   */
  ownMemory?(pfn: Pfn): Memory | null;
  /** Whether the page that is there may be written as it is. */
  isWritable(vpn: number): boolean;
}
