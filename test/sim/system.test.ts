// SPDX-License-Identifier: MIT
// The whole system on a bad network: a few seeds here, a thousand in system-*.long.test.ts. A
// failure names its seed; `npm run sim -- --smoke --seed N` replays it.

import { describe, expect, it } from "vitest";
import { ERRNO, type Memory } from "../../src/base/index.js";
import { type BlockFile, FILE_OPERATION } from "../../src/block/index.js";
import { InterceptedFile, type SimLink, TapLink } from "../../src/sim/index.js";
import type { RxBurst } from "../../src/transport/index.js";
import { IcrcEngine, IcrcFlow, OPCODE_HEADER_BYTES, RC, ROCE_PORT } from "../../src/wire/index.js";
import { System } from "./system.js";
import { drawConfig, SMOKE_SCALE, type SystemConfig } from "./system-config.js";

const SEEDS = Array.from({ length: 20 }, (_, i) => i + 1);

describe("whole system: nothing lost, invented, or run twice behind a later write", () => {
  it.each(SEEDS)("seed %i", (seed) => {
    const config = drawConfig(seed, SMOKE_SCALE);
    const report = new System(config).run();
    expect(report.requests).toBeGreaterThan(config.requestCount * config.volumeCount);
    expect(report.network.tooLong).toBe(0);
  });

  it("seed 3 twice → the same trace, whether anybody looks or not", () => {
    const config = drawConfig(3, SMOKE_SCALE);
    const lines: string[] = [];
    const first = new System(config).run();
    const second = new System(config, { trace: (line) => lines.push(line) }).run();
    expect(second).toEqual(first);
    expect(lines.length).toBeGreaterThan(first.network.sent);
  });

  it("the seeds of `npm test` meet every kind of fault and mode", () => {
    const configs = SEEDS.map((seed) => drawConfig(seed, SMOKE_SCALE));
    const some = (test: (config: SystemConfig) => boolean) => expect(configs.some(test)).toBe(true);
    for (const kind of ["partition", "half-partition", "kill", "crash"]) {
      some(({ mishaps }) => mishaps.some((mishap) => mishap.kind === kind));
    }
    const rates = ["lossRate", "reorderRate", "duplicateRate", "corruptRate"] as const;
    some(({ faults }) => rates.every((rate) => (faults[rate] ?? 0) >= 0.01));
    for (const family of [4, 6]) some((config) => config.family === family);
    for (const mode of [true, false]) {
      some((config) => config.alwaysInvalidate === mode);
      some((config) => config.clientInvalidates === mode);
    }
    for (const errno of [0, ERRNO.EIO, ERRNO.ENOSPC]) some((config) => config.diskErrno === errno);
    some((config) => config.queueDepth === 1 && config.mishaps.some(({ kind }) => kind === "kill"));
    for (const gro of ["never", "sometimes", "always"]) some((config) => config.gro === gro);
  });
});

/** A sound network and disk under the same kind of workload: only the planted fault is wrong. */
function soundConfig(seed: number): SystemConfig {
  return {
    ...drawConfig(seed, SMOKE_SCALE),
    faults: {},
    diskFaults: { blockRate: 0 },
    diskErrno: 0,
    mishaps: [],
    pauseRate: 0,
    queueDepth: 16,
    depth: 16,
    volumeCount: 1,
    volumeBytes: 256 * 512,
    requestCount: 300,
  };
}

/** Flips a bit in the data of every tenth WRITE that has some, and makes the ICRC right again. */
function liar(link: SimLink): TapLink {
  const engine = new IcrcEngine();
  let seen = 0;
  const onReceived = (burst: RxBurst, offset: number, length: number) => {
    const opcode = burst.bytes[offset] as number;
    const isWrite = opcode === RC.WRITE_FIRST || opcode === RC.WRITE_ONLY_IMM;
    if (!isWrite || length < 400 || ++seen % 10 !== 0) return;
    const at = offset + (OPCODE_HEADER_BYTES[opcode] as number) + 100;
    burst.bytes[at] = (burst.bytes[at] as number) ^ 0x10;
    const flow = new IcrcFlow();
    const { source0, source1, source2, source3, sourcePort } = burst;
    const destination = link.addresses[burst.port] as (typeof link.addresses)[0];
    flow.assign(source0, source1, source2, source3, sourcePort, destination, ROCE_PORT);
    engine.write(flow, burst.bytes, burst.view, offset, length, 0);
  };
  return new TapLink(link, { onReceived });
}

/** When a write overlaps one that was over long ago, does the old one again behind it: a ghost. */
function haunt(file: BlockFile): InterceptedFile {
  const haunted = new InterceptedFile(file, () => null);
  const tryWrite = haunted.tryWrite.bind(haunted);
  const past: { readonly offset: number; readonly memory: Memory }[] = [];
  haunted.tryWrite = (offset, memory, memoryOffset, length) => {
    // A copy: the server's memory may be read once.
    const bytes = memory.bytes.slice(memoryOffset, memoryOffset + length);
    const own = { bytes, view: new DataView(bytes.buffer), address: 0, length };
    const result = tryWrite(offset, own, 0, length);
    const end = offset + length;
    // Older than everything that can still be in flight.
    const ghosts = past.slice(0, -2 * soundConfig(0).depth);
    const ghost = ghosts.find((old) => old.offset < end && offset < old.offset + old.memory.length);
    if (ghost !== undefined) tryWrite(ghost.offset, ghost.memory, 0, ghost.memory.length);
    past.push({ offset, memory: own });
    return result;
  };
  return haunted;
}

describe("canaries: a planted fault is found", () => {
  it("without one → nothing is", () => {
    expect(new System(soundConfig(31)).run().failed).toBe(0);
  });

  it("a link that changes data and mends the ICRC", () => {
    const decorateServer = (link: SimLink) => liar(link);
    expect(() => new System(soundConfig(31), { decorateServer }).run()).toThrow(
      /^seed 31, .*sector \d+, byte \d+/,
    );
  });

  it("a disk that forgets one write", () => {
    let writes = 0;
    const plantFile = (file: BlockFile) =>
      new InterceptedFile(file, (operation, _offset, length) =>
        operation === FILE_OPERATION.WRITE && ++writes === 60 ? length : null,
      );
    expect(() => new System(soundConfig(32), { plantFile }).run()).toThrow(/^seed 32, .*sector/);
  });

  it("a disk that reads what it writes a second time, when the client may have changed it", () => {
    const plantFile = (file: BlockFile) => {
      const planted = new InterceptedFile(file, () => null);
      const tryWrite = planted.tryWrite.bind(planted);
      planted.tryWrite = (offset, memory, memoryOffset, length) => {
        if (length > 4096) memory.view.getUint8(memoryOffset + 4096);
        return tryWrite(offset, memory, memoryOffset, length);
      };
      return planted;
    };
    expect(() => new System(soundConfig(34), { plantFile }).run()).toThrow(
      /^seed 34, .*byte \d+ of chunk \d+ is fetched twice/,
    );
  });

  it("an old write that lands once more behind a later one", () => {
    const plantFile = (file: BlockFile) => haunt(file);
    expect(() => new System(soundConfig(33), { plantFile }).run()).toThrow(/^seed 33, .*sector/);
  });
});
