// SPDX-License-Identifier: MIT
// A link on UDP sockets by recvmmsg with GRO and sendmmsg with GSO: one system call moves many
// bursts of many packets. The headers of both calls (struct mmsghdr, iovec, addresses, control
// messages) lie in mapped memory, are laid out once, and per call only what differs is written.
//
// Read first: facts page sections 7 (IP identification), 8 (sockets), 24 (GRO, GSO); udp(7),
// cmsg(3).

import { assert, ERRNO, errnoName, type IpAddress } from "../base/index.js";
import { RxBurst, TX_SEGMENTS_MAX, type TxBatch, type TxFlow } from "../transport/index.js";
import type { LinkCounters, OsLink, Poller } from "./door.js";
import { mapBlock, unmapBlock } from "./memory-source.js";
import {
  CMSG_HEADER_BYTES,
  CMSG_SPACE,
  CONTROL_BYTES,
  CONTROL_LENGTH,
  FLAGS,
  MESSAGE_LENGTH,
  MessageHeaders,
  MMSGHDR_WORDS,
  NAME_LENGTH,
} from "./message-headers.js";
import { loadNative, type NativeBlock } from "./native.js";
import { AF_INET, SOCKET_ADDRESS_BYTES_MAX, writeInetAddress } from "./socket-address.js";
import {
  type BoundSocket,
  closeSocket,
  RECEIVE_PAYLOAD_FRACTION,
  UdpSocket,
} from "./udp-socket.js";

const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_UDP = 17;
const SOL_IPV6 = 41;
const SO_RXQ_OVFL = 40;
const IP_TOS = 1;
const IPV6_TCLASS = 67;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;

/** A merged burst is one IP datagram to the kernel, so this holds any. */
const BURST_BYTES = 65_536;

/** Errors that a later send of the same message may not meet again. */
const STALL_ERRNOS: readonly number[] = [ERRNO.EAGAIN, ERRNO.ENOBUFS, ERRNO.ENOMEM];

export interface NativeLinkOptions {
  readonly addresses: readonly IpAddress[];
  readonly poller: Poller;
  readonly burstCount: number;
  readonly segmentation: boolean;
  readonly onNotice: (message: string) => void;
  /** One per address; whether the link closes them. */
  readonly sockets: readonly BoundSocket[];
  readonly ownsSockets: boolean;
}

export class NativeLink implements OsLink {
  readonly backend = "native";
  readonly limitation = null;
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  readonly receiveBufferBytes: number;
  readonly port: number;
  readonly bursts: RxBurst[];
  readonly counters: LinkCounters;

  private readonly native = loadNative();
  private readonly sockets: UdpSocket[] = [];
  /** Those to be closed with the link. */
  private readonly owned: readonly BoundSocket[];
  private readonly onNotice: (message: string) => void;
  private readonly noticed = new Set<string>();
  /** Older than UDP GSO (4.18) or GRO (5.0). */
  private hasOldKernel = false;

  private readonly slab: NativeBlock;
  private readonly rx: MessageHeaders;
  /** By receive slot; `bursts` is a selection of them in the same order. */
  private readonly slotBursts: RxBurst[];
  /** Receive headers that the kernel has written to since they were last prepared: 0 .. n - 1. */
  private usedSlotCount = 0;
  /** The socket that is asked first, so that none starves another. */
  private firstSocket = 0;

  private readonly tx: MessageHeaders;
  /** Whose address is in each send header; null: nobody's. */
  private readonly txFlows: (TxFlow | null)[] = new Array(TX_SEGMENTS_MAX).fill(null);
  private batchBytes: Uint8Array | null = null;
  private batchAddress = 0;
  private isClosed = false;

  constructor(options: NativeLinkOptions) {
    const { addresses, burstCount } = options;
    this.onNotice = options.onNotice;
    this.counters = newLinkCounters();
    this.slab = mapBlock(burstCount * BURST_BYTES, true);
    this.rx = new MessageHeaders(burstCount);
    this.tx = new MessageHeaders(TX_SEGMENTS_MAX);
    const { sockets: bound, ownsSockets } = options;
    this.owned = ownsSockets ? bound : [];
    this.port = (bound[0] as BoundSocket).port;
    this.openSockets(bound, options);
    this.addresses = addresses;
    this.linkMtus = bound.map((socket) => socket.mtu);
    const granted = Math.min(...bound.map((socket) => socket.receiveBufferGranted));
    this.receiveBufferBytes = Math.floor(granted * RECEIVE_PAYLOAD_FRACTION);
    this.slotBursts = [];
    for (let slot = 0; slot < burstCount; slot++) {
      const offset = slot * BURST_BYTES;
      // All show the whole slab: a place in it is then known by its offset alone, which is what the
      // device's kept views go by.
      this.slotBursts.push(new RxBurst(this.slab.bytes));
      this.rx.setVector(slot, this.slab.address + offset, BURST_BYTES);
    }
    this.bursts = [...this.slotBursts];
    this.usedSlotCount = burstCount;
    if (this.hasOldKernel) {
      this.notice("the kernel has no UDP GSO and GRO (Linux 5.0): one packet a message, slower");
    }
  }

