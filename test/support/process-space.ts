// SPDX-License-Identifier: MIT
// A naive process memory on real frames, for the tests of regions: pages mapped one by one, taken
// away to a store and brought back elsewhere, moved, made read-only. It tells its notifiers as an
// address space does, and wipes a page's old place: whoever reads or writes it later is found out.

import { HeapMemorySource } from "../../src/base/index.js";
import {
  type DemandNotifier,
  type DemandSpace,
  FAULT_RETRY,
  FAULT_SHORT,
  FAULT_WRONG,
  FRAME_BYTES,
  type FrameRun,
  MIGRATE,
  NO_FRAME,
  type Pfn,
  PhysicalMemory,
  type PinnedRuns,
  type RegionPinner,
  type Revocation,
  ZONE,
} from "../../src/mm/index.js";

export const POISON = 0xa5;

/** Memory of sections of so many frames each. */
export function memoryOf(...frameCounts: number[]): PhysicalMemory {
  const memory = new PhysicalMemory();
  const source = new HeapMemorySource();
  const sections = frameCounts.map((count) => source.allocate(count * FRAME_BYTES));
  const bytes = sections.reduce((sum, section) => sum + section.length, 0);
  memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes, sections });
  return memory;
}

interface Page {
  pfn: Pfn;
  canWrite: boolean;
  /** While it is away. */
  stored: Uint8Array | null;
}

export class TestSpace implements DemandSpace, RegionPinner {
  readonly memory: PhysicalMemory;
  readonly pages = new Map<number, Page>();
  readonly notifiers: DemandNotifier[] = [];
  /** Faults answered so many more times with this before they are served. */
  refusals = 0;
  refusal: number = FAULT_RETRY;
  /** Run inside of a fault: what happens between the lookup and the entry. */
  inFault: (() => void) | null = null;
  /** A fault that finds no frame takes one from the page that came longest ago. */
  evictsWhenShort = false;
  evictedCount = 0;
  pinnedCount = 0;
  /** Pins are of memory that can be taken back: the last one's way to do so. */
  isRevocable = false;
  revocation: Revocation | null = null;
  dirtied: boolean[] = [];
  faultCount = 0;
  private sequence = 0;
  private readonly arrivals: number[] = [];
  /** Frames that a page had and none has now. */
  private readonly gone = new Set<Pfn>();

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  addNotifier(notifier: DemandNotifier): void {
    this.notifiers.push(notifier);
  }

  removeNotifier(notifier: DemandNotifier): void {
    this.notifiers.splice(this.notifiers.indexOf(notifier), 1);
  }

  readBegin(): number {
    return this.sequence;
  }

  readRetry(_notifier: DemandNotifier, sequence: number): boolean {
    return this.sequence !== sequence;
  }

  isMapped(vpn: number, isWrite: boolean): boolean {
    const page = this.pages.get(vpn);
    return page !== undefined && (!isWrite || page.canWrite);
  }

  nextMapped(vpn: number, end: number): number {
    return this.nextOf(vpn, end, () => true);
  }

  nextPresent(vpn: number, end: number): number {
    return this.nextOf(vpn, end, ({ pfn }) => pfn !== NO_FRAME);
  }

  private nextOf(vpn: number, end: number, isMeant: (page: Page) => boolean): number {
    let next = end;
    for (const [at, page] of this.pages) {
      if (at >= vpn && at < next && isMeant(page)) next = at;
    }
    return next === end ? -1 : next;
  }

  deviceFrame(vpn: number, isWrite: boolean): Pfn {
    this.faultCount++;
    if (this.refusals > 0) {
      this.refusals--;
      return this.refusal;
    }
    if (!this.isMapped(vpn, isWrite)) return FAULT_WRONG;
    const page = this.pages.get(vpn) as Page;
    if (page.pfn === NO_FRAME) {
      let pfn = this.take();
      if (pfn === NO_FRAME && this.evictsWhenShort) {
        this.evictOldest();
        pfn = this.take();
      }
      if (pfn === NO_FRAME) return FAULT_SHORT;
      page.pfn = pfn;
      this.arrivals.push(vpn);
      this.bytesAt(pfn).set(page.stored as Uint8Array);
      page.stored = null;
    }
    const { pfn } = page;
    this.inFault?.();
    return pfn;
  }

  presentFrame(vpn: number, isWrite: boolean): Pfn {
    const page = this.pages.get(vpn);
    if (page === undefined || page.pfn === NO_FRAME || (isWrite && !page.canWrite))
      return FAULT_RETRY;
    return page.pfn;
  }

  isWritable(vpn: number): boolean {
    return this.pages.get(vpn)?.canWrite ?? false;
  }

