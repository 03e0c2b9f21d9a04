// SPDX-License-Identifier: MIT
// The tables under the device, against naive models.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HeapMemorySource, highOf, lowOf, SeededRandom } from "../base/index.js";
import { KeyTable } from "./key-table.js";
import { RegionTable } from "./regions.js";
import { TimerHeap } from "./timer-heap.js";
import { ViewCache } from "./view-cache.js";
import { ACCESS } from "./work-request.js";

const ALL = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ;

function table(countMax = 8) {
  const memory = new HeapMemorySource().allocate(65_536);
  const regions = new RegionTable(countMax, new SeededRandom(1));
  const at = (offset: number) =>
    [highOf(memory.address + offset), lowOf(memory.address + offset)] as const;
  return { memory, regions, at };
}

describe("memory regions", () => {
  it("check: exactly the bytes of the region, exactly its rights, exactly its domain", () => {
    const { memory, regions, at } = table();
    const region = regions.register(7, memory, 4096, 100, ALL);
    const key = regions.keyOf(region);
    const check = (offset: number, length: number, access = 0, pd = 7) =>
      regions.check(key, pd, access, ...at(offset), length);
    expect(check(4096, 100, ALL)).toBe(region);
    expect(check(4195, 1)).toBe(region);
    expect(check(4196, 0)).toBe(region);
    expect(check(4095, 1)).toBe(-1);
    expect(check(4096, 101)).toBe(-1);
    expect(check(4196, 1)).toBe(-1);
    expect(check(4096, 1, ACCESS.REMOTE_ATOMIC)).toBe(-1);
    expect(check(4096, 1, 0, 8)).toBe(-1);
    expect(regions.check(key ^ 1, 7, 0, ...at(4096), 1)).toBe(-1);
    expect(regions.offsetIn(region, ...at(4100))).toBe(4100);
  });

  it("addresses use all 64 bits", () => {
    const { memory, regions } = table();
    const region = regions.register(0, memory, 0, 8192, ALL, 0xff420000, 0xfffff000);
    const key = regions.keyOf(region);
    expect(regions.check(key, 0, 0, 0xff420001, 0, 4096)).toBe(region);
    expect(regions.offsetIn(region, 0xff420001, 0)).toBe(4096);
    expect(regions.check(key, 0, 0, 0xff420001, 0, 4097)).toBe(-1);
    expect(regions.check(key, 0, 0, 0x00420001, 0, 1)).toBe(-1);
  });

  it("register refuses what lies outside, and rights that the host has not", () => {
    const { memory, regions } = table(1);
    const wrong: [number, number, number][] = [
      [-1, 4, ALL],
      [0, 65_537, ALL],
      [65_530, 8, ALL],
      [0.5, 4, ALL],
      [0, Number.NaN, ALL],
      [0, 4, ACCESS.REMOTE_WRITE],
      [0, 4, ACCESS.REMOTE_ATOMIC],
      [0, 4, 16],
    ];
    for (const [offset, length, access] of wrong) {
      expect(() => regions.register(0, memory, offset, length, access)).toThrow();
    }
    expect(regions.count).toBe(0);
    regions.register(0, memory, 0, 4, ALL);
    expect(() => regions.register(0, memory, 0, 4, ALL)).toThrow("all its 1 memory regions");
  });

  it("freshKey: three reservations, the oldest goes; a key is good for one REG_MR", () => {
    const { memory, regions } = table();
    const base = regions.keyOf(regions.register(0, memory, 0, 65_536, ALL));
    const index = regions.allocateFast(0);
    const keys = [1, 2, 3, 4].map(() => regions.freshKey(index));
    const register = (key: number) =>
      regions.registerFast(0, index, key, ACCESS.LOCAL_WRITE, base, memory.address, 4096);
    expect(register(keys[0] as number)).toBe(false);
    expect(register(keys[2] as number)).toBe(true);
    expect(register(keys[3] as number)).toBe(false);
    expect(regions.invalidate(0, keys[2] as number)).toBe(true);
    expect(register(keys[2] as number)).toBe(false);
    expect(register(keys[1] as number)).toBe(true);
    regions.checkInvariants();
  });

  it("a region that goes takes the fast ones on its memory with it", () => {
    const { memory, regions } = table();
    const base = regions.register(0, memory, 0, 65_536, ALL);
    const index = regions.allocateFast(0);
    const key = regions.freshKey(index);
    regions.registerFast(0, index, key, 0, regions.keyOf(base), memory.address, 64);
    const generation = regions.generationOf(index);
    regions.deregister(base);
    expect(regions.find(key)).toBe(-1);
    expect(regions.isCurrent(index, generation)).toBe(false);
    regions.checkInvariants();
  });

  it("any sequence of calls agrees with a model, and generations tell every change", () => {
    const step = fc.record({ what: fc.nat(5), which: fc.nat(20) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), fc.nat(), (steps, seed) => {
        const memory = new HeapMemorySource().allocate(4096);
        const regions = new RegionTable(8, new SeededRandom(seed));
        /** Every key ever seen → the region it opens, or null. */
        const opens = new Map<number, number | null>();
        const live: { index: number; isFast: boolean; fresh: number[] }[] = [];
        for (const { what, which } of steps) {
          const one = live[which % Math.max(1, live.length)];
          const base = live.find((r) => !r.isFast);
          if (what === 0 && live.length < 8) {
            const index = regions.register(0, memory, 0, 64, ALL);
            live.push({ index, isFast: false, fresh: [] });
            opens.set(regions.keyOf(index), index);
          } else if (what === 1 && live.length < 8) {
            live.push({ index: regions.allocateFast(0), isFast: true, fresh: [] });
          } else if (what === 2 && one?.isFast) {
            const key = regions.freshKey(one.index);
            one.fresh = [...one.fresh, key].slice(-3);
            opens.set(key, null);
          } else if (what === 3 && one?.isFast && one.fresh.length > 0 && base) {
            const key = one.fresh[which % one.fresh.length] as number;
            const lkey = regions.keyOf(base.index);
            const wasValid = regions.isValid(one.index);
            const isDone = regions.registerFast(0, one.index, key, 1, lkey, memory.address, 64);
            expect(isDone).toBe(!wasValid);
            if (isDone) {
              one.fresh = one.fresh.filter((other) => other !== key);
              opens.set(key, one.index);
            }
          } else if (what === 4 && one) {
            const key = regions.keyOf(one.index);
            const isDone = regions.invalidate(0, key);
            expect(isDone).toBe(one.isFast && key !== 0);
            if (isDone) opens.set(key, null);
          } else if (what === 5 && one && (one.isFast || which > 15)) {
            const bases = live.filter((r) => !r.isFast).length;
            if (!one.isFast && bases === 1) continue;
            if (!one.isFast) continue;
            regions.deregister(one.index);
            live.splice(live.indexOf(one), 1);
            for (const [key, index] of opens) if (index === one.index) opens.set(key, null);
          }
          for (const [key, index] of opens) expect(regions.find(key)).toBe(index ?? -1);
          regions.checkInvariants();
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe("KeyTable", () => {
  it("agrees with a Map, keys crowded into few home slots", () => {
    const step = fc.record({ key: fc.nat(40), spread: fc.nat(3), remove: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const keys = new KeyTable(24);
        const model = new Map<number, number>();
        for (const { key, spread, remove } of steps) {
          // Many keys share their low bits, so that probing and moving back happen all the time.
          const real = ((key % 7) + spread * 0x1000_0000 + (key >>> 3) * 64) >>> 0;
          if (remove && model.has(real)) {
            keys.remove(real);
            model.delete(real);
          } else if (!remove && !model.has(real) && model.size < 24) {
            keys.insert(real, key);
            model.set(real, key);
          }
          expect(keys.count).toBe(model.size);
          for (const [known, value] of model) expect(keys.get(known)).toBe(value);
          if (!model.has(real)) expect(keys.get(real)).toBe(-1);
        }
      }),
    );
  });
});

describe("TimerHeap", () => {
  it("fires each timer once, at its last deadline, in order of time", () => {
    const step = fc.record({
      timer: fc.nat(9),
      delay: fc.oneof(fc.nat(50), fc.constant(Number.POSITIVE_INFINITY)),
      pass: fc.nat(20),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const timers = new TimerHeap(10);
        const model = new Map<number, number>();
        let nowNs = 0;
        for (const { timer, delay, pass } of steps) {
          timers.set(timer, nowNs + delay);
          model.delete(timer);
          if (delay !== Number.POSITIVE_INFINITY) model.set(timer, nowNs + delay);
          const next = Math.min(Number.POSITIVE_INFINITY, ...model.values());
          expect(timers.deadlineNs()).toBe(next);
          nowNs += pass;
          let lastNs = 0;
          for (let due = timers.takeDue(nowNs); due >= 0; due = timers.takeDue(nowNs)) {
            const deadline = model.get(due) as number;
            expect(deadline).toBeLessThanOrEqual(nowNs);
            expect(deadline).toBeGreaterThanOrEqual(lastNs);
            lastNs = deadline;
            model.delete(due);
          }
          for (const deadline of model.values()) expect(deadline).toBeGreaterThan(nowNs);
          timers.checkInvariants();
        }
      }),
    );
  });
});

describe("ViewCache", () => {
  it("copies any range, however often and whatever is in its slots", () => {
    const cache = new ViewCache();
    const sources = [0, 1, 2].map((k) => Uint8Array.from({ length: 3000 }, (_, i) => i * 7 + k));
    fc.assert(
      fc.property(
        fc.nat(2),
        fc.nat(2000),
        fc.nat(900),
        fc.nat(100),
        (which, offset, length, at) => {
          const source = sources[which] as Uint8Array;
          const target = new Uint8Array(1200);
          cache.copy(target, at, source, offset, length);
          const expected = new Uint8Array(1200);
          expected.set(source.slice(offset, offset + length), at);
          expect(target).toEqual(expected);
          if (length % 10 === 0) cache.forget(source);
        },
      ),
    );
  });
});
