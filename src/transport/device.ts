// SPDX-License-Identifier: MIT
// The software RDMA device: what a NIC is to its host. It owns the hardware objects (queue pairs,
// completion queues, shared receive queues, memory regions), finds the queue pair of each received
// packet, and shares out the transmit batch among those that have something to send.
//
// Sans-I/O: `onPacket` and `pump` are its only ways in and out; neither allocates when warm.

import {
  assert,
  FarpageError,
  IntRing,
  type IpAddress,
  type Random,
  randomBelow,
  updateCrc32,
} from "../base/index.js";
import {
  BTH_BYTES,
  bthAckRequest,
  bthDestinationQpn,
  bthOpcode,
  bthPkey,
  bthPsn,
  bthSolicited,
  CNP_OPCODE,
  checkPacket,
  ICRC_RESULT,
  IcrcEngine,
  numberOfLane,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  opcodeTransport,
  PACKET_FAULT,
  payloadLength,
  payloadOffset,
  pkeyMatches,
  QPN_GSI,
  QPN_MULTICAST,
  TRANSPORT,
} from "../wire/index.js";
import { ByteWindow, WaitLinks } from "./byte-window.js";
import { onResponse } from "./completer.js";
import { CqCore } from "./completion-queue.js";
import { DeviceCounters, DROP_REASON, type DropReason } from "./counters.js";
import { DEVICE_EVENT, DeviceEvent, type DeviceEventType } from "./device-event.js";
import { activeMtuOf, type DeviceOptions } from "./device-options.js";
import { type Flow, FlowTable } from "./flow.js";
import { KeyTable } from "./key-table.js";
import { RxBurst, type TxBatch } from "./link.js";
import { isFromPeer, reasonOfFault } from "./packet-checks.js";
import { RxPacket, TURN } from "./packet-io.js";
import { PageWaits } from "./page-waits.js";
import { QP_STATE, QP_TYPE } from "./qp-state.js";
import { QpCore } from "./queue-pair.js";
import { checkQpInit, type QpInit } from "./queue-pair-init.js";
import { SrqCore } from "./receive-queue.js";
import { RegionTable } from "./regions.js";
import { onTimer } from "./retransmit.js";
import { SourceTable } from "./source-table.js";
import { TimerHeap } from "./timer-heap.js";
import { SGE_COUNT_MAX } from "./work-request.js";

const WINDOW_BYTES = 1 << 20;
const QP_COUNT_MAX = 1024;
const REGION_COUNT_MAX = 8192;
const WR_COUNT_MAX = 16_384;
export const CQ_DEPTH_MAX = 1 << 20;
/** Flows that are remembered; see `FlowTable`. */
const FLOW_COUNT_MAX = 4096;
/** Events that nobody fetches: the oldest goes. */
const EVENT_COUNT_MAX = 4096;
/** A READ is asked for in pieces of at most this much, whatever the window. */
const READ_PIECE_BYTES_MAX = 1 << 20;
const MTU_MAX = 4096;

export class Device {
  readonly addresses: readonly IpAddress[];
  /** RoCE MTU of each port, from its link MTU by the rule of rxe. */
  readonly activeMtus: readonly number[];
  readonly regions: RegionTable;
  readonly counters: DeviceCounters;
  /** Queue pairs at once, requests per queue. */
  readonly qpCountMax: number;
  readonly wrCountMax: number;
  readonly lane: NonNullable<DeviceOptions["lane"]>;

  /** For the device's own stages. */
  readonly icrc: IcrcEngine;
  readonly readWindow: ByteWindow;
  readonly readPieceBytes: number;
  readonly probes: boolean;
  readonly pageWaits: PageWaits;
  readonly scratch = new RxBurst(new Uint8Array(64));

  private readonly random: Random;
  private readonly flows: FlowTable;
  private readonly sources: SourceTable;
  private readonly packet = new RxPacket();
  /** Whose the packet under way is, once only the ICRC could show otherwise. */
  private packetQp: QpCore | null = null;
  /** Queue pairs by index, and the index by QPN. */
  private readonly qps: (QpCore | null)[] = [];
  private readonly qpIndexes: KeyTable;
  private readonly freeQpIndexes: number[] = [];
  private readonly gsis: (QpCore | null)[];
  private qpCountNow = 0;
  /** Queue pairs that may have something to send; a flag says that one is in the ring. */
  private readonly active: IntRing;
  private readonly isActive: Uint8Array;
  private readonly timers: TimerHeap;
  /** Completion queues whose listeners are to be called, and those that have overflowed. */
  private readonly cqEvents: CqCore[] = [];
  private readonly cqOverflows: CqCore[] = [];
  private readonly events: DeviceEvent[] = [];
  private nextPdIndex = 0;
  private readonly freePdIndexes: number[] = [];
  private isBusy = false;

