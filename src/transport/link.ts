// SPDX-License-Identifier: MIT
// What lies between the device and the network: bursts of datagrams in, a batch of datagrams out.
// `os/` implements `Link` on UDP sockets, `sim/` on the simulated network; decorators (delay,
// trace, fault injection) wrap it.

import { assert, type IpAddress } from "../base/index.js";

/**
 * One received burst: datagrams of one sender to one local address, back to back, all
 * `segmentLength` long but the last, which may be shorter (UDP GRO). Reused by its link: valid from
 * one `receive()` to the next; the device reads the fields and must not write them.
 */
export class RxBurst {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** First byte of the first UDP payload (a BTH). */
  offset = 0;
  /** Bytes of all datagrams together. */
  length = 0;
  /** Bytes of each datagram but the last; 1 .. length. */
  segmentLength = 0;
  /** Index of the local address in `Link.addresses`. */
  port = 0;
  /** The sender's address as a GID, words 0..3 (see `IpAddress`). */
  source0 = 0;
  source1 = 0;
  source2 = 0;
  source3 = 0;
  /** The sender's UDP port: entropy only, but covered by the ICRC. */
  sourcePort = 0;
  /** IPv4 TOS or IPv6 traffic class, 0 where the link can't tell. */
  trafficClass = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}

/**
 * Where packets of a queue pair go. Interned per device: two flows are the same exactly when they
 * are the same object, so that packets of several queue pairs can share one GSO send.
 */
export interface TxFlow {
  /** Index of the local address in `Link.addresses`. */
  readonly port: number;
  readonly destination: IpAddress;
  /** UDP destination port, 4791 for everything that farpage sends. */
  readonly destinationPort: number;
  readonly trafficClass: number;
}

/**
 * Segments in one GSO send: the bound of kernels before 6.x (UDP_MAX_SEGMENTS); newer ones take
 * 128.
 */
export const TX_SEGMENTS_MAX = 64;
/** Bytes in one GSO send: an IPv4 datagram of 65,535 less its 28 bytes of headers. */
export const TX_MESSAGE_BYTES_MAX = 65_507;

/**
 * Packets on their way out: a slab of bytes cut into messages, each one GSO send of equal-size
 * segments (the last may be shorter) to one flow. The device fills it in `pump`, the link empties
 * it.
 *
 * `reserve` says where a packet goes and, in `segmentIndex`, which segment of its message it is: on
 * IPv4 that number is the packet's IP identification, which the ICRC covers (facts page, section
 * 7).
 */
export class TxBatch {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly messageCountMax: number;
  /** Per message: first byte, bytes in all, bytes of each segment but the last. */
  readonly offsets: Int32Array;
  readonly lengths: Int32Array;
  readonly segmentLengths: Int32Array;
  readonly segmentCounts: Int32Array;
  readonly flows: (TxFlow | null)[];
  messageCount = 0;
  /** Messages that the link has already sent; 0 .. messageCount. */
  sentCount = 0;
  /** Packets committed since `reset`. */
  packetCount = 0;
  /** Of the packet reserved last: its index in its message, 0 .. TX_SEGMENTS_MAX - 1. */
  segmentIndex = 0;
  /** Segments in one message, 1 .. TX_SEGMENTS_MAX: lowered by a link whose system has no GSO. */
  segmentsMax = TX_SEGMENTS_MAX;

  private end = 0;
  private reservedLength = 0;
  private joins = false;
  /** Whether the last message takes no further segment. */
  private closed = true;

  /**
   * @param bytes the slab; memory that the link's system calls can read.
   * @param messageCountMax GSO sends in one batch.
   */
  constructor(bytes: Uint8Array, messageCountMax = 64) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.messageCountMax = messageCountMax;
    this.offsets = new Int32Array(messageCountMax);
    this.lengths = new Int32Array(messageCountMax);
    this.segmentLengths = new Int32Array(messageCountMax);
    this.segmentCounts = new Int32Array(messageCountMax);
    this.flows = new Array<TxFlow | null>(messageCountMax).fill(null);
  }

  get isEmpty(): boolean {
    return this.messageCount === 0;
  }

  /** Forgets everything. Preconditions: the link has sent all of it, or it is to be dropped. */
  reset(): void {
    this.messageCount = 0;
    this.sentCount = 0;
    this.packetCount = 0;
    this.end = 0;
    this.closed = true;
  }

  /**
   * Room for one packet of exactly `length` bytes (UDP payload, ICRC included) to `flow`.
   * @returns where in `bytes` to write it, or -1 when this batch is full. Nothing is taken until
   *   `commit`; a second `reserve` without one gives the same place.
   */
  reserve(flow: TxFlow, length: number): number {
    if (this.end + length > this.bytes.length) return -1;
    const last = this.messageCount - 1;
    this.joins =
      !this.closed &&
      this.flows[last] === flow &&
      length <= (this.segmentLengths[last] as number) &&
      (this.segmentCounts[last] as number) < this.segmentsMax &&
      (this.lengths[last] as number) + length <= TX_MESSAGE_BYTES_MAX;
    if (this.joins) {
      this.segmentIndex = this.segmentCounts[last] as number;
    } else {
      if (this.messageCount === this.messageCountMax) return -1;
      this.flows[this.messageCount] = flow;
      this.segmentIndex = 0;
    }
    this.reservedLength = length;
    return this.end;
  }

  /** Takes the packet reserved last, written by now. */
  commit(): void {
    const length = this.reservedLength;
    assert(length > 0, "a packet is reserved");
    this.reservedLength = 0;
    if (this.joins) {
      const last = this.messageCount - 1;
      this.lengths[last] = (this.lengths[last] as number) + length;
      this.segmentCounts[last] = (this.segmentCounts[last] as number) + 1;
      this.closed = length < (this.segmentLengths[last] as number);
    } else {
      const index = this.messageCount;
      this.offsets[index] = this.end;
      this.lengths[index] = length;
      this.segmentLengths[index] = length;
      this.segmentCounts[index] = 1;
      this.messageCount = index + 1;
      this.closed = false;
    }
    this.end += length;
    this.packetCount++;
  }
}

/** A host's way to the network: one UDP port 4791 per local address. */
export interface Link {
  /** Local addresses by port index. */
  readonly addresses: readonly IpAddress[];
  /**
   * Largest IP packet that every path of this link takes, per port index (a link MTU such as 1500).
   */
  readonly linkMtus: readonly number[];
  /**
   * Bytes in flight towards this host that its receive buffers surely hold (what the kernel
   * granted, not what was asked for); `Infinity` when nothing bounds it.
   */
  readonly receiveBufferBytes: number;
  /** `bursts[0 .. n-1]` hold what the last `receive()` brought. */
  readonly bursts: readonly RxBurst[];
  /**
   * Fills `bursts` with what has arrived; never blocks. @returns the number of bursts, 0 for none.
   */
  receive(): number;
  /**
   * Sends `batch` from message `sentCount` on and advances `sentCount`; stops early where the
   * system takes no more for now. A message that can never be sent (no route) counts as sent.
   * @returns messages sent by this call.
   */
  send(batch: TxBatch): number;
}
