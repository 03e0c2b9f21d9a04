// SPDX-License-Identifier: MIT
// Atomic operations of a process's CPU on its own memory. On memory of a PCI BAR there are none:
// PCIe carries reads and writes of the CPU, and what looks like an atomic operation would be a read
// and a write with somebody else's in between.

import { carryOf, FarpageError } from "../../base/index.js";
import { type PhysicalMemory, ZONE } from "../frames/index.js";
import { ACCESS, type AddressSpace, FAULT, faultError, PAGE_BYTES } from "../space/index.js";

/** 64 bits as halves, as native (little endian) memory has them. */
export interface Word64 {
  high: number;
  low: number;
}

export type AtomicReason = "device-memory" | "misaligned";

/** An atomic operation that can't be done. */
export class AtomicError extends FarpageError<"EOPNOTSUPP" | "EINVAL"> {
  readonly reason: AtomicReason;
  readonly address: number;

  constructor(reason: AtomicReason, address: number, message: string) {
    super(reason === "misaligned" ? "EINVAL" : "EOPNOTSUPP", message);
    this.name = "AtomicError";
    this.reason = reason;
    this.address = address;
  }
}

/**
 * Adds to a word. @returns what it was.
 * @throws AtomicError; FarpageError as of any access.
 */
export function fetchAdd64(
  space: AddressSpace,
  address: number,
  high: number,
  low: number,
): Word64 {
  const { view, at } = wordAt(space, address);
  const was = readWord(view, at);
  const carry = carryOf(was.low, low);
  view.setUint32(at, (was.low + low) >>> 0, true);
  view.setUint32(at + 4, (was.high + high + carry) >>> 0, true);
  return was;
}

/**
 * Puts `swap` where `compare` is. @returns what was there.
 * @throws AtomicError; FarpageError as of any access.
 */
export function compareSwap64(
  space: AddressSpace,
  address: number,
  compare: Word64,
  swap: Word64,
): Word64 {
  const { view, at } = wordAt(space, address);
  const was = readWord(view, at);
  if (was.high === compare.high && was.low === compare.low) {
    view.setUint32(at, swap.low, true);
    view.setUint32(at + 4, swap.high, true);
  }
  return was;
}

function readWord(view: DataView, at: number): Word64 {
  return { high: view.getUint32(at + 4, true), low: view.getUint32(at, true) };
}

function wordAt(space: AddressSpace, address: number): { view: DataView; at: number } {
  if (address % 8 !== 0) {
    const what = `an atomic operation on 8 bytes at 0x${address.toString(16)} is not aligned`;
    throw new AtomicError("misaligned", address, `${what}: use a multiple of 8`);
  }
  const { memory } = space.manager;
  const page = Math.floor(address / PAGE_BYTES);
  const result = space.fault(page, ACCESS.WRITE);
  if (result !== FAULT.READY) throw faultError(space, address, result);
  const pfn = space.lookup(page);
  refuseDevice(memory, pfn, address);
  return { view: memory.viewOf(pfn), at: memory.offsetOf(pfn) + (address % PAGE_BYTES) };
}

function refuseDevice(memory: PhysicalMemory, pfn: number, address: number): void {
  const zone = memory.zoneOf(pfn);
  if (zone.kind !== ZONE.P2P) return;
  const what = `0x${address.toString(16)} is memory of a device (${zone.name}), mapped uncached`;
  const advice = "keep locks and counters in system memory, or let the device do the operation";
  throw new AtomicError("device-memory", address, `${what}: ${advice}`);
}