  /** @throws FarpageError EINVAL for a link MTU that holds no RoCE packet. */
  constructor(options: DeviceOptions) {
    const windowBytes = options.windowBytes ?? WINDOW_BYTES;
    const qpCountMax = options.qpCountMax ?? QP_COUNT_MAX;
    const receiveBytes = Math.min(options.receiveBufferBytes ?? windowBytes, 1 << 30);
    assert(options.addresses.length === options.linkMtus.length, "every address has a link MTU");
    this.addresses = options.addresses;
    this.counters = new DeviceCounters(options.addresses.length);
    this.activeMtus = options.linkMtus.map(activeMtuOf);
    this.random = options.random.fork("transport");
    this.pageWaits = new PageWaits(qpCountMax, this.qps, options.faultRnrTimer);
    const regionCountMax = options.regionCountMax ?? REGION_COUNT_MAX;
    this.regions = new RegionTable(regionCountMax, this.random.fork("keys"), this.pageWaits);
    this.icrc = new IcrcEngine(options.crc32 ?? updateCrc32);
    this.probes = options.probes ?? true;
    this.qpCountMax = qpCountMax;
    this.wrCountMax = options.wrCountMax ?? WR_COUNT_MAX;
    this.lane = options.lane ?? { index: 0, count: 1 };
    const waitLinks = new WaitLinks(qpCountMax);
    this.flows = new FlowTable(this.addresses, windowBytes, FLOW_COUNT_MAX, waitLinks);
    this.readWindow = new ByteWindow(receiveBytes, waitLinks, receiveBytes);
    // Four pieces under way keep a READ flowing.
    const piece = Math.floor(receiveBytes / 4 / MTU_MAX) * MTU_MAX;
    this.readPieceBytes = Math.min(READ_PIECE_BYTES_MAX, Math.max(MTU_MAX, piece));
    this.sources = new SourceTable(this.addresses);
    this.qpIndexes = new KeyTable(qpCountMax);
    this.gsis = this.addresses.map(() => null);
    this.active = new IntRing(qpCountMax);
    this.isActive = new Uint8Array(qpCountMax);
    this.timers = new TimerHeap(qpCountMax);
  }

  /** Queue pairs that exist, oldest index first; for readers of their counters. */
  queuePairs(): QpCore[] {
    return this.qps.filter((qp) => qp !== null);
  }

  /** How many queue pairs exist. */
  get qpCount(): number {
    return this.qpCountNow;
  }

  /**
   * The flow from a port to an address.
   * @throws FarpageError EINVAL when there is no such port or the IP versions differ.
   */
  flow(port: number, destination: IpAddress, trafficClass = 0): Flow {
    return this.flows.flow(port, destination, trafficClass);
  }

  /** A number for a protection domain, used by no other until `freePd`. */
  allocatePd(): number {
    return this.freePdIndexes.pop() ?? this.nextPdIndex++;
  }

  /** Preconditions: nothing of that protection domain is left. */
  freePd(pdIndex: number): void {
    this.freePdIndexes.push(pdIndex);
  }

  /** @throws FarpageError EINVAL for a depth out of range. */
  createCq(depth: number): CqCore {
    if (!(Number.isInteger(depth) && depth >= 1 && depth <= CQ_DEPTH_MAX)) {
      throw new FarpageError("EINVAL", `a completion queue holds 1 to ${CQ_DEPTH_MAX} completions`);
    }
    return new CqCore(this, depth);
  }

  /** @throws FarpageError EBUSY while a queue pair uses it. */
  destroyCq(cq: CqCore): void {
    if (cq.userCount > 0) throw new FarpageError("EBUSY", "queue pairs use the completion queue");
    cq.isDestroyed = true;
    cq.disarm();
    this.forgetEvents((event) => event.cq === cq);
  }

