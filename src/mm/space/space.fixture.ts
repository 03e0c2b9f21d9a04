// SPDX-License-Identifier: MIT
// What tests of address spaces have in common.

import { HeapMemorySource } from "../../base/index.js";
import { PhysicalMemory, ZONE } from "../frames/index.js";
import { type AddressSpace, MemoryManager, PAGE_BYTES, PROT, type RangeNotifier } from "./index.js";

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
