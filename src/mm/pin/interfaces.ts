// SPDX-License-Identifier: MIT
// What callers hand in: leases of files, devices and their paths, rights to other processes.

import type { Pfn } from "../frames/index.js";
import type { Access, AddressSpace, MappedFile } from "../space/index.js";
import type { LongTermPin } from "./holds.js";

/** A file's consent that its pages are pinned until further notice. */
export interface FileLease {
  /** For people. */
  readonly name: string;
  /** Whether it allows this page of the file to be pinned for long, for that access. */
  covers(file: MappedFile, index: number, access: Access): boolean;
  /** A pin that relies on it has begun, or is over: who breaks the lease knows whom to ask. */
  pinned(pin: LongTermPin): void;
  unpinned(pin: LongTermPin): void;
}

/** A device that does DMA. Compared by identity; what it is, the paths' judge knows. */
export interface DmaDevice {
  /** For people: `"0000:41:00.0"`. */
  readonly name: string;
}

/** Whether one device reaches another's memory. */
export interface PathVerdict {
  readonly isAllowed: boolean;
  /** One clause for people, of why (not). */
  readonly why: string;
}

/** Judges the way between devices: the PCI room's rules, or anything else. */
export interface PeerPaths {
  pathBetween(client: DmaDevice, provider: DmaDevice): PathVerdict;
}

/** Judges whether a device reaches a frame of another device's memory; `DeviceMemory` does. */
export interface PeerMemory {
  judge(pfn: Pfn, client: DmaDevice): PathVerdict;
}

/** Who reaches into another process: a debugger, process_vm_readv(2). */
export interface RemoteCaller {
  /** For people. */
  readonly name: string;
  /** As PTRACE_MODE_ATTACH_REALCREDS of ptrace(2). */
  mayAccess(space: AddressSpace, access: Access): boolean;
}