  pinForRegion(address: number, length: number, isWrite: boolean): PinnedRuns {
    const first = Math.floor(address / FRAME_BYTES);
    const end = Math.ceil((address + length) / FRAME_BYTES);
    const runs: { pfn: Pfn; count: number }[] = [];
    for (let vpn = first; vpn < end; vpn++) {
      const pfn = this.deviceFrame(vpn, isWrite);
      if (pfn < 0) throw new Error("EFAULT");
      const last = runs[runs.length - 1];
      if (last !== undefined && last.pfn + last.count === pfn) last.count++;
      else runs.push({ pfn, count: 1 });
      this.pinnedCount++;
    }
    const release = (dirty: boolean): void => {
      this.dirtied.push(dirty);
      this.pinnedCount -= end - first;
    };
    if (!this.isRevocable) return { runs: runs as FrameRun[], release };
    this.revocation = { onRevoke: null };
    return { runs: runs as FrameRun[], release, revocation: this.revocation };
  }

  /** Maps pages at once, on fresh frames, or on `pfn` and those behind it. */
  map(vpn: number, count: number, canWrite = true, pfn: Pfn = NO_FRAME): void {
    for (let i = 0; i < count; i++) {
      const frame = pfn === NO_FRAME ? this.take() : pfn + i;
      if (frame === NO_FRAME) throw new Error("out of frames");
      this.pages.set(vpn + i, { pfn: frame, canWrite, stored: null });
    }
  }

  /** Maps pages without memory behind them. */
  mapAbsent(vpn: number, count: number, canWrite = true): void {
    for (let i = 0; i < count; i++) {
      const stored = new Uint8Array(FRAME_BYTES);
      this.pages.set(vpn + i, { pfn: NO_FRAME, canWrite, stored });
    }
  }

  unmap(vpn: number): void {
    this.changing(vpn, () => {
      const page = this.pages.get(vpn);
      if (page !== undefined && page.pfn !== NO_FRAME) this.wipe(page.pfn);
      this.pages.delete(vpn);
    });
  }

  /** Takes a page's frame away, its contents to the store. */
  evict(vpn: number): void {
    const page = this.pages.get(vpn);
    if (page === undefined || page.pfn === NO_FRAME) return;
    this.changing(vpn, () => {
      page.stored = this.bytesAt(page.pfn).slice();
      this.wipe(page.pfn);
      page.pfn = NO_FRAME;
    });
  }

  /** Moves a page to another frame. */
  move(vpn: number): void {
    const page = this.pages.get(vpn);
    if (page === undefined || page.pfn === NO_FRAME) return;
    const to = this.take();
    if (to === NO_FRAME) return;
    this.changing(vpn, () => {
      this.bytesAt(to).set(this.bytesAt(page.pfn));
      this.wipe(page.pfn);
      page.pfn = to;
    });
  }

  protect(vpn: number, canWrite: boolean): void {
    const page = this.pages.get(vpn);
    if (page === undefined) return;
    this.changing(vpn, () => {
      page.canWrite = canWrite;
    });
  }

  /** What the process reads: one page. */
  contents(vpn: number): Uint8Array {
    const page = this.pages.get(vpn);
    if (page === undefined) return new Uint8Array(0);
    return page.pfn === NO_FRAME ? (page.stored as Uint8Array) : this.bytesAt(page.pfn);
  }

  bytesAt(pfn: Pfn): Uint8Array {
    const offset = this.memory.offsetOf(pfn);
    return this.memory.bytesOf(pfn).subarray(offset, offset + FRAME_BYTES);
  }

  /** A frame that no page has and that was written since the last one had it; -1: there is none. */
  touchedFrame(): Pfn {
    for (const pfn of this.gone) {
      if (this.bytesAt(pfn).some((byte) => byte !== POISON)) return pfn;
    }
    return NO_FRAME;
  }

  private take(): Pfn {
    const pfn = this.memory.allocate(0, MIGRATE.MOVABLE);
    this.gone.delete(pfn);
    return pfn;
  }

  private evictOldest(): void {
    const vpn = this.arrivals.shift();
    if (vpn === undefined) return;
    this.evict(vpn);
    this.evictedCount++;
  }

  private changing(vpn: number, change: () => void): void {
    const start = vpn * FRAME_BYTES;
    this.sequence++;
    for (const notifier of this.notifiers) {
      if (notifier.start < start + FRAME_BYTES && start < notifier.end) {
        notifier.invalidate(start, start + FRAME_BYTES);
      }
    }
    change();
    this.sequence++;
  }

  private wipe(pfn: Pfn): void {
    this.bytesAt(pfn).fill(POISON);
    this.memory.put(pfn);
    this.gone.add(pfn);
  }
}
