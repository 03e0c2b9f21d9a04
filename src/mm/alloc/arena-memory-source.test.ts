// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { FarpageError, HeapMemorySource, type Memory } from "../../base/index.js";
import { MOVE_RESULT, PhysicalMemory } from "../frames/index.js";
import { arenaView } from "../view/index.js";
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

function arena(bytes: number, limitBytes = Number.POSITIVE_INFINITY, checkFreedBytes = 0) {
  const sections = new BoundedSections(bytes);
  const memory = new PhysicalMemory();
  const source = new ArenaMemorySource({
    memory,
    sections,
    limitBytes,
    sectionBytes: 4 * MIB,
    checkFreedBytes,
  });
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

describe("ArenaMemorySource that checks what is freed", () => {
  const checked = (bytes = 64 * MIB) => arena(bytes, Number.POSITIVE_INFINITY, 8 * 4096).source;

  it("written after it was freed → found before the frames are another's, by name", () => {
    const source = checked();
    const stale = source.allocate(5000);
    source.free(stale);
    stale.bytes[4999] = 1;
    const other = source.allocate(5000);
    expect(other.pfn).not.toBe(stale.pfn);
    expect(other.bytes.includes(1)).toBe(false);
    source.free(other);
    const large = source.allocate(8 * 4096);
    const name = `0x${stale.address.toString(16)} of 5000 bytes`;
    expect(() => source.free(large)).toThrow(`${name}: written after its end, at byte 4999`);
  });

  it("read after it was freed → a pattern, at both ends of a large one", () => {
    const { source, memory } = arena(64 * MIB, Number.POSITIVE_INFINITY, 4 * MIB);
    const large = source.allocate(MIB);
    large.bytes.fill(7);
    source.free(large);
    expect([large.bytes[0], large.bytes[MIB - 1]]).toEqual([0x6b, 0x6b]);
    expect(source.allocatedBytes).toBe(0);
    expect(memory.freeFrames).toBe(1024 - 256);
    source.close();
    expect(memory.zones).toEqual([]);
  });

  it("written behind its end, in its last frame → found when it is freed", () => {
    const source = checked();
    const buffer = source.allocate(100);
    buffer.section.bytes[buffer.offset + 100] = 0;
    expect(() => source.free(buffer)).toThrow("of 100 bytes: written behind its end, at byte 100");
  });

  it("short of memory → what is kept aside gives way; what somebody else holds isn't kept", () => {
    const { source, memory } = arena(4 * MIB, Number.POSITIVE_INFINITY, 4 * MIB);
    const half = source.allocate(2 * MIB);
    source.allocate(2 * MIB);
    source.free(half);
    const again = source.allocate(2 * MIB);
    expect(again.bytes.includes(0x6b)).toBe(false);
    memory.get(again.pfn);
    source.free(again);
    again.bytes[0] = 9;
    memory.put(again.pfn);
    expect(memory.freeFrames).toBe(512);
    const pinned = source.allocate(4096);
    memory.pin(pinned.pfn);
    expect(() => source.free(pinned)).toThrow("not pinned");
  });
});

describe("a buffer that a device has been given", () => {
  it("is pinned by what it is for, stays as it is, and is free when the device lets go", () => {
    const { memory, source } = arena(64 * MIB);
    const [chunks, others] = [source.allocate(3 * MIB, "chunks"), source.allocate(100)];
    chunks.pin(0, 3 * MIB);
    chunks.pin(2 * MIB, 1);
    expect(arenaView(memory).pins).toEqual([{ owner: "chunks", bytes: 3 * MIB, pins: 3 }]);
    for (const pfn of [chunks.pfn, others.pfn]) {
      expect(memory.move(memory.headOf(pfn))).not.toBe(MOVE_RESULT.DONE);
    }
    others.pin(0, 0);
    expect(arenaView(memory).pins).toHaveLength(1);
    chunks.unpin(2 * MIB, 1);
    chunks.unpin(0, 3 * MIB);
    expect(arenaView(memory).pins).toEqual([]);
    source.free(chunks);
    source.free(others);
    expect(memory.freeFrames).toBe(memory.normalFrames);
    memory.checkInvariants();
  });

  it("freed under it → what it has stays alive, and nobody else's, until it lets go", () => {
    const { memory, source } = arena(4 * MIB);
    const buffer = source.allocate(MIB);
    buffer.bytes.fill(7);
    buffer.pin(4096, 4096);
    source.free(buffer);
    expect(source.allocatedBytes).toBe(0);
    expect(() => source.allocate(4 * MIB)).toThrow("no 4194304 bytes");
    expect(buffer.bytes[5000]).toBe(7);
    buffer.unpin(4096, 4096);
    expect(memory.freeFrames).toBe(1024);
    expect(source.allocate(4 * MIB).bytes.every((byte) => byte === 0)).toBe(true);
  });

  it("freed under it, and the last of its section → the section goes when it lets go", () => {
    const { sections, source } = arena(64 * MIB);
    const stays = source.allocate(MIB);
    const large = source.allocate(8 * MIB);
    large.pin(0, 8 * MIB);
    source.free(large);
    expect(sections.told.at(-1)).toBe("allocate 8");
    large.unpin(0, 8 * MIB);
    expect(sections.told.at(-1)).toBe("free 8");
    // Of one that others are in, what was kept goes back to the system.
    stays.pin(0, MIB);
    source.free(stays);
    stays.unpin(0, MIB);
    expect(sections.told.at(-1)).toBe(`discard ${stays.offset} ${MIB}`);
    expect(source.allocate(4 * MIB).bytes.every((byte) => byte === 0)).toBe(true);
  });

  it("the arena is closed under it → EBUSY says what for, and nothing has changed", () => {
    const { memory, source } = arena(64 * MIB);
    const chunks = source.allocate(MIB, "chunks");
    const freed = source.allocate(MIB, "requests");
    for (const buffer of [chunks, freed]) buffer.pin(0, 1);
    source.free(freed);
    const message = expect.stringContaining("is pinned (chunks, requests): deregister");
    expect(() => source.close()).toThrow(expect.objectContaining({ code: "EBUSY", message }));
    expect(source.allocatedBytes).toBe(MIB);
    for (const buffer of [chunks, freed]) buffer.unpin(0, 1);
    source.close();
    expect(memory.zones).toEqual([]);
  });

  it("the arena is closed → nobody is an owner any more", () => {
    const { memory, source } = arena(4 * MIB);
    const { pfn } = source.allocate(MIB, "chunks");
    const id = memory.ownerIdOf(pfn);
    expect(memory.ownerById(id)?.name).toBe("chunks");
    source.close();
    expect(memory.ownerById(id)).toBe(null);
  });
});
