// SPDX-License-Identifier: MIT
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { HeapMemorySource } from "../base/index.js";
import { type Backend, foreignCallsUnavailable, openMemorySource } from "./index.js";
import { nativeAddressOf } from "./memory-source.js";
import { loadNative } from "./native.js";

const hasNative = foreignCallsUnavailable() === null;
const BACKENDS: readonly Backend[] = hasNative ? ["native", "node"] : ["node"];

/** As users have it: what is freed is there at once for the next. */
beforeEach(() => {
  vi.stubEnv("FARPAGE_CHECK_FREED", "0");
});
afterEach(() => {
  vi.unstubAllEnvs();
});

it("FARPAGE_CHECK_FREED=1: a buffer that is written after it was freed → asserts", () => {
  expect(process.env["FARPAGE_CHECK_FREED"]).toBe("0");
  vi.stubEnv("FARPAGE_CHECK_FREED", "1");
  const source = openMemorySource();
  const stale = source.allocate(100);
  source.free(stale);
  stale.bytes[7] = 1;
  expect(() => source[Symbol.dispose]()).toThrow("written after its end, at byte 7");
});

describe.each(BACKENDS)("openMemorySource, %s", (backend) => {
  it("allocated → zeroes, page aligned, of the length asked for, apart from others", () => {
    using source = openMemorySource({ backend });
    const memories = [1, 4096, 4097, 3 << 20].map((length) => source.allocate(length));
    expect(memories.map((memory) => memory.length)).toEqual([1, 4096, 4097, 3 << 20]);
    for (const [index, memory] of memories.entries()) {
      expect(memory.bytes.length).toBe(memory.length);
      expect(memory.view.byteLength).toBe(memory.length);
      expect(memory.address % 4096).toBe(0);
      expect(memory.address).toBeLessThan(2 ** 48);
      expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
      memory.view.setUint8(0, index + 1);
    }
    for (const [index, memory] of memories.entries()) expect(memory.bytes[0]).toBe(index + 1);
    const ranges = memories.map((m) => [m.address, m.address + m.length] as const);
    ranges.sort((a, b) => a[0] - b[0]);
    for (let i = 1; i < ranges.length; i++) {
      expect(ranges[i]?.[0]).toBeGreaterThanOrEqual(ranges[i - 1]?.[1] ?? 0);
    }
  });

  it("the limit → refused beyond it, given back by free", () => {
    using source = openMemorySource({ backend, limitBytes: 3 * 4096 });
    const first = source.allocate(2 * 4096);
    expect(() => source.allocate(4097)).toThrow(expect.objectContaining({ code: "ENOMEM" }));
    source.allocate(1);
    expect(source.allocatedBytes).toBe(3 * 4096);
    source.free(first);
    expect(source.allocatedBytes).toBe(4096);
    source.allocate(8192);
    expect(() => source.free(first)).toThrow("freed once");
  });

  it("nonsense lengths → EINVAL", () => {
    using source = openMemorySource({ backend });
    for (const length of [0, -1, 1.5, Number.NaN]) {
      expect(() => source.allocate(length)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    }
  });

  it.each([4096, 40_960, 65_536, 4 << 20])(
    "%i bytes freed and allocated again → nothing of what was in them",
    (length) => {
      using source = openMemorySource({ backend });
      const first = source.allocate(length);
      first.bytes.fill(0xa5);
      source.free(first);
      const all = source.memory.normalFrames * 4096;
      for (let left = all; left >= length; left -= length) {
        const again = source.allocate(length);
        expect(again.bytes.indexOf(0xa5)).toBe(-1);
        if (again.address === first.address) return;
      }
      expect.unreachable("the memory comes back");
    },
  );

  it("what is mapped grows with what is allocated, and shrinks again", () => {
    using source = openMemorySource({ backend });
    expect(source.sectionBytesTotal).toBe(0);
    const small = source.allocate(4096);
    const mapped = source.sectionBytesTotal;
    const large = source.allocate(mapped + 4096);
    expect(source.sectionBytesTotal).toBeGreaterThan(2 * mapped);
    source.free(large);
    expect(source.sectionBytesTotal).toBe(mapped);
    expect(source.memory.freeFrames).toBe(mapped / 4096 - 1);
    source.free(small);
    source.memory.checkInvariants();
  });

  it("again and again at the same place → each time new zeroes", () => {
    using source = openMemorySource({ backend, populate: true });
    for (let i = 0; i < 200; i++) {
      const memory = source.allocate(2 << 20);
      expect(memory.bytes[i]).toBe(0);
      memory.bytes[i] = 1;
      source.free(memory);
    }
    expect(source.allocatedBytes).toBe(0);
  });
});

describe.skipIf(!hasNative)("nativeAddressOf", () => {
  it("mapped → its address; a heap buffer → not the made-up one", () => {
    using source = openMemorySource();
    const mapped = source.allocate(4096);
    expect(loadNative().addressOf(mapped.bytes)).toBe(mapped.address);
    const second = source.allocate(8192);
    expect(loadNative().addressOf(second.bytes)).toBe(second.address);
    expect(nativeAddressOf(second)).toBe(second.address);
    expect(nativeAddressOf(mapped)).toBe(mapped.address);
    const heap = new HeapMemorySource().allocate(4096);
    expect(nativeAddressOf(heap)).not.toBe(heap.address);
    const { addressOf } = loadNative();
    expect(addressOf(heap.bytes)).toBe(nativeAddressOf(heap));
    expect(addressOf(heap.bytes.subarray(100))).toBe(nativeAddressOf(heap) + 100);
    expect(addressOf(mapped.bytes.subarray(100))).toBe(mapped.address + 100);
  });
});

describe.skipIf(!hasNative)("what the system gives", () => {
  it("memory that nobody touches costs nothing, and freed memory goes back", () => {
    using source = openMemorySource({ hugePages: false });
    const touched = source.allocate(1 << 20);
    source.allocate(32 << 20);
    expect(source.systemPages()).toMatchObject({ mappedBytes: 64 << 20, residentBytes: 0 });
    touched.bytes.fill(1);
    expect(source.systemPages()?.residentBytes).toBe(1 << 20);
    source.free(touched);
    expect(source.systemPages()?.residentBytes).toBe(0);
  });

  it("buffers of 2 MiB and more begin where a huge page may", () => {
    using source = openMemorySource();
    source.allocate(4096);
    for (const length of [2 << 20, 5 << 20, 70 << 20]) {
      expect(source.allocate(length).address % (2 << 20)).toBe(0);
    }
  });

  it("pages set aside for somebody are asked for only where that is wanted", () => {
    using source = openMemorySource({ hugetlb: true });
    const memory = source.allocate(4 << 20);
    memory.bytes.fill(7);
    const pages = source.systemPages();
    // None are set aside on most machines: ordinary pages then.
    expect([0, 4 << 20]).toContain(pages?.hugetlbBytes);
    expect(pages?.residentBytes).toBeGreaterThanOrEqual(4 << 20);
  });
});