  get readable(): boolean {
    const { sockets } = this;
    for (let i = 0; i < sockets.length; i++) {
      if ((sockets[i] as UdpSocket).polled.readable) return true;
    }
    return false;
  }

  get writable(): boolean {
    const { sockets } = this;
    for (let i = 0; i < sockets.length; i++) {
      if ((sockets[i] as UdpSocket).polled.writable) return true;
    }
    return false;
  }

  setWantsWrite(wanted: boolean): void {
    for (const socket of this.sockets) socket.polled.setInterest(true, wanted);
  }

  receive(): number {
    assert(!this.isClosed, "the link is open");
    this.prepareSlots();
    const { sockets } = this;
    let slot = 0;
    let burstCount = 0;
    for (let i = 0; i < sockets.length && slot < this.rx.count; i++) {
      const index = (this.firstSocket + i) % sockets.length;
      const received = this.receiveMessages(sockets[index] as UdpSocket, slot);
      for (let end = slot + received; slot < end; slot++) {
        if (this.readSlot(slot, index)) {
          this.bursts[burstCount] = this.slotBursts[slot] as RxBurst;
          burstCount++;
        }
      }
    }
    this.firstSocket = (this.firstSocket + 1) % sockets.length;
    this.usedSlotCount = slot;
    this.counters.receivedBursts += burstCount;
    return burstCount;
  }

