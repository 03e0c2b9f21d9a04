// SPDX-License-Identifier: MIT

import { type IpAddress, type Random, randomBelow } from "../base/index.js";
import { type Link, RxBurst, type TxBatch } from "../transport/index.js";
import { happens } from "./chance.js";
import { EventHeap } from "./event-heap.js";

/** What a `FaultLink` does to arriving datagrams; rates are probabilities 0 .. 1. */
export interface FaultLinkOptions {
  /** The clock that delays run on. */
  readonly nowNs: () => number;
  readonly random: Random;
  readonly lossRate?: number;
  readonly duplicateRate?: number;
  /** One flipped bit. */
  readonly corruptRate?: number;
  /** Every datagram waits this long, and up to `jitterNs` more, which reorders. */
  readonly delayNs?: number;
  readonly jitterNs?: number;
}

interface HeldDatagram {
  readonly bytes: Uint8Array;
  readonly from: HeldFrom;
}

type HeldFrom = Pick<
  RxBurst,
  "port" | "source0" | "source1" | "source2" | "source3" | "sourcePort" | "trafficClass"
>;

const DATAGRAM_BYTES_MAX = 65_536;

/**
 * A decorator that loses, doubles, spoils and delays what arrives at any link, a real one included.
 * It copies each datagram and hands them over one to a burst, so it is for tests, not for speed.
 */
export class FaultLink implements Link {
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  readonly receiveBufferBytes: number;
  readonly bursts: readonly RxBurst[];
  private readonly inner: Link;
  private readonly options: FaultLinkOptions;
  private readonly held = new EventHeap<HeldDatagram>();

  constructor(inner: Link, options: FaultLinkOptions) {
    this.inner = inner;
    this.options = options;
    this.addresses = inner.addresses;
    this.linkMtus = inner.linkMtus;
    this.receiveBufferBytes = inner.receiveBufferBytes;
    this.bursts = inner.bursts.map(() => new RxBurst(new Uint8Array(DATAGRAM_BYTES_MAX)));
  }

  /** When a held datagram can be received; `Infinity` when none is held. */
  get nextWakeNs(): number {
    return this.held.nextNs;
  }

  receive(): number {
    for (let arrived = this.inner.receive(); arrived > 0; arrived = this.inner.receive()) {
      for (let i = 0; i < arrived; i++) this.holdBurst(this.inner.bursts[i] as RxBurst);
    }
    const nowNs = this.options.nowNs();
    let count = 0;
    while (count < this.bursts.length) {
      const datagram = this.held.popDue(nowNs);
      if (datagram === null) break;
      const burst = this.bursts[count++] as RxBurst;
      burst.bytes.set(datagram.bytes);
      burst.offset = 0;
      burst.length = datagram.bytes.length;
      burst.segmentLength = datagram.bytes.length;
      Object.assign(burst, datagram.from);
    }
    return count;
  }

  send(batch: TxBatch): number {
    return this.inner.send(batch);
  }

  private holdBurst(burst: RxBurst): void {
    const end = burst.offset + burst.length;
    for (let offset = burst.offset; offset < end; offset += burst.segmentLength) {
      const length = Math.min(burst.segmentLength, end - offset);
      if (happens(this.options.random, this.options.lossRate ?? 0)) continue;
      this.holdDatagram(burst, burst.bytes.slice(offset, offset + length));
      if (happens(this.options.random, this.options.duplicateRate ?? 0)) {
        this.holdDatagram(burst, burst.bytes.slice(offset, offset + length));
      }
    }
  }

  private holdDatagram(burst: RxBurst, bytes: Uint8Array): void {
    const { random, delayNs = 0, jitterNs = 0 } = this.options;
    if (happens(random, this.options.corruptRate ?? 0)) {
      const bit = randomBelow(random, bytes.length * 8);
      bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
    }
    const { port, source0, source1, source2, source3, sourcePort, trafficClass } = burst;
    const from = { port, source0, source1, source2, source3, sourcePort, trafficClass };
    const extraNs = jitterNs > 0 ? randomBelow(random, jitterNs + 1) : 0;
    this.held.push(this.options.nowNs() + delayNs + extraNs, { bytes, from });
  }
}
