// SPDX-License-Identifier: MIT
// A device's own memory, that the CPU can't touch, as a home for a process's pages. Read first:
// Linux `Documentation/mm/hmm.rst`, "Migration to and from device memory".

import { assert, type Memory } from "../../base/index.js";
import {
  FRAME_BYTES,
  FRAME_FLAG,
  MIGRATE,
  NO_FRAME,
  type Pfn,
  type PhysicalMemory,
  ZONE,
  type Zone,
} from "../frames/index.js";
import type { DmaDevice } from "../pin/index.js";
import { breakUp } from "../pin/page-taker.js";
import {
  ACCESS,
  type AddressSpace,
  FAULT,
  type FaultResult,
  type MemoryManager,
  PAGE,
  PROT,
} from "../space/index.js";
import type { P2pMemory } from "./p2p-memory.js";

export interface PrivateOptions {
  readonly device: DmaDevice;
  /** For people. Default: the device's. */
  readonly name?: string;
  /** The device's memory. Nobody but the device's own engine, which copies pages, has it. */
  readonly memory: Memory;
  /**
   * How much of it, from its start, a BAR of the device shows to other devices, in bytes; a
   * multiple of 4096. Default: nothing.
   */
  readonly windowBytes?: number;
}

/** Why a page of a range is not in the device's memory. */
export type StayReason =
  /** No private anonymous memory; files' pages and shared memory stay. */
  | "not-anonymous"
  /** It is in a device's memory already. */
  | "already"
  | "pinned"
  /** Somebody beside page tables holds it, or a change of mappings is under way. */
  | "busy"
  | "device-full"
  /** It could not be made ready: not mapped, not to be touched, no memory. */
  | "no-page";

export interface MigrationResult {
  readonly moved: number;
  readonly stayed: ReadonlyMap<StayReason, number>;
}

/** Bits of a frame that go where its contents go. */
const MOVING_FLAGS = FRAME_FLAG.ANON | FRAME_FLAG.UP_TO_DATE | FRAME_FLAG.DIRTY;

export class PrivateMemory {
  readonly device: DmaDevice;
  readonly zone: Zone;
  /** What shows the first frames to other devices. */
  readonly window: P2pMemory | null;
  /** Pages that came and went. Grow. */
  pagesIn = 0;
  pagesOut = 0;
  /** All of it, for the device's own engines alone: the CPU of the host has no way to it. */
  readonly contents: Memory;
  private readonly manager: MemoryManager;
  private readonly memory: PhysicalMemory;
  private readonly bytes: Uint8Array;

  /** DeviceMemory only: `addPrivate`. */
  constructor(manager: MemoryManager, options: PrivateOptions, window: P2pMemory | null) {
    this.manager = manager;
    this.memory = manager.memory;
    this.device = options.device;
    this.contents = options.memory;
    this.bytes = options.memory.bytes;
    this.window = window;
    // No sections: whoever asks for the bytes of such a frame is told that there are none.
    this.zone = manager.memory.addZone({
      kind: ZONE.PRIVATE,
      name: options.name ?? `memory of ${options.device.name}`,
      bytes: options.memory.length,
    });
  }

  /**
   * Moves the pages of a range into the device's memory: those of private anonymous memory that
   * nobody pins. The CPU's next touch brings a page back.
   */
  migrateIn(space: AddressSpace, address: number, length: number): MigrationResult {
    assert(!this.manager.isChanging, "pages are not moved by those who are told of a change");
    const stayed = new Map<StayReason, number>();
    let moved = 0;
    const end = Math.ceil((address + length) / FRAME_BYTES);
    for (let page = Math.floor(address / FRAME_BYTES); page < end; page++) {
      const reason = this.moveIn(space, page);
      if (reason === null) moved++;
      else stayed.set(reason, (stayed.get(reason) ?? 0) + 1);
    }
    return { moved, stayed };
  }

