// SPDX-License-Identifier: MIT
// How many bytes may be under way at once. Nobody tells a RoCE sender that a receiver's socket
// buffer is full: datagrams just vanish, and go-back-N then pays for each of them with everything
// behind it. So all queue pairs towards one peer share a window that never exceeds what a receiver
// is taken to hold. A second window of the same kind bounds the READ responses asked for.
//
// What the peer was really granted isn't known: it may be a fiftieth of what we were. So the window
// opens as TCP's does (RFC 5681): it starts at what every Linux socket takes, doubles per round
// trip until the first loss (slow start), and grows slowly from there. A loss halves what was
// really under way, not what might have been. An ACK timeout closes it to its floor, since nothing
// is known any more; but a peer that only had no processor answers in the end, all of it, and then
// the window is what it was (RFC 4015's idea, found out without timestamps: what is acknowledged
// beyond the retransmission was not lost).
//
// What a packet costs is its payload plus what a receiving kernel charges for a small datagram.

import { assert } from "../base/index.js";

/** Charged per packet on top of its payload: headers, and the receiving kernel's bookkeeping. */
export const PACKET_OVERHEAD_BYTES = 512;
/** A packet at the largest MTU. */
const PACKET_COST_MAX = 4096 + PACKET_OVERHEAD_BYTES;
/** The window never falls below this many of the largest packets. */
const FLOOR_PACKETS = 2;
/**
 * In flight at first. An unprivileged socket is granted 2 * 208 KiB where nobody has raised
 * net.core.rmem_max, of which payload fills a third at worst.
 */
export const INITIAL_WINDOW_BYTES = 128 * 1024;
/**
 * Once a loss has shown where the bound is, the window grows by this part per window acknowledged,
 * or by one packet where that is more: the same at 144 KiB. One packet alone would take 900 round
 * trips, of 20 ms each where processors are scarce, from one loss to the former size of 8 MiB.
 */
const GROWTH_PART = 32;

const NOBODY = -1;

/** Links of the waiting lists: each queue pair waits for at most one window. Shared by a device. */
export class WaitLinks {
  readonly next: Int32Array;
  /** The window that a queue pair waits for; null: none. */
  readonly windows: (ByteWindow | null)[];
  /** The room that a waiting queue pair needs to go on. */
  readonly costs: Float64Array;