  /** @throws FarpageError EINVAL for a depth or an entry count out of range. */
  createSrq(pdIndex: number, depth: number, sgeCountMax = 1): SrqCore {
    if (!(Number.isInteger(depth) && depth >= 1 && depth <= this.wrCountMax)) {
      throw new FarpageError("EINVAL", `a shared receive queue holds 1 to ${this.wrCountMax}`);
    }
    if (!(sgeCountMax >= 0 && sgeCountMax <= SGE_COUNT_MAX)) {
      throw new FarpageError("EINVAL", `a receive has at most ${SGE_COUNT_MAX} entries`);
    }
    return new SrqCore(this, pdIndex, depth, sgeCountMax);
  }

  /** @throws FarpageError EBUSY while a queue pair uses it. */
  destroySrq(srq: SrqCore): void {
    if (srq.userCount > 0) throw new FarpageError("EBUSY", "queue pairs use the receive queue");
    srq.isDestroyed = true;
    srq.queue.clear();
    this.forgetEvents((event) => event.srq === srq);
  }

  /**
   * Makes a queue pair in RESET, with an unpredictable number (GSI: 1).
   * @throws FarpageError EINVAL for a bound out of range or objects that don't fit; EBUSY when the
   *   port has its GSI; ENOMEM when the device has all its queue pairs.
   */
  createQp(init: QpInit): QpCore {
    checkQpInit(init, this.wrCountMax, this.addresses.length);
    if (init.type === QP_TYPE.GSI && this.gsis[init.port as number] !== null) {
      throw new FarpageError("EBUSY", `port ${init.port} has its GSI`);
    }
    if (this.qpCountNow === this.qpCountMax) {
      throw new FarpageError("ENOMEM", `the device has all its ${this.qpCountMax} queue pairs`);
    }
    const index = this.freeQpIndexes.pop() ?? this.qps.length;
    const isGsi = init.type === QP_TYPE.GSI;
    const qpn = isGsi ? QPN_GSI : this.drawQpn();
    const qp = new QpCore(this, index, qpn, init);
    this.qps[index] = qp;
    this.qpCountNow++;
    if (isGsi) this.gsis[qp.port] = qp;
    else this.qpIndexes.insert(qpn, index);
    init.sendCq.userCount++;
    init.recvCq.userCount++;
    if (qp.srq !== null) qp.srq.userCount++;
    return qp;
  }

  /** Ends a queue pair: nothing of it completes any more, its waiting completions are gone. */
  destroyQp(qp: QpCore): void {
    if (qp.isDestroyed) return;
    assert(this.qps[qp.index] === qp, "the queue pair is this device's");
    qp.reset();
    qp.isDestroyed = true;
    this.qps[qp.index] = null;
    this.freeQpIndexes.push(qp.index);
    this.qpCountNow--;
    if (qp.type === QP_TYPE.GSI) this.gsis[qp.port] = null;
    else this.qpIndexes.remove(qp.qpn);
    qp.sendCq.userCount--;
    qp.recvCq.userCount--;
    if (qp.srq !== null) qp.srq.userCount--;
    this.forgetEvents((event) => event.qp === qp);
  }

  /** Takes the oldest asynchronous event. @returns false when there is none. */
  pollEvent(into: DeviceEvent): boolean {
    const event = this.events.shift();
    if (event === undefined) return false;
    into.type = event.type;
    into.qp = event.qp;
    into.cq = event.cq;
    into.srq = event.srq;
    return true;
  }

  /**
   * Takes one datagram: `length` bytes at `offset` of the burst, borrowed for the call. Whatever it
   * is, nothing worse comes of it than a count in `counters.drops` or the end of one queue pair.
   */
  onPacket(nowNs: number, burst: RxBurst, offset: number, length: number): void {
    assert(!this.isBusy, "the device is not re-entered");
    this.isBusy = true;
    const { counters } = this;
    counters.packetsReceived++;
    counters.bytesReceived += length;
    this.packetQp = null;
    const reason = this.receive(nowNs, burst, offset, length);
    if (reason !== DROP_REASON.NONE) {
      counters.drops[reason] = (counters.drops[reason] as number) + 1;
      this.countQpDrop(reason, burst.port);
    }
    this.isBusy = false;
  }

