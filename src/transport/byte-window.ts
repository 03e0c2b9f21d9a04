// SPDX-License-Identifier: MIT
// How many bytes may be under way at once. Nobody tells a RoCE sender that a receiver's socket
// buffer is full: datagrams just vanish, and go-back-N then pays for each of them with everything
// behind it. So all queue pairs towards one peer share a window that starts at what a receiver is
// known to take, is halved on loss and grows back by about one packet per window acknowledged
// (AIMD, RFC 5681's congestion avoidance). A second window of the same kind bounds the READ
// responses asked for.
//
// What a packet costs is its payload plus what a receiving kernel charges for a small datagram.

import { assert } from "../base/index.js";

/** Charged per packet on top of its payload: headers, and the receiving kernel's bookkeeping. */
export const PACKET_OVERHEAD_BYTES = 512;
/** A packet at the largest MTU; the window grows by this much per window acknowledged. */
const PACKET_COST_MAX = 4096 + PACKET_OVERHEAD_BYTES;
/** The window never falls below this many of the largest packets. */
const FLOOR_PACKETS = 2;

const NOBODY = -1;

/** Links of the waiting lists: each queue pair waits for at most one window. Shared by a device. */
export class WaitLinks {
  readonly next: Int32Array;
  /** Whether a queue pair is in some list. */
  readonly isWaiting: Uint8Array;
  /** The room that a waiting queue pair needs to go on. */
  readonly costs: Float64Array;

  constructor(qpCountMax: number) {
    this.next = new Int32Array(qpCountMax).fill(NOBODY);
    this.isWaiting = new Uint8Array(qpCountMax);
    this.costs = new Float64Array(qpCountMax);
  }
}

export class ByteWindow {
  /** Largest the window ever gets: what the receiver takes. */
  readonly maxBytes: number;
  /** Bytes that may be under way now, floor .. maxBytes. */
  limitBytes: number;
  /** Cost of what is under way. Idle: 0. */
  inFlightBytes = 0;
  /** Smoothed round trip and its variation (RFC 6298), nanoseconds; 0 until measured. */
  rttNs = 0;
  rttVariationNs = 0;

  private readonly floorBytes: number;
  private readonly links: WaitLinks;
  private waitHead = NOBODY;
  private waitTail = NOBODY;
  private lossNs = Number.NEGATIVE_INFINITY;

  constructor(maxBytes: number, links: WaitLinks) {
    assert(maxBytes > 0, "a window is open");
    this.maxBytes = maxBytes;
    this.limitBytes = maxBytes;
    this.floorBytes = Math.min(maxBytes, FLOOR_PACKETS * PACKET_COST_MAX);
    this.links = links;
  }

  /** Whether `cost` more may go. With nothing under way anything may. */
  hasRoom(cost: number): boolean {
    return this.inFlightBytes + cost <= this.limitBytes || this.inFlightBytes === 0;
  }

  take(cost: number): void {
    this.inFlightBytes += cost;
  }

  /** `cost` is no longer under way, acknowledged or given up. */
  release(cost: number): void {
    this.inFlightBytes -= cost;
    assert(this.inFlightBytes >= 0, "no more is released than was taken");
  }

  /** `cost` was acknowledged: the window grows. */
  grow(cost: number): void {
    if (this.limitBytes >= this.maxBytes) return;
    const grown = this.limitBytes + (PACKET_COST_MAX * cost) / this.limitBytes;
    this.limitBytes = Math.min(this.maxBytes, grown);
  }

  /** Packets were lost: halves the window, at most once per round trip. */
  shrink(nowNs: number): void {
    if (nowNs - this.lossNs < this.rttNs) return;
    this.lossNs = nowNs;
    this.limitBytes = Math.max(this.floorBytes, this.limitBytes / 2);
  }

  /** Nothing was heard for a whole ACK timeout: starts over from the floor. */
  collapse(nowNs: number): void {
    this.lossNs = nowNs;
    this.limitBytes = this.floorBytes;
  }

  /** Takes in one measured round trip of a packet that was sent once (Karn). */
  addRoundTrip(sampleNs: number): void {
    if (this.rttNs === 0) {
      this.rttNs = sampleNs;
      this.rttVariationNs = sampleNs / 2;
      return;
    }
    this.rttVariationNs += (Math.abs(this.rttNs - sampleNs) - this.rttVariationNs) / 4;
    this.rttNs += (sampleNs - this.rttNs) / 8;
  }

  /** Puts a queue pair that found no room for `cost` at the end of the waiting list. */
  wait(qpIndex: number, cost: number): void {
    this.links.costs[qpIndex] = cost;
    if (this.links.isWaiting[qpIndex] === 1) return;
    this.links.isWaiting[qpIndex] = 1;
    this.links.next[qpIndex] = NOBODY;
    if (this.waitTail === NOBODY) this.waitHead = qpIndex;
    else this.links.next[this.waitTail] = qpIndex;
    this.waitTail = qpIndex;
  }

  /**
   * Takes the queue pair that has waited longest, if there is the room that it needs; -1 if not.
   * (Less room would not do: it would wait again at once, and be taken again, for ever.)
   */
  takeWaiter(): number {
    const qpIndex = this.waitHead;
    if (qpIndex === NOBODY || !this.hasRoom(this.links.costs[qpIndex] as number)) return NOBODY;
    this.waitHead = this.links.next[qpIndex] as number;
    if (this.waitHead === NOBODY) this.waitTail = NOBODY;
    this.links.isWaiting[qpIndex] = 0;
    return qpIndex;
  }

  /** Takes a queue pair that ceases to exist out of the list. */
  removeWaiter(qpIndex: number): void {
    let previous = NOBODY;
    for (let at = this.waitHead; at !== NOBODY; at = this.links.next[at] as number) {
      if (at !== qpIndex) {
        previous = at;
        continue;
      }
      const next = this.links.next[at] as number;
      if (previous === NOBODY) this.waitHead = next;
      else this.links.next[previous] = next;
      if (this.waitTail === qpIndex) this.waitTail = previous;
      this.links.isWaiting[qpIndex] = 0;
      return;
    }
  }
}

/** Cost of packets `from .. to - 1` of a message of `length` bytes cut at `mtu`. */
export function costOfPackets(length: number, mtu: number, from: number, to: number): number {
  const payload = Math.min(to * mtu, length) - Math.min(from * mtu, length);
  return payload + (to - from) * PACKET_OVERHEAD_BYTES;
}
