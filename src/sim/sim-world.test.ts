// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress, type Machine } from "../base/index.js";
import type { RxBurst, TxBatch, TxFlow } from "../transport/index.js";
import { type PacketDevice, type SimHost, SimWorld, type SimWorldOptions } from "./sim-world.js";

const LEFT = IpAddress.parse("192.0.2.1");
const RIGHT = IpAddress.parse("192.0.2.2");

/**
 * Answers each datagram by one that is a byte longer, up to a limit; resends after a millisecond.
 */
class EchoDevice implements PacketDevice {
  received = 0;
  broken = false;
  private readonly flow: TxFlow;
  private owed: number[];
  private timerNs = Number.POSITIVE_INFINITY;
  private lastNs = 0;

  constructor(destination: IpAddress, first: number[] = []) {
    this.flow = { port: 0, destination, destinationPort: 4791, trafficClass: 0 };
    this.owed = first;
  }

  onPacket(nowNs: number, _burst: RxBurst, _offset: number, length: number): void {
    expect(nowNs).toBeGreaterThanOrEqual(this.lastNs);
    this.lastNs = nowNs;
    this.received++;
    if (length < 400) this.owed.push(length + 1);
  }

  pump(nowNs: number, tx: TxBatch): boolean {
    if (nowNs >= this.timerNs) this.owed.push(10);
    if (nowNs >= this.timerNs) this.timerNs = Number.POSITIVE_INFINITY;
    for (const length of this.owed.splice(0)) {
      expect(tx.reserve(this.flow, length)).toBeGreaterThanOrEqual(0);
      tx.commit();
      this.timerNs = nowNs + 1_000_000;
    }
    return false;
  }

  deadlineNs(): number {
    return this.timerNs;
  }

  checkInvariants(): void {
    if (this.broken) throw new Error("planted");
  }
}

function echoWorld(options: SimWorldOptions) {
  const world = new SimWorld(options);
  const left = world.addHost("left", { addresses: [LEFT], pauseRate: 0.01, pauseNsMax: 50_000 });
  const right = world.addHost("right", { addresses: [RIGHT], stallRate: 0.1 });
  const devices = [new EchoDevice(RIGHT, [20, 20]), new EchoDevice(LEFT)] as const;
  left.device = devices[0];
  right.device = devices[1];
  return { world, left, right, devices };
}

const LOSSY = { lossRate: 0.05, duplicateRate: 0.02, reorderRate: 0.05, corruptRate: 0.05 };

describe("SimWorld", () => {
  it("same seed twice → same trace hash; another seed → another", () => {
    const run = (seed: number) => {
      const { world } = echoWorld({ seed, faults: LOSSY });
      world.run(20_000_000);
      return `${world.traceHash} ${world.turnCount}`;
    };
    expect(run(7)).toBe(run(7));
    expect(run(7)).not.toBe(run(8));
  });

  it("tracing → does not change the run", () => {
    const lines: string[] = [];
    const traced = echoWorld({ seed: 9, faults: LOSSY, trace: (line) => lines.push(line) });
    traced.world.run(5_000_000);
    const plain = echoWorld({ seed: 9, faults: LOSSY });
    plain.world.run(5_000_000);
    expect(traced.world.traceHash).toBe(plain.world.traceHash);
    expect(lines.length).toBe(traced.world.network.counters.sent);
  });

  it("deadlines alone wake a host, in its own time", () => {
    const { world, devices } = echoWorld({ seed: 1, faults: { lossRate: 1 } });
    world.run(10_000_000);
    expect(devices[1].received).toBe(0);
    expect(world.network.counters.sent).toBeGreaterThanOrEqual(10);
    expect(world.clock.nowNs).toBe(10_000_000);
  });

  it("run → stops as soon as the condition holds, and says when it never does", () => {
    const { world, devices } = echoWorld({ seed: 1 });
    expect(world.run(1e9, () => devices[1].received >= 5)).toBe(true);
    expect(devices[1].received).toBeLessThan(10);
    expect(world.run(1_000, () => false)).toBe(false);
  });

  it("scripted events → happen at their time, in order", () => {
    const world = new SimWorld({ seed: 1 });
    const times: number[] = [];
    world.after(200, "second", () => times.push(world.clock.nowNs));
    world.after(100, "first", () => times.push(world.clock.nowNs));
    world.run(1_000);
    expect(times).toEqual([100, 200]);
  });

  it("a killed host → sends and hears nothing until it is revived", () => {
    const { world, right, devices } = echoWorld({ seed: 2 });
    world.run(1e9, () => devices[1].received >= 3);
    world.kill(right);
    const before = devices[0].received;
    world.run(5_000_000);
    expect(devices[0].received - before).toBeLessThanOrEqual(2);
    world.revive(right);
    const renewed = new EchoDevice(LEFT);
    right.device = renewed;
    expect(world.run(50_000_000, () => renewed.received > 0)).toBe(true);
  });

  it("a broken invariant → fails with the seed, the time and the host", () => {
    const { world, devices } = echoWorld({ seed: 33 });
    devices[1].broken = true;
    expect(() => world.run(1e9)).toThrow(/^seed 33, \d+ ns, right: planted$/);
  });

  it("a machine that asks for turns without work → is found out", () => {
    const world = new SimWorld({ seed: 4, checkEvery: 0 });
    const host: SimHost = world.addHost("busy", { addresses: [LEFT] });
    const spinning: Machine = {
      pump: () => undefined,
      deadlineNs: () => 0,
      checkInvariants: () => undefined,
    };
    host.machines.push(spinning);
    expect(() => world.run(1e12)).toThrow(/spin/);
  });
});