  /**
   * Calls the listeners of completion queues that got what they were armed for, as `pump` does too.
   * Called between packets and machines, the machines answer in the same turn and the same send.
   */
  deliverEvents(): void {
    assert(!this.isBusy, "the device is not re-entered");
    this.isBusy = true;
    this.deliverCqEvents();
    this.isBusy = false;
  }

  /**
   * Fires due timers, calls the listeners of armed completion queues, and fills `tx`.
   * @returns whether more is ready than fitted.
   */
  pump(nowNs: number, tx: TxBatch): boolean {
    assert(!this.isBusy, "the device is not re-entered");
    this.isBusy = true;
    for (let index = this.timers.takeDue(nowNs); index >= 0; index = this.timers.takeDue(nowNs)) {
      const requester = this.qps[index]?.requester;
      if (requester) onTimer(requester, nowNs);
    }
    // What came in since the last turn, before sending, so that what is posted now leaves now.
    this.deliverCqEvents();
    const isFull = this.transmitActive(nowNs, tx);
    this.deliverCqEvents();
    this.isBusy = false;
    return isFull;
  }

  /** When `pump` must be called though no packet came: 0 for at once, Infinity for never. */
  deadlineNs(): number {
    if (this.active.count > 0 || this.cqEvents.length > 0 || this.cqOverflows.length > 0) return 0;
    return this.timers.deadlineNs();
  }

  checkInvariants(): void {
    this.regions.checkInvariants();
    this.timers.checkInvariants();
    let count = 0;
    for (const qp of this.qps) {
      if (qp === null) continue;
      count++;
      qp.checkInvariants();
      qp.sendCq.checkInvariants();
    }
    assert(count === this.qpCountNow, "every queue pair is counted");
  }

  /** Stages only: `qp` may have something to send. */
  activate(qp: QpCore): void {
    if (this.isActive[qp.index] === 1) return;
    this.isActive[qp.index] = 1;
    this.active.push(qp.index);
  }

  /** Stages only: if `window` has room, the queue pair that has waited longest for it goes on. */
  wakeOne(window: ByteWindow): void {
    const index = window.takeWaiter();
    const qp = index < 0 ? null : this.qps[index];
    if (qp) this.activate(qp);
  }

  /** Stages only: when `qp` wants `pump` to look at its timers. */
  setTimer(qp: QpCore, deadlineNs: number): void {
    this.timers.set(qp.index, deadlineNs);
  }

  raiseQpEvent(qp: QpCore, type: DeviceEventType): void {
    this.raise(type, qp, null, null);
  }

  cqEvent(cq: CqCore): void {
    this.cqEvents.push(cq);
  }

  cqOverflow(cq: CqCore): void {
    this.counters.completionQueueOverflows++;
    this.cqOverflows.push(cq);
    this.raise(DEVICE_EVENT.CQ_ERR, null, cq, null);
  }

  srqLimitReached(srq: SrqCore): void {
    this.raise(DEVICE_EVENT.SRQ_LIMIT_REACHED, null, null, srq);
  }

  private raise(
    type: DeviceEventType,
    qp: QpCore | null,
    cq: CqCore | null,
    srq: SrqCore | null,
  ): void {
    const event = new DeviceEvent();
    event.type = type;
    event.qp = qp;
    event.cq = cq;
    event.srq = srq;
    if (this.events.length === EVENT_COUNT_MAX) this.events.shift();
    this.events.push(event);
  }

  private forgetEvents(isGone: (event: DeviceEvent) => boolean): void {
    for (let i = this.events.length - 1; i >= 0; i--) {
      if (isGone(this.events[i] as DeviceEvent)) this.events.splice(i, 1);
    }
  }

