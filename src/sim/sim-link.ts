// SPDX-License-Identifier: MIT
// One host's end of the simulated network: `Link` with a finite socket buffer and, as the seed
// wants, receive offload that merges packets of a sender into one burst.

import { assert, type IpAddress, type Random, randomBelow } from "../base/index.js";
import {
  type Link,
  RxBurst,
  TX_SEGMENTS_MAX,
  type TxBatch,
  type TxFlow,
} from "../transport/index.js";
import { ROCE_PORT } from "../wire/index.js";
import { happens } from "./chance.js";
import { EventHeap } from "./event-heap.js";
import type { SimNetwork } from "./sim-network.js";
import type { SimPacket } from "./sim-packet.js";

/** Room in front of a burst's first byte, so that offsets differ from burst to burst. */
const HEADROOM_BYTES = 64;
const BURST_BYTES_MAX = 65_536;
/** What lies behind a received burst: a reader that overruns meets this. */
const POISON = 0xdb;
/** IPv4 and UDP, IPv6 and UDP. */
const HEADER_BYTES_V4 = 28;
const HEADER_BYTES_V6 = 48;

export interface SimLinkOptions {
  readonly addresses: readonly IpAddress[];
  /** Link MTU of every port. */
  readonly mtu?: number;
  /** Bytes that wait for `receive` before packets are dropped. */
  readonly receiveBufferBytes?: number;
  /** Whether arrived packets of one sender are merged into bursts. */
  readonly gro?: "never" | "sometimes" | "always";
  /** Bursts that one `receive` brings at most. */
  readonly burstCountMax?: number;
  /** Probability that a `send` takes only a part, as a full socket does. */
  readonly stallRate?: number;
  /** UDP source port of everything this link sends. */
  readonly sourcePort?: number;
}

/** See the head of the file. Made by `SimNetwork.attach`. */
export class SimLink implements Link {
  readonly name: string;
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  readonly receiveBufferBytes: number;
  readonly bursts: readonly RxBurst[];
  readonly sourcePort: number;

  private readonly network: SimNetwork;
  private readonly random: Random;
  private readonly gro: "never" | "sometimes" | "always";
  private readonly stallRate: number;
  /** Under way to this link, by arrival. */
  private readonly arrivals = new EventHeap<SimPacket>();
  /** Arrived and not yet received: the socket buffer. */
  private readonly waiting: SimPacket[] = [];
  private waitingBytes = 0;
  private isDetached = false;

  constructor(network: SimNetwork, name: string, options: SimLinkOptions, random: Random) {
    this.network = network;
    this.name = name;
    this.random = random;
    this.addresses = options.addresses;
    this.linkMtus = options.addresses.map(() => options.mtu ?? 1500);
    this.receiveBufferBytes = options.receiveBufferBytes ?? 4 << 20;
    this.gro = options.gro ?? "sometimes";
    this.stallRate = options.stallRate ?? 0;
    this.sourcePort = options.sourcePort ?? ROCE_PORT;
    this.bursts = Array.from(
      { length: options.burstCountMax ?? 8 },
      () => new RxBurst(new Uint8Array(HEADROOM_BYTES + BURST_BYTES_MAX)),
    );
  }

  /**
   * When the next packet can be received: now or earlier if one waits, `Infinity` if none comes.
   */
  get nextArrivalNs(): number {
    return this.waiting.length > 0 ? this.network.clock.nowNs : this.arrivals.nextNs;
  }

  portOf(address: IpAddress): number {
    const port = this.addresses.findIndex((own) => own.equals(address));
    assert(port >= 0, "the address is this link's");
    return port;
  }

  /** Called by the network: `packet` reaches this host at `timeNs`. */
  arrive(timeNs: number, packet: SimPacket): void {
    this.arrivals.push(timeNs, packet);
  }

  /** Called by the network when this link goes: nothing arrives or leaves any more. */
  discardArrivals(): void {
    this.isDetached = true;
    for (const packet of this.arrivals.drain()) this.network.recycle(packet);
    for (const packet of this.waiting.splice(0)) this.network.recycle(packet);
    this.waitingBytes = 0;
  }

