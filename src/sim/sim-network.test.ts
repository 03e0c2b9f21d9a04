// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress, SeededRandom } from "../base/index.js";
import { TapLink } from "../trace/index.js";
import { type RxBurst, TxBatch, type TxFlow } from "../transport/index.js";
import { FaultLink } from "./fault-link.js";
import { SimClock } from "./sim-clock.js";
import type { SimLink, SimLinkOptions } from "./sim-link.js";
import { type PathFaults, SimNetwork } from "./sim-network.js";

const LEFT = IpAddress.parse("192.0.2.1");
const RIGHT = IpAddress.parse("192.0.2.2");
const TO_RIGHT: TxFlow = { port: 0, destination: RIGHT, destinationPort: 4791, trafficClass: 7 };

function pair(
  options: { seed?: number; faults?: Partial<PathFaults>; right?: Partial<SimLinkOptions> } = {},
) {
  const clock = new SimClock();
  const network = new SimNetwork(clock, new SeededRandom(options.seed ?? 1), options.faults);
  const left = network.attach("left", { addresses: [LEFT] });
  const right = network.attach("right", { addresses: [RIGHT], ...options.right });
  return { clock, network, left, right };
}

/** Sends packets of the given contents (one byte repeated `lengths[i]` times) in one batch. */
function send(link: SimLink, lengths: readonly number[], flow = TO_RIGHT): void {
  const batch = new TxBatch(new Uint8Array(1 << 18));
  for (const [index, length] of lengths.entries()) {
    const offset = batch.reserve(flow, length);
    batch.bytes.fill(index + 1, offset, offset + length);
    batch.commit();
  }
  while (batch.sentCount < batch.messageCount) link.send(batch);
}

/** Everything that has arrived, as [first byte, length, isUniform]. */
function receiveAll(link: { receive(): number; readonly bursts: readonly RxBurst[] }) {
  const packets: [first: number, length: number, uniform: boolean][] = [];
  const bursts: number[] = [];
  for (let count = link.receive(); count > 0; count = link.receive()) {
    for (const burst of link.bursts.slice(0, count)) {
      let segments = 0;
      const end = burst.offset + burst.length;
      for (let at = burst.offset; at < end; at += burst.segmentLength) {
        const bytes = burst.bytes.slice(at, Math.min(at + burst.segmentLength, end));
        packets.push([bytes[0] as number, bytes.length, bytes.every((b) => b === bytes[0])]);
        segments++;
      }
      bursts.push(segments);
    }
  }
  return { packets, bursts };
}

