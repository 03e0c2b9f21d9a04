// SPDX-License-Identifier: MIT
// What the tests of this room stand on: devices on a little in-memory network with a virtual clock,
// a hook that decides each packet's fate, and a log of every packet in one line of text each. (The
// real simulated network, with seeded faults, is `sim/`'s; this one does only what it is told.)

import { HeapMemorySource, IpAddress, type Memory, psnAdd, SeededRandom } from "../base/index.js";
import {
  aethSyndrome,
  bthAckRequest,
  bthDestinationQpn,
  bthOpcode,
  bthPsn,
  IcrcEngine,
  IcrcFlow,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  OPCODE_HEADER_BYTES,
  payloadLength,
  RC,
  ROCE_PORT,
  UD,
  writeBth,
} from "../wire/index.js";
import type { CqCore } from "./completion-queue.js";
import { Device } from "./device.js";
import type { DeviceOptions } from "./device-options.js";
import { RxBurst, TxBatch } from "./link.js";
import { QP_STATE, QP_TYPE, type QpAttributes } from "./qp-state.js";
import type { QpCore } from "./queue-pair.js";
import type { QpInit } from "./queue-pair-init.js";
import {
  ACCESS,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
} from "./work-request.js";

/** What happens to a packet: any of these, `delayNs` on top of the latency. */
export interface Fate {
  drop?: boolean;
  duplicate?: boolean;
  delayNs?: number;
  /** Called on a copy that only the receiver sees. */
  alter?: (view: DataView, length: number) => void;
}

/** One packet in flight or in the log. */
export interface Packet {
  readonly from: number;
  readonly to: number;
  /** Count of packets on the network before this one, + 1 (captures number theirs like this). */
  readonly number: number;
  readonly sentNs: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

interface Arrival {
  readonly atNs: number;
  readonly order: number;
  readonly packet: Packet;
}

const NAMES = new Map<number, string>([
  ...Object.entries(RC).map(([name, code]) => [code, name] as const),
  ...Object.entries(UD).map(([name, code]) => [code, `UD_${name}`] as const),
]);

/** Local virtual addresses of every host's memory start apart, so that a mix-up shows. */
const HOST_ADDRESS_STRIDE = 0x100_0000_0000;

/** One host: its device, a megabyte of registered memory, one completion queue. */
export class Host {
  readonly device: Device;
  readonly address: IpAddress;
  readonly memories: HeapMemorySource;
  readonly memory: Memory;
  readonly region: number;
  readonly key: number;
  readonly cq: CqCore;
  readonly pd: number;
  readonly tx: TxBatch;

  constructor(address: IpAddress, number: number, options: Partial<DeviceOptions>) {
    this.address = address;
    this.device = new Device({
      addresses: [address],
      linkMtus: [9000],
      random: new SeededRandom(number + 1),
      qpCountMax: 64,
      regionCountMax: 64,
      ...options,
    });
    this.memories = new HeapMemorySource((number + 1) * HOST_ADDRESS_STRIDE);
    this.memory = this.memories.allocate(1 << 20);
    this.pd = this.device.allocatePd();
    const all =
      ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ | ACCESS.REMOTE_ATOMIC;
    this.region = this.device.regions.register(this.pd, this.memory, 0, 1 << 20, all);
    this.key = this.device.regions.keyOf(this.region);
    this.cq = this.device.createCq(4096);
    this.tx = new TxBatch(new Uint8Array(1 << 20));
  }

  createQp(init: Partial<QpInit> = {}): QpCore {
    return this.device.createQp({
      type: QP_TYPE.RC,
      pdIndex: this.pd,
      sendCq: this.cq,
      recvCq: this.cq,
      maxSendWr: 256,
      maxRecvWr: 256,
      maxSendSge: 4,
      maxRecvSge: 4,
      maxInlineData: 256,
      ...init,
    });
  }

  /** All waiting completions as text: `wrId STATUS` or, of receives, `recv wrId STATUS bytes`. */
  completions(): string[] {
    const lines: string[] = [];
    const wc = new WorkCompletion();
    while (this.cq.poll(wc)) lines.push(completionText(wc));
    return lines;
  }
}

const STATUS_NAMES = new Map<number, string>(
  Object.entries(WC_STATUS).map(([name, value]) => [value, name]),
);

function completionText(wc: WorkCompletion): string {
  const status = STATUS_NAMES.get(wc.status) ?? `${wc.status}`;
  if (wc.opcode < 128) return `${wc.wrId} ${status}`;
  const bytes = wc.status === WC_STATUS.SUCCESS ? ` ${wc.byteLength}` : "";
  const immediate = (wc.flags & 2) !== 0 ? ` imm ${wc.immediate.toString(16)}` : "";
  return `recv ${wc.wrId} ${status}${bytes}${immediate}`;
}

/** Two or more hosts on a network with a fixed latency. */
export class Network {
  readonly hosts: Host[];
  readonly latencyNs: number;
  nowNs = 1_000_000_000;
  /** Decides each packet's fate; null delivers everything. */
  fate: ((packet: Packet) => Fate | null) | null = null;
  /** Whether packets of one GSO send arrive as one burst, where nothing happens to them. */
  mergesBursts = false;
  readonly log: Packet[] = [];
  private readonly arrivals: Arrival[] = [];
  private packetCount = 0;
  private order = 0;

