// SPDX-License-Identifier: MIT
// A small host for tests of pins and of device memory.

import { HeapMemorySource } from "../../base/index.js";
import { type AllocatorPolicy, DEFAULT_POLICY } from "../alloc/index.js";
import { type Pfn, PhysicalMemory, ZONE } from "../frames/index.js";
import { MemoryManager } from "../space/index.js";
import { PinError, type PinReason } from "./pin-error.js";
import { Pinner } from "./pinner.js";

export const PAGE = 4096;

export function smallHost(megabytes = 8, policy: AllocatorPolicy = DEFAULT_POLICY) {
  const bytes = megabytes * 2 ** 20;
  const memory = new PhysicalMemory({ policy });
  const sections = [new HeapMemorySource().allocate(bytes)];
  const watermarks = { min: 0, low: 0, high: 0 };
  memory.addZone({ kind: ZONE.NORMAL, name: "ram", bytes, sections, watermarks });
  const manager = new MemoryManager(memory);
  const pinner = new Pinner(manager);
  return { memory, manager, pinner };
}

/** Everything agrees, counted from scratch. */
export function checkAll(host: {
  manager: MemoryManager;
  pinner: Pinner;
  devices?: { heldFrames(): Map<Pfn, number> };
}): void {
  const references = host.pinner.checkInvariants();
  for (const [pfn, count] of host.devices?.heldFrames() ?? []) {
    references.set(pfn, (references.get(pfn) ?? 0) + count);
  }
  host.manager.checkInvariants(references);
}

/** The cause for which something was refused. */
export function reasonOf(take: () => unknown): PinReason {
  return errorOf(take).reason;
}

export function errorOf(take: () => unknown): PinError {
  try {
    take();
  } catch (error) {
    if (error instanceof PinError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

export function bytes(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}
