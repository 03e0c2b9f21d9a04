// SPDX-License-Identifier: MIT
// A trace of what a link sends and receives: a tap that turns datagrams into pcapng blocks in a
// ring of bytes, and whoever writes them away takes them from there. The ring is all the memory
// that a trace ever has. A reader that is too slow costs packets of the trace, never of the link;
// how many stands in the trace: in the next packet's block (`epb_dropcount`) and in the statistics
// at the end.
//
// IP and UDP headers are made up (`datagram.ts`) so that the ICRC of a packet is right in the trace
// exactly when it was right on the wire: what was sent has the IP identification that its place in
// its GSO send gives it, what was received the one that its ICRC can be solved for. A packet whose
// ICRC was wrong carries the flag that the format has for a bad frame check.

import { assert, type Crc32, type IpAddress } from "../base/index.js";
import type { RxBurst, TxFlow } from "../transport/index.js";
import { ViewCache } from "../transport/index.js";
import { ICRC_RESULT, IcrcEngine, IcrcFlow } from "../wire/index.js";
import { ByteRing } from "./byte-ring.js";
import { headerBytesOf, writeReceivedHeaders, writeSentHeaders } from "./datagram.js";
import type { PacketFilter } from "./filter.js";
import {
  blockBytesAt,
  INTERFACE_BYTES_MAX,
  type InterfaceStatistics,
  PACKET_FLAG,
  PACKET_OVERHEAD_BYTES_MAX,
  packetDataAt,
  SECTION_BYTES_MAX,
  STATISTICS_BYTES,
  Timestamp,
  writeInterface,
  writePacket,
  writeSectionHeader,
  writeStatistics,
} from "./pcapng.js";
import type { LinkTap } from "./tap-link.js";

/** Shortest datagram that has an ICRC to check: BTH and ICRC. */
const ROCE_BYTES_MIN = 16;
const IP_BYTES_MAX = 65_535;
export const TRACE_RING_BYTES_DEFAULT = 16 << 20;
export const TRACE_RING_BYTES_MIN = 1 << 18;

export interface PacketTraceOptions {
  /** Local addresses: one interface each, in this order. */
  readonly addresses: readonly IpAddress[];
  /** The local UDP port. */
  readonly port: number;
  /** Nanoseconds on a clock that never runs backwards, and the time of day at its zero. */
  readonly nowNs: () => number;
  readonly epochMs: number;
  /** Written into the file, at most 64 ASCII characters. */
  readonly application: string;
  /** Memory for what has not been read, 256 KiB or more; default 16 MiB. */
  readonly ringBytes?: number;
  /** Bytes of a packet that are kept at most, IP header included; default all. */
  readonly snapBytes?: number;
  /** The trace is over after so many packets; default never. */
  readonly packetCountMax?: number;
  readonly filter?: PacketFilter;
  readonly crc32?: Crc32;
  /** Called when bytes have come into an empty ring, in the middle of a turn: only take a note. */
  readonly onReadable: () => void;
  /** Called once when `packetCountMax` is reached; no packet is taken any more. */
  readonly onFull?: () => void;
}

/** Per interface. */
class PortTrace implements InterfaceStatistics {
  receivedCount = 0;
  deliveredCount = 0;
  droppedCount = 0;
  /** Of `droppedCount`, those that no packet block tells of yet. */
  untoldDrops = 0;
  readonly icrcFlow = new IcrcFlow();
  readonly address: IpAddress;
  readonly headerBytes: number;

  constructor(address: IpAddress) {
    this.address = address;
    this.headerBytes = headerBytesOf(address);
  }
}

/** See the head of the file. */
export class PacketTrace implements LinkTap {
  readonly ring: ByteRing;
  private readonly ports: readonly PortTrace[];
  private readonly options: PacketTraceOptions;
  private readonly snapBytes: number;
  private readonly icrc: IcrcEngine;
  private readonly viewCache = new ViewCache();
  private readonly start: Timestamp;
  private readonly time: Timestamp;
  private packetsLeft: number;
  private isOver = false;

  constructor(options: PacketTraceOptions) {
    const ringBytes = options.ringBytes ?? TRACE_RING_BYTES_DEFAULT;
    assert(ringBytes >= TRACE_RING_BYTES_MIN, "the ring holds a few of the largest packets");
    this.options = options;
    this.ports = options.addresses.map((address) => new PortTrace(address));
    // The head of the file and its end have room of their own, whatever the packets take.
    const headBytes = SECTION_BYTES_MAX + this.ports.length * INTERFACE_BYTES_MAX;
    this.ring = new ByteRing(ringBytes + headBytes + this.ports.length * STATISTICS_BYTES);
    this.snapBytes = Math.min(options.snapBytes ?? IP_BYTES_MAX, IP_BYTES_MAX);
    this.icrc = new IcrcEngine(options.crc32);
    this.packetsLeft = options.packetCountMax ?? Number.POSITIVE_INFINITY;
    this.start = new Timestamp(options.epochMs);
    this.time = new Timestamp(options.epochMs);
    this.start.set(options.nowNs());
    this.writeHead(headBytes);
  }

  /** Packets that the filter wanted and that are in the trace, and that found no room in it. */
  get deliveredCount(): number {
    return this.ports.reduce((sum, port) => sum + port.deliveredCount, 0);
  }