  constructor(qpCountMax: number) {
    this.next = new Int32Array(qpCountMax).fill(NOBODY);
    this.windows = new Array<ByteWindow | null>(qpCountMax).fill(null);
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
  /** Queue pairs that are connected through this window. */
  userCount = 0;
  /** When the peer acknowledged something last, on whichever queue pair. */
  heardNs = Number.NEGATIVE_INFINITY;

  private readonly floorBytes: number;
  private readonly links: WaitLinks;
  private waitHead = NOBODY;
  private waitTail = NOBODY;
  private lossNs = Number.NEGATIVE_INFINITY;
  /** Below this the window doubles per round trip: nothing was ever lost there (RFC 5681). */
  private thresholdBytes = Number.POSITIVE_INFINITY;
  /** What a timeout that may yet turn out groundless has taken; 0: there was none. */
  private undoLimitBytes = 0;
  private undoThresholdBytes = 0;
  /** Most that was under way in this round trip and in the one before. */
  private peakBytes = 0;
  private peakBeforeBytes = 0;
  private roundNs = Number.NEGATIVE_INFINITY;

  /**
   * @param initialBytes where it starts: `maxBytes` when that is known to fit, as of our own
   *   buffer.
   */
  constructor(maxBytes: number, links: WaitLinks, initialBytes = INITIAL_WINDOW_BYTES) {
    assert(maxBytes > 0, "a window is open");
    this.maxBytes = maxBytes;
    this.limitBytes = Math.min(maxBytes, initialBytes);
    this.floorBytes = Math.min(maxBytes, FLOOR_PACKETS * PACKET_COST_MAX);
    this.links = links;
  }

  /** Whether `cost` more may go. With nothing under way anything may. */
  hasRoom(cost: number): boolean {
    return this.inFlightBytes + cost <= this.limitBytes || this.inFlightBytes === 0;
  }

  take(cost: number): void {
    this.inFlightBytes += cost;
    if (this.inFlightBytes > this.peakBytes) this.peakBytes = this.inFlightBytes;
  }

  /** `cost` is no longer under way, acknowledged or given up. */
  release(cost: number): void {
    this.inFlightBytes -= cost;
    assert(this.inFlightBytes >= 0, "no more is released than was taken");
  }

  /** `cost` was acknowledged: the window grows, unless it is far from being used as it is. */
  grow(cost: number): void {
    const { limitBytes } = this;
    if (limitBytes >= this.maxBytes || limitBytes >= 2 * this.flightBytes) return;
    const part = Math.max(PACKET_COST_MAX, limitBytes / GROWTH_PART);
    const isSlowStart = limitBytes < this.thresholdBytes;
    const grown = limitBytes + (isSlowStart ? cost : (part * cost) / limitBytes);
    this.limitBytes = Math.min(this.maxBytes, grown);
  }

  /**
   * Packets were lost: halves what was under way, at most once per round trip.
   * @param rttNs the round trip to that peer.
   */
  shrink(nowNs: number, rttNs: number): void {
    if (nowNs - this.lossNs < rttNs) return;
    this.lossNs = nowNs;
    this.limitBytes = this.halfFlightBytes;
    this.thresholdBytes = this.limitBytes;
    this.undoLimitBytes = 0;
  }

  /** Nothing was heard for a whole ACK timeout: starts over from the floor. */
  collapse(nowNs: number): void {
    this.lossNs = nowNs;
    // A second timeout in a row knows no more than the first.
    if (this.limitBytes <= this.floorBytes) return;
    this.undoLimitBytes = this.limitBytes;
    this.undoThresholdBytes = this.thresholdBytes;
    this.thresholdBytes = this.halfFlightBytes;
    this.limitBytes = this.floorBytes;
  }

  /** What was sent before a timeout has arrived after all: the window is as it was. */
  restore(): void {
    if (this.undoLimitBytes === 0) return;
    this.limitBytes = Math.max(this.limitBytes, this.undoLimitBytes);
    this.thresholdBytes = Math.max(this.thresholdBytes, this.undoThresholdBytes);
    this.undoLimitBytes = 0;
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

  /** Something was acknowledged: once per round trip, forgets how much was under way before. */
  onProgress(nowNs: number, rttNs: number): void {
    this.heardNs = nowNs;
    if (nowNs - this.roundNs < rttNs) return;
    this.roundNs = nowNs;
    this.peakBeforeBytes = this.peakBytes;
    this.peakBytes = this.inFlightBytes;
  }

  /**
   * Puts a queue pair that found no room for `cost` at the end of the waiting list. One that is
   * there already keeps its place with the new cost: after going back it may need room for another
   * packet than it first asked for. One that waits for another window stops doing so, since the
   * request that it waited with is no longer its next.
   */
  wait(qpIndex: number, cost: number): void {
    const { links } = this;
    const before = links.windows[qpIndex] as ByteWindow | null;
    if (before !== null && before !== this) before.removeWaiter(qpIndex);
    links.costs[qpIndex] = cost;
    if (before === this) return;
    links.windows[qpIndex] = this;
    links.next[qpIndex] = NOBODY;
    if (this.waitTail === NOBODY) this.waitHead = qpIndex;
    else links.next[this.waitTail] = qpIndex;
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
    this.links.windows[qpIndex] = null;
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
      this.links.windows[qpIndex] = null;
      return;
    }
  }

  /** Most that was under way lately, when what is lost now was sent. */
  private get flightBytes(): number {
    return Math.max(this.peakBytes, this.peakBeforeBytes);
  }

  /** Half of it; the loss of a packet among few says nothing about a buffer. */
  private get halfFlightBytes(): number {
    const flight = Math.max(INITIAL_WINDOW_BYTES, this.flightBytes);
    return Math.max(this.floorBytes, Math.min(this.limitBytes, flight) / 2);
  }
}

/** Cost of packets `from .. to - 1` of a message of `length` bytes cut at `mtu`. */
export function costOfPackets(length: number, mtu: number, from: number, to: number): number {
  const payload = Math.min(to * mtu, length) - Math.min(from * mtu, length);
  return payload + (to - from) * PACKET_OVERHEAD_BYTES;
}
