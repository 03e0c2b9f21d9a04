// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO, HeapMemorySource, SeededRandom } from "../base/index.js";
import { FILE_OPERATION, FileIo, type FileOperation } from "../block/index.js";
import { InterceptedFile } from "./intercepted-file.js";
import { SimClock } from "./sim-clock.js";
import { type DiskFaults, SimDisk, SimPlatter } from "./sim-disk.js";

const source = new HeapMemorySource();

function disk(options: { seed?: number; faults?: Partial<DiskFaults>; sectors?: number } = {}) {
  const clock = new SimClock();
  const random = new SeededRandom(options.seed ?? 1);
  const platter = new SimPlatter((options.sectors ?? 64) * 512, random.fork("platter"));
  const faults = { blockRate: 0, ...options.faults };
  return {
    clock,
    random,
    platter,
    file: new SimDisk(clock, random.fork("disk"), platter, { faults }),
  };
}

function filled(value: number, length: number) {
  const memory = source.allocate(length);
  memory.bytes.fill(value);
  return memory;
}

function readAll(file: SimDisk, offset: number, length: number): Uint8Array {
  const memory = source.allocate(length);
  expect(file.tryRead(offset, memory, 0, length)).toBe(length);
  return memory.bytes;
}

/** Starts an operation and runs the clock until it is done. @returns its result. */
function perform(
  sim: { clock: SimClock; file: SimDisk | InterceptedFile },
  operation: FileOperation,
  offset = 0,
  length = 0,
  value = 0,
) {
  let done = 0;
  const io = new FileIo({ onFileIoComplete: () => done++ }, 0);
  io.operation = operation;
  io.offset = offset;
  io.length = length;
  io.memory = filled(value, Math.max(1, length));
  sim.file.start(io);
  sim.clock.advanceTo(sim.clock.nowNs + 1_000_000);
  expect(sim.file.poll()).toBe(1);
  expect(done).toBe(1);
  return io;
}