  /** Brings a page back to system memory. READY, NO_MEMORY or BUSY. */
  moveOut(pfn: Pfn): FaultResult {
    if (this.manager.isChanging) return FAULT.BUSY;
    const { memory } = this;
    const to = memory.allocate(0, MIGRATE.MOVABLE);
    if (to === NO_FRAME) return FAULT.NO_MEMORY;
    const isMoved = this.relocate(pfn, to, () => {
      const at = this.offsetOf(pfn);
      memory.bytesOf(to).set(this.bytes.subarray(at, at + FRAME_BYTES), memory.offsetOf(to));
    });
    if (!isMoved) {
      memory.put(to);
      return FAULT.BUSY;
    }
    this.pagesOut++;
    return FAULT.READY;
  }

  /** Brings everything back: the device goes. @returns pages that could not be. */
  evacuate(): number {
    const { states, references } = this.zone.table;
    let left = 0;
    for (let record = 0; record < states.length; record++) {
      if ((references[record] as number) === 0) continue;
      if (this.moveOut(this.zone.pfnOf(record)) !== FAULT.READY) left++;
    }
    return left;
  }

  /** The frame of the device's BAR that shows a frame of its memory, or NO_FRAME. */
  windowFrame(pfn: Pfn): Pfn {
    const index = pfn - this.zone.basePfn;
    if (this.window === null || index >= this.window.zone.frameCount) return NO_FRAME;
    return this.window.zone.basePfn + index;
  }

  /** Where in the device's memory a frame is. */
  offsetOf(pfn: Pfn): number {
    return (pfn - this.zone.basePfn) * FRAME_BYTES;
  }

  /** @returns null: it is there now. */
  private moveIn(space: AddressSpace, page: number): StayReason | null {
    const { memory } = this;
    const area = space.vmaAt(page * FRAME_BYTES);
    if (area === null) return "no-page";
    if (area.isShared || area.file !== null || area.device !== null) return "not-anonymous";
    if ((space.table.flagsOf(page) & PAGE.PRIVATE) !== 0) return "already";
    const access = (area.prot & PROT.WRITE) !== 0 ? ACCESS.WRITE : ACCESS.READ;
    const result = space.fault(page, access, true);
    if (result !== FAULT.READY) return result === FAULT.BUSY ? "busy" : "no-page";
    breakUp(memory, memory.headOf(space.lookup(page)));
    const pfn = space.lookup(page);
    if (memory.isPinned(pfn)) return "pinned";
    if (memory.orderOf(pfn) !== 0) return "busy";
    const to = memory.allocateIn(this.zone, 0, MIGRATE.MOVABLE);
    if (to === NO_FRAME) return "device-full";
    const isMoved = this.relocate(pfn, to, () => {
      const at = memory.offsetOf(pfn);
      this.bytes.set(memory.bytesOf(pfn).subarray(at, at + FRAME_BYTES), this.offsetOf(to));
    });
    if (!isMoved) {
      memory.put(to);
      return "busy";
    }
    this.pagesIn++;
    return null;
  }

  /**
   * The uses of `from` go to `to`, just allocated by the caller, whose it is again if this fails.
   * @param copy copies the bytes; called when nobody can reach those of `from` any more.
   */
  private relocate(from: Pfn, to: Pfn, copy: () => void): boolean {
    const { memory } = this;
    const owner = memory.ownerOf(from);
    const index = memory.indexOf(from);
    if (owner === null || owner.referencesOf(from, index) !== memory.referencesOf(from)) {
      return false;
    }
    if (!owner.detach(from, index)) return false;
    const references = memory.referencesOf(from);
    // Whoever was told of it can't have taken hold anew: no page is taken during a change.
    assert(!memory.isPinned(from), "a page that moves is not pinned");
    copy();
    memory.setOwner(to, memory.ownerIdOf(from), index);
    memory.setFlag(to, memory.flagsOf(from) & MOVING_FLAGS);
    if (references > 1) memory.get(to, references - 1);
    owner.attach(from, to, index);
    memory.setOwner(from, 0, 0);
    memory.put(from, references);
    return true;
  }
}
