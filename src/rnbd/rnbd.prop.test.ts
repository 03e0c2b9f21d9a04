// SPDX-License-Identifier: MIT
// Client and server, a file device and a simulated disk, over a session that is lost at any moment,
// a server that is killed, a machine that loses power. Checked: what clients may rely on.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { loopEnvironment, RtrsLoop } from "../../test/support/rtrs-loop.js";
import { ERRNO, HeapMemorySource, IpAddress, type Memory, SeededRandom } from "../base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  BlockRequest,
  type BlockRequestOwner,
  FileDevice,
} from "../block/index.js";
import { SimClock, SimDisk, SimPlatter } from "../sim/index.js";
import { RNBD_ACCESS } from "../wire/index.js";
import { RnbdClient } from "./rnbd-client.js";
import type { RnbdDevice } from "./rnbd-device.js";
import { RnbdServer } from "./rnbd-server.js";

const SECTOR = 512;
const SECTOR_COUNT = 16;
const { READ, WRITE, FLUSH } = BLOCK_OPERATION;

/** One write, of one value to a range of sectors; 0 is the write that made the disk. */
interface WriteRecord {
  readonly value: number;
  readonly submitted: number;
  /** Infinity while it is not complete. */
  completed: number;
}

/**
 * What one sector may hold, by the rules of an atomic register: a value is dead when another write
 * or read has shown that it was overwritten. Times count events.
 */
class Register {
  readonly writes = new Map<number, WriteRecord>([[0, { value: 0, submitted: -1, completed: 0 }]]);
  /** When a value was known to be overwritten. */
  readonly dead = new Map<number, number>();
  /** When a value was overwritten by something that is durable: not even a crash brings it back. */
  readonly gone = new Map<number, number>();
  /** Values that reads gave: [value, when the read completed]. */
  private seen: [number, number][] = [];

  writeCompleted(record: WriteRecord, now: number): void {
    record.completed = now;
    for (const other of this.writes.values()) {
      if (other.completed < record.submitted) this.kill(other.value, now);
    }
  }

  /** A flush that was submitted at `since` is done: what was complete then is durable. */
  flushed(since: number, now: number): void {
    for (const record of this.writes.values()) {
      if (record.completed <= since) this.makeDurable(record, now);
    }
  }

  makeDurable(record: WriteRecord, now: number): void {
    for (const other of this.writes.values()) {
      if (other.completed < record.submitted && !this.gone.has(other.value)) {
        this.gone.set(other.value, now);
      }
    }
  }

  read(value: number, submitted: number, now: number): void {
    expect(this.writes.has(value)).toBe(true);
    // A read that was under way when the value died may still give it.
    expect(this.gone.get(value) ?? Infinity).toBeGreaterThan(submitted);
    expect(this.dead.get(value) ?? Infinity).toBeGreaterThan(submitted);
    for (const [other, when] of this.seen) {
      if (other !== value && when < submitted) this.kill(other, now);
    }
    this.seen.push([value, now]);
  }

  /** The power went: what was overwritten only in a cache may be back. */
  crash(): void {
    this.dead.clear();
    this.seen = [];
  }

  private kill(value: number, now: number): void {
    if (!this.dead.has(value)) this.dead.set(value, now);
  }
}

type Action =
  | { readonly do: "read" | "write" | "fua"; readonly sector: number; readonly count: number }
  | { readonly do: "flush" | "lose" | "kill" | "crash" }
  | { readonly do: "turns"; readonly turns: number; readonly ns: number };