  private receive(nowNs: number, burst: RxBurst, offset: number, length: number): DropReason {
    const { view } = burst;
    const fault = checkPacket(view, offset, length);
    if (fault !== PACKET_FAULT.NONE) return reasonOfFault(fault);
    const opcode = bthOpcode(view, offset);
    if (opcode === CNP_OPCODE) return DROP_REASON.CONGESTION_NOTIFICATION;
    const qp = this.findQp(bthDestinationQpn(view, offset), burst.port);
    if (qp === null) return DROP_REASON.QPN;
    const flags = OPCODE_FLAGS[opcode] as number;
    const isRc = qp.type === QP_TYPE.RC;
    if (opcodeTransport(opcode) !== (isRc ? TRANSPORT.RC : TRANSPORT.UD)) {
      return DROP_REASON.QP_TYPE;
    }
    const isResponse = (flags & OPCODE_FLAG.RESPONSE) !== 0;
    const { state } = qp;
    if (isResponse) {
      if (state !== QP_STATE.RTS && state !== QP_STATE.SQD) return DROP_REASON.QP_STATE;
    } else if (state < QP_STATE.RTR || state === QP_STATE.ERR) {
      return DROP_REASON.QP_STATE;
    }
    if (!pkeyMatches(bthPkey(view, offset))) return DROP_REASON.PKEY;
    if (!(isRc ? isFromPeer(qp, burst) : qp.port === burst.port)) return DROP_REASON.ADDRESS;
    this.packetQp = qp;
    if (!this.isIntact(burst, offset, length)) return DROP_REASON.ICRC;
    qp.counters.packetsReceived++;
    qp.counters.bytesReceived += length;

    const packet = this.packet;
    packet.burst = burst;
    packet.bytes = burst.bytes;
    packet.view = view;
    packet.offset = offset;
    packet.length = length;
    packet.opcode = opcode;
    packet.flags = flags;
    packet.psn = bthPsn(view, offset);
    packet.ackRequest = bthAckRequest(view, offset);
    packet.solicited = bthSolicited(view, offset);
    packet.extended = offset + BTH_BYTES;
    packet.payloadOffset = offset + payloadOffset(view, offset);
    packet.payloadLength = payloadLength(view, offset, length);
    if (qp.datagrams !== null) return qp.datagrams.onDatagram(packet);
    if (isResponse) return qp.requester ? onResponse(qp.requester, packet, nowNs) : 0;
    return qp.responder ? qp.responder.onRequest(packet) : 0;
  }

  private countQpDrop(reason: DropReason, port: number): void {
    if (this.packetQp === null) return;
    const { drops } = this.packetQp.counters;
    drops[reason] = (drops[reason] as number) + 1;
    if (reason !== DROP_REASON.ICRC) return;
    const { portIcrcErrors } = this.counters;
    portIcrcErrors[port] = (portIcrcErrors[port] as number) + 1;
  }

  private findQp(qpn: number, port: number): QpCore | null {
    if (qpn === QPN_GSI) return this.gsis[port] ?? null;
    const index = this.qpIndexes.get(qpn);
    return index < 0 ? null : (this.qps[index] as QpCore | null);
  }

  private isIntact(burst: RxBurst, offset: number, length: number): boolean {
    const flow = this.sources.flow(burst);
    // A GSO send numbers its segments from 0, and this burst probably was one (facts page, 7.1).
    const index = ((offset - burst.offset) / burst.segmentLength) & 0xffff;
    const result = this.icrc.check(flow, burst.bytes, burst.view, offset, length, index);
    return result !== ICRC_RESULT.BAD;
  }

  /** @returns whether the batch is full with something left to send. */
  private transmitActive(nowNs: number, tx: TxBatch): boolean {
    while (this.active.count > 0) {
      const index = this.active.shift();
      this.isActive[index] = 0;
      const qp = this.qps[index];
      if (!qp) continue;
      const turn = qp.transmit(nowNs, tx);
      if (turn !== TURN.IDLE) this.activate(qp);
      if (turn === TURN.FULL) return true;
      // Room that this queue pair left is the next one's.
      if (qp.flow !== null) this.wakeOne(qp.flow.window);
      this.wakeOne(this.readWindow);
    }
    return false;
  }

  /** Calls listeners, and takes down the queue pairs of completion queues that have overflowed. */
  private deliverCqEvents(): void {
    for (let cq = this.cqOverflows.pop(); cq !== undefined; cq = this.cqOverflows.pop()) {
      for (const qp of this.qps) {
        if (qp !== null && (qp.sendCq === cq || qp.recvCq === cq)) qp.enterError();
      }
    }
    // Only those that are here now: a listener that arms and posts is served in the next turn.
    for (let count = this.cqEvents.length; count > 0; count--) {
      this.cqEvents.shift()?.deliverEvent();
    }
  }

  private drawQpn(): number {
    for (;;) {
      const qpn = numberOfLane(this.lane, randomBelow(this.random, 1 << 24));
      if (qpn > QPN_GSI && qpn < QPN_MULTICAST && this.qpIndexes.get(qpn) < 0) return qpn;
    }
  }
}
