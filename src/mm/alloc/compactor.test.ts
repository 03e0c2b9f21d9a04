// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import {
  ALLOCATE,
  type FrameOwner,
  MIGRATE,
  type MigrateType,
  NO_FRAME,
  type Pfn,
  PhysicalMemory,
  ZONE,
} from "../frames/index.js";
import {
  type AllocatorPolicy,
  ContiguousAllocator,
  DEFAULT_POLICY,
  unusableShare,
} from "./index.js";

const MIB = 2 ** 20;

/** Pages that move when they are told to; `pfns[index]` says where each is. */
class Pages implements FrameOwner {
  readonly name = "pages";
  readonly pfns: Pfn[] = [];
  /** Pages that don't let go, by index. */
  readonly busy = new Set<number>();
  private readonly memory: PhysicalMemory;
  private readonly id: number;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    this.id = memory.registerOwner(this);
  }

  add(migrate: MigrateType = MIGRATE.MOVABLE): Pfn {
    const pfn = this.memory.allocate(0, migrate);
    this.memory.setOwner(pfn, this.id, this.pfns.length);
    this.pfns.push(pfn);
    return pfn;
  }

  /** Frees all but every `n`th. */
  thin(n: number): void {
    for (const [index, pfn] of this.pfns.entries()) {
      if (index % n === 0) continue;
      this.memory.put(pfn);
      this.pfns[index] = NO_FRAME;
    }
  }

  referencesOf(): number {
    return 1;
  }

  detach(_pfn: Pfn, index: number): boolean {
    return !this.busy.has(index);
  }

  attach(_from: Pfn, to: Pfn, index: number): void {
    this.pfns[index] = to;
  }
}

function filled(mebibytes: number, policy: Partial<AllocatorPolicy> = {}) {
  const memory = new PhysicalMemory({ policy: { ...DEFAULT_POLICY, ...policy } });
  const zone = memory.addZone({
    kind: ZONE.NORMAL,
    name: "normal",
    bytes: mebibytes * MIB,
    watermarks: { min: 0, low: 0, high: 0 },
  });
  const pages = new Pages(memory);
  while (memory.freeFrames > 0) pages.add();
  return { memory, zone, pages };
}

describe("a request that waits", () => {
  it("every fourth frame used → 2 MiB for a quarter of it moved", () => {
    const { memory, pages } = filled(8);
    pages.thin(4);
    expect(memory.allocate(9, MIGRATE.UNMOVABLE, ALLOCATE.NO_COMPACT)).toBe(NO_FRAME);
    const pfn = memory.allocate(9, MIGRATE.UNMOVABLE);
    expect(pfn % 512).toBe(0);
    expect(memory.counters.framesMoved).toBe(128);
    memory.checkInvariants();
  });

  it("a pinned frame in every page block → refused, and nothing has moved", () => {
    const { memory, pages } = filled(8);
    pages.thin(4);
    for (let block = 0; block < 4; block++) memory.pin(pages.pfns[block * 512 + 8] as Pfn);
    const before = [...pages.pfns];
    expect(memory.allocate(9, MIGRATE.MOVABLE)).toBe(NO_FRAME);
    expect(pages.pfns).toEqual(before);
    expect(memory.counters.framesMoved).toBe(0);
    memory.unpin(pages.pfns[2 * 512 + 8] as Pfn);
    expect(memory.allocate(9, MIGRATE.MOVABLE)).toBe(2 * 512);
  });

  it("less than 2 MiB → a window of that size, within a page block that is lost to 2 MiB", () => {
    const { memory, pages } = filled(2);
    pages.thin(4);
    memory.pin(pages.pfns[0] as Pfn);
    const pfn = memory.allocate(4, MIGRATE.MOVABLE);
    expect(pfn % 16).toBe(0);
    expect(memory.counters.framesMoved).toBeLessThanOrEqual(16);
    memory.checkInvariants();
  });

  it("who won't let go is found out on the way → what was taken is free again", () => {
    const { memory, pages } = filled(8);
    pages.thin(4);
    for (let block = 0; block < 4; block++) pages.busy.add(block * 512 + 508);
    const free = memory.freeFrames;
    expect(memory.allocate(9, MIGRATE.MOVABLE)).toBe(NO_FRAME);
    expect(memory.freeFrames).toBe(free);
    memory.checkInvariants();
    const contiguous = new ContiguousAllocator(memory);
    expect(contiguous.allocateRange(600)).toBe(NO_FRAME);
    expect(memory.freeFrames).toBe(free);
    memory.checkInvariants();
    pages.busy.clear();
    expect(memory.allocate(9, MIGRATE.MOVABLE)).not.toBe(NO_FRAME);
  });

  it("no compaction in the policy → refused", () => {
    for (const compaction of ["none", "background"] as const) {
      const { memory, pages } = filled(8, { compaction });
      pages.thin(4);
      expect(memory.allocate(9, MIGRATE.MOVABLE)).toBe(NO_FRAME);
    }
  });
});