  constructor(addresses: readonly string[], options: Partial<DeviceOptions>, latencyNs = 10_000) {
    this.hosts = addresses.map((text, i) => new Host(IpAddress.parse(text), i, options));
    this.latencyNs = latencyNs;
  }

  host(index: number): Host {
    return this.hosts[index] as Host;
  }

  /** Lets everything happen that is due until `nowNs`, timers included. */
  runUntil(nowNs: number): void {
    for (let step = 0; ; step++) {
      if (step > 1_000_000) throw new Error("the network does not come to rest");
      this.pumpAll();
      const next = this.nextNs();
      if (next > nowNs) break;
      this.nowNs = Math.max(this.nowNs, next);
      this.deliver();
    }
    this.nowNs = Math.max(this.nowNs, nowNs);
  }

  run(durationNs: number): void {
    this.runUntil(this.nowNs + durationNs);
  }

  /** Until nothing is in flight and no timer runs. */
  runToRest(): void {
    for (let step = 0; ; step++) {
      if (step > 1_000_000) throw new Error("the network does not come to rest");
      this.pumpAll();
      const next = this.nextNs();
      if (next === Number.POSITIVE_INFINITY) return;
      this.nowNs = Math.max(this.nowNs, next);
      this.deliver();
    }
  }

  /** Gives `to` a packet from outside the network, now. */
  inject(from: number, to: number, bytes: Uint8Array): void {
    const burst = new RxBurst(bytes);
    this.stamp(burst, from);
    burst.length = bytes.length;
    burst.segmentLength = bytes.length;
    this.host(to).device.onPacket(this.nowNs, burst, 0, bytes.length);
  }

  /** The log since the last call, a line per packet; PSNs relative to those that `names` gives. */
  lines(basePsns: readonly number[] = [0, 0]): string[] {
    return this.log.splice(0).map((packet) => describePacket(packet, basePsns));
  }

  private nextNs(): number {
    let next = this.arrivals.reduce(
      (least, a) => Math.min(least, a.atNs),
      Number.POSITIVE_INFINITY,
    );
    for (const host of this.hosts) next = Math.min(next, host.device.deadlineNs());
    return next;
  }

  private deliver(): void {
    const due = this.arrivals.filter((arrival) => arrival.atNs <= this.nowNs);
    due.sort((a, b) => a.atNs - b.atNs || a.order - b.order);
    for (const arrival of due) {
      this.arrivals.splice(this.arrivals.indexOf(arrival), 1);
      this.inject(arrival.packet.from, arrival.packet.to, arrival.packet.bytes);
    }
  }

  private pumpAll(): void {
    for (let index = 0; index < this.hosts.length; index++) {
      const host = this.host(index);
      for (let isMore = true; isMore; ) {
        isMore = host.device.pump(this.nowNs, host.tx);
        this.carry(index, host.tx);
        host.tx.reset();
      }
      host.device.checkInvariants();
    }
  }

  private carry(from: number, tx: TxBatch): void {
    for (let message = 0; message < tx.messageCount; message++) {
      const destination = tx.flows[message]?.destination as IpAddress;
      const to = this.hosts.findIndex((host) => host.address.equals(destination));
      const start = tx.offsets[message] as number;
      const end = start + (tx.lengths[message] as number);
      const step = tx.segmentLengths[message] as number;
      for (let at = start; at < end; at += step) {
        this.carryOne(from, to, tx.bytes.slice(at, Math.min(end, at + step)));
      }
    }
  }

  private carryOne(from: number, to: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer);
    const number = ++this.packetCount;
    const packet: Packet = { from, to, number, sentNs: this.nowNs, bytes, view };
    this.log.push(packet);
    const fate = this.fate?.(packet) ?? {};
    if (fate.drop || to < 0) return;
    const atNs = this.nowNs + this.latencyNs + (fate.delayNs ?? 0);
    const copy = bytes.slice();
    const copyView = new DataView(copy.buffer);
    fate.alter?.(copyView, copy.length);
    const delivered = { ...packet, bytes: copy, view: copyView };
    this.arrivals.push({ atNs, order: this.order++, packet: delivered });
    if (fate.duplicate) this.arrivals.push({ atNs, order: this.order++, packet: delivered });
  }