describe("SimNetwork", () => {
  it("a quiet path → every datagram arrives after the latency, in order, once", () => {
    const { clock, left, right } = pair({ right: { gro: "never" } });
    send(left, [100, 100, 60, 1000]);
    clock.advanceTo(9_999);
    expect(receiveAll(right).packets).toEqual([]);
    clock.advanceTo(10_000);
    expect(right.receive()).toBe(4);
    expect(right.bursts[0]).toMatchObject({ source2: 0xffff, source3: LEFT.word3, port: 0 });
    expect(right.bursts[0]).toMatchObject({ trafficClass: 7, sourcePort: 4791, length: 100 });
    expect(right.receive()).toBe(0);
  });

  it("gro always → equal lengths merge, a shorter one ends a burst, a longer begins one", () => {
    const { clock, left, right } = pair({ right: { gro: "always" } });
    send(left, [100, 100, 60, 60, 61]);
    clock.advanceTo(10_000);
    const { packets, bursts } = receiveAll(right);
    expect(packets).toEqual([100, 100, 60, 60, 61].map((length, i) => [i + 1, length, true]));
    expect(bursts).toEqual([3, 1, 1]);
  });

  it("gro sometimes → bursts of several sizes, the same datagrams", () => {
    const { clock, left, right } = pair({ right: { gro: "sometimes" } });
    const lengths = new Array<number>(40).fill(200);
    send(left, lengths);
    clock.advanceTo(10_000);
    const { packets, bursts } = receiveAll(right);
    expect(packets.map((packet) => packet[0])).toEqual(lengths.map((_, i) => i + 1));
    expect(new Set(bursts).size).toBeGreaterThan(2);
  });

  it("a merged burst never exceeds the segments of one GSO send", () => {
    const { clock, left, right } = pair({ right: { gro: "always" } });
    send(left, new Array<number>(100).fill(50));
    clock.advanceTo(10_000);
    expect(receiveAll(right).bursts).toEqual([64, 36]);
  });

  it("loss → about the stated share is lost, the same ones for the same seed", () => {
    const run = (seed: number) => {
      const { clock, left, right } = pair({ seed, faults: { lossRate: 0.25 } });
      for (let i = 0; i < 20; i++) send(left, new Array<number>(50).fill(30));
      clock.advanceTo(10_000);
      return receiveAll(right).packets;
    };
    expect(run(1)).toEqual(run(1));
    expect(run(1)).not.toEqual(run(2));
    expect(run(3).length / 1000).toBeGreaterThan(0.7);
    expect(run(3).length / 1000).toBeLessThan(0.8);
  });

  it("reordering and duplication → the same datagrams in another order, some twice", () => {
    const { clock, network, left, right } = pair({
      faults: { reorderRate: 0.2, duplicateRate: 0.2, jitterNs: 500 },
    });
    send(left, new Array<number>(64).fill(30));
    clock.advanceTo(1_000_000);
    const order = receiveAll(right).packets.map((packet) => packet[0]);
    expect(new Set(order).size).toBe(64);
    expect(order.length).toBe(64 + network.counters.duplicated);
    expect(network.counters.duplicated).toBeGreaterThan(0);
    expect(order).not.toEqual([...order].sort((a, b) => a - b));
  });

  it("jitter alone → keeps the order", () => {
    const { clock, left, right } = pair({ faults: { jitterNs: 100_000 } });
    send(left, new Array<number>(64).fill(30));
    clock.advanceTo(1_000_000);
    const order = receiveAll(right).packets.map((packet) => packet[0]);
    expect(order).toEqual(order.map((_, i) => i + 1));
  });

  it("corruption and truncation → as many arrive spoiled as are counted", () => {
    const { clock, network, left, right } = pair({
      faults: { corruptRate: 0.3, truncateRate: 0.3 },
    });
    send(left, new Array<number>(64).fill(300));
    clock.advanceTo(10_000);
    const { packets } = receiveAll(right);
    expect(packets.length).toBe(64);
    expect(packets.filter((packet) => packet[1] < 300).length).toBe(network.counters.truncated);
    expect(network.counters.truncated).toBeGreaterThan(5);
    expect(network.counters.corrupted).toBeGreaterThan(5);
  });

  it("a corruption that the filter refuses → the packet arrives whole", () => {
    const { clock, network, left, right } = pair({
      faults: { corruptRate: 1, truncateRate: 0.5 },
    });
    network.corruptionFilter = () => false;
    send(left, [300, 300, 300]);
    clock.advanceTo(10_000);
    expect(receiveAll(right).packets).toEqual([1, 2, 3].map((first) => [first, 300, true]));
    expect(network.counters.corrupted + network.counters.truncated).toBe(0);
  });

  it("a rate limit → spaces packets, and drops those that find the queue full", () => {
    const { clock, network, left, right } = pair({
      faults: { bitsPerSecond: 8_000_000, queueBytes: 2_500, latencyNs: 0 },
    });
    send(left, [1000, 1000, 1000, 1000]);
    clock.advanceTo(1_000_000);
    expect(receiveAll(right).packets.length).toBe(1);
    clock.advanceTo(10_000_000);
    expect(receiveAll(right).packets.length).toBe(1);
    expect(network.counters.queueDrops).toBe(2);
  });

  it("a full socket buffer → drops what arrives next, takes more after receive", () => {
    const { clock, network, left, right } = pair({ right: { receiveBufferBytes: 1000 } });
    send(left, [400, 400, 400]);
    clock.advanceTo(10_000);
    expect(receiveAll(right).packets.length).toBe(2);
    expect(network.counters.receiveDrops).toBe(1);
    send(left, [400]);
    clock.advanceTo(20_000);
    expect(receiveAll(right).packets.length).toBe(1);
  });

  it("a partition in one direction → nothing that way until healed, the other way open", () => {
    const { clock, network, left, right } = pair();
    network.partition("left", "right");
    send(left, [100]);
    send(right, [100], { ...TO_RIGHT, destination: LEFT });
    clock.advanceTo(10_000);
    expect(receiveAll(right).packets.length).toBe(0);
    expect(receiveAll(left).packets.length).toBe(1);
    network.heal();
    send(left, [100]);
    clock.advanceTo(20_000);
    expect(receiveAll(right).packets.length).toBe(1);
  });

  it("a packet above the link MTU, or to nobody → counts as sent and goes nowhere", () => {
    const { clock, network, left, right } = pair();
    send(left, [1472, 1473]);
    send(left, [10], { ...TO_RIGHT, destination: IpAddress.parse("192.0.2.9") });
    clock.advanceTo(10_000);
    expect(receiveAll(right).packets.length).toBe(1);
    expect(network.counters).toMatchObject({ tooLong: 1, unroutable: 1 });
  });

  it("a stalled send → takes a part and goes on later", () => {
    const clock = new SimClock();
    const network = new SimNetwork(clock, new SeededRandom(5));
    const left = network.attach("left", { addresses: [LEFT], stallRate: 0.9 });
    const right = network.attach("right", { addresses: [RIGHT] });
    send(left, [100, 200, 300, 400, 500]);
    clock.advanceTo(10_000);
    expect(receiveAll(right).packets.map((packet) => packet[1])).toEqual([100, 200, 300, 400, 500]);
  });

  it("a detached link → neither sends nor receives; its address is free again", () => {
    const { clock, network, left } = pair();
    send(left, [100]);
    network.detach("right");
    expect(() => network.attach("other", { addresses: [LEFT] })).toThrow(/belongs to/);
    const renewed = network.attach("right", { addresses: [RIGHT] });
    clock.advanceTo(10_000);
    expect(renewed.receive()).toBe(0);
  });

  it("an injected packet → arrives at once with the forged source, through a partition too", () => {
    const { network, right } = pair();
    network.partition("left", "right");
    network.inject(right, 0, LEFT, new Uint8Array([9, 8, 8, 9]), 1, 2);
    expect(right.nextArrivalNs).toBe(0);
    expect(receiveAll(right).packets).toEqual([[8, 2, true]]);
    expect(right.bursts[0]).toMatchObject({ source3: LEFT.word3, sourcePort: 4791 });
  });

  it("a gate → decides about single packets", () => {
    const { clock, network, left, right } = pair();
    let seen = 0;
    network.gate = () => ++seen !== 2;
    send(left, [100, 100, 100]);
    clock.advanceTo(10_000);
    expect(receiveAll(right).packets.map((packet) => packet[0])).toEqual([1, 3]);
  });
});