class World implements BlockRequestOwner {
  readonly registers = Array.from({ length: SECTOR_COUNT }, () => new Register());
  readonly clock = new SimClock();
  readonly client: RnbdClient;
  device: RnbdDevice | null = null;
  outstanding = 0;
  /** "what errno" of everything that failed. */
  readonly errors = new Set<string>();
  private readonly random: SeededRandom;
  private readonly source = new HeapMemorySource();
  private readonly platter: SimPlatter;
  private loop!: RtrsLoop;
  private server!: RnbdServer;
  private disk!: SimDisk;
  private epoch = 1;
  private now = 1;
  private nextValue = 1;
  private readonly inputs: { action: Action; submitted: number; records: WriteRecord[] }[] = [];

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.platter = new SimPlatter(SECTOR_COUNT * SECTOR, this.random.fork("platter"));
    const address = IpAddress.parse("192.0.2.1");
    const options = {
      sessionName: "world",
      paths: [{ source: address, destination: address }],
      reopenDelayNs: 1000,
    };
    this.client = new RnbdClient(loopEnvironment(), options, (user) => {
      const random = this.random.fork("loop");
      this.loop = new RtrsLoop(user, { queueDepth: 6, maxIoBytes: 2048, random });
      return this.loop;
    });
    this.startServer();
    this.client.connect();
    this.client.open("vol", RNBD_ACCESS.RW, (error, device) => {
      if (error !== null) throw error;
      this.device = device;
    });
    while (this.device === null) this.turn();
  }

  play(action: Action): void {
    switch (action.do) {
      case "turns":
        for (let i = 0; i < action.turns; i++) this.turn();
        this.clock.advanceTo(this.clock.nowNs + action.ns);
        break;
      case "lose":
        this.loop.lose();
        break;
      case "kill":
        this.killServer(() => this.disk.abandon());
        break;
      case "crash":
        this.epoch++;
        this.killServer(() => this.disk.crash());
        for (const register of this.registers) register.crash();
        break;
      default:
        this.submit(action);
    }
  }

  /** Runs until everything has come back. */
  settle(): void {
    for (let i = 0; this.outstanding > 0; i++) {
      if (i === 20_000) throw new Error("requests are outstanding for ever");
      this.turn();
      this.clock.advanceTo(this.clock.nowNs + 1000);
    }
  }

  onBlockComplete(request: BlockRequest): void {
    const input = this.inputs[request.tag] as (typeof this.inputs)[number];
    const { action, submitted, records } = input;
    const now = this.now++;
    this.outstanding--;
    if (request.errno !== 0) {
      this.errors.add(`${action.do} ${request.errno}`);
      return;
    }
    if (action.do === "flush")
      for (const register of this.registers) register.flushed(submitted, now);
    if (action.do === "write" || action.do === "fua") {
      records.forEach((record, i) => {
        const register = this.registers[action.sector + i] as Register;
        register.writeCompleted(record, now);
        if (action.do === "fua") register.makeDurable(record, now);
      });
    }
    if (action.do === "read") this.checkRead(request, submitted, now);
  }

  private checkRead(request: BlockRequest, submitted: number, now: number): void {
    const { view } = request.memory as Memory;
    for (let i = 0; i < request.length / SECTOR; i++) {
      const value = view.getUint32(i * SECTOR);
      expect(view.getUint32(i * SECTOR + SECTOR - 4)).toBe(value);
      (this.registers[request.offset / SECTOR + i] as Register).read(value, submitted, now);
    }
  }

  private submit(action: Action): void {
    const isRange = action.do === "read" || action.do === "write" || action.do === "fua";
    const sector = isRange ? action.sector : 0;
    const count = isRange ? action.count : 0;
    const request = new BlockRequest(this, this.inputs.length);
    const submitted = this.now++;
    const records: WriteRecord[] = [];
    const memory = this.source.allocate(SECTOR_COUNT * SECTOR);
    this.client.registerMemory(memory);
    request.operation = action.do === "read" ? READ : action.do === "flush" ? FLUSH : WRITE;
    request.flags = action.do === "fua" ? BLOCK_FLAG.FUA : 0;
    request.offset = sector * SECTOR;
    request.length = count * SECTOR;
    request.memory = memory;
    if (request.operation === WRITE) {
      const value = this.nextValue++;
      for (let i = 0; i < count; i++) {
        const record = { value, submitted, completed: Number.POSITIVE_INFINITY };
        records.push(record);
        (this.registers[sector + i] as Register).writes.set(value, record);
        memory.view.setUint32(i * SECTOR, value);
        memory.view.setUint32(i * SECTOR + SECTOR - 4, value);
      }
    }
    this.inputs.push({ action, submitted, records });
    this.outstanding++;
    (this.device as RnbdDevice).submit(request);
  }

  private turn(): void {
    if (!this.loop.isUp) this.loop.allow();
    this.server.pump(this.clock.nowNs);
    this.server.checkInvariants();
    this.client.pump(this.clock.nowNs);
    this.client.checkInvariants();
  }

  private startServer(): void {
    this.disk = new SimDisk(this.clock, this.random.fork(`disk ${this.now++}`), this.platter, {
      faults: { blockRate: 0.6, shortRate: 0, latencyNs: 500, jitterNs: 5000 },
    });
    const file = new FileDevice(this.disk, { name: "disk", memory: this.source, queueDepth: 4 });
    this.server = new RnbdServer();
    this.server.addVolume("vol", file, { epoch: { high: 0, low: this.epoch } });
    this.loop.server = this.server;
  }

  private killServer(end: () => void): void {
    this.loop.kill();
    end();
    this.startServer();
  }
}

