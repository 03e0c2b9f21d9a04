// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { FRAME_FLAG, MIGRATE, NO_FRAME, type Pfn, PhysicalMemory, ZONE } from "../frames/index.js";
import { HugePool } from "./index.js";

function memoryOf(hugePages: number): PhysicalMemory {
  const memory = new PhysicalMemory();
  const watermarks = { min: 0, low: 0, high: 0 };
  memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes: hugePages << 21, watermarks });
  return memory;
}

describe("HugePool", () => {
  it("grows as far as memory goes; what is in it is there when nothing else is", () => {
    const memory = memoryOf(4);
    const pool = new HugePool(memory);
    expect(pool.resize(3)).toBe(3);
    while (memory.allocate(0, MIGRATE.UNMOVABLE) !== NO_FRAME);
    expect(pool.resize(4)).toBe(3);
    const pages = [pool.take(), pool.take(), pool.take()];
    expect(pages.map((pfn) => pfn % 512)).toEqual([0, 0, 0]);
    expect([pool.take(), pool.idleCount, pool.pageCount]).toEqual([NO_FRAME, 0, 3]);
    // Nothing is taken from its users.
    expect(pool.resize(0)).toBe(3);
    for (const pfn of pages) pool.give(pfn);
    expect([pool.resize(0), memory.freeFrames]).toEqual([0, 3 * 512]);
  });

  it("an empty pool lends as many as it may beyond its own, which go back first", () => {
    const memory = memoryOf(4);
    const pool = new HugePool(memory, { surplusMax: 1 });
    pool.resize(1);
    const pages = [pool.take(), pool.take()] as [Pfn, Pfn];
    expect([pool.surplusCount, pool.take()]).toEqual([1, NO_FRAME]);
    pool.give(pages[0]);
    expect([pool.surplusCount, pool.idleCount, memory.freeFrames]).toEqual([0, 0, 3 * 512]);
    pool.give(pages[1]);
    expect([pool.idleCount, memory.freeFrames]).toEqual([1, 3 * 512]);
    expect(pool.take()).toBe(pages[1]);
    expect(pool.surplusCount).toBe(0);
    memory.checkInvariants();
  });

  it("a page comes back without owner, flags, pins or other users", () => {
    const memory = memoryOf(2);
    const pool = new HugePool(memory);
    pool.resize(1);
    const pfn = pool.take();
    memory.setFlag(pfn, FRAME_FLAG.ANON | FRAME_FLAG.DIRTY);
    memory.get(pfn);
    expect(() => pool.give(pfn)).toThrow("last user");
    memory.put(pfn);
    memory.pin(pfn);
    expect(() => pool.give(pfn)).toThrow("not pinned");
    memory.unpin(pfn);
    pool.give(pfn);
    expect(memory.flagsOf(pool.take())).toBe(0);
  });
});
