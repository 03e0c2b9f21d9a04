// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { HeapMemorySource } from "../../base/index.js";
import { DEFAULT_POLICY, MemoryBackground } from "../alloc/index.js";
import {
  ALLOCATE,
  FRAME_BYTES,
  FRAME_FLAG,
  type FrameOwner,
  MIGRATE,
  MOVE_RESULT,
  NO_FRAME,
  type Pfn,
  PhysicalMemory,
  type Reclaimer,
  ZONE,
} from "./index.js";

const MIB = 1 << 20;

function memoryOf(bytes: number): PhysicalMemory {
  const memory = new PhysicalMemory();
  const section = new HeapMemorySource().allocate(bytes);
  memory.addZone({ kind: ZONE.NORMAL, name: "test", bytes, sections: [section] });
  return memory;
}

/** An owner that holds one reference on each frame and notes what it is told. */
class Holder implements FrameOwner {
  readonly name = "holder";
  readonly told: string[] = [];
  letsGo = true;
  /** What happens while it lets go, by way of whom it tells. */
  onDetach: (pfn: Pfn) => void = () => {};

  referencesOf(): number {
    return 1;
  }

  detach(pfn: Pfn): boolean {
    this.told.push(`detach ${pfn}`);
    this.onDetach(pfn);
    return this.letsGo;
  }

  attach(from: Pfn, to: Pfn, index: number): void {
    this.told.push(`attach ${from} ${to} ${index}`);
  }
}

