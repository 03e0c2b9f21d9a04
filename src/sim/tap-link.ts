// SPDX-License-Identifier: MIT

import type { IpAddress } from "../base/index.js";
import type { Link, RxBurst, TxBatch, TxFlow } from "../transport/index.js";

/** What a tap hears. Bytes are borrowed for the call and must not be written by tracers. */
export interface LinkTap {
  /** One datagram that the link took. `segmentIndex` is its place in its GSO send. */
  onSent?(
    flow: TxFlow,
    bytes: Uint8Array,
    offset: number,
    length: number,
    segmentIndex: number,
  ): void;
  /** One datagram that has arrived; a fault injector may rewrite its bytes in place. */
  onReceived?(burst: RxBurst, offset: number, length: number): void;
}

/** A decorator that shows every datagram of a link to a tap: tracers, recorders, checkers. */
export class TapLink implements Link {
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  readonly receiveBufferBytes: number;
  readonly bursts: readonly RxBurst[];
  private readonly inner: Link;
  private readonly tap: LinkTap;

  constructor(inner: Link, tap: LinkTap) {
    this.inner = inner;
    this.tap = tap;
    this.addresses = inner.addresses;
    this.linkMtus = inner.linkMtus;
    this.receiveBufferBytes = inner.receiveBufferBytes;
    this.bursts = inner.bursts;
  }

  receive(): number {
    const count = this.inner.receive();
    for (let i = 0; i < count; i++) {
      const burst = this.bursts[i] as RxBurst;
      const end = burst.offset + burst.length;
      for (let offset = burst.offset; offset < end; offset += burst.segmentLength) {
        this.tap.onReceived?.(burst, offset, Math.min(burst.segmentLength, end - offset));
      }
    }
    return count;
  }

  send(batch: TxBatch): number {
    const first = batch.sentCount;
    const count = this.inner.send(batch);
    for (let index = first; index < first + count; index++) this.showMessage(batch, index);
    return count;
  }

  private showMessage(batch: TxBatch, index: number): void {
    const flow = batch.flows[index] as TxFlow;
    const segmentLength = batch.segmentLengths[index] as number;
    let offset = batch.offsets[index] as number;
    const end = offset + (batch.lengths[index] as number);
    for (let segment = 0; offset < end; segment++) {
      const length = Math.min(segmentLength, end - offset);
      this.tap.onSent?.(flow, batch.bytes, offset, length, segment);
      offset += length;
    }
  }
}
