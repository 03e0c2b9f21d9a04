// SPDX-License-Identifier: MIT
// What each purpose may be asked for beside the range. What means nothing for a purpose, and what
// conflicts, does not compile; from callers without types it is refused.

import type { LongTermPin } from "./holds.js";
import type { DmaDevice, FileLease } from "./interfaces.js";
import { PinError } from "./pin-error.js";

interface Named {
  /** Who holds it, for people: `"mr 0x1100 of rxe0"`. */
  readonly holder?: string;
}

/** For one transfer (O_DIRECT, a send): over soon, by itself. */
export interface ShortDmaOptions extends Named {
  /** Nothing is faulted in: what isn't there at once is refused. */
  readonly presentOnly?: boolean;
  /** Who does the DMA: without it, other devices' memory is refused. */
  readonly device?: DmaDevice;
  /** Most pieces that the device takes. */
  readonly runsMax?: number;
  readonly lease?: never;
  readonly onRevoke?: never;
}

/** Until somebody says so (a memory region). */
export interface LongTermOptions extends Named {
  /** The consent of the file whose pages are in the range. */
  readonly lease?: FileLease;
  /** Most pieces that the device takes; pages are moved together if need be. */
  readonly runsMax?: number;
  readonly presentOnly?: never;
  readonly device?: never;
  readonly onRevoke?: never;
}

/** The same, and other devices' memory may be in the range. */
export interface LongTermPeerOptions extends Named {
  readonly lease?: FileLease;
  readonly runsMax?: number;
  readonly presentOnly?: never;
  /** Who does the DMA. */
  readonly device: DmaDevice;
  /**
   * The other device takes its memory back. No access goes on or begins when this returns; the pin
   * is released then, by the memory manager.
   */
  readonly onRevoke: (pin: LongTermPin) => void;
}

/** For the regions of a process: what is taken back, the region itself gives. */
export interface RegionOptions extends Named {
  readonly lease?: FileLease;
  readonly runsMax?: number;
  /** Whose regions they are: other devices' memory may then be registered, where it reaches it. */
  readonly device?: DmaDevice;
}

/** For the CPU, which copies. */
export interface CpuCopyOptions extends Named {
  readonly presentOnly?: boolean;
  readonly device?: never;
  readonly runsMax?: never;
  readonly lease?: never;
  readonly onRevoke?: never;
}

/** Another process's memory, for the CPU. */
export interface RemoteOptions extends Named {
  readonly presentOnly?: never;
  readonly device?: never;
  readonly runsMax?: never;
  readonly lease?: never;
  readonly onRevoke?: never;
}

const ALLOWED = {
  "short-dma": ["holder", "presentOnly", "device", "runsMax"],
  "long-term-dma": ["holder", "lease", "runsMax", "device", "onRevoke"],
  "cpu-copy": ["holder", "presentOnly"],
  remote: ["holder"],
} as const;

export type PinPurpose = keyof typeof ALLOWED;

/** @throws PinError bad-option for what the types forbid. */
export function checkOptions(purpose: PinPurpose, address: number, options: object): void {
  const given = options as Record<string, unknown>;
  for (const key of Object.keys(given)) {
    if (given[key] === undefined) continue;
    if ((ALLOWED[purpose] as readonly string[]).includes(key)) continue;
    const what = `"${key}" means nothing for ${purpose}`;
    throw new PinError("bad-option", address, what, "ask by the purpose that it belongs to");
  }
  if (purpose !== "long-term-dma") return;
  if ((given["device"] === undefined) === (given["onRevoke"] === undefined)) return;
  const what = "a device's memory is held for long by who can give it back";
  throw new PinError("bad-option", address, what, "give both device and onRevoke, or neither");
}