describe("PhysicalMemory", () => {
  it("allocated → aligned, one reference, no pin, no owner; the last put frees", () => {
    const memory = memoryOf(4 * MIB);
    const pfn = memory.allocate(3, MIGRATE.MOVABLE);
    expect(pfn % 8).toBe(0);
    expect(memory.freeFrames).toBe(1024 - 8);
    expect([memory.referencesOf(pfn), memory.pinsOf(pfn), memory.ownerOf(pfn)]).toEqual([
      1,
      0,
      null,
    ]);
    memory.get(pfn + 7);
    expect(memory.referencesOf(pfn)).toBe(2);
    expect(memory.headOf(pfn + 5)).toBe(pfn);
    expect(memory.orderOf(pfn + 5)).toBe(3);
    memory.checkInvariants();
    expect(memory.put(pfn)).toBe(false);
    expect(memory.put(pfn + 1)).toBe(true);
    expect(memory.freeFrames).toBe(1024);
    memory.checkInvariants();
    expect(() => memory.put(pfn)).toThrow("in use");
  });

  it("everything allocated → NO_FRAME; everything freed → one piece again", () => {
    const memory = memoryOf(2 * MIB);
    const frames: Pfn[] = [];
    for (let pfn = memory.allocate(0, MIGRATE.UNMOVABLE); pfn !== NO_FRAME; ) {
      frames.push(pfn);
      pfn = memory.allocate(0, MIGRATE.UNMOVABLE);
    }
    expect(new Set(frames).size).toBe(512);
    memory.checkInvariants();
    for (const pfn of frames) memory.put(pfn);
    memory.checkInvariants();
    expect(memory.allocate(9, MIGRATE.MOVABLE)).toBe(0);
  });

  it("a pinned frame is not freed, and not moved", () => {
    const memory = memoryOf(MIB);
    const owner = memory.registerOwner(new Holder());
    const pfn = memory.allocate(0, MIGRATE.MOVABLE);
    memory.setOwner(pfn, owner, 7);
    memory.pin(pfn, 2);
    memory.checkInvariants();
    expect(memory.move(pfn)).toBe(MOVE_RESULT.PINNED);
    memory.unpin(pfn);
    expect(memory.isPinned(pfn)).toBe(true);
    expect(() => memory.put(pfn)).toThrow("not pinned");
  });

  it("moved → contents, flags, owner and index are at the new place, the old is free", () => {
    const memory = memoryOf(MIB);
    const holder = new Holder();
    const pfn = memory.allocate(1, MIGRATE.MOVABLE);
    memory.setOwner(pfn, memory.registerOwner(holder), 7);
    memory.setFlag(pfn, FRAME_FLAG.DIRTY);
    memory.bytesOf(pfn).fill(0x5a, memory.offsetOf(pfn), memory.offsetOf(pfn) + 8192);
    const to = memory.allocate(1, MIGRATE.MOVABLE);
    expect(memory.move(pfn, to)).toBe(MOVE_RESULT.DONE);
    expect(holder.told).toEqual([`detach ${pfn}`, `attach ${pfn} ${to} 7`]);
    expect(memory.ownerOf(to)).toBe(holder);
    expect(memory.indexOf(to)).toBe(7);
    expect(memory.hasFlag(to, FRAME_FLAG.DIRTY)).toBe(true);
    expect(memory.bytesOf(to)[memory.offsetOf(to) + 8191]).toBe(0x5a);
    expect(memory.freeFrames).toBe(254);
    memory.checkInvariants();
  });

  it("moved over the end of a section → every frame's bytes come along", () => {
    const memory = new PhysicalMemory();
    const heap = new HeapMemorySource();
    const sections = [heap.allocate(3 * FRAME_BYTES), heap.allocate(MIB - 3 * FRAME_BYTES)];
    memory.addZone({ kind: ZONE.NORMAL, name: "test", bytes: MIB, sections });
    const pfn = memory.allocate(2, MIGRATE.MOVABLE);
    memory.setOwner(pfn, memory.registerOwner(new Holder()), 0);
    const view = (frame: Pfn) => memory.viewOf(frame);
    for (let i = 0; i < 4; i++) view(pfn + i).setUint32(memory.offsetOf(pfn + i) + 4092, i + 1);
    const to = memory.allocate(2, MIGRATE.MOVABLE);
    expect(memory.bytesOf(pfn)).not.toBe(memory.bytesOf(pfn + 3));
    expect(memory.move(pfn, to)).toBe(MOVE_RESULT.DONE);
    const found = [0, 1, 2, 3].map((i) => view(to + i).getUint32(memory.offsetOf(to + i) + 4092));
    expect(found).toEqual([1, 2, 3, 4]);
  });

  it("a reference not accounted for, no owner, an owner who won't → not moved", () => {
    const memory = memoryOf(MIB);
    const holder = new Holder();
    const pfn = memory.allocate(0, MIGRATE.MOVABLE);
    expect(memory.move(pfn)).toBe(MOVE_RESULT.UNMOVABLE);
    memory.setOwner(pfn, memory.registerOwner(holder), 0);
    memory.get(pfn);
    expect(memory.move(pfn)).toBe(MOVE_RESULT.BUSY);
    expect(holder.told).toEqual([]);
    memory.put(pfn);
    holder.letsGo = false;
    expect(memory.move(pfn)).toBe(MOVE_RESULT.BUSY);
    expect(memory.freeFrames).toBe(255);
    memory.checkInvariants();
  });

  it("held or pinned while its owner lets go → not moved, and the owner has it back", () => {
    const memory = memoryOf(MIB);
    const holder = new Holder();
    const pfn = memory.allocate(0, MIGRATE.MOVABLE);
    memory.setOwner(pfn, memory.registerOwner(holder), 3);
    for (const [hold, result] of [
      [() => memory.get(pfn), MOVE_RESULT.BUSY],
      [() => memory.pin(pfn), MOVE_RESULT.PINNED],
    ] as const) {
      holder.onDetach = hold;
      expect(memory.move(pfn)).toBe(result);
      expect(holder.told.splice(0)).toEqual([`detach ${pfn}`, `attach ${pfn} ${pfn} 3`]);
      if (result === MOVE_RESULT.BUSY) memory.put(pfn);
    }
    expect(memory.freeFrames).toBe(255);
    memory.checkInvariants();
  });

  it("zeroes asked for → none of what was there before", () => {
    const memory = memoryOf(MIB);
    const pfn = memory.allocate(8, MIGRATE.UNMOVABLE);
    memory.bytesOf(pfn).fill(0xff);
    memory.put(pfn);
    const half = memory.allocate(7, MIGRATE.UNMOVABLE, ALLOCATE.ZERO);
    const offset = memory.offsetOf(half);
    const bytes = memory.bytesOf(half).subarray(offset, offset + 128 * FRAME_BYTES);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    expect(memory.counters.framesWiped).toBe(128);
  });

  it("split → single frames with the references of the whole", () => {
    const memory = memoryOf(MIB);
    const pfn = memory.allocate(2, MIGRATE.MOVABLE);
    memory.setOwner(pfn, memory.registerOwner(new Holder()), 40);
    memory.split(pfn);
    memory.checkInvariants();
    expect([0, 1, 2, 3].map((i) => memory.indexOf(pfn + i))).toEqual([40, 41, 42, 43]);
    for (let i = 0; i < 4; i++) expect(memory.put(pfn + i)).toBe(true);
    expect(memory.freeFrames).toBe(256);
    memory.checkInvariants();
  });

  it("a device zone of 1 GiB granules: a record for each, taken where its owner says", () => {
    const memory = memoryOf(MIB);
    const bytes = 24 * 2 ** 30;
    const zone = memory.addZone({ kind: ZONE.P2P, name: "BAR 2", bytes, granuleShift: 30 });
    expect(zone.table.recordCount).toBe(24);
    const pfn = zone.basePfn + 5 * 2 ** 18;
    expect(memory.claim(pfn, 18, MIGRATE.UNMOVABLE)).toBe(true);
    expect(memory.claim(pfn, 18, MIGRATE.UNMOVABLE)).toBe(false);
    memory.pin(pfn + 12_345);
    expect(memory.isPinned(pfn)).toBe(true);
    expect(memory.headOf(pfn + 12_345)).toBe(pfn);
    expect(memory.move(pfn)).toBe(MOVE_RESULT.UNMOVABLE);
    expect(() => memory.bytesOf(pfn)).toThrow("no bytes");
    memory.checkInvariants();
    memory.unpin(pfn);
    memory.put(pfn);
    memory.removeZone(zone);
    expect(memory.hasFrame(pfn)).toBe(false);
  });

  it("claimed beyond the end, or where something is used → refused, nothing taken", () => {
    const memory = memoryOf(7 * FRAME_BYTES);
    expect(memory.claim(4, 2, MIGRATE.MOVABLE)).toBe(false);
    expect(memory.claim(5, 0, MIGRATE.MOVABLE)).toBe(true);
    expect(memory.claim(4, 1, MIGRATE.MOVABLE)).toBe(false);
    expect(memory.freeFrames).toBe(6);
    memory.checkInvariants();
  });

  it("the last pin is gone → its owner is told", () => {
    const memory = memoryOf(MIB);
    const told: unknown[] = [];
    const owner = Object.assign(new Holder(), {
      unpinned: (pfn: Pfn, index: number) => told.push([pfn, index]),
    });
    const pfn = memory.allocate(1, MIGRATE.MOVABLE);
    memory.setOwner(pfn, memory.registerOwner(owner), 9);
    memory.pin(pfn + 1, 2);
    memory.unpin(pfn);
    expect(told).toEqual([]);
    memory.unpin(pfn + 1);
    expect(told).toEqual([[pfn, 9]]);
  });
});

