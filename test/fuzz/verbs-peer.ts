// SPDX-License-Identifier: MIT
// One end of busy queue pairs: posts random valid work of every kind, takes completions, and checks
// that each request retires exactly once. Its memory is laid out so that anything that a packet
// reaches without right is seen.

import {
  assert,
  type Machine,
  type Memory,
  type Random,
  randomBelow,
} from "../../src/base/index.js";
import type { SimHost } from "../../src/sim/index.js";
import {
  ACCESS,
  type CompletionQueue,
  Context,
  Device,
  type MemoryRegion,
  type PathMtu,
  type ProtectionDomain,
  QP_STATE,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
  type WrOpcode,
} from "../../src/verbs/index.js";
import { DemandMemory } from "./demand-memory.js";
import { fillSecret, GuardedMemorySource } from "./guarded-memory.js";

const PAGE = 4096;
/** Where things are in the arena; what is between them is nobody's. */
const LOCAL_OFFSET = PAGE;
const REMOTE_OFFSET = 14 * PAGE;
const FAST_OFFSET = 25 * PAGE;
const PRIVATE_OFFSET = 28 * PAGE;
const ARENA_BYTES = 31 * PAGE;
const LOCAL_BYTES = 12 * PAGE;
const REMOTE_BYTES = 10 * PAGE - 64;
const FAST_BYTES = 2 * PAGE;
const PRIVATE_BYTES = 2 * PAGE;

const QUEUE_DEPTH = 16;
const LENGTH_MAX = 3 * PAGE;
const QKEY = 0x1234_5678;
/** A UD receive begins with a GRH. */
const GRH_BYTES = 40;
const SEND_MARK = 1e9;

const OPERATIONS: readonly WrOpcode[] = [
  WR_OPCODE.SEND,
  WR_OPCODE.SEND_WITH_IMM,
  WR_OPCODE.SEND_WITH_INV,
  WR_OPCODE.RDMA_WRITE,
  WR_OPCODE.RDMA_WRITE,
  WR_OPCODE.RDMA_WRITE_WITH_IMM,
  WR_OPCODE.RDMA_READ,
  WR_OPCODE.RDMA_READ,
  WR_OPCODE.ATOMIC_CMP_AND_SWP,
  WR_OPCODE.ATOMIC_FETCH_AND_ADD,
];

/** What a connected pair needs to know of the other side. */
export interface PairTerms {
  readonly mtu: PathMtu;
  readonly sqPsn: number;
  readonly rqPsn: number;
}

/** A queue pair with what is outstanding on it. */
class Endpoint {
  readonly qp: QueuePair;
  /** Posted and not retired, in order: the request's number, and whether it must show up. */
  readonly sends: { readonly id: number; readonly isSignaled: boolean }[] = [];
  readonly receives = new Set<number>();
  nextId = 1;

  constructor(qp: QueuePair) {
    this.qp = qp;
  }
}

export class VerbsPeer implements Machine {
  readonly host: SimHost;
  readonly context: Context;
  readonly memory = new GuardedMemorySource();
  readonly remote: MemoryRegion;
  /** The peer may invalidate it. */
  readonly fast: MemoryRegion;
  /** Its pages come and go. */
  readonly demand = new DemandMemory();
  readonly onDemand: MemoryRegion;
  readonly endpoints: Endpoint[];
  readonly datagrams: Endpoint;
  other: VerbsPeer | null = null;
  isPosting = true;
  /** Posts no receives meanwhile: senders must now and then find none. */
  isStarving = false;
  completions = 0;
  succeeded = 0;
  private readonly random: Random;
  private readonly arena: Memory;
  private readonly pd: ProtectionDomain;
  private readonly cq: CompletionQueue;
  private readonly local: MemoryRegion;
  private readonly fastBase: MemoryRegion;
  /** The arena as it was made. */
  private readonly untouched = new Uint8Array(ARENA_BYTES);
  private readonly sendRequest = new SendWorkRequest();
  private readonly receiveRequest = new RecvWorkRequest();
  private readonly polled = Array.from({ length: 8 }, () => new WorkCompletion());