  get droppedCount(): number {
    return this.ports.reduce((sum, port) => sum + port.droppedCount, 0);
  }

  onSent(
    flow: TxFlow,
    bytes: Uint8Array,
    offset: number,
    length: number,
    segmentIndex: number,
  ): void {
    const port = this.ports[flow.port] as PortTrace;
    const { filter } = this.options;
    if (this.isOver) return;
    port.receivedCount++;
    if (filter !== undefined && !filter.wantsSent(flow, bytes, offset, length)) return;
    const at = this.reserve(port, length);
    if (at < 0) return;
    const { view } = this.ring;
    const data = packetDataAt(at);
    const { address } = port;
    const sourcePort = this.options.port;
    writeSentHeaders(view, data, address, sourcePort, flow, segmentIndex, length);
    this.finish(flow.port, port, at, bytes, offset, length, PACKET_FLAG.OUTBOUND);
  }

  onReceived(burst: RxBurst, offset: number, length: number): void {
    const port = this.ports[burst.port] as PortTrace;
    const { filter } = this.options;
    if (this.isOver) return;
    port.receivedCount++;
    if (filter !== undefined && !filter.wantsReceived(burst, offset, length)) return;
    const at = this.reserve(port, length);
    if (at < 0) return;
    const data = packetDataAt(at);
    const result = this.check(port, burst, offset, length);
    const { view } = this.ring;
    const { identification } = port.icrcFlow;
    const localPort = this.options.port;
    const hasDf = result !== ICRC_RESULT.SOLVED_WITHOUT_DF;
    const id = result === ICRC_RESULT.BAD ? 0 : identification;
    writeReceivedHeaders(view, data, burst, port.address, localPort, id, hasDf, length);
    const flags = PACKET_FLAG.INBOUND | (result === ICRC_RESULT.BAD ? PACKET_FLAG.CRC_ERROR : 0);
    this.finish(burst.port, port, at, burst.bytes, offset, length, flags);
  }

  /**
   * Ends the trace: no packet is taken any more, and what `ring` then holds is the file's end.
   * Needs room in the ring: call it again, after reading, while it says false.
   * @returns whether the end is written.
   */
  end(): boolean {
    this.isOver = true;
    const at = this.ring.reserve(this.ports.length * STATISTICS_BYTES);
    if (at < 0) return false;
    this.time.set(this.options.nowNs());
    let end = at;
    this.ports.forEach((port, index) => {
      end = writeStatistics(this.ring.view, end, index, this.start, this.time, port);
    });
    this.ring.commit(end);
    return true;
  }

  /**
   * Finds whole blocks that can be read in one piece, as `ring.peek` does bytes; at most `bytesMax`
   * of them, unless the first block is longer. @returns their length, 0 for none.
   */
  peekBlocks(bytesMax: number): number {
    const { ring } = this;
    const length = ring.peek();
    if (length <= bytesMax) return length;
    for (let end = 0; ; ) {
      const next = end + blockBytesAt(ring.view, ring.readOffset + end);
      if (next > bytesMax && end > 0) return end;
      end = next;
      if (end >= bytesMax) return end;
    }
  }

  private writeHead(length: number): void {
    const { view } = this.ring;
    const at = this.ring.reserve(length);
    let end = writeSectionHeader(view, at, this.options.application);
    for (const { address } of this.ports) {
      end = writeInterface(view, end, address.toString(), address, this.snapBytes);
    }
    this.ring.commit(end);
  }

  /** Room for a packet of `length` payload bytes. @returns -1, counted, when there is none. */
  private reserve(port: PortTrace, length: number): number {
    const at = this.ring.reserve(PACKET_OVERHEAD_BYTES_MAX + port.headerBytes + length);
    if (at < 0) {
      port.droppedCount++;
      port.untoldDrops++;
    }
    return at;
  }

  private check(port: PortTrace, burst: RxBurst, offset: number, length: number): number {
    if (length < ROCE_BYTES_MIN) return ICRC_RESULT.BAD;
    const { source0, source1, source2, source3, sourcePort } = burst;
    const flow = port.icrcFlow;
    if (!flow.matches(source0, source1, source2, source3, sourcePort)) {
      const own = this.options.port;
      flow.assign(source0, source1, source2, source3, sourcePort, port.address, own);
    }
    // A GSO send numbers its segments from 0, and this burst probably was one.
    const guess = ((offset - burst.offset) / burst.segmentLength) & 0xffff;
    return this.icrc.check(flow, burst.bytes, burst.view, offset, length, guess);
  }

  private finish(
    interfaceNumber: number,
    port: PortTrace,
    at: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
    flags: number,
  ): void {
    const { ring, time, options } = this;
    const wasEmpty = ring.isEmpty;
    const data = packetDataAt(at);
    const original = port.headerBytes + length;
    const captured = Math.min(original, this.snapBytes);
    this.viewCache.copy(ring.bytes, data + port.headerBytes, bytes, offset, length);
    time.set(options.nowNs());
    const drops = port.untoldDrops;
    const { view } = ring;
    ring.commit(writePacket(view, at, interfaceNumber, time, captured, original, flags, drops));
    port.untoldDrops = 0;
    port.deliveredCount++;
    if (wasEmpty) options.onReadable();
    if (--this.packetsLeft > 0) return;
    this.isOver = true;
    options.onFull?.();
  }
}