const range = fc
  .record({
    do: fc.constantFrom<"read" | "write" | "fua">("read", "write", "write", "fua"),
    // Most of the traffic meets in two sectors.
    sector: fc.oneof(
      { weight: 3, arbitrary: fc.nat({ max: 1 }) },
      { weight: 1, arbitrary: fc.nat({ max: SECTOR_COUNT - 1 }) },
    ),
    count: fc.constantFrom(1, 1, 1, 2, 5, 8),
  })
  .map((action) => ({ ...action, count: Math.min(action.count, SECTOR_COUNT - action.sector) }));
const turns = fc.record({
  do: fc.constant("turns" as const),
  turns: fc.integer({ min: 1, max: 4 }),
  ns: fc.constantFrom(0, 500, 3000),
});
const plain = fc.constant<Action>({ do: "flush" });
const loss = fc.constantFrom<Action>({ do: "lose" }, { do: "kill" });
const power = fc.constant<Action>({ do: "crash" });

function script(...ends: { weight: number; arbitrary: fc.Arbitrary<Action> }[]) {
  return fc.array(
    fc.oneof(
      { weight: 6, arbitrary: range },
      { weight: 5, arbitrary: turns },
      { weight: 1, arbitrary: plain },
      ...ends,
    ),
    { minLength: 1, maxLength: 150, size: "max" },
  );
}

/**
 * One sector, one operation after the other, answers that dawdle: what the overlap guard is for.
 */
const hotSector = fc.array(
  fc.oneof(
    {
      weight: 10,
      arbitrary: fc.record({
        do: fc.constantFrom<"read" | "write">("read", "write"),
        sector: fc.constant(0),
        count: fc.constant(1),
        turns: fc.integer({ min: 3, max: 10 }),
      }),
    },
    { weight: 1, arbitrary: fc.constant({ do: "lose" as const, turns: 10 }) },
  ),
  { minLength: 10, maxLength: 60, size: "max" },
);

/** Plays the actions, lets everything end, and reads the whole disk. */
function run(actions: readonly Action[], seed: number): World {
  const world = new World(seed);
  for (const action of actions) world.play(action);
  world.settle();
  world.play({ do: "read", sector: 0, count: SECTOR_COUNT });
  world.settle();
  return world;
}

describe("rnbd: sessions lost, servers killed", () => {
  it("every request completes; reads see each write at most once, none behind a later one", () => {
    fc.assert(
      fc.property(script({ weight: 1, arbitrary: loss }), fc.nat(), (actions, seed) => {
        expect([...run(actions, seed).errors]).toEqual([]);
      }),
      { numRuns: 80 },
    );
  });

  it("one busy sector: a write that is executed twice is never seen behind a later one", () => {
    fc.assert(
      fc.property(hotSector, fc.nat(), (steps, seed) => {
        const actions = steps.flatMap(({ turns: count, ...action }): Action[] => [
          action,
          { do: "turns", turns: count, ns: 3000 },
        ]);
        expect([...run(actions, seed).errors]).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });

  it("the server's machine loses power: what a flush or FUA covered is never undone", () => {
    fc.assert(
      fc.property(
        script({ weight: 1, arbitrary: loss }, { weight: 1, arbitrary: power }),
        fc.nat(),
        (actions, seed) => {
          // A flush can't vouch for what is lost, nor a write that was half done.
          const honest = [`flush ${ERRNO.EIO}`, `write ${ERRNO.EIO}`];
          for (const error of run(actions, seed).errors) expect(honest).toContain(error);
        },
      ),
      { numRuns: 80 },
    );
  });
});