  constructor(host: SimHost, qpCount: number) {
    this.host = host;
    this.random = host.random.fork("verbs");
    const { link } = host;
    const device = new Device({
      addresses: link.addresses,
      linkMtus: link.linkMtus,
      random: host.random.fork("device"),
    });
    host.device = device;
    this.context = new Context(device);
    this.pd = this.context.allocPd();
    this.cq = this.context.createCq({ depth: (qpCount + 1) * 2 * QUEUE_DEPTH });
    this.arena = this.memory.allocate(ARENA_BYTES);
    fillSecret(this.arena.bytes);
    fillSecret(this.untouched);
    this.local = this.register(LOCAL_OFFSET, LOCAL_BYTES, ACCESS.LOCAL_WRITE);
    const rights = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ;
    this.remote = this.register(REMOTE_OFFSET, REMOTE_BYTES, rights | ACCESS.REMOTE_ATOMIC);
    // Registered, but not for others: its bytes stay the secret.
    this.register(PRIVATE_OFFSET, PRIVATE_BYTES, ACCESS.LOCAL_WRITE, true);
    this.fast = this.pd.allocMr();
    this.fastBase = this.register(FAST_OFFSET, FAST_BYTES, ACCESS.LOCAL_WRITE);
    const { address, length, regions: space } = this.demand;
    const access = rights | ACCESS.REMOTE_ATOMIC;
    this.onDemand = this.pd.registerMr({ space, address, length }, { access, onDemand: true });
    host.machines.push(this.demand.queue);
    this.endpoints = Array.from({ length: qpCount }, () => new Endpoint(this.createQp("RC")));
    this.datagrams = new Endpoint(this.createQp("UD"));
    host.machines.push(this);
  }

  /** @throws Error when a byte changed that nothing may change. */
  checkMemory(): void {
    this.memory.check();
    this.demand.check();
    // The open ranges, in order; everything else must be as it was.
    const gaps: readonly (readonly [from: number, to: number])[] = [
      [0, LOCAL_OFFSET],
      [LOCAL_OFFSET + LOCAL_BYTES, REMOTE_OFFSET],
      [REMOTE_OFFSET + REMOTE_BYTES, FAST_OFFSET],
      [FAST_OFFSET + FAST_BYTES, ARENA_BYTES],
    ];
    for (const [from, to] of gaps) {
      for (let i = from; i < to; i++) {
        if (this.arena.bytes[i] === this.untouched[i]) continue;
        throw new Error(`${this.host.name}: byte ${i} of the arena is no one's and has changed`);
      }
    }
  }

  /** Connects endpoint `index` anew, from whatever state. */
  connect(index: number, terms: PairTerms): void {
    const endpoint = this.endpoints[index] as Endpoint;
    const other = this.other as VerbsPeer;
    const { qp } = endpoint;
    qp.modifyQp({ state: QP_STATE.RESET });
    this.drain();
    endpoint.sends.length = 0;
    endpoint.receives.clear();
    const { REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC } = ACCESS;
    qp.modifyQp({
      state: QP_STATE.INIT,
      pkeyIndex: 0,
      port: 0,
      accessFlags: REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC,
    });
    const destination = other.host.link.addresses[0] as (typeof other.host.link.addresses)[0];
    qp.modifyQp({
      state: QP_STATE.RTR,
      addressVector: this.pd.createAh({ port: 0, destination }),
      pathMtu: terms.mtu,
      destinationQpn: (other.endpoints[index] as Endpoint).qp.qpn,
      rqPsn: terms.rqPsn,
      maxDestRdAtomic: 4,
      minRnrTimer: 1,
    });
    qp.modifyQp({
      state: QP_STATE.RTS,
      timeout: 6,
      retryCount: 3,
      rnrRetry: 6,
      sqPsn: terms.sqPsn,
      maxRdAtomic: 4,
    });
    this.postReceives(endpoint);
  }