  receive(): number {
    this.fillSocketBuffer();
    let taken = 0;
    let count = 0;
    while (count < this.bursts.length && taken < this.waiting.length) {
      taken += this.fillBurst(this.bursts[count] as RxBurst, taken);
      count++;
    }
    for (const packet of this.waiting.splice(0, taken)) {
      this.waitingBytes -= packet.length;
      this.network.recycle(packet);
    }
    return count;
  }

  send(batch: TxBatch): number {
    const before = batch.sentCount;
    let end = batch.messageCount;
    if (this.stallRate > 0 && happens(this.random, this.stallRate)) {
      end = before + randomBelow(this.random, end - before + 1);
    }
    while (batch.sentCount < end) {
      this.sendMessage(batch, batch.sentCount);
      batch.sentCount++;
    }
    return batch.sentCount - before;
  }

  private sendMessage(batch: TxBatch, index: number): void {
    const flow = batch.flows[index] as TxFlow;
    const segmentLength = batch.segmentLengths[index] as number;
    const start = batch.offsets[index] as number;
    const end = start + (batch.lengths[index] as number);
    if (this.isDetached) return;
    let segmentIndex = 0;
    for (let offset = start; offset < end; offset += segmentLength) {
      const length = Math.min(segmentLength, end - offset);
      if (length > this.payloadBytesMax(flow.port)) this.network.counters.tooLong++;
      else this.network.transmit(this, flow, batch.bytes, offset, length, segmentIndex);
      segmentIndex++;
    }
  }

  private payloadBytesMax(port: number): number {
    const isV4 = (this.addresses[port] as IpAddress).family === 4;
    return (this.linkMtus[port] as number) - (isV4 ? HEADER_BYTES_V4 : HEADER_BYTES_V6);
  }

  /** Moves what has arrived by now into the socket buffer, dropping what doesn't fit. */
  private fillSocketBuffer(): void {
    for (;;) {
      const packet = this.arrivals.popDue(this.network.clock.nowNs);
      if (packet === null) return;
      if (this.waitingBytes + packet.length > this.receiveBufferBytes) {
        this.network.counters.receiveDrops++;
        this.network.recycle(packet);
        continue;
      }
      this.network.counters.delivered++;
      this.waitingBytes += packet.length;
      this.waiting.push(packet);
    }
  }

  /** Fills `burst` from `waiting[from]` on. @returns packets merged into it, at least one. */
  private fillBurst(burst: RxBurst, from: number): number {
    const first = this.waiting[from] as SimPacket;
    const source = first.source as IpAddress;
    burst.offset = randomBelow(this.random, HEADROOM_BYTES);
    burst.segmentLength = first.length;
    burst.port = first.port;
    burst.source0 = source.word0;
    burst.source1 = source.word1;
    burst.source2 = source.word2;
    burst.source3 = source.word3;
    burst.sourcePort = first.sourcePort;
    burst.trafficClass = first.trafficClass;
    let end = burst.offset;
    let count = 0;
    for (;;) {
      const packet = this.waiting[from + count] as SimPacket;
      burst.bytes.set(packet.bytes.subarray(0, packet.length), end);
      end += packet.length;
      count++;
      const next = this.waiting[from + count];
      if (next === undefined || packet.length < first.length) break;
      if (!this.joins(first, next, count, end - burst.offset)) break;
    }
    burst.length = end - burst.offset;
    burst.bytes.fill(POISON, end, Math.min(end + HEADROOM_BYTES, burst.bytes.length));
    return count;
  }

  /** Whether receive offload merges `next` into the burst that `first` began. */
  private joins(first: SimPacket, next: SimPacket, count: number, bytes: number): boolean {
    if (this.gro === "never" || count === TX_SEGMENTS_MAX) return false;
    if (next.length > first.length || bytes + next.length > BURST_BYTES_MAX) return false;
    if (!next.isSameFlow(first)) return false;
    return this.gro === "always" || randomBelow(this.random, 4) > 0;
  }
}
