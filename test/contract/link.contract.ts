// SPDX-License-Identifier: MIT
// What every `Link` must do, whether it is made of sockets or simulated.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { IpAddress } from "../../src/base/index.js";
import { type Link, TxBatch, type TxFlow } from "../../src/transport/index.js";

/** Two links that reach each other, on a path that loses nothing. */
export interface LinkPair {
  readonly left: Link;
  readonly right: Link;
  /** UDP port that `right` receives on. */
  readonly rightUdpPort: number;
  /** An address of the same host as `right` where nobody receives. */
  readonly nowhere: IpAddress;
  /** Lets what is under way arrive. */
  settle(): Promise<void>;
  close(): void;
}

interface Packet {
  readonly bytes: number[];
  readonly port: number;
  readonly source: string;
}

/** Everything that arrives until `count` packets have, or long enough has passed. */
async function receivePackets(pair: LinkPair, count: number): Promise<Packet[]> {
  const packets: Packet[] = [];
  for (let attempt = 0; attempt < 200 && packets.length < count; attempt++) {
    await pair.settle();
    const burstCount = pair.right.receive();
    for (const burst of pair.right.bursts.slice(0, burstCount)) {
      expect(burst.segmentLength).toBeGreaterThan(0);
      expect(burst.segmentLength).toBeLessThanOrEqual(burst.length);
      const end = burst.offset + burst.length;
      const words = [burst.source0, burst.source1, burst.source2, burst.source3];
      for (let at = burst.offset; at < end; at += burst.segmentLength) {
        const bytes = [...burst.bytes.slice(at, Math.min(end, at + burst.segmentLength))];
        expect(burst.view.getUint8(at)).toBe(bytes[0]);
        packets.push({ bytes, port: burst.port, source: words.join() });
      }
    }
  }
  return packets;
}

function wordsOf(address: IpAddress): string {
  return [address.word0, address.word1, address.word2, address.word3].join();
}

/** A packet whose contents depend on its number and length. */
function pattern(number: number, length: number): number[] {
  return Array.from({ length }, (_, i) => (number * 31 + i * 7 + length) & 255);
}

function fill(batch: TxBatch, flow: TxFlow, lengths: readonly number[], first = 0): void {
  lengths.forEach((length, index) => {
    const offset = batch.reserve(flow, length);
    expect(offset).toBeGreaterThanOrEqual(0);
    batch.bytes.set(pattern(first + index, length), offset);
    batch.commit();
  });
}

async function sendAll(pair: LinkPair, batch: TxBatch): Promise<void> {
  for (let attempt = 0; attempt < 200 && batch.sentCount < batch.messageCount; attempt++) {
    const before = batch.sentCount;
    expect(pair.left.send(batch)).toBe(batch.sentCount - before);
    if (batch.sentCount < batch.messageCount) await pair.settle();
  }
  expect(batch.sentCount).toBe(batch.messageCount);
}

interface Bench {
  pair: LinkPair;
  batch: TxBatch;
  flow: TxFlow;
}

export function linkContract(name: string, open: () => Promise<LinkPair>): void {
  describe(`Link contract: ${name}`, () => {
    const bench = {} as Bench;
    beforeEach(async () => {
      bench.pair = await open();
      bench.batch = new TxBatch(new Uint8Array(1 << 20), 64);
      bench.flow = flowTo(bench.pair, bench.pair.right.addresses[0] as IpAddress);
    });
    afterEach(() => bench.pair.close());
    arrivalRules(bench);
    batchRules(bench);
  });
}

/** What is sent arrives, packet by packet. */
function arrivalRules(bench: Bench): void {
  it("opened → knows a link MTU per address and what its buffers hold", () => {
    for (const link of [bench.pair.left, bench.pair.right]) {
      expect(link.linkMtus).toHaveLength(link.addresses.length);
      for (const mtu of link.linkMtus) expect(mtu).toBeGreaterThanOrEqual(576);
      expect(link.receiveBufferBytes).toBeGreaterThan(0);
      expect(link.bursts.length).toBeGreaterThan(0);
    }
  });

  it("nothing has arrived → receive brings nothing and does not block", async () => {
    await bench.pair.settle();
    expect(bench.pair.right.receive()).toBe(0);
  });

  it("one packet → arrives byte for byte, with its sender and local port", async () => {
    fill(bench.batch, bench.flow, [77]);
    await sendAll(bench.pair, bench.batch);
    const packets = await receivePackets(bench.pair, 1);
    const source = wordsOf(bench.pair.left.addresses[0] as IpAddress);
    expect(packets).toEqual([{ bytes: pattern(0, 77), port: 0, source }]);
  });

  it("a message of equal segments and a shorter last → the same packets, in order", async () => {
    const lengths = [...new Array<number>(20).fill(1040), 300];
    fill(bench.batch, bench.flow, lengths);
    await sendAll(bench.pair, bench.batch);
    const packets = await receivePackets(bench.pair, lengths.length);
    expect(packets.map((p) => p.bytes)).toEqual(lengths.map((l, i) => pattern(i, l)));
  });

  it("packets of many sizes in one batch → none lost, none cut, none joined", async () => {
    const lengths = [20, 20, 300, 299, 20, 1040, 1040, 1040, 16, 1200, 20, 20, 20, 1];
    fill(bench.batch, bench.flow, lengths);
    await sendAll(bench.pair, bench.batch);
    const packets = await receivePackets(bench.pair, lengths.length);
    expect(packets.map((p) => p.bytes)).toEqual(lengths.map((l, i) => pattern(i, l)));
  });
}

/** Several flows, several receives, and packets to nobody. */
function batchRules(bench: Bench): void {
  it("more arrives than one receive brings → the next receives bring the rest", async () => {
    // Alternating sizes, so that no two packets can share a burst.
    const count = 4 * bench.pair.right.bursts.length + 3;
    const lengths = Array.from({ length: count }, (_, i) => (i % 2 === 0 ? 40 : 80));
    for (let first = 0; first < count; first += 32) {
      bench.batch.reset();
      fill(bench.batch, bench.flow, lengths.slice(first, first + 32), first);
      await sendAll(bench.pair, bench.batch);
    }
    const packets = await receivePackets(bench.pair, count);
    expect(packets.map((p) => p.bytes)).toEqual(lengths.map((l, i) => pattern(i, l)));
  });

  it("a batch to nobody → counts as sent, and the link goes on working", async () => {
    fill(bench.batch, flowTo(bench.pair, bench.pair.nowhere), [50, 50, 20]);
    await sendAll(bench.pair, bench.batch);
    await bench.pair.settle();
    for (let round = 0; round < 3; round++) {
      bench.batch.reset();
      fill(bench.batch, bench.flow, [60], round);
      await sendAll(bench.pair, bench.batch);
      const packets = await receivePackets(bench.pair, 1);
      expect(packets.map((p) => p.bytes)).toEqual([pattern(round, 60)]);
    }
  });

  it("two flows in turn in one batch → each packet where it belongs", async () => {
    const other = flowTo(bench.pair, bench.pair.nowhere);
    fill(bench.batch, bench.flow, [100]);
    fill(bench.batch, other, [100, 100]);
    fill(bench.batch, bench.flow, [100], 1);
    await sendAll(bench.pair, bench.batch);
    const packets = await receivePackets(bench.pair, 2);
    expect(packets.map((p) => p.bytes)).toEqual([pattern(0, 100), pattern(1, 100)]);
  });
}

function flowTo(pair: LinkPair, destination: IpAddress): TxFlow {
  return { port: 0, destination, destinationPort: pair.rightUdpPort, trafficClass: 0 };
}
