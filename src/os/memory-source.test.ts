// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { HeapMemorySource } from "../base/index.js";
import { type Backend, foreignCallsUnavailable, openMemorySource } from "./index.js";
import { MappedMemory, nativeAddressOf } from "./memory-source.js";
import { loadNative } from "./native.js";

const hasNative = foreignCallsUnavailable() === null;
const BACKENDS: readonly Backend[] = hasNative ? ["native", "node"] : ["node"];

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
    expect(mapped).toBeInstanceOf(MappedMemory);
    expect(nativeAddressOf(mapped)).toBe(mapped.address);
    const heap = new HeapMemorySource().allocate(4096);
    expect(nativeAddressOf(heap)).not.toBe(heap.address);
    const { addressOf } = loadNative();
    expect(addressOf(heap.bytes)).toBe(nativeAddressOf(heap));
    expect(addressOf(heap.bytes.subarray(100))).toBe(nativeAddressOf(heap) + 100);
    expect(addressOf(mapped.bytes.subarray(100))).toBe(mapped.address + 100);
  });
});
