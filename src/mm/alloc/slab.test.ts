// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { MIGRATE, MOVE_RESULT, PhysicalMemory, ZONE } from "../frames/index.js";
import {
  DEFAULT_POLICY,
  NO_OBJECT,
  type ObjectAddress,
  type ObjectMover,
  SlabCache,
} from "./index.js";

const MIB = 2 ** 20;

/** Knows where its objects are; `busy` ones stay. */
class Registry implements ObjectMover {
  readonly objects = new Set<ObjectAddress>();
  readonly busy = new Set<ObjectAddress>();
  held = 0;

  hold(object: ObjectAddress): boolean {
    if (this.busy.has(object)) return false;
    this.held++;
    return true;
  }

  moved(from: ObjectAddress, to: ObjectAddress): void {
    this.held--;
    expect(this.objects.delete(from)).toBe(true);
    this.objects.add(to);
  }
}

function world(movableSlabs = true) {
  const memory = new PhysicalMemory({ policy: { ...DEFAULT_POLICY, movableSlabs } });
  memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes: 4 * MIB });
  const registry = new Registry();
  const cache = new SlabCache(memory, { name: "objects", objectBytes: 512, mover: registry });
  return { memory, registry, cache };
}

function fill(cache: SlabCache, registry: Registry, count: number): void {
  for (let i = 0; i < count; i++) registry.objects.add(cache.allocate());
}

/** Frees all but one object of each slab. */
function thin(cache: SlabCache, registry: Registry): void {
  const slabs = new Set<number>();
  for (const object of [...registry.objects]) {
    const slab = Math.floor(object / 4096);
    if (!slabs.has(slab)) slabs.add(slab);
    else {
      cache.free(object);
      registry.objects.delete(object);
    }
  }
}

describe("SlabCache", () => {
  it("objects of one slab after another; empty slabs but one go back", () => {
    const { memory, registry, cache } = world();
    expect([cache.order, cache.objectsPerSlab, cache.isMovable]).toEqual([0, 8, true]);
    fill(cache, registry, 20);
    expect([cache.slabCount, cache.partialCount]).toEqual([3, 1]);
    for (const object of registry.objects) cache.free(object);
    expect([cache.slabCount, cache.emptyCount, cache.objectCount]).toEqual([1, 1, 0]);
    cache.checkInvariants();
    cache.close();
    expect(memory.freeFrames).toBe(1024);
  });

  it("one object in each slab → defragmented into as few as hold them", () => {
    const { memory, registry, cache } = world();
    fill(cache, registry, 40 * 8);
    thin(cache, registry);
    expect(cache.slabCount).toBe(40);
    cache.defragment();
    expect(cache.slabCount).toBe(5);
    const found = new Set<ObjectAddress>();
    cache.forEach((object) => {
      found.add(object);
    });
    expect(found).toEqual(registry.objects);
    expect(registry.held).toBe(0);
    cache.checkInvariants();
    memory.checkInvariants();
  });

  it("memory is short → movable slabs are emptied into others; fixed ones are in the way", () => {
    for (const isMovable of [true, false]) {
      const { memory, registry, cache } = world(isMovable);
      fill(cache, registry, 900 * 8);
      thin(cache, registry);
      const free = memory.freeFrames;
      expect(free).toBeLessThan(512);
      const got = memory.allocate(9, MIGRATE.MOVABLE) !== -1;
      expect(got).toBe(isMovable);
      cache.checkInvariants();
      memory.checkInvariants();
    }
  });

  it("a busy object keeps its slab where it is, and the others are let go again", () => {
    const { memory, registry, cache } = world();
    fill(cache, registry, 8);
    const last = [...registry.objects].at(-1) as ObjectAddress;
    registry.busy.add(last);
    const pfn = Math.floor(last / 4096);
    expect(memory.move(pfn)).toBe(MOVE_RESULT.BUSY);
    expect(registry.held).toBe(0);
    registry.busy.clear();
    expect(memory.move(pfn)).toBe(MOVE_RESULT.DONE);
    expect(registry.objects.has(last)).toBe(false);
    cache.checkInvariants();
  });

  it("a pinned slab stays, whatever is asked", () => {
    const { memory, registry, cache } = world();
    fill(cache, registry, 16);
    thin(cache, registry);
    const pfns = [...registry.objects].map((object) => Math.floor(object / 4096));
    for (const pfn of pfns) memory.pin(pfn);
    const before = [...registry.objects];
    expect(cache.defragment()).toBe(0);
    expect([...registry.objects]).toEqual(before);
  });

  it("memory is full of what caches give back → they do, for an object", () => {
    const { memory, cache } = world();
    const pages: number[] = [];
    memory.registerReclaimer({
      reclaim: (frameCount) => {
        const gone = pages.splice(0, frameCount);
        for (const pfn of gone) memory.put(pfn);
        return gone.length;
      },
    });
    while (memory.freeFrames > 0) pages.push(memory.allocate(0, MIGRATE.MOVABLE));
    for (let i = 0; i < 100; i++) expect(cache.allocate()).not.toBe(NO_OBJECT);
    expect(pages.length).toBe(1024 - 13);
    cache.checkInvariants();
  });

  it("a slab that somebody holds is not freed with its last object", () => {
    const { memory, registry, cache } = world();
    fill(cache, registry, 24);
    const pfns = [...new Set([...registry.objects].map((object) => Math.floor(object / 4096)))];
    for (const pfn of pfns) memory.get(pfn);
    for (const object of registry.objects) cache.free(object);
    expect([cache.emptyCount, cache.shrink()]).toEqual([3, 0]);
    for (const pfn of pfns) expect(memory.referencesOf(pfn)).toBe(2);
    for (const pfn of pfns) memory.put(pfn);
    expect([cache.shrink(), memory.freeFrames]).toEqual([3, 1024]);
  });

  it("an address in what a slab wastes is no object", () => {
    const { memory } = world();
    const cache = new SlabCache(memory, { name: "odd", objectBytes: 1000 });
    const pfn = Math.floor(cache.allocate() / 4096);
    expect(() => cache.free(pfn * 4096 + 4 * 1000)).toThrow("what a slab wastes");
    expect(() => cache.free(pfn * 4096 + 8)).toThrow("by its address");
    cache.checkInvariants();
  });

  it("no memory → NO_OBJECT; freed twice, or in another cache → asserts", () => {
    const { registry, cache, memory } = world();
    for (let i = 0; i < 1024 * 8; i++) registry.objects.add(cache.allocate());
    expect(cache.allocate()).toBe(NO_OBJECT);
    const [first] = registry.objects;
    cache.free(first as ObjectAddress);
    expect(() => cache.free(first as ObjectAddress)).toThrow("freed once");
    const other = new SlabCache(memory, { name: "other", objectBytes: 512 });
    const [, second] = registry.objects;
    expect(() => other.free(second as ObjectAddress)).toThrow("in its cache");
  });
});
