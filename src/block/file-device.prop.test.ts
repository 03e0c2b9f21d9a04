// SPDX-License-Identifier: MIT
// The file device on the simulated disk, with every fault that a disk has, against a naive model:
// an array of bytes, and for each sector what it may be after the power has gone.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HeapMemorySource, type Memory, SeededRandom } from "../base/index.js";
import { type DiskFaults, SimClock, SimDisk, SimPlatter } from "../sim/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockOperation,
  BlockRequest,
  type BlockRequestOwner,
} from "./block-device.js";
import { FileDevice } from "./file-device.js";

const SECTOR = 512;
const SECTOR_COUNT = 64;
const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, STATUS } = BLOCK_OPERATION;

interface Step {
  readonly operation: BlockOperation;
  readonly sector: number;
  readonly count: number;
  readonly flags: number;
  readonly value: number;
  /** Nanoseconds that pass before the next step. */
  readonly waitNs: number;
}

const step = fc
  .record({
    operation: fc.constantFrom(READ, WRITE, WRITE, FLUSH, DISCARD, WRITE_ZEROES, STATUS),
    sector: fc.nat({ max: SECTOR_COUNT - 1 }),
    count: fc.integer({ min: 1, max: 12 }),
    flags: fc.constantFrom(0, 0, BLOCK_FLAG.FUA, BLOCK_FLAG.NO_UNMAP),
    value: fc.integer({ min: 1, max: 255 }),
    waitNs: fc.constantFrom(0, 1000, 50_000, 200_000),
  })
  .map((s) => ({ ...s, count: Math.min(s.count, SECTOR_COUNT - s.sector) }));

/** What the model knows of one sector: what reads may give, and what a crash may leave. */
class Sector {
  /** Values that a read may give now: one, or several while an operation failed half-way. */
  readable = new Set([0]);
  /** Values that may be there after the power has gone. */
  survivors = new Set([0]);
}

class Model implements BlockRequestOwner {
  readonly sectors = Array.from({ length: SECTOR_COUNT }, () => new Sector());
  readonly busy: boolean[] = new Array(SECTOR_COUNT).fill(false);
  /** Steps by tag. */
  readonly steps: Step[] = [];
  readonly memories: Memory[] = [];
  /** For a flush: per sector, the values that were written and complete when it was submitted. */
  readonly floors = new Map<number, number[]>();
  /**
   * Per sector, completed changes in order; `survivors` starts at the last that is surely durable.
   */
  readonly histories: number[][] = Array.from({ length: SECTOR_COUNT }, () => [0]);
  errorCount = 0;
  doneCount = 0;

  onBlockComplete(request: BlockRequest): void {
    const step = this.steps[request.tag] as Step;
    this.doneCount++;
    if (request.errno !== 0) this.errorCount++;
    if (step.operation === FLUSH) {
      if (request.errno === 0) this.flushed(request.tag);
      return;
    }
    for (let i = 0; i < step.count; i++) this.complete(request, step, i);
    if (step.operation === STATUS && request.errno === 0) this.checkStatus(request, step);
  }

  /** Before a step is submitted. */
  submitted(tag: number, step: Step): void {
    if (step.operation === FLUSH) {
      this.floors.set(
        tag,
        this.histories.map((history) => history.length - 1),
      );
      return;
    }
    for (let i = 0; i < step.count; i++) this.busy[step.sector + i] = true;
  }

  private flushed(tag: number): void {
    const floors = this.floors.get(tag) as number[];
    this.sectors.forEach((sector, index) => {
      sector.survivors = new Set((this.histories[index] as number[]).slice(floors[index]));
    });
  }

  private complete(request: BlockRequest, step: Step, i: number): void {
    const index = step.sector + i;
    const sector = this.sectors[index] as Sector;
    const history = this.histories[index] as number[];
    this.busy[index] = false;
    if (step.operation === READ) {
      if (request.errno === 0) this.checkRead(request.tag, i, sector);
    } else if (step.operation !== STATUS) {
      const value = step.operation === WRITE ? step.value : 0;
      if (request.errno !== 0) {
        // Any part of the range may have changed, any byte of it: the sector is nobody's until the
        // next change that succeeds.
        sector.readable.add(-1);
        history.push(-1);
        sector.survivors.add(-1);
        return;
      }
      sector.readable = new Set([value]);
      history.push(value);
      sector.survivors.add(value);
      if ((step.flags & BLOCK_FLAG.FUA) !== 0) sector.survivors = new Set([value]);
    }
  }

  private checkRead(tag: number, i: number, sector: Sector): void {
    if (sector.readable.has(-1)) return;
    const bytes = (this.memories[tag] as Memory).bytes.subarray(i * SECTOR, (i + 1) * SECTOR);
    const [value] = sector.readable;
    expect(bytes.every((byte) => byte === value)).toBe(true);
  }

  private checkStatus(request: BlockRequest, step: Step): void {
    let at = step.sector;
    for (const extent of request.extents) {
      expect(extent.length % SECTOR).toBe(0);
      const end = at + extent.length / SECTOR;
      for (; at < end; at++) {
        const { readable } = this.sectors[at] as Sector;
        if (extent.zero && !readable.has(-1)) expect([...readable]).toEqual([0]);
      }
    }
    expect(at).toBeGreaterThan(step.sector);
    expect(at).toBeLessThanOrEqual(step.sector + step.count);
  }
}

