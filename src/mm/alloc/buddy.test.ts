// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { BLOCK_TYPE, MIGRATE, NO_FRAME, type Pfn, PhysicalMemory, ZONE } from "../frames/index.js";

const { MOVABLE, RECLAIMABLE, UNMOVABLE } = MIGRATE;

function memoryOf(blocks: number) {
  const memory = new PhysicalMemory();
  const watermarks = { min: 0, low: 0, high: 0 };
  const options = { kind: ZONE.NORMAL, name: "normal", bytes: blocks << 21, watermarks };
  return { memory, zone: memory.addZone(options) };
}

/** Takes all that is free as single frames that can't move, save those of `kept`. */
function fill(memory: PhysicalMemory, kept: (pfn: Pfn) => boolean): void {
  const pfns: Pfn[] = [];
  while (memory.freeFrames > 0) pfns.push(memory.allocate(0, MOVABLE));
  for (const pfn of pfns) if (kept(pfn)) memory.put(pfn);
}

describe("page blocks", () => {
  it("unmovable requests take the block with the largest free piece, one after the other", () => {
    const { memory, zone } = memoryOf(3);
    // Pieces of 4 frames in block 0, of 64 in block 1, of 16 in block 2.
    const sizes = [4, 64, 16];
    fill(memory, (pfn) => pfn % 512 < (sizes[pfn >>> 9] as number));
    expect(memory.allocate(0, UNMOVABLE)).toBe(512);
    expect([...zone.buddy.blocks.types]).toEqual([MOVABLE, UNMOVABLE, MOVABLE]);
    for (let i = 1; i < 64; i++) expect(memory.allocate(0, UNMOVABLE) >>> 9).toBe(1);
    expect(memory.allocate(0, RECLAIMABLE) >>> 9).toBe(2);
    expect(memory.counters.blocksClaimed).toBe(2);
    memory.checkInvariants();
  });

  it("movable requests go to the reclaimable before the unmovable, and leave blocks theirs", () => {
    const { memory, zone } = memoryOf(3);
    const unmovable = Array.from({ length: 512 }, () => memory.allocate(0, UNMOVABLE));
    const reclaimable = memory.allocate(0, RECLAIMABLE);
    memory.allocate(9, MOVABLE);
    const hole = unmovable[100] as Pfn;
    memory.put(hole);
    for (let i = 0; i < 511; i++) {
      expect(memory.allocate(0, MOVABLE) >>> 9).toBe(reclaimable >>> 9);
    }
    expect(memory.allocate(0, MOVABLE)).toBe(hole);
    expect(zone.buddy.blocks.types[hole >>> 9]).toBe(UNMOVABLE);
    expect(zone.buddy.blocks.types[reclaimable >>> 9]).toBe(RECLAIMABLE);
    memory.checkInvariants();
  });

  it("free altogether → nobody's, whoever had it", () => {
    const { memory, zone } = memoryOf(2);
    const pfns = [memory.allocate(0, UNMOVABLE), memory.allocate(3, UNMOVABLE)];
    const block = (pfns[0] as Pfn) >>> 9;
    expect(zone.buddy.blocks.types[block]).toBe(UNMOVABLE);
    for (const pfn of pfns) memory.put(pfn);
    expect(zone.buddy.blocks.types[block]).toBe(BLOCK_TYPE.MOVABLE);
    memory.checkInvariants();
    expect(memory.allocate(10, MOVABLE)).toBe(0);
  });

  it("the reserve is given to 2 MiB requests first and stays a reserve when it comes back", () => {
    const { memory, zone } = memoryOf(4);
    zone.buddy.setBlockType(3, BLOCK_TYPE.HUGE);
    memory.checkInvariants();
    const huge = memory.allocate(9, MOVABLE);
    expect(huge >>> 9).toBe(3);
    memory.put(huge);
    expect(zone.buddy.blocks.types[3]).toBe(BLOCK_TYPE.HUGE);
    let got = 0;
    while (memory.allocate(0, MOVABLE) !== NO_FRAME) got++;
    expect([got, zone.buddy.freeFor(0), zone.buddy.freeFor(9)]).toEqual([3 * 512, 0, 512]);
    memory.checkInvariants();
  });
});