describe("link decorators", () => {
  it("TapLink → shows every datagram out with its segment index, and every one in", () => {
    const { clock, left, right } = pair({ right: { gro: "always" } });
    const out: number[][] = [];
    const arrived: number[] = [];
    const tapped = new TapLink(left, {
      onSent: (_flow, bytes, offset, length, segment) =>
        out.push([bytes[offset] as number, length, segment]),
    });
    const listening = new TapLink(right, {
      onReceived: (burst, offset, length) => {
        arrived.push(length);
        burst.bytes[offset] = 99;
      },
    });
    const batch = new TxBatch(new Uint8Array(4096));
    for (const length of [40, 40, 20]) {
      const offset = batch.reserve(TO_RIGHT, length);
      batch.bytes.fill(length, offset, offset + length);
      batch.commit();
    }
    expect(tapped.send(batch)).toBe(1);
    clock.advanceTo(10_000);
    expect(receiveAll(listening).packets.map((packet) => packet[0])).toEqual([99, 99, 99]);
    expect(out).toEqual([
      [40, 40, 0],
      [40, 40, 1],
      [20, 20, 2],
    ]);
    expect(arrived).toEqual([40, 40, 20]);
  });

  it("FaultLink → holds datagrams for the delay, loses and spoils at the stated rates", () => {
    const { clock, left, right } = pair();
    const faulty = new FaultLink(right, {
      nowNs: () => clock.nowNs,
      random: new SeededRandom(3),
      delayNs: 5_000,
      jitterNs: 100,
      lossRate: 0.3,
      duplicateRate: 0.2,
      corruptRate: 0.3,
    });
    send(left, new Array<number>(100).fill(60));
    clock.advanceTo(10_000);
    expect(faulty.receive()).toBe(0);
    expect(faulty.nextWakeNs).toBeGreaterThanOrEqual(15_000);
    clock.advanceTo(16_000);
    const { packets } = receiveAll(faulty);
    expect(packets.length).toBeGreaterThan(60);
    expect(packets.length).toBeLessThan(110);
    expect(packets.filter((packet) => !packet[2]).length).toBeGreaterThan(10);
  });
});