  private stamp(burst: RxBurst, from: number): void {
    const source = this.host(from).address;
    burst.source0 = source.word0;
    burst.source1 = source.word1;
    burst.source2 = source.word2;
    burst.source3 = source.word3;
    burst.sourcePort = ROCE_PORT;
  }
}

/**
 * One packet as text: `0> WRITE_FIRST 0 1024`: sender, opcode, PSN relative to the base of the side
 * whose PSNs they are, payload bytes (not for ACKs), `!` for AckReq, the syndrome of an ACK.
 */
export function describePacket(packet: Packet, basePsns: readonly number[]): string {
  const { view } = packet;
  const opcode = bthOpcode(view, 0);
  const flags = OPCODE_FLAGS[opcode] as number;
  const isResponse = (flags & OPCODE_FLAG.RESPONSE) !== 0;
  const base = basePsns[isResponse ? packet.to : packet.from] as number;
  const psn = ((bthPsn(view, 0) - base) << 8) >> 8;
  const parts = [`${packet.from}>`, NAMES.get(opcode) ?? opcode.toString(16), `${psn}`];
  if (opcode === RC.ACKNOWLEDGE) {
    const syndrome = aethSyndrome(view, (OPCODE_HEADER_BYTES[opcode] as number) - 4);
    if (syndrome !== 0x1f) parts.push(`nak ${syndrome.toString(16)}`);
  } else if ((flags & OPCODE_FLAG.HAS_PAYLOAD) !== 0) {
    parts.push(`${payloadLength(view, 0, packet.bytes.length)}`);
  }
  return parts.join(" ") + (bthAckRequest(view, 0) ? " !" : "");
}

/** First PSNs of host 0 and host 1, as in the captures. */
export const START_PSNS = [0x123456, 0xabcdef] as const;

/** Two hosts with an RC connection between them. */
export class Pair extends Network {
  readonly a: Host;
  readonly b: Host;
  readonly qpA: QpCore;
  readonly qpB: QpCore;
  readonly psns: readonly number[];

  /**
   * @param attributes for both sides, over these defaults: MTU 1024, retries 3, RNR retries 3, ACK
   *   timeout code 15 (134 ms), RNR timer code 12 (0.64 ms), 4 READs, all rights.
   */
  constructor(
    attributes: QpAttributes = {},
    options: Partial<DeviceOptions> = {},
    init: Partial<QpInit> = {},
    addresses: readonly string[] = ["10.79.0.2", "10.79.0.3"],
    psns: readonly number[] = START_PSNS,
  ) {
    super(addresses, { probes: false, ...options });
    this.a = this.host(0);
    this.b = this.host(1);
    this.psns = psns;
    this.qpA = this.a.createQp(init);
    this.qpB = this.b.createQp(init);
    connect(this.a, this.qpA, this.b, this.qpB, psns, attributes);
    connect(this.b, this.qpB, this.a, this.qpA, [...psns].reverse(), attributes);
    // The contents of the captures.
    for (let i = 0; i < this.a.memory.length; i++) {
      this.a.memory.bytes[i] = 31 * i + 7;
      this.b.memory.bytes[i] = 17 * i + 3;
    }
  }

  /** Posts from A, signalled, with A's memory from `offset` on and B's from `remote` on. */
  post(
    wrId: number,
    opcode: SendWorkRequest["opcode"],
    length: number,
    change: Partial<SendWorkRequest> & { offset?: number; remote?: number } = {},
  ): number {
    const { offset = 0, remote = 0, ...rest } = change;
    const wr = new SendWorkRequest();
    wr.wrId = wrId;
    wr.opcode = opcode;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    const hasData = opcode < WR_OPCODE.LOCAL_INV;
    wr.sgeCount = hasData ? 1 : 0;
    wr.sges[0] = { address: this.a.memory.address + offset, length, lkey: this.a.key };
    wr.remoteAddressHigh = Math.floor((this.b.memory.address + remote) / 0x1_0000_0000);
    wr.remoteAddressLow = (this.b.memory.address + remote) >>> 0;
    wr.rkey = this.b.key;
    return this.qpA.postSend(Object.assign(wr, rest));
  }