const NO_FAULTS: Partial<DiskFaults> = { blockRate: 0.5, shortRate: 0.4 };
const ALL_FAULTS: Partial<DiskFaults> = {
  blockRate: 0.4,
  shortRate: 0.3,
  readErrorRate: 0.05,
  writeErrorRate: 0.05,
  noSpaceRate: 0.05,
};

/**
 * Runs the steps; operations overlap in time as their waits have it, but never on the same sector.
 */
function play(
  steps: readonly Step[],
  seed: number,
  faults: Partial<DiskFaults>,
  abilities: number,
) {
  const clock = new SimClock();
  const random = new SeededRandom(seed);
  const platter = new SimPlatter(SECTOR_COUNT * SECTOR, random.fork("platter"));
  const disk = new SimDisk(clock, random.fork("disk"), platter, {
    faults,
    canPunch: (abilities & 1) !== 0,
    canZero: (abilities & 2) !== 0,
  });
  const source = new HeapMemorySource();
  const device = new FileDevice(disk, { name: "disk", memory: source, queueDepth: 3 });
  const model = new Model();
  const turn = (untilNs: number): void => {
    do {
      device.pump(clock.nowNs);
      device.checkInvariants();
    } while (device.deadlineNs() <= clock.nowNs);
    while (disk.nextWakeNs <= untilNs) {
      clock.advanceTo(disk.nextWakeNs);
      device.pump(clock.nowNs);
      device.pump(clock.nowNs);
      device.checkInvariants();
    }
    clock.advanceTo(untilNs);
  };
  for (const step of steps) {
    const range = model.busy.slice(step.sector, step.sector + step.count);
    if (step.operation !== FLUSH && range.includes(true)) turn(clock.nowNs + 10_000_000);
    const tag = model.steps.length;
    const memory = source.allocate(step.count * SECTOR);
    memory.bytes.fill(step.operation === WRITE ? step.value : 0xee);
    model.steps.push(step);
    model.memories.push(memory);
    const request = new BlockRequest(model, tag);
    request.operation = step.operation;
    request.flags = step.flags;
    request.offset = step.sector * SECTOR;
    request.length = step.count * SECTOR;
    request.memory = memory;
    model.submitted(tag, step);
    device.submit(request);
    turn(clock.nowNs + step.waitNs);
  }
  return { model, device, disk, platter, turn, clock };
}

function readPlatter(platter: SimPlatter): Uint8Array {
  const bytes = new Uint8Array(SECTOR_COUNT * SECTOR);
  platter.read(0, bytes, 0, bytes.length);
  return bytes;
}

const script = fc.array(step, { minLength: 1, maxLength: 60 });
const seed = fc.nat();
const abilities = fc.integer({ min: 0, max: 3 });

describe("file device against the model", () => {
  it("no errors: reads give the last write, each request completes once, without error", () => {
    fc.assert(
      fc.property(script, seed, abilities, (steps, random, can) => {
        const { model, device, turn, clock } = play(steps, random, NO_FAULTS, can);
        turn(clock.nowNs + 1e9);
        expect(device.inflight).toBe(0);
        expect(model.doneCount).toBe(steps.length);
        const refused = steps.filter((s) => s.operation === DISCARD && (can & 1) === 0);
        expect(model.errorCount).toBe(refused.length);
      }),
      { numRuns: 150 },
    );
  });

  it("errors on the way: reported, and every read that succeeds is right", () => {
    fc.assert(
      fc.property(script, seed, abilities, (steps, random, can) => {
        const { model, device, turn, clock } = play(steps, random, ALL_FAULTS, can);
        turn(clock.nowNs + 1e9);
        expect(device.inflight).toBe(0);
        expect(model.doneCount).toBe(steps.length);
      }),
      { numRuns: 150 },
    );
  });

  it("the power goes at any moment: what FLUSH or FUA covered is there, the rest any", () => {
    fc.assert(
      fc.property(script, seed, (steps, random) => {
        const { model, disk, platter } = play(steps, random, { blockRate: 0.5 }, 3);
        const inFlight = [...model.busy];
        disk.crash();
        const bytes = readPlatter(platter);
        model.sectors.forEach((sector, index) => {
          if (inFlight[index]) return; // Half written, perhaps.
          const now = bytes.subarray(index * SECTOR, (index + 1) * SECTOR);
          expect(now.every((byte) => byte === now[0])).toBe(true);
          expect([...sector.survivors]).toContain(now[0]);
        });
      }),
      { numRuns: 200 },
    );
  });

  it("a sync fails: no flush since ever succeeds", () => {
    fc.assert(
      fc.property(script, seed, (steps, random) => {
        const { device, turn, clock } = play(steps, random, { syncErrorRate: 0.5 }, 3);
        turn(clock.nowNs + 1e9);
        const errno = device.syncErrno;
        let answer = -1;
        const owner = { onBlockComplete: (r: BlockRequest) => (answer = r.errno) };
        const flush = new BlockRequest(owner, 0);
        flush.operation = FLUSH;
        device.submit(flush);
        turn(clock.nowNs + 1e9);
        expect(answer).toBe(errno === 0 ? device.syncErrno : errno);
      }),
      { numRuns: 50 },
    );
  });
});