/** A cache of single pages that gives back what it is asked for. */
class Pages implements Reclaimer {
  readonly asked: number[] = [];
  private readonly pfns: Pfn[] = [];
  private readonly memory: PhysicalMemory;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    memory.registerReclaimer(this);
  }

  /** Fills what is free without asking anybody. */
  fill(): void {
    for (;;) {
      const pfn = this.memory.allocate(0, MIGRATE.MOVABLE, ALLOCATE.NO_RECLAIM);
      if (pfn === NO_FRAME) return;
      this.pfns.push(pfn);
    }
  }

  reclaim(frameCount: number): number {
    this.asked.push(frameCount);
    const freed = Math.min(frameCount, this.pfns.length);
    for (let i = 0; i < freed; i++) this.memory.put(this.pfns.pop() as Pfn);
    return freed;
  }
}

describe("watermarks", () => {
  const WATERMARKS = { min: 20, low: 30, high: 50 };

  function scarce(policy = DEFAULT_POLICY) {
    const memory = new PhysicalMemory({ policy });
    const options = { kind: ZONE.NORMAL, name: "normal", bytes: 4 * MIB, watermarks: WATERMARKS };
    const zone = memory.addZone(options);
    return { memory, zone, pages: new Pages(memory) };
  }

  it("a normal zone has those of Linux: 4 x sqrt(KiB), a quarter and a half above", () => {
    const memory = new PhysicalMemory();
    const zone = memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes: 64 * MIB });
    expect(zone.watermarks).toEqual({ min: 256, low: 320, high: 384 });
    const small = memory.addZone({ kind: ZONE.NORMAL, name: "small", bytes: MIB });
    expect(small.watermarks).toEqual({ min: 0, low: 0, high: 0 });
  });

  it("below min only atomic requests are served; others have the caches fill up to low", () => {
    const { memory, pages } = scarce();
    pages.fill();
    expect(memory.freeFrames).toBe(20);
    const atomic = memory.allocate(2, MIGRATE.UNMOVABLE, ALLOCATE.ATOMIC);
    expect(atomic).not.toBe(NO_FRAME);
    expect([memory.freeFrames, pages.asked]).toEqual([16, []]);
    expect(memory.allocate(0, MIGRATE.UNMOVABLE)).not.toBe(NO_FRAME);
    expect([memory.freeFrames, pages.asked]).toEqual([30, [15]]);
    expect(memory.counters.framesReclaimed).toBe(15);
    memory.checkInvariants();
  });

  it("with nothing to reclaim: refused at min, and all of it is there for atomic requests", () => {
    const { memory } = scarce();
    let got = 0;
    while (memory.allocate(0, MIGRATE.UNMOVABLE) !== NO_FRAME) got++;
    expect(got).toBe(1024 - 20);
    while (memory.allocate(0, MIGRATE.UNMOVABLE, ALLOCATE.ATOMIC) !== NO_FRAME) got++;
    expect([got, memory.freeFrames]).toEqual([1024, 0]);
  });

  it("the background comes from below low up to high, and rests then", () => {
    const { memory, pages } = scarce();
    const background = new MemoryBackground(memory);
    background.pump(0);
    expect([pages.asked, background.deadlineNs()]).toEqual([[], Number.POSITIVE_INFINITY]);
    pages.fill();
    expect(background.deadlineNs()).toBe(0);
    background.pump(1);
    expect([memory.freeFrames, memory.isLow]).toEqual([50, false]);
    expect(background.deadlineNs()).toBe(memory.compactor.deadlineNs());
    // Nothing to be had: the next looks come later and later.
    while (memory.allocate(0, MIGRATE.UNMOVABLE) !== NO_FRAME);
    const waits: number[] = [];
    for (let nowNs = 1e9; waits.length < 4; ) {
      background.pump(nowNs);
      const deadlineNs = background.deadlineNs();
      waits.push(deadlineNs - nowNs);
      nowNs = deadlineNs;
    }
    expect(waits).toEqual([20e6, 40e6, 80e6, 160e6]);
  });

  it("a reserve for 2 MiB requests is no free memory for small ones", () => {
    const policy = { ...DEFAULT_POLICY, hugeReserveFrames: 512 };
    const { memory, pages } = scarce(policy);
    pages.fill();
    expect(memory.freeFrames).toBe(512 + 20);
    expect(memory.isLow).toBe(true);
    expect(memory.allocate(0, MIGRATE.UNMOVABLE)).not.toBe(NO_FRAME);
    expect(pages.asked).toEqual([11]);
    expect(memory.allocate(9, MIGRATE.MOVABLE, ALLOCATE.NO_RECLAIM)).toBe(512);
    memory.checkInvariants();
  });
});
