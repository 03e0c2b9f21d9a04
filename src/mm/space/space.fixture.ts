// SPDX-License-Identifier: MIT
// What tests of address spaces have in common.

import { HeapMemorySource } from "../../base/index.js";
import { type Pfn, PhysicalMemory, ZONE } from "../frames/index.js";
import {
  ACCESS,
  ADDRESS_END,
  type AddressSpace,
  FAULT,
  MemoryManager,
  PAGE_BYTES,
  PROT,
  type RangeNotifier,
} from "./index.js";

export const RW = PROT.READ | PROT.WRITE;
export const HUGE_BYTES = 512 * PAGE_BYTES;

export function managerOf(pages: number): MemoryManager {
  const memory = new PhysicalMemory();
  const bytes = pages * PAGE_BYTES;
  const sections = [new HeapMemorySource().allocate(bytes)];
  memory.addZone({ kind: ZONE.NORMAL, name: "test", bytes, sections });
  return new MemoryManager(memory);
}

export function pageOf(address: number): number {
  return address / PAGE_BYTES;
}

export function readByte(space: AddressSpace, address: number): number {
  const byte = new Uint8Array(1);
  space.read(address, byte);
  return byte[0] as number;
}

export function writeByte(space: AddressSpace, address: number, value: number): void {
  space.write(address, Uint8Array.of(value));
}

export function codeOf(action: () => void): string {
  let code = "none";
  try {
    action();
  } catch (error) {
    code = (error as { code?: string }).code ?? String(error);
  }
  return code;
}

/** Notes what it is told. */
export class Listener implements RangeNotifier {
  readonly told: [number, number, number][] = [];
  readonly start: number;
  readonly end: number;
  constructor(start: number, end: number) {
    this.start = start;
    this.end = end;
  }
  invalidate(start: number, end: number, why: number): void {
    this.told.push([start, end, why]);
  }
  reasons(): number[] {
    return this.told.splice(0).map(([, , why]) => why);
  }
}

/** A device with a page table of its own of a whole process: it follows the notifier alone. */
export class Mirror implements RangeNotifier {
  readonly start = 0;
  readonly end = ADDRESS_END;
  private readonly space: AddressSpace;
  private readonly entries = new Map<
    number,
    { readonly frame: Pfn; readonly isWritable: boolean }
  >();

  constructor(space: AddressSpace) {
    this.space = space;
    space.notifiers.add(this);
  }

  invalidate(start: number, end: number): void {
    for (const page of this.entries.keys()) {
      if (page >= start / PAGE_BYTES && page < end / PAGE_BYTES) this.entries.delete(page);
    }
  }

  /** Where the device reads, or writes, a page; by a fault where it has no entry. null: refused. */
  find(page: number, isWrite: boolean): { bytes: Uint8Array; offset: number } | null {
    const { space } = this;
    const { memory } = space.manager;
    const known = this.entries.get(page);
    let frame = known?.frame ?? -1;
    if (known === undefined || (isWrite && !known.isWritable)) {
      const sequence = space.notifiers.readBegin(this);
      const result = space.fault(page, isWrite ? ACCESS.WRITE : ACCESS.READ);
      if (result !== FAULT.READY) return null;
      frame = space.lookup(page);
      const isWritable = space.isWritable(page);
      // The fault itself may have changed the page: then it is looked up once more.
      if (space.notifiers.readRetry(this, sequence)) return this.find(page, isWrite);
      this.entries.set(page, { frame, isWritable });
    }
    return { bytes: memory.bytesOf(frame), offset: memory.offsetOf(frame) };
  }

  /** Every entry is the process's own, with no more rights. */
  check(): void {
    for (const [page, { frame, isWritable }] of this.entries) {
      if (this.space.lookup(page) !== frame) throw new Error("a device has another frame");
      if (isWritable && !this.space.isWritable(page)) throw new Error("a device may write");
    }
  }
}
