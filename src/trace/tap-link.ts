// SPDX-License-Identifier: MIT
// A decorator that shows every datagram of a link to taps: tracers, recorders, checkers. The same
// one on the simulated network and on sockets.

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

/** See the head of the file. Without a tap it costs a comparison per `receive` and `send`. */
export class TapLink<L extends Link = Link> implements Link {
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  readonly receiveBufferBytes: number;
  readonly bursts: readonly RxBurst[];
  protected readonly inner: L;
  /** In the order of adding; null when there is none. Replaced, never changed in place. */
  private taps: readonly LinkTap[] | null;

  constructor(inner: L, tap: LinkTap | null = null) {
    this.inner = inner;
    this.taps = tap === null ? null : [tap];
    this.addresses = inner.addresses;
    this.linkMtus = inner.linkMtus;
    this.receiveBufferBytes = inner.receiveBufferBytes;
    this.bursts = inner.bursts;
  }

  /** Shows `tap` every datagram from now on. */
  addTap(tap: LinkTap): void {
    this.taps = [...(this.taps ?? []), tap];
  }

  /** Stops showing; no-op for a tap that is not there. A tap may remove itself. */
  removeTap(tap: LinkTap): void {
    const rest = (this.taps ?? []).filter((other) => other !== tap);
    this.taps = rest.length === 0 ? null : rest;
  }

  receive(): number {
    const count = this.inner.receive();
    if (this.taps !== null) this.showReceived(this.taps, count);
    return count;
  }

  send(batch: TxBatch): number {
    const first = batch.sentCount;
    const count = this.inner.send(batch);
    if (this.taps !== null) {
      for (let index = first; index < first + count; index++) {
        this.showMessage(this.taps, batch, index);
        if (this.taps === null) break;
      }
    }
    return count;
  }

  private showReceived(taps: readonly LinkTap[], count: number): void {
    for (let i = 0; i < count; i++) {
      const burst = this.bursts[i] as RxBurst;
      const end = burst.offset + burst.length;
      for (let offset = burst.offset; offset < end; offset += burst.segmentLength) {
        const length = Math.min(burst.segmentLength, end - offset);
        for (let t = 0; t < taps.length; t++) taps[t]?.onReceived?.(burst, offset, length);
      }
    }
  }

  private showMessage(taps: readonly LinkTap[], batch: TxBatch, index: number): void {
    const flow = batch.flows[index] as TxFlow;
    const segmentLength = batch.segmentLengths[index] as number;
    let offset = batch.offsets[index] as number;
    const end = offset + (batch.lengths[index] as number);
    for (let segment = 0; offset < end; segment++) {
      const length = Math.min(segmentLength, end - offset);
      for (let t = 0; t < taps.length; t++) {
        taps[t]?.onSent?.(flow, batch.bytes, offset, length, segment);
      }
      offset += length;
    }
  }
}