describe("SimDisk", () => {
  it("tryWrite, tryRead → the bytes, or -EAGAIN at the stated rate", () => {
    const sim = disk();
    expect(sim.file.tryWrite(1024, filled(7, 512), 0, 512)).toBe(512);
    expect([...readAll(sim.file, 1023, 3)]).toEqual([0, 7, 7]);
    const blocking = disk({ faults: { blockRate: 1 } });
    expect(blocking.file.tryRead(0, filled(0, 512), 0, 512)).toBe(-ERRNO.EAGAIN);
  });

  it("start → completes from poll when its time has come, not before", () => {
    const sim = disk();
    const io = new FileIo({ onFileIoComplete: () => undefined }, 0);
    io.operation = FILE_OPERATION.WRITE;
    io.length = 512;
    io.memory = filled(3, 512);
    sim.file.start(io);
    expect(sim.file.poll()).toBe(0);
    expect(sim.file.inflight).toBe(1);
    sim.clock.advanceTo(sim.file.nextWakeNs);
    expect(sim.file.poll()).toBe(1);
    expect(io.result).toBe(512);
    expect(readAll(sim.file, 0, 512).every((byte) => byte === 3)).toBe(true);
  });

  it("reads past the end → short; writes past a full platter → ENOSPC", () => {
    const sim = disk({ sectors: 4 });
    expect(sim.file.tryRead(1536, filled(0, 1024), 0, 1024)).toBe(512);
    expect(sim.file.tryRead(9999, filled(0, 512), 0, 512)).toBe(0);
    expect(sim.file.tryWrite(1536, filled(1, 1024), 0, 1024)).toBe(512);
    expect(sim.file.tryWrite(2048, filled(1, 512), 0, 512)).toBe(-ERRNO.ENOSPC);
  });

  it("faults → EIO, ENOSPC and short transfers at the stated rates", () => {
    const failing = disk({ faults: { readErrorRate: 1, writeErrorRate: 1, syncErrorRate: 1 } });
    expect(failing.file.tryRead(0, filled(0, 512), 0, 512)).toBe(-ERRNO.EIO);
    expect(failing.file.tryWrite(0, filled(0, 512), 0, 512)).toBe(-ERRNO.EIO);
    expect(perform(failing, FILE_OPERATION.SYNC).result).toBe(-ERRNO.EIO);
    expect(perform(disk({ faults: { noSpaceRate: 1 } }), FILE_OPERATION.WRITE, 0, 512).result).toBe(
      -ERRNO.ENOSPC,
    );
    const short = disk({ faults: { shortRate: 1 } });
    expect(short.file.tryRead(0, filled(0, 4096), 0, 4096)).toBeLessThan(4096);
  });

  it("crash before SYNC → every sector on its own old or new; after SYNC → all new", () => {
    const outcomes = new Set<string>();
    for (let seed = 0; seed < 40; seed++) {
      const sim = disk({ seed });
      sim.file.tryWrite(0, filled(1, 1024), 0, 1024);
      expect(perform(sim, FILE_OPERATION.SYNC).result).toBe(0);
      sim.file.tryWrite(0, filled(2, 1024), 0, 1024);
      sim.file.tryWrite(0, filled(3, 512), 0, 512);
      sim.file.crash();
      const after = new SimDisk(sim.clock, sim.random, sim.platter, { faults: { blockRate: 0 } });
      const bytes = readAll(after, 0, 1024);
      for (const start of [0, 512]) {
        expect(bytes.slice(start, start + 512).every((b) => b === bytes[start])).toBe(true);
      }
      outcomes.add(`${bytes[0]}${bytes[512]}`);
    }
    expect([...outcomes].sort()).toEqual(["11", "12", "21", "22", "31", "32"]);
  });

  it("a write that follows the start of a SYNC → not covered by it", () => {
    const lost = new Set<number>();
    for (let seed = 0; seed < 20; seed++) {
      const sim = disk({ seed });
      sim.file.tryWrite(0, filled(1, 512), 0, 512);
      const io = new FileIo({ onFileIoComplete: () => undefined }, 0);
      io.operation = FILE_OPERATION.SYNC;
      sim.file.start(io);
      sim.file.tryWrite(0, filled(2, 512), 0, 512);
      sim.clock.advanceTo(1_000_000);
      sim.file.poll();
      sim.file.crash();
      const after = new SimDisk(sim.clock, sim.random, sim.platter, { faults: { blockRate: 0 } });
      lost.add(readAll(after, 0, 1)[0] as number);
    }
    expect([...lost].sort()).toEqual([1, 2]);
  });

  it("an abandoned write → happens or not; what was in the cache stays", () => {
    const seen = new Set<number>();
    for (let seed = 0; seed < 20; seed++) {
      const sim = disk({ seed });
      sim.file.tryWrite(512, filled(9, 512), 0, 512);
      const io = new FileIo({ onFileIoComplete: () => expect.unreachable() }, 0);
      io.operation = FILE_OPERATION.WRITE;
      io.length = 512;
      io.memory = filled(5, 512);
      sim.file.start(io);
      sim.file.abandon();
      const bytes = readAll(
        new SimDisk(sim.clock, sim.random, sim.platter, { faults: { blockRate: 0 } }),
        0,
        1024,
      );
      expect(bytes[512]).toBe(9);
      seen.add(bytes[0] as number);
    }
    expect([...seen].sort()).toEqual([0, 5]);
  });

  it("PUNCH and ZERO → zeroes, the one a hole, the other data; EXTENTS tells", () => {
    const sim = disk({ sectors: 8 });
    sim.file.tryWrite(0, filled(1, 4096), 0, 4096);
    expect(perform(sim, FILE_OPERATION.PUNCH, 512, 1024).result).toBe(0);
    expect(perform(sim, FILE_OPERATION.ZERO, 2048, 512).result).toBe(0);
    const bytes = readAll(sim.file, 0, 4096);
    expect([0, 512, 1535, 1536, 2048, 2560].map((at) => bytes[at])).toEqual([1, 0, 0, 1, 0, 1]);
    expect(perform(sim, FILE_OPERATION.EXTENTS, 256, 4096).extents).toEqual([
      [256, false],
      [1024, true],
      [2560, false],
    ]);
  });

  it("resize → reads as zeroes where it grew again", () => {
    const sim = disk({ sectors: 8 });
    sim.file.tryWrite(0, filled(1, 4096), 0, 4096);
    sim.platter.resize(1024);
    expect(sim.file.sizeBytes).toBe(4096);
    expect(sim.file.refreshSize()).toBe(1024);
    expect(sim.file.tryRead(0, filled(0, 4096), 0, 4096)).toBe(1024);
    sim.platter.resize(4096);
    expect(readAll(sim.file, 1023, 2)).toEqual(new Uint8Array([1, 0]));
  });
});

describe("InterceptedFile", () => {
  it("a null verdict passes, a number is the result and the disk untouched", () => {
    const sim = disk();
    const seen: number[][] = [];
    const file = new InterceptedFile(sim.file, (operation, offset, length) => {
      seen.push([operation, offset, length]);
      if (offset === 512) return length;
      return offset === 1024 ? -ERRNO.EIO : null;
    });
    expect(file.tryWrite(0, filled(1, 512), 0, 512)).toBe(512);
    expect(file.tryWrite(512, filled(1, 512), 0, 512)).toBe(512);
    expect(perform({ clock: sim.clock, file }, FILE_OPERATION.WRITE, 1024, 512, 1).result).toBe(
      -ERRNO.EIO,
    );
    expect(perform({ clock: sim.clock, file }, FILE_OPERATION.WRITE, 1536, 512, 4).result).toBe(
      512,
    );
    const bytes = readAll(sim.file, 0, 2048);
    expect([0, 512, 1024, 1536].map((at) => bytes[at])).toEqual([1, 0, 0, 4]);
    expect(seen.length).toBe(4);
  });
});