describe("the background", () => {
  it("goes on in bounded turns until the free memory is whole, then rests", () => {
    const { memory, zone, pages } = filled(32);
    pages.thin(4);
    const { compactor, counters } = memory;
    let nowNs = 0;
    let turns = 0;
    while (Number.isFinite(compactor.deadlineNs()) && turns++ < 1000) {
      nowNs = Math.max(nowNs, compactor.deadlineNs());
      const before = counters.framesMoved;
      compactor.pump(nowNs);
      expect(counters.framesMoved - before).toBeLessThanOrEqual(256 + 512);
      memory.checkInvariants();
    }
    expect(turns).toBeLessThan(1000);
    expect(unusableShare(zone)).toBeLessThanOrEqual(0.1);
    // What stays is at the top: the scanners went from both ends.
    const kept = pages.pfns.filter((pfn) => pfn !== NO_FRAME);
    expect(Math.min(...kept)).toBeGreaterThan(zone.frameCount / 2);
  });

  it("passes that gain nothing → looks come ever later; after a gain soon again", () => {
    const { memory, pages } = filled(8);
    pages.thin(2);
    const stuck = [0, 1, 2, 3].map((block) => pages.pfns[block * 512] as Pfn);
    for (const pfn of stuck) memory.pin(pfn);
    const { compactor } = memory;
    let nowNs = 0;
    const pass = (): number => {
      // Something is freed, so that there is a reason to look again.
      memory.put(memory.allocate(0, MIGRATE.MOVABLE));
      const startNs = nowNs;
      compactor.pump(nowNs);
      while (compactor.deadlineNs() === startNs) compactor.pump(nowNs);
      while (compactor.deadlineNs() <= nowNs + 1e6) {
        nowNs = compactor.deadlineNs();
        compactor.pump(nowNs);
      }
      memory.put(memory.allocate(0, MIGRATE.MOVABLE));
      const waitNs = compactor.deadlineNs() - nowNs;
      nowNs = compactor.deadlineNs();
      return waitNs / 500e6;
    };
    const waits: number[] = [];
    for (let i = 0; i < 8; i++) waits.push(pass());
    expect(waits).toEqual([2, 4, 8, 16, 32, 64, 64, 64]);
    for (const pfn of stuck) memory.unpin(pfn);
    expect(pass()).toBe(1);
  });

  it("nothing to gain → it doesn't come back by itself", () => {
    const { memory } = filled(8);
    memory.compactor.pump(0);
    expect(memory.compactor.deadlineNs()).toBe(Number.POSITIVE_INFINITY);
    expect(memory.counters.framesMoved).toBe(0);
  });
});

describe("unmovable requests", () => {
  it("movable frames leave the blocks of the unmovable before one more is taken", () => {
    const { memory, zone, pages } = filled(8);
    // A hole in one page block: the first unmovable frame takes it, and the block.
    memory.put(pages.pfns[700] as Pfn);
    pages.pfns[700] = NO_FRAME;
    expect(memory.allocate(0, MIGRATE.UNMOVABLE)).toBe(700);
    expect(zone.buddy.blocks.types[1]).toBe(MIGRATE.UNMOVABLE);
    // Room elsewhere: movable frames go there, the unmovable stay together.
    for (let index = 0; index < 256; index++) {
      memory.put(pages.pfns[index] as Pfn);
      pages.pfns[index] = NO_FRAME;
    }
    for (let i = 0; i < 200; i++) {
      expect(Math.floor(memory.allocate(0, MIGRATE.UNMOVABLE) / 512)).toBe(1);
    }
    expect(zone.buddy.blocks.stuck[0]).toBe(0);
    memory.checkInvariants();
  });
});

describe("ContiguousAllocator", () => {
  it("a range over used frames: they move out of the way, the rest stays free", () => {
    const { memory, pages } = filled(16);
    pages.thin(4);
    const contiguous = new ContiguousAllocator(memory);
    expect(contiguous.allocateRange(1300, 512, MIGRATE.UNMOVABLE, ALLOCATE.NO_COMPACT)).toBe(-1);
    const free = memory.freeFrames;
    const pfn = contiguous.allocateRange(1300, 512);
    expect(pfn % 512).toBe(0);
    expect(memory.freeFrames).toBe(free - 1300);
    for (const page of pages.pfns) expect(page >= pfn && page < pfn + 1300).toBe(false);
    memory.checkInvariants();
    expect(contiguous.freeRange(pfn, 1300)).toBe(true);
    expect(memory.freeFrames).toBe(free);
  });

  it("two free blocks side by side are a range, though no block", () => {
    const memory = new PhysicalMemory();
    memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes: 6 * MIB });
    const last = memory.allocate(9, MIGRATE.MOVABLE);
    memory.allocate(9, MIGRATE.MOVABLE);
    memory.put(last);
    const contiguous = new ContiguousAllocator(memory);
    expect(contiguous.allocateRange(1024)).toBe(512);
  });

  it("alignments beyond 2 MiB hold for ranges of several blocks", () => {
    const memory = new PhysicalMemory();
    const watermarks = { min: 0, low: 0, high: 0 };
    memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes: 10 * MIB, watermarks });
    expect(memory.claim(0, 9, MIGRATE.UNMOVABLE)).toBe(true);
    const contiguous = new ContiguousAllocator(memory);
    expect(contiguous.allocateRange(1100, 1024)).toBe(1024);
    expect(contiguous.allocateRange(400, 4)).toBe(512);
  });

  it("leaves what the watermark keeps; what caches give back is reclaimed for it", () => {
    const memory = new PhysicalMemory();
    const watermarks = { min: 100, low: 120, high: 140 };
    memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes: 4 * MIB, watermarks });
    const contiguous = new ContiguousAllocator(memory);
    expect(contiguous.allocateRange(1000)).toBe(NO_FRAME);
    const pages: Pfn[] = [];
    memory.registerReclaimer({
      reclaim: (frameCount) => {
        const gone = pages.splice(0, frameCount);
        for (const pfn of gone) memory.put(pfn);
        return gone.length;
      },
    });
    while (memory.freeFrames > 100) pages.push(memory.allocate(0, MIGRATE.MOVABLE));
    expect(contiguous.allocateRange(250, 1, MIGRATE.UNMOVABLE, ALLOCATE.NO_RECLAIM)).toBe(NO_FRAME);
    const pfn = contiguous.allocateRange(250);
    expect(pfn).not.toBe(NO_FRAME);
    expect(memory.freeFrames).toBe(120);
    memory.checkInvariants();
  });
});
