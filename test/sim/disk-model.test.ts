// SPDX-License-Identifier: MIT
// The checker checked: what it must accept, what it must refuse; and a file device on a simulated
// disk, which it must find sound, but not with a fault planted in the disk.

import { describe, expect, it } from "vitest";
import { ERRNO, HeapMemorySource, IpAddress } from "../../src/base/index.js";
import { type BlockFile, FILE_OPERATION, FileDevice } from "../../src/block/index.js";
import {
  type DiskFaults,
  InterceptedFile,
  SimDisk,
  SimPlatter,
  SimWorld,
} from "../../src/sim/index.js";
import { DiskModel, fillSector, ModelViolation, SECTOR_BYTES } from "./disk-model.js";
import { DiskWorkload } from "./disk-workload.js";

/** The bytes of one sector as write `id` leaves them; 0 for zeroes. */
function sector(id: number, number = 0): Uint8Array {
  const bytes = new Uint8Array(SECTOR_BYTES);
  if (id > 0) fillSector(bytes, 0, number, id);
  return bytes;
}

function read(model: DiskModel, bytes: Uint8Array): void {
  model.startRead(1, 0, 1);
  model.endRead(1, bytes);
}

function written(model: DiskModel): number {
  const id = model.startWrite(0, 1, false);
  model.endWrite(id, "done", false);
  return id;
}

describe("DiskModel", () => {
  it("a completed write → reads give it and nothing older", () => {
    const model = new DiskModel(1);
    read(model, sector(0));
    const first = written(model);
    read(model, sector(first));
    const second = written(model);
    read(model, sector(second));
    expect(() => read(model, sector(first))).toThrow(ModelViolation);
    expect(() => read(model, sector(0))).toThrow(ModelViolation);
  });

  it("two writes of zeroes look alike → a read of zeroes forgets neither", () => {
    const model = new DiskModel(1);
    const data = written(model);
    const zeroes = model.startWrite(0, 1, true);
    model.crash();
    model.endWrite(zeroes, "done", false);
    read(model, sector(0));
    model.startFlush(1);
    model.endFlush(1, true);
    read(model, sector(0));
    expect(() => read(model, sector(data))).toThrow(ModelViolation);
  });

  it("a write in flight → reads give old, new or a mixture of bytes, nothing else", () => {
    const model = new DiskModel(1);
    const old = written(model);
    const id = model.startWrite(0, 1, false);
    read(model, sector(id));
    read(model, sector(old));
    const mixed = sector(old);
    mixed.set(sector(id).subarray(0, 100));
    read(model, mixed);
    mixed[200] = (mixed[200] as number) ^ 1;
    expect(() => read(model, mixed)).toThrow(/byte 200/);
  });

  it("two writes at once → either is legal until a quiet read has told", () => {
    const model = new DiskModel(1);
    const a = model.startWrite(0, 1, false);
    const b = model.startWrite(0, 1, false);
    model.endWrite(b, "done", false);
    model.endWrite(a, "done", false);
    read(model, sector(b));
    expect(() => read(model, sector(a))).toThrow(ModelViolation);
  });

  it("a read that began before a write → may give what was there before", () => {
    const model = new DiskModel(1);
    model.startRead(7, 0, 1);
    const id = written(model);
    model.endRead(7, sector(0));
    read(model, sector(id));
  });

  it("a failed write → has or hasn't happened; a later one ends the doubt", () => {
    const model = new DiskModel(1);
    const id = model.startWrite(0, 1, false);
    model.endWrite(id, "maybe", false);
    model.startRead(2, 0, 1);
    model.endRead(2, sector(0));
    expect(() => read(model, sector(id))).toThrow(ModelViolation);
    const later = written(model);
    expect(() => read(model, sector(0))).toThrow(ModelViolation);
    read(model, sector(later));
  });

  it("data of another sector → refused", () => {
    const model = new DiskModel(2);
    const id = model.startWrite(0, 2, false);
    model.endWrite(id, "done", false);
    expect(() => read(model, sector(id, 1))).toThrow(ModelViolation);
  });

  it("a crash → anything since the last flush may be gone, nothing before it", () => {
    const model = new DiskModel(1);
    const first = written(model);
    const durable = written(model);
    model.startFlush(1);
    const during = written(model);
    model.endFlush(1, true);
    const after = written(model);
    for (const id of [durable, during, after]) {
      model.crash();
      model.startRead(3, 0, 1);
      model.endRead(3, sector(id));
    }
    model.crash();
    expect(() => read(model, sector(first))).toThrow(ModelViolation);
  });

  it("answers that a crash overtakes → the write may be gone, the read tells of the past", () => {
    const model = new DiskModel(1);
    model.startRead(5, 0, 1);
    const id = model.startWrite(0, 1, false);
    model.crash();
    model.endWrite(id, "done", false);
    model.endRead(5, sector(id));
    read(model, sector(0));
  });

  it("zeroes that several may have written → a read doesn't tell whose they are", () => {
    const model = new DiskModel(1);
    const zeroes = model.startWrite(0, 1, true);
    model.crash();
    model.endWrite(zeroes, "done", false);
    read(model, sector(0));
    model.startFlush(1);
    model.endFlush(1, true);
    read(model, sector(0));
  });

  it("a flush that succeeds though a crash lost a write before it → found lying", () => {
    const model = new DiskModel(1);
    written(model);
    model.startFlush(1);
    model.crash();
    model.endFlush(1, true);
    expect(() => read(model, sector(0))).toThrow(ModelViolation);
  });

  it("a flush that failed after the crash → the loss was told, later flushes may succeed", () => {
    const model = new DiskModel(1);
    written(model);
    model.crash();
    model.startFlush(1);
    model.endFlush(1, false);
    model.startFlush(2);
    model.endFlush(2, true);
    read(model, sector(0));
  });

  it("a flush that failed → promises nothing; a FUA write is durable by itself", () => {
    const model = new DiskModel(1);
    const first = written(model);
    model.startFlush(1);
    model.endFlush(1, false);
    model.crash();
    read(model, sector(0));
    const fua = model.startWrite(0, 1, false);
    model.endWrite(fua, "done", true);
    model.crash();
    expect(() => read(model, sector(first))).toThrow(ModelViolation);
    read(model, sector(fua));
  });
});

