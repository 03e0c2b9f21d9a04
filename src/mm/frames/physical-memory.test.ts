// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { HeapMemorySource } from "../../base/index.js";
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

  referencesOf(): number {
    return 1;
  }

  detach(pfn: Pfn): boolean {
    this.told.push(`detach ${pfn}`);
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
});