  write(wrId: number, length: number, change: Parameters<Pair["post"]>[3] = {}): number {
    return this.post(wrId, WR_OPCODE.RDMA_WRITE, length, change);
  }

  send(wrId: number, length: number, change: Parameters<Pair["post"]>[3] = {}): number {
    return this.post(wrId, WR_OPCODE.SEND, length, change);
  }

  read(wrId: number, length: number, change: Parameters<Pair["post"]>[3] = {}): number {
    return this.post(wrId, WR_OPCODE.RDMA_READ, length, change);
  }

  fetchAdd(wrId: number, addend: number, remote = 64): number {
    const change = { compareAddLow: addend, remote };
    return this.post(wrId, WR_OPCODE.ATOMIC_FETCH_AND_ADD, 8, change);
  }

  /** Posts a receive at B over its memory from `offset` on. */
  receive(wrId: number, length: number, offset = 0): number {
    const wr = new RecvWorkRequest();
    wr.wrId = wrId;
    wr.sgeCount = 1;
    wr.sges[0] = { address: this.b.memory.address + offset, length, lkey: this.b.key };
    return this.qpB.postRecv(wr);
  }

  /**
   * A packet with a right ICRC as host `from` would send it to the other side's queue pair.
   * @param psn relative to the first PSN of the side whose PSNs the opcode uses.
   * @param fill writes headers and payload behind the BTH, at its second argument.
   */
  forge(
    from: number,
    opcode: number,
    psn: number,
    extraBytes: number,
    fill: (view: DataView, at: number) => void = () => {},
    ackRequest = true,
  ): Uint8Array {
    const flags = OPCODE_FLAGS[opcode] as number;
    const isResponse = (flags & OPCODE_FLAG.RESPONSE) !== 0;
    const base = this.psns[isResponse ? 1 - from : from] as number;
    const headerBytes = Math.max(12, OPCODE_HEADER_BYTES[opcode] as number);
    const length = headerBytes + ((extraBytes + 3) & ~3) + 4;
    const bytes = new Uint8Array(length);
    const view = new DataView(bytes.buffer);
    const qpn = from === 0 ? this.qpB.qpn : this.qpA.qpn;
    writeBth(view, 0, opcode, false, -extraBytes & 3, 0xffff, qpn, ackRequest, psnAdd(base, psn));
    fill(view, 12);
    this.seal(from, bytes);
    return bytes;
  }

  /** Writes the ICRC of a packet that `from` sends to the other host. */
  seal(from: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer);
    const source = this.host(from).address;
    const destination = this.host(1 - from).address;
    const flow = IcrcFlow.between(source, ROCE_PORT, destination, ROCE_PORT);
    new IcrcEngine().write(flow, bytes, view, 0, bytes.length, 0);
  }

  /** The log so far, PSNs relative to the connection's first. */
  conversation(): string[] {
    return this.lines(this.psns);
  }

  /** Loses the packets with these numbers (from 1, all packets on the network counted). */
  lose(...numbers: number[]): void {
    this.fate = (packet) => (numbers.includes(packet.number) ? { drop: true } : null);
  }
}

/** Moves an RC queue pair of `local` to RTS. */
export function connect(
  local: Host,
  qp: QpCore,
  remote: Host,
  remoteQp: QpCore,
  psns: readonly number[],
  attributes: QpAttributes = {},
): void {
  const value: QpAttributes = {
    pathMtu: 1024,
    accessFlags: ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ | ACCESS.REMOTE_ATOMIC,
    maxRdAtomic: 4,
    maxDestRdAtomic: 4,
    minRnrTimer: 12,
    timeout: 15,
    retryCount: 3,
    rnrRetry: 3,
    ...attributes,
  };
  const pick = (...names: (keyof QpAttributes)[]): QpAttributes =>
    Object.fromEntries(names.map((name) => [name, value[name]]));
  qp.modify({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, ...pick("accessFlags") });
  qp.modify({
    state: QP_STATE.RTR,
    addressVector: { flow: local.device.flow(0, remote.address) },
    destinationQpn: remoteQp.qpn,
    rqPsn: psns[1] as number,
    ...pick("pathMtu", "maxDestRdAtomic", "minRnrTimer"),
  });
  qp.modify({
    state: QP_STATE.RTS,
    sqPsn: psns[0] as number,
    ...pick("timeout", "retryCount", "rnrRetry", "maxRdAtomic"),
  });
}

/** Destination QPN of a packet, for fates that look. */
export function destinationOf(packet: Packet): number {
  return bthDestinationQpn(packet.view, 0);
}

/**
 * Where two byte arrays differ first, -1 for nowhere: quicker than a deep comparison of a megabyte.
 */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}