interface RunOptions {
  readonly faults?: Partial<DiskFaults>;
  readonly expectedErrnos?: readonly number[];
  readonly plant?: (file: BlockFile) => BlockFile & { readonly nextWakeNs: number };
}

/** One host with a file device on a simulated disk; machines crash and processes die as told. */
function runFileDevice(seed: number, options: RunOptions = {}): DiskWorkload {
  const world = new SimWorld({ seed });
  const host = world.addHost("host", { addresses: [IpAddress.parse("192.0.2.1")] });
  const memory = new HeapMemorySource();
  const sizeBytes = 256 * SECTOR_BYTES;
  const platter = new SimPlatter(sizeBytes, world.random.fork("platter"));
  const lengthMax = 32 * SECTOR_BYTES;
  const depth = 16;
  let generation = 0;
  const open = (): FileDevice => {
    const random = world.random.fork(`disk ${generation++}`);
    const disk = new SimDisk(world.clock, random, platter, { faults: options.faults ?? {} });
    host.disks.push(disk);
    const file = options.plant?.(disk) ?? disk;
    if (file !== disk) host.wakers.push(file as typeof file & { nextWakeNs: number });
    return new FileDevice(file, { name: "volume", memory });
  };
  const device = open();
  const workload = new DiskWorkload(device, {
    random: world.random.fork("workload"),
    requestCount: 400,
    depth,
    lengthMax,
    thinkNsMax: 50_000,
    expectedErrnos: options.expectedErrnos ?? [],
    memory: memory.allocate(depth * lengthMax),
  });
  host.machines.push(workload, device);
  expect(world.run(60e9, () => workload.isDone)).toBe(true);
  workload.startCheck();
  expect(world.run(60e9, () => workload.isChecked)).toBe(true);
  return workload;
}

describe("a file device on a simulated disk", () => {
  it.each([1, 2, 3, 4, 5])("seed %i: reads give what was written", (seed) => {
    const workload = runFileDevice(seed);
    expect(workload.failedCount).toBe(0);
    expect(workload.model.checkedSectors).toBeGreaterThan(1000);
  });

  it.each([11, 12, 13])(
    "seed %i: errors and short transfers → reported, never wrong data",
    (seed) => {
      const workload = runFileDevice(seed, {
        faults: { readErrorRate: 0.02, writeErrorRate: 0.02, noSpaceRate: 0.02, shortRate: 0.2 },
        expectedErrnos: [ERRNO.EIO, ERRNO.ENOSPC],
      });
      expect(workload.failedCount).toBeGreaterThan(0);
    },
  );

  it("canary: a disk that says it has written, and hasn't → is found out", () => {
    let writes = 0;
    const plant = (file: BlockFile) =>
      new InterceptedFile(file, (operation, _offset, length) =>
        operation === FILE_OPERATION.WRITE && ++writes === 100 ? length : null,
      );
    expect(() => runFileDevice(21, { plant })).toThrow(/seed 21.*sector \d+, byte \d+/s);
  });

  it("canary: a disk that reads the neighbouring sector → is found out", () => {
    let reads = 0;
    const plant = (file: BlockFile) => {
      const tricked = new InterceptedFile(file, () => null);
      const tryRead = tricked.tryRead.bind(tricked);
      tricked.tryRead = (offset, memory, memoryOffset, length) => {
        const shift = ++reads > 50 && offset > 0 ? SECTOR_BYTES : 0;
        return tryRead(offset - shift, memory, memoryOffset, length);
      };
      return tricked;
    };
    expect(() => runFileDevice(22, { plant })).toThrow(/seed 22/);
  });
});