  /** Brings the UD queue pair up, once. */
  startDatagrams(): void {
    const { qp } = this.datagrams;
    qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, qkey: QKEY });
    qp.modifyQp({ state: QP_STATE.RTR });
    qp.modifyQp({ state: QP_STATE.RTS, sqPsn: 0 });
    this.postReceives(this.datagrams);
  }

  /** Whether endpoint `index` has failed and given everything back. */
  isBroken(index: number): boolean {
    return (this.endpoints[index] as Endpoint).qp.state === QP_STATE.ERR;
  }

  /** A queue pair in ERR flushes everything: nothing may stay. Preconditions: pumped since. */
  checkFlushed(index: number): void {
    const { sends, receives, qp } = this.endpoints[index] as Endpoint;
    // An unsignaled send that succeeded has said nothing.
    const kept = sends.filter((send) => send.isSignaled).length;
    const lost = `${kept} sends and ${receives.size} receives`;
    assert(kept + receives.size === 0, `queue pair ${qp.qpn} in ERR keeps ${lost}`);
  }

  pump(_nowNs: number): void {
    this.drain();
    if (!this.fast.isValid) {
      const rights = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ;
      this.fast.fastRegister(this.fastBase, this.fastBase.address, FAST_BYTES, rights);
    }
    for (const endpoint of this.endpoints) {
      if (endpoint.qp.state !== QP_STATE.RTS) continue;
      if (!this.isStarving) this.postReceives(endpoint);
      if (this.isPosting && randomBelow(this.random, 3) === 0) this.postSend(endpoint);
    }
    if (!this.isStarving) this.postReceives(this.datagrams);
    if (this.isPosting && randomBelow(this.random, 8) === 0) this.postDatagram();
  }

  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {
    this.context.checkInvariants();
  }

  /** Takes every completion there is. */
  drain(): void {
    for (;;) {
      const count = this.cq.pollCq(this.polled);
      if (count === 0) return;
      for (let i = 0; i < count; i++) this.retire(this.polled[i] as WorkCompletion);
    }
  }

  private register(offset: number, length: number, access: number, keep = false): MemoryRegion {
    if (!keep) this.arena.bytes.fill(0, offset, offset + length);
    return this.pd.registerMr(this.arena, { offset, length, access });
  }

  private createQp(type: "RC" | "UD"): QueuePair {
    return this.pd.createQp({
      type,
      sendCq: this.cq,
      recvCq: this.cq,
      maxSendWr: QUEUE_DEPTH,
      maxRecvWr: QUEUE_DEPTH,
      maxSendSge: 2,
      maxRecvSge: 2,
    });
  }

  private retire(completion: WorkCompletion): void {
    this.completions++;
    if (completion.status === WC_STATUS.SUCCESS) this.succeeded++;
    const all = [...this.endpoints, this.datagrams];
    const endpoint = all.find(({ qp }) => qp.qpn === completion.qpn);
    assert(endpoint !== undefined, "a completion is of one of our queue pairs");
    const id = completion.wrId;
    if (id < SEND_MARK) {
      assert(endpoint.receives.delete(id), `receive ${id} retires once`);
      return;
    }
    const index = endpoint.sends.findIndex((send) => send.id === id);
    assert(index >= 0, `send ${id} retires once`);
    // Those before it have retired silently: they were unsignaled, and succeeded.
    const silent = endpoint.sends.splice(0, index + 1);
    for (const send of silent.slice(0, -1)) assert(!send.isSignaled, "sends retire in order");
  }

  private postReceives(endpoint: Endpoint): void {
    const wr = this.receiveRequest;
    const wanted = 1 + randomBelow(this.random, QUEUE_DEPTH / 2);
    while (endpoint.receives.size < wanted) {
      const id = endpoint.nextId++;
      wr.wrId = id;
      wr.sgeCount = 2;
      const first = this.drawLength(2 * PAGE);
      this.fillSge(wr.sges[0] as (typeof wr.sges)[0], first);
      this.fillSge(wr.sges[1] as (typeof wr.sges)[0], Math.min(first + GRH_BYTES, LENGTH_MAX));
      endpoint.qp.postRecv(wr);
      endpoint.receives.add(id);
    }
  }

  private postSend(endpoint: Endpoint): void {
    const wr = this.sendRequest;
    const other = this.other as VerbsPeer;
    wr.opcode = OPERATIONS[randomBelow(this.random, OPERATIONS.length)] as WrOpcode;
    const isAtomic =
      wr.opcode === WR_OPCODE.ATOMIC_CMP_AND_SWP || wr.opcode === WR_OPCODE.ATOMIC_FETCH_AND_ADD;
    const isSend = wr.opcode <= WR_OPCODE.SEND_WITH_INV;
    const length = isAtomic ? 8 : this.drawLength(isSend ? PAGE : LENGTH_MAX);
    wr.sgeCount = 1;
    this.fillSge(wr.sges[0] as (typeof wr.sges)[0], length);
    wr.immediate = this.random.nextU32();
    wr.invalidateKey = other.fast.rkey;
    const isFast = other.fast.isValid && length <= FAST_BYTES && randomBelow(this.random, 4) === 0;
    const target = isFast && !isAtomic ? other.fast : this.drawTarget(other);
    const open = target === other.onDemand ? other.demand.mappedBytes : target.length;
    const room = Math.floor((open - length) / 8);
    const address = target.address + 8 * randomBelow(this.random, room + 1);
    wr.remoteAddressHigh = Math.floor(address / 0x1_0000_0000);
    wr.remoteAddressLow = address >>> 0;
    wr.rkey = target.rkey;
    wr.compareAddLow = this.random.nextU32();
    wr.swapLow = this.random.nextU32();
    if (wr.opcode === WR_OPCODE.SEND_WITH_INV && wr.invalidateKey === 0) return;
    this.post(endpoint, wr);
  }

  private postDatagram(): void {
    const wr = this.sendRequest;
    const other = this.other as VerbsPeer;
    wr.opcode = randomBelow(this.random, 2) === 0 ? WR_OPCODE.SEND : WR_OPCODE.SEND_WITH_IMM;
    wr.sgeCount = 1;
    this.fillSge(wr.sges[0] as (typeof wr.sges)[0], this.drawLength(256));
    const flow = this.context.device.flow(0, other.host.link.addresses[0] as never);
    wr.destination = { flow };
    wr.remoteQpn = other.datagrams.qp.qpn;
    wr.remoteQkey = QKEY;
    this.post(this.datagrams, wr);
    wr.destination = null;
  }

  private post(endpoint: Endpoint, wr: SendWorkRequest): void {
    if (endpoint.sends.length >= QUEUE_DEPTH / 2) return;
    const isSignaled = randomBelow(this.random, 3) > 0 || endpoint.sends.length % 4 === 3;
    wr.wrId = SEND_MARK + endpoint.nextId++;
    wr.sendFlags = isSignaled ? SEND_FLAG.SIGNALED : 0;
    endpoint.qp.postSend(wr);
    endpoint.sends.push({ id: wr.wrId, isSignaled });
  }

  private drawTarget(other: VerbsPeer): MemoryRegion {
    return randomBelow(this.random, 4) === 0 ? other.onDemand : other.remote;
  }

  private fillSge(sge: { address: number; length: number; lkey: number }, length: number): void {
    const isOnDemand = randomBelow(this.random, 8) === 0;
    const region = isOnDemand ? this.onDemand : this.local;
    const bytes = isOnDemand ? this.demand.mappedBytes : LOCAL_BYTES;
    sge.length = length;
    sge.lkey = region.lkey;
    sge.address = region.address + randomBelow(this.random, bytes - length + 1);
  }

  /** Short ones, ones around packet boundaries, and any. */
  private drawLength(max: number): number {
    const kind = randomBelow(this.random, 4);
    if (kind === 0) return randomBelow(this.random, Math.min(16, max + 1));
    if (kind < 3) {
      const near = 256 << randomBelow(this.random, 5);
      return Math.min(max, Math.max(0, near - 1 + randomBelow(this.random, 3)));
    }
    return randomBelow(this.random, max + 1);
  }
}
