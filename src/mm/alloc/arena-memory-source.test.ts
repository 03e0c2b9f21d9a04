// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { FarpageError, HeapMemorySource, type Memory } from "../../base/index.js";
import { PhysicalMemory } from "../frames/index.js";
import { ArenaMemorySource, type SectionSource } from "./index.js";

const MIB = 2 ** 20;

/** Sections up to a bound, with a note of what is asked. */
class BoundedSections implements SectionSource {
  readonly told: string[] = [];
  private readonly heap = new HeapMemorySource();
  private left: number;

  constructor(bytes: number) {
    this.left = bytes;
  }

  allocate(length: number): Memory {
    this.told.push(`allocate ${length / MIB}`);
    if (length > this.left) throw new FarpageError("ENOMEM", "no more");
    this.left -= length;
    return this.heap.allocate(length);
  }

  free(memory: Memory): void {
    this.told.push(`free ${memory.length / MIB}`);
    this.left += memory.length;
  }

  discard(section: Memory, offset: number, length: number): boolean {
    this.told.push(`discard ${offset} ${length}`);
    section.bytes.fill(0, offset, offset + length);
    return true;
  }
}

function arena(bytes: number, limitBytes = Number.POSITIVE_INFINITY) {
  const sections = new BoundedSections(bytes);
  const memory = new PhysicalMemory();
  const source = new ArenaMemorySource({ memory, sections, limitBytes, sectionBytes: 4 * MIB });
  return { sections, memory, source };
}

describe("ArenaMemorySource", () => {
  it("one section as long as it lasts, then another; the last one stays when all is free", () => {
    const { sections, memory, source } = arena(64 * MIB);
    const buffers = [MIB, 2 * MIB, 3 * MIB].map((length) => source.allocate(length));
    expect(sections.told).toEqual(["allocate 4", "allocate 4"]);
    for (const buffer of buffers) source.free(buffer);
    expect(sections.told.filter((told) => told.startsWith("free"))).toEqual(["free 4"]);
    expect(memory.freeFrames).toBe(1024);
    source.allocate(9 * MIB);
    expect(sections.told.at(-1)).toBe("allocate 10");
  });

  it("the system has no section of the usual size → one that is just large enough", () => {
    const { sections, source } = arena(2 * MIB);
    source.allocate(MIB);
    expect(sections.told).toEqual(["allocate 4", "allocate 2"]);
    expect(() => source.allocate(2 * MIB)).toThrow(
      expect.objectContaining({
        code: "ENOMEM",
        message: "the system has no 2097152 bytes of memory left",
      }),
    );
    source.allocate(MIB);
  });

  it("the limit is told with what is in use", () => {
    const { source } = arena(64 * MIB, MIB);
    source.allocate(5000);
    expect(() => source.allocate(MIB)).toThrow(
      expect.objectContaining({
        code: "ENOMEM",
        message: "1048576 bytes more than the 8192 in use exceed the limit of 1048576 bytes",
      }),
    );
  });

  it("small buffers are wiped by us, large ones go back to the system", () => {
    const { sections, memory, source } = arena(64 * MIB);
    const small = source.allocate(8192);
    const large = source.allocate(65_536);
    for (const buffer of [small, large]) buffer.bytes.fill(1);
    source.free(small);
    source.free(large);
    expect(sections.told).toEqual(["allocate 4", `discard ${large.offset} 65536`]);
    expect(memory.counters.framesWiped).toBe(0);
    const all = source.allocate(4 * MIB);
    expect(all.bytes.includes(1)).toBe(false);
    expect(memory.counters.framesWiped).toBe(2);
  });

  it("a pinned buffer is not freed", () => {
    const { memory, source } = arena(64 * MIB);
    const buffer = source.allocate(8192);
    memory.pin(buffer.pfn);
    expect(() => source.free(buffer)).toThrow("not pinned");
  });

  it("closed → every section is given back", () => {
    const { sections, memory, source } = arena(64 * MIB);
    source.allocate(MIB);
    source.allocate(8 * MIB);
    source.close();
    expect(sections.told.filter((told) => told.startsWith("free"))).toEqual(["free 4", "free 8"]);
    expect(memory.zones).toEqual([]);
    expect(source.allocatedBytes).toBe(0);
  });
});