  send(batch: TxBatch): number {
    assert(!this.isClosed, "the link is open");
    if (batch.bytes !== this.batchBytes) {
      this.batchBytes = batch.bytes;
      this.batchAddress = this.native.addressOf(batch.bytes);
    }
    const before = batch.sentCount;
    while (batch.sentCount < batch.messageCount) {
      const first = batch.sentCount;
      const flow = batch.flows[first] as TxFlow;
      const socket = this.sockets[flow.port] as UdpSocket;
      if (!socket.sendsGso && (batch.segmentCounts[first] as number) > 1) {
        this.sendSegments(socket, batch, first);
        batch.sentCount++;
        continue;
      }
      const count = this.prepareMessages(socket, batch, first);
      this.counters.sendCalls++;
      const sent = this.native.libc.sendmmsg(
        socket.descriptor,
        this.tx.addressOf(0),
        count,
        MSG_DONTWAIT,
      );
      if (sent > 0) {
        this.countSent(batch, first, sent);
        batch.sentCount += sent;
      } else if (!this.goesOnAfter(this.native.errno(), socket, batch, first)) {
        break;
      }
    }
    return batch.sentCount - before;
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    for (const socket of this.sockets) socket.release();
    for (const socket of this.owned) closeSocket(socket);
    this.rx.close();
    this.tx.close();
    unmapBlock(this.slab);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private openSockets(bound: readonly BoundSocket[], options: NativeLinkOptions): void {
    for (const one of bound) {
      const socket = new UdpSocket(one, options.poller);
      this.sockets.push(socket);
      this.hasOldKernel ||= !one.sendsGso || !one.receivesGro;
      if (!options.segmentation) socket.sendsGso = false;
    }
  }

  /** Writes back what the kernel changed in the headers that it used last. */
  private prepareSlots(): void {
    const { words } = this.rx;
    for (let slot = 0; slot < this.usedSlotCount; slot++) {
      const header = slot * MMSGHDR_WORDS;
      words[header + NAME_LENGTH] = SOCKET_ADDRESS_BYTES_MAX;
      words[header + CONTROL_LENGTH] = CONTROL_BYTES;
    }
    this.usedSlotCount = 0;
  }

  /** @returns messages received into the slots from `slot` on. */
  private receiveMessages(socket: UdpSocket, slot: number): number {
    const { libc } = this.native;
    // One more try for each error that was pending on the socket; they are reported once each.
    for (let attempt = 0; attempt < 4; attempt++) {
      this.counters.receiveCalls++;
      const count = libc.recvmmsg(
        socket.descriptor,
        this.rx.addressOf(slot),
        this.rx.count - slot,
        MSG_DONTWAIT,
        0,
      );
      if (count >= 0) return count;
      const errno = this.native.errno();
      if (errno === ERRNO.EAGAIN) return 0;
      if (errno !== ERRNO.EINTR) this.counters.pendingErrors++;
    }
    return 0;
  }

  /** Fills the slot's burst from its header. @returns false for one that is no use. */
  private readSlot(slot: number, port: number): boolean {
    const { words, view } = this.rx;
    const header = slot * MMSGHDR_WORDS;
    const burst = this.slotBursts[slot] as RxBurst;
    const length = words[header + MESSAGE_LENGTH] as number;
    const name = this.rx.nameOffset(slot);
    if (length === 0 || ((words[header + FLAGS] as number) & MSG_TRUNC) !== 0) {
      this.counters.receiveDrops++;
      return false;
    }
    burst.offset = slot * BURST_BYTES;
    burst.length = length;
    burst.segmentLength = length;
    burst.port = port;
    burst.sourcePort = view.getUint16(name + 2);
    burst.trafficClass = 0;
    if (view.getUint16(name, true) === AF_INET) {
      burst.source0 = 0;
      burst.source1 = 0;
      burst.source2 = 0xffff;
      burst.source3 = view.getUint32(name + 4);
    } else {
      burst.source0 = view.getUint32(name + 8);
      burst.source1 = view.getUint32(name + 12);
      burst.source2 = view.getUint32(name + 16);
      burst.source3 = view.getUint32(name + 20);
    }
    this.readControl(slot, burst, words[header + CONTROL_LENGTH] as number);
    this.counters.receivedBytes += length;
    return true;
  }

  private readControl(slot: number, burst: RxBurst, controlLength: number): void {
    const { view } = this.rx;
    const start = this.rx.controlOffset(slot);
    const end = start + Math.min(controlLength, CONTROL_BYTES);
    let at = start;
    while (at + CMSG_HEADER_BYTES < end) {
      const length = view.getUint32(at, true);
      if (length < CMSG_HEADER_BYTES) return;
      const level = view.getInt32(at + 8, true);
      const type = view.getInt32(at + 12, true);
      const data = at + CMSG_HEADER_BYTES;
      if (level === SOL_UDP && type === UDP_GRO) {
        const segmentLength = view.getInt32(data, true);
        if (segmentLength > 0 && segmentLength < burst.length) burst.segmentLength = segmentLength;
      } else if (level === SOL_IP && type === IP_TOS) {
        burst.trafficClass = view.getUint8(data);
      } else if (level === SOL_IPV6 && type === IPV6_TCLASS) {
        burst.trafficClass = view.getInt32(data, true) & 0xff;
      } else if (level === SOL_SOCKET && type === SO_RXQ_OVFL) {
        this.countOverflow(this.sockets[burst.port] as UdpSocket, view.getUint32(data, true));
      }
      at += (length + 7) & ~7;
    }
  }

  private countOverflow(socket: UdpSocket, overflowCount: number): void {
    const lost = (overflowCount - socket.overflowCount) >>> 0;
    socket.overflowCount = overflowCount;
    this.counters.receiveDrops += lost;
  }

  /** Writes headers for messages `first` .. of the same socket. @returns how many. */
  private prepareMessages(socket: UdpSocket, batch: TxBatch, first: number): number {
    const end = Math.min(batch.messageCount, first + this.tx.count);
    let index = first;
    for (; index < end; index++) {
      const flow = batch.flows[index] as TxFlow;
      if (flow.port !== (batch.flows[first] as TxFlow).port) break;
      const segmentLength = batch.segmentLengths[index] as number;
      const isGso = (batch.segmentCounts[index] as number) > 1;
      if (isGso && !socket.sendsGso) break;
      const slot = index - first;
      const address = this.batchAddress + (batch.offsets[index] as number);
      this.tx.setVector(slot, address, batch.lengths[index] as number);
      this.setDestination(slot, socket, flow);
      this.setControl(slot, socket, flow.trafficClass, isGso ? segmentLength : 0);
    }
    return index - first;
  }

  private setDestination(slot: number, socket: UdpSocket, flow: TxFlow): void {
    if (this.txFlows[slot] === flow) return;
    this.txFlows[slot] = flow;
    const length = writeInetAddress(
      this.tx.view,
      this.tx.nameOffset(slot),
      flow.destination,
      flow.destinationPort,
      socket.scopeId,
    );
    this.tx.words[slot * MMSGHDR_WORDS + NAME_LENGTH] = length;
  }

  /** @param gsoBytes segment size, 0 for a message of one datagram. */
  private setControl(
    slot: number,
    socket: UdpSocket,
    trafficClass: number,
    gsoBytes: number,
  ): void {
    const { view } = this.tx;
    let at = this.tx.controlOffset(slot);
    if (gsoBytes !== 0) {
      view.setUint32(at, CMSG_HEADER_BYTES + 2, true);
      view.setInt32(at + 8, SOL_UDP, true);
      view.setInt32(at + 12, UDP_SEGMENT, true);
      view.setUint16(at + 16, gsoBytes, true);
      at += CMSG_SPACE;
    }
    if (trafficClass !== 0) {
      const isV4 = socket.address.family === 4;
      view.setUint32(at, CMSG_HEADER_BYTES + 4, true);
      view.setInt32(at + 8, isV4 ? SOL_IP : SOL_IPV6, true);
      view.setInt32(at + 12, isV4 ? IP_TOS : IPV6_TCLASS, true);
      view.setInt32(at + 16, trafficClass, true);
      at += CMSG_SPACE;
    }
    const header = slot * MMSGHDR_WORDS;
    this.tx.words[header + CONTROL_LENGTH] = at - this.tx.controlOffset(slot);
  }

  private countSent(batch: TxBatch, first: number, count: number): void {
    this.counters.sentMessages += count;
    for (let index = first; index < first + count; index++) {
      this.counters.sentBytes += batch.lengths[index] as number;
    }
  }

  /**
   * What becomes of message `index`, whose send failed.
   * @returns whether to go on sending: with the same message, or with the next when it is given up.
   */
  private goesOnAfter(errno: number, socket: UdpSocket, batch: TxBatch, index: number): boolean {
    if (errno === ERRNO.EINTR) return true;
    if (STALL_ERRNOS.includes(errno)) {
      this.counters.sendStalls++;
      return false;
    }
    // The error may be an old one, of an ICMP message, that the socket was waiting to report; it
    // says nothing of this message. Alone and a second time, it does.
    const again = this.sendAlone(socket);
    if (again === 0) {
      this.counters.pendingErrors++;
      this.countSent(batch, index, 1);
      batch.sentCount++;
      return true;
    }
    if (STALL_ERRNOS.includes(again)) {
      this.counters.sendStalls++;
      return false;
    }
    if (again === ERRNO.EIO && (batch.segmentCounts[index] as number) > 1) {
      this.giveUpGso(socket);
      return true;
    }
    this.counters.sendFailures++;
    batch.sentCount++;
    const destination = (batch.flows[index] as TxFlow).destination;
    this.notice(`packets to ${destination} can't be sent: ${errnoName(again)}`);
    return true;
  }

  /** Sends the message that header 0 describes. @returns 0 or an errno. */
  private sendAlone(socket: UdpSocket): number {
    this.counters.sendCalls++;
    const { libc } = this.native;
    const sent = libc.sendmmsg(socket.descriptor, this.tx.addressOf(0), 1, MSG_DONTWAIT);
    return sent === 1 ? 0 : this.native.errno();
  }

  /** EIO: the way out can't compute checksums for segments (IPsec, some tunnels). */
  private giveUpGso(socket: UdpSocket): void {
    socket.sendsGso = false;
    this.notice(
      `the system refuses to segment for ${socket.address} (EIO): ` +
        "packets are sent one by one, slower",
    );
  }

  /**
   * Sends the segments of a message that was built before GSO was given up. Those that the system
   * doesn't take are lost, as on any network.
   */
  private sendSegments(socket: UdpSocket, batch: TxBatch, index: number): void {
    // From now on each packet is a message of its own, so that its ICRC is made for IP
    // identification 0.
    batch.segmentsMax = 1;
    const flow = batch.flows[index] as TxFlow;
    const segmentLength = batch.segmentLengths[index] as number;
    const length = batch.lengths[index] as number;
    const address = this.batchAddress + (batch.offsets[index] as number);
    this.counters.sentMessages++;
    for (let offset = 0; offset < length; offset += segmentLength) {
      const bytes = Math.min(segmentLength, length - offset);
      this.tx.setVector(0, address + offset, bytes);
      this.setDestination(0, socket, flow);
      this.setControl(0, socket, flow.trafficClass, 0);
      if (this.sendAlone(socket) === 0) this.counters.sentBytes += bytes;
      else this.counters.sendFailures++;
    }
  }

  private notice(message: string): void {
    // Bounded: one a destination and error, and not for a scan of destinations.
    if (this.noticed.has(message) || this.noticed.size >= 100) return;
    this.noticed.add(message);
    this.onNotice(message);
  }
}

export function newLinkCounters(): LinkCounters {
  return {
    receiveCalls: 0,
    receivedBursts: 0,
    receivedBytes: 0,
    sendCalls: 0,
    sentMessages: 0,
    sentBytes: 0,
    sendStalls: 0,
    sendFailures: 0,
    pendingErrors: 0,
    receiveDrops: 0,
    handedOn: 0,
    handedOnLost: 0,
  };
}
