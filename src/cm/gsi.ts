// SPDX-License-Identifier: MIT
// QP1 of every port of the device, as the connection manager's way to send and receive MADs (IBTA
// vol1 §13.5; rocev2 facts section 17). All buffers are registered once.

import {
  assert,
  FarpageError,
  type IpAddress,
  type Memory,
  type MemorySource,
} from "../base/index.js";
import {
  ACCESS,
  type CompletionQueue,
  type Context,
  decodeGrh,
  GRH_BYTES,
  type MemoryRegion,
  type ProtectionDomain,
  QP_STATE,
  type QueuePair,
  RecvWorkRequest,
  type ScatterGatherEntry,
  SEND_FLAG,
  SendWorkRequest,
  WC_OPCODE,
  WC_STATUS,
  WorkCompletion,
} from "../verbs/index.js";
import { QKEY_GSI, QPN_GSI } from "../wire/index.js";
import { MAD_BYTES, type MadPort, type ReceivedMad } from "./mad-port.js";

const RECEIVE_BYTES = GRH_BYTES + MAD_BYTES;
/** Completions polled at a time. */
const BATCH = 16;

export interface GsiOptions {
  readonly context: Context;
  readonly memory: MemorySource;
  /** Receives posted on each port. */
  readonly receiveDepth: number;
  /** Sends that can be under way on all ports together. */
  readonly sendDepth: number;
}

export class GsiPort implements MadPort {
  readonly addresses: readonly IpAddress[];
  private readonly context: Context;
  private readonly memory: Memory;
  private readonly pd: ProtectionDomain;
  private readonly cq: CompletionQueue;
  private readonly region: MemoryRegion;
  private readonly qps: QueuePair[] = [];
  private readonly receiveDepth: number;
  /** First byte of the send buffers, which follow those of the receives. */
  private readonly sendOffset: number;
  private readonly freeSends: number[];
  private readonly sendRequest = new SendWorkRequest();
  private readonly recvRequest = new RecvWorkRequest();
  private readonly completions = Array.from({ length: BATCH }, () => new WorkCompletion());
  private completionCount = 0;
  private completionIndex = 0;
  /** The receive that the caller is reading, to be posted again; -1: none. */
  private lentReceive = -1;
  /** Gives back what has been made so far, the last first. */
  private readonly undo: (() => void)[] = [];

  /** All or nothing. @throws FarpageError EBUSY when somebody else has QP1; EINVAL, ENOMEM. */
  constructor(options: GsiOptions) {
    const { context, memory, receiveDepth, sendDepth } = options;
    this.context = context;
    this.addresses = context.device.addresses;
    this.receiveDepth = receiveDepth;
    const portCount = this.addresses.length;
    this.sendOffset = portCount * receiveDepth * RECEIVE_BYTES;
    this.freeSends = Array.from({ length: sendDepth }, (_, slot) => sendDepth - 1 - slot);
    try {
      const bytes = this.sendOffset + sendDepth * MAD_BYTES;
      this.memory = memory.allocate(bytes, "management datagrams");
      this.undo.push(() => memory.free(this.memory));
      this.pd = context.allocPd();
      this.undo.push(() => this.pd.dealloc());
      this.cq = context.createCq({ depth: portCount * receiveDepth + sendDepth });
      this.undo.push(() => this.cq.destroy());
      this.region = this.pd.registerMr(this.memory, { access: ACCESS.LOCAL_WRITE });
      this.undo.push(() => this.region.deregister());
      for (let port = 0; port < portCount; port++) this.openQp(port, receiveDepth, sendDepth);
      for (let slot = 0; slot < portCount * receiveDepth; slot++) this.postReceive(slot);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  receive(): ReceivedMad | null {
    if (this.lentReceive >= 0) this.postReceive(this.lentReceive);
    this.lentReceive = -1;
    for (;;) {
      if (this.completionIndex === this.completionCount) {
        this.completionCount = this.cq.pollCq(this.completions);
        this.completionIndex = 0;
        if (this.completionCount === 0) return null;
      }
      const completion = this.completions[this.completionIndex++] as WorkCompletion;
      const mad = this.take(completion);
      if (mad !== null) return mad;
    }
  }

  send(port: number, destination: IpAddress, trafficClass: number, mad: Uint8Array): boolean {
    assert(mad.length === MAD_BYTES, "a MAD has 256 bytes");
    const slot = this.freeSends.pop();
    if (slot === undefined) return false;
    const offset = this.sendOffset + slot * MAD_BYTES;
    this.memory.bytes.set(mad, offset);
    const wr = this.sendRequest;
    wr.wrId = slot;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    this.setEntry(wr.sges[0] as ScatterGatherEntry, offset, MAD_BYTES);
    wr.sgeCount = 1;
    wr.remoteQpn = QPN_GSI;
    wr.remoteQkey = QKEY_GSI;
    wr.destination = { flow: this.context.device.flow(port, destination, trafficClass) };
    const wasPosted = (this.qps[port] as QueuePair).tryPostSend(wr) === 0;
    if (!wasPosted) this.freeSends.push(slot);
    return wasPosted;
  }

  close(): void {
    for (let step = this.undo.pop(); step !== undefined; step = this.undo.pop()) step();
  }

  /** The MAD behind a receive; null for anything else, which is dealt with here. */
  private take(completion: WorkCompletion): ReceivedMad | null {
    if (completion.opcode !== WC_OPCODE.RECV) {
      this.freeSends.push(completion.wrId);
      return null;
    }
    const slot = completion.wrId;
    if (completion.status !== WC_STATUS.SUCCESS) return null;
    const offset = slot * RECEIVE_BYTES;
    const grh = decodeGrh(this.memory.view, offset);
    const port = grh === null ? -1 : this.context.portOf(grh.destination);
    if (grh === null || port < 0 || completion.byteLength !== RECEIVE_BYTES) {
      this.postReceive(slot);
      return null;
    }
    this.lentReceive = slot;
    return {
      bytes: this.memory.bytes,
      view: this.memory.view,
      offset: offset + GRH_BYTES,
      devicePort: port,
      source: grh.source,
      destination: grh.destination,
    };
  }

  private openQp(port: number, maxRecvWr: number, maxSendWr: number): void {
    const { cq } = this;
    const qp = this.pd.createGsiQp(port, { sendCq: cq, recvCq: cq, maxSendWr, maxRecvWr });
    this.undo.push(() => qp.destroy());
    qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port, qkey: QKEY_GSI });
    qp.modifyQp({ state: QP_STATE.RTR });
    qp.modifyQp({ state: QP_STATE.RTS, sqPsn: 0 });
    this.qps.push(qp);
  }

  private postReceive(slot: number): void {
    const wr = this.recvRequest;
    wr.wrId = slot;
    wr.sgeCount = 1;
    this.setEntry(wr.sges[0] as ScatterGatherEntry, slot * RECEIVE_BYTES, RECEIVE_BYTES);
    const qp = this.qps[Math.floor(slot / this.receiveDepth)] as QueuePair;
    const errno = qp.tryPostRecv(wr);
    if (errno !== 0) throw new FarpageError("EINVAL", `QP1 takes no receive (errno ${errno})`);
  }

  private setEntry(sge: ScatterGatherEntry, offset: number, length: number): void {
    sge.address = this.memory.address + offset;
    sge.length = length;
    sge.lkey = this.region.lkey;
  }
}
