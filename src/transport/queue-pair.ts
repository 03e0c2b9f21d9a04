// SPDX-License-Identifier: MIT
// A queue pair of the device: its attributes and state, the door through which work is posted, and
// what its stages (requester, responder, datagrams) share: queues and completions.

import { assert, ERRNO, FarpageError } from "../base/index.js";
import { QKEY_GSI } from "../wire/index.js";
import type { CqCore } from "./completion-queue.js";
import { QpCounters } from "./counters.js";
import type { Device } from "./device.js";
import { DEVICE_EVENT } from "./device-event.js";
import { Flow } from "./flow.js";
import type { TxBatch } from "./link.js";
import { TURN, type Turn } from "./packet-io.js";
import {
  checkTransition,
  type PathMtu,
  QP_STATE,
  QP_TYPE,
  type QpAttributes,
  type QpState,
  type QpType,
} from "./qp-state.js";
import type { QpInit } from "./queue-pair-init.js";
import { ReceiveQueue, type SrqCore } from "./receive-queue.js";
import { MESSAGE_PACKETS_MAX, Requester } from "./requester.js";
import { Responder } from "./responder.js";
import { transmitReplies } from "./responder-replies.js";
import { ackTimeoutNs } from "./retransmit.js";
import { SendQueue } from "./send-queue.js";
import type { SgeTable } from "./sge-table.js";
import { Datagrams, MAD_BYTES } from "./ud.js";
import {
  isReadOrAtomic,
  type RecvWorkRequest,
  SEND_FLAG,
  type SendWorkRequest,
  WC_OPCODE,
  WC_STATUS,
  type WcOpcode,
  type WcStatus,
  WR_OPCODE,
} from "./work-request.js";

/** What `QpCore.query` gives. */
export interface QpQuery {
  readonly state: QpState;
  readonly port: number;
  readonly accessFlags: number;
  readonly qkey: number;
  readonly flow: Flow | null;
  readonly pathMtu: PathMtu;
  readonly destinationQpn: number;
  /** Next PSN expected, and next PSN to be given to a request. */
  readonly rqPsn: number;
  readonly sqPsn: number;
  readonly maxRdAtomic: number;
  readonly maxDestRdAtomic: number;
  readonly minRnrTimer: number;
  readonly timeout: number;
  readonly retryCount: number;
  readonly rnrRetry: number;
}

/** Completion opcodes by work request opcode. */
const SEND_WC_OPCODES: readonly WcOpcode[] = [
  WC_OPCODE.SEND,
  WC_OPCODE.SEND,
  WC_OPCODE.SEND,
  WC_OPCODE.RDMA_WRITE,
  WC_OPCODE.RDMA_WRITE,
  WC_OPCODE.RDMA_READ,
  WC_OPCODE.COMP_SWAP,
  WC_OPCODE.FETCH_ADD,
  WC_OPCODE.LOCAL_INV,
  WC_OPCODE.REG_MR,
];

/** One queue pair. Made and ended by its device. */
export class QpCore {
  readonly device: Device;
  /** Dense number of the queue pair in its device, free again after it. */
  readonly index: number;
  readonly qpn: number;
  readonly type: QpType;
  readonly pdIndex: number;
  readonly sendCq: CqCore;
  readonly recvCq: CqCore;
  readonly srq: SrqCore | null;
  state: QpState = QP_STATE.RESET;
  isDestroyed = false;
  /** RC: a valid packet of the peer has come since RTR; stands for the RTU (IBTA vol1 §12.9.6). */
  hasHeardPeer = false;
  /** The owner's: whatever leads from here to its own object. The device never looks. */
  userContext: unknown = null;

  /** Since its creation; a RESET changes nothing. */
  readonly counters = new QpCounters();

  /** Attributes; see `QpAttributes`. */
  port = 0;
  accessFlags = 0;
  qkey = 0;
  flow: Flow | null = null;
  pathMtu: PathMtu = 1024;
  destinationQpn = 0;
  maxRdAtomic = 0;
  maxDestRdAtomic = 0;
  minRnrTimer = 0;
  timeout = 0;
  ackTimeoutNs = Number.POSITIVE_INFINITY;
  retryCount = 0;
  rnrRetry = 0;
  private isDrainedWanted = false;

  /** Device only. */
  readonly sendQueue: SendQueue;
  readonly receiveQueue: ReceiveQueue;
  /** RC only, else null. */
  readonly requester: Requester | null;
  readonly responder: Responder | null;
  /** UD and GSI only, else null. */
  readonly datagrams: Datagrams | null;

  constructor(device: Device, index: number, qpn: number, init: QpInit) {
    this.device = device;
    this.index = index;
    this.qpn = qpn;
    this.type = init.type;
    this.pdIndex = init.pdIndex;
    this.sendCq = init.sendCq;
    this.recvCq = init.recvCq;
    this.srq = init.srq ?? null;
    this.sendQueue = new SendQueue({
      depth: init.maxSendWr,
      sgeCountMax: init.maxSendSge ?? 1,
      inlineBytesMax: init.maxInlineData ?? 0,
      signalAll: init.signalAll ?? false,
    });
    this.receiveQueue = init.srq?.queue ?? new ReceiveQueue(init.maxRecvWr, init.maxRecvSge ?? 1);
    const isRc = init.type === QP_TYPE.RC;
    this.requester = isRc ? new Requester(device, this) : null;
    this.responder = isRc ? new Responder(device, this) : null;
    this.datagrams = isRc ? null : new Datagrams(device, this);
    if (init.type === QP_TYPE.GSI) this.port = init.port ?? 0;
  }

  /** Requests posted and not retired. */
  get sendCount(): number {
    return this.sendQueue.count;
  }

  /** Receives posted and not taken, of its own queue or the shared one. */
  get recvCount(): number {
    return this.receiveQueue.count;
  }

  get hasReceive(): boolean {
    return this.receiveQueue.count > 0;
  }

  /** Every attribute as it is now; what was never set is 0. */
  query(): QpQuery {
    return {
      state: this.state,
      port: this.port,
      accessFlags: this.accessFlags,
      qkey: this.qkey,
      flow: this.flow,
      pathMtu: this.pathMtu,
      destinationQpn: this.destinationQpn,
      rqPsn: this.responder?.expectedPsn ?? 0,
      sqPsn: this.requester?.nextPsn ?? this.datagrams?.psn ?? 0,
      maxRdAtomic: this.maxRdAtomic,
      maxDestRdAtomic: this.maxDestRdAtomic,
      minRnrTimer: this.minRnrTimer,
      timeout: this.timeout,
      retryCount: this.retryCount,
      rnrRetry: this.rnrRetry,
    };
  }

  /**
   * Changes state or attributes (ibv_modify_qp(3)); all of it or, when it throws, nothing.
   * @throws FarpageError EINVAL naming both states and every attribute missing, superfluous or
   *   wrong.
   */
  modify(attributes: QpAttributes): void {
    if (this.isDestroyed) throw new FarpageError("EINVAL", "the queue pair has been destroyed");
    checkTransition(this.type, this.state, attributes);
    this.checkObjects(attributes);
    const from = this.state;
    const to = attributes.state ?? from;
    if (to === QP_STATE.ERR) {
      this.enterError();
      return;
    }
    if (to === QP_STATE.RESET) {
      this.reset();
      return;
    }
    this.apply(attributes);
    if (from === QP_STATE.INIT && to === QP_STATE.RTR) {
      this.responder?.begin(attributes.rqPsn ?? 0, this.maxDestRdAtomic);
      this.hasHeardPeer = false;
    }
    if (from === QP_STATE.RTR && to === QP_STATE.RTS) this.beginSending(attributes.sqPsn ?? 0);
    this.state = to;
    if (to === QP_STATE.RTS) this.device.activate(this);
    if (to === QP_STATE.SQD && from === QP_STATE.RTS) {
      this.isDrainedWanted = attributes.sqdNotify ?? false;
      this.noticeDrained();
    }
  }

  /**
   * Posts a send (ibv_post_send(3)); it leaves in the next `pump`. In ERR and SQE it completes as
   * flushed. The request object is the caller's again on return.
   * @returns 0; EINVAL for a request or a state that can't be; ENOMEM when the queue is full.
   */
  postSend(wr: SendWorkRequest): number {
    const { state } = this;
    if (state < QP_STATE.RTS || this.isDestroyed) return ERRNO.EINVAL;
    const lengthMax = this.datagrams === null ? this.checkConnected(wr) : this.checkDatagram(wr);
    if (lengthMax < 0) return ERRNO.EINVAL;
    const errno = this.sendQueue.post(wr, lengthMax, this.device.regions, this.pdIndex);
    if (errno !== 0) return errno;
    if (state === QP_STATE.RTS) this.device.activate(this);
    else if (state !== QP_STATE.SQD) this.flushSends();
    return 0;
  }

  /**
   * Posts a receive (ibv_post_recv(3)). In ERR it completes as flushed.
   * @returns 0; EINVAL for a request or a state that can't be, or when this queue pair takes its
   *   receives from an SRQ; ENOMEM when the queue is full.
   */
  postRecv(wr: RecvWorkRequest): number {
    if (this.state === QP_STATE.RESET || this.isDestroyed) return ERRNO.EINVAL;
    if (this.srq !== null) return ERRNO.EINVAL;
    const errno = this.receiveQueue.post(wr);
    if (errno === 0 && this.state === QP_STATE.ERR) this.flushReceives();
    return errno;
  }

  /** Device only: sends what is due. */
  transmit(nowNs: number, tx: TxBatch): Turn {
    if (this.state < QP_STATE.RTR || this.state === QP_STATE.ERR) return TURN.IDLE;
    if (this.datagrams !== null) return this.datagrams.transmit(tx);
    const replies = transmitReplies(this.responder as Responder, tx);
    if (replies === TURN.FULL) return TURN.FULL;
    const sends = this.canSend ? (this.requester as Requester).transmit(nowNs, tx) : TURN.IDLE;
    return sends === TURN.IDLE ? replies : sends;
  }

  /** Device only: pages that it or another queue pair waits for were served. */
  onPagesServed(): void {
    this.requester?.onPagesServed();
    this.device.activate(this);
  }

  /** Device only: bytes of the receive that comes next. Preconditions: `hasReceive`. */
  get nextReceiveBytes(): number {
    const queue = this.receiveQueue;
    return queue.sges.totals[queue.peekSlot()] as number;
  }

  /** Device only: copies the next receive's list to slot 0 of `sges`; the receive stays. */
  peekReceive(sges: SgeTable): void {
    const queue = this.receiveQueue;
    sges.copyFrom(0, queue.sges, queue.peekSlot());
  }

  /** Device only: takes the next receive. @returns its wrId; its list goes to slot 0 of `sges`. */
  takeReceive(sges: SgeTable | null): number {
    const queue = this.receiveQueue;
    const slot = queue.peekSlot();
    if (sges !== null) this.peekReceive(sges);
    const wrId = queue.wrIdOf(slot);
    if (this.srq === null) queue.take();
    else this.srq.take();
    return wrId;
  }

  /** Device only: the oldest request completes, and local operations behind it that have run. */
  completeHead(status: WcStatus, vendorError: number): void {
    this.popHead(status, vendorError);
    this.retire();
  }

  /** Device only: completes whatever at the head of the queue is finished or has failed. */
  retire(): void {
    const { sendQueue: queue, requester } = this;
    if (requester === null) return;
    while (queue.headIndex !== queue.tailIndex) {
      const hasFailed = requester.failedStatus !== WC_STATUS.SUCCESS;
      if (hasFailed && queue.headIndex === requester.failedIndex) {
        this.failHead(requester.failedStatus, 0);
        return;
      }
      if (queue.headIndex === queue.startedIndex) break;
      // A started request without packets is a local operation that has run.
      if (queue.packetCounts[queue.slotOf(queue.headIndex)] !== 0) break;
      if (requester.sendIndex === queue.headIndex) {
        requester.sendIndex = (requester.sendIndex + 1) | 0;
      }
      this.popHead(WC_STATUS.SUCCESS, 0);
    }
    if (this.state === QP_STATE.SQD) this.noticeDrained();
  }

  /** Device only: the oldest request fails, and the queue pair with it. */
  failHead(status: WcStatus, vendorError: number): void {
    if (this.state === QP_STATE.ERR) return;
    if (this.sendQueue.headIndex !== this.sendQueue.tailIndex) this.popHead(status, vendorError);
    this.enterError();
  }

  /** Device only: the oldest datagram can't be sent (IBTA vol1 §10.3.1.7: SQE, receives go on). */
  failDatagram(status: WcStatus): void {
    this.popHead(status, 0);
    this.state = QP_STATE.SQE;
    this.flushSends();
  }

  /** Moves to ERR: everything posted completes as flushed, nothing more is sent or received. */
  enterError(): void {
    if (this.state === QP_STATE.ERR || this.state === QP_STATE.RESET) return;
    this.state = QP_STATE.ERR;
    this.flushSends();
    this.requester?.reset();
    this.responder?.flush();
    this.flushReceives();
    this.device.setTimer(this, Number.POSITIVE_INFINITY);
    this.leaveWindows();
    if (this.srq !== null) this.device.raiseQpEvent(this, DEVICE_EVENT.QP_LAST_WQE_REACHED);
  }

  /** Forgets everything, completions that nobody has polled included (ibv_modify_qp(3), RESET). */
  reset(): void {
    this.state = QP_STATE.RESET;
    this.sendQueue.clear();
    if (this.srq === null) this.receiveQueue.clear();
    this.requester?.reset();
    this.responder?.reset();
    this.device.setTimer(this, Number.POSITIVE_INFINITY);
    this.leaveWindows();
    this.sendCq.removeCompletionsOf(this.qpn);
    this.recvCq.removeCompletionsOf(this.qpn);
    this.hasHeardPeer = false;
    this.setFlow(null);
    this.isDrainedWanted = false;
  }

  checkInvariants(): void {
    this.requester?.checkInvariants();
    this.responder?.checkInvariants();
    const isStill = this.state === QP_STATE.RESET || this.state === QP_STATE.ERR;
    assert(!isStill || this.sendQueue.count === 0, "nothing is posted in RESET or ERR");
    if (this.srq === null) {
      assert(!isStill || this.receiveQueue.count === 0, "no receive waits in RESET or ERR");
    }
  }

  private get canSend(): boolean {
    return this.state === QP_STATE.RTS || this.state === QP_STATE.SQD;
  }

  /** What `checkTransition` can't see: objects, and limits that are this device's. */
  private checkObjects(attributes: QpAttributes): void {
    const { port, addressVector, pathMtu } = attributes;
    const ports = this.device.addresses.length;
    const refuse = (why: string): never => {
      throw new FarpageError("EINVAL", why);
    };
    if (port !== undefined && !(port >= 0 && port < ports))
      refuse(`the device has no port ${port}`);
    if (this.type === QP_TYPE.GSI && port !== undefined && port !== this.port) {
      refuse("a GSI stays on its port");
    }
    const portAfter = port ?? this.port;
    const flow = addressVector?.flow;
    if (flow !== undefined && !(flow instanceof Flow && flow.port === portAfter)) {
      refuse(`the address vector is not a flow of port ${portAfter} of this device`);
    }
    const mtuMax = this.device.activeMtus[portAfter] as number;
    if (pathMtu !== undefined && pathMtu > mtuMax) {
      refuse(`path MTU ${pathMtu} is above the port's ${mtuMax}`);
    }
    const isConnectionChanged = flow !== undefined || attributes.maxRdAtomic !== undefined;
    if (this.state === QP_STATE.SQD && isConnectionChanged && !this.isDrained) {
      refuse("the send queue has not drained yet");
    }
  }

  private apply(attributes: QpAttributes): void {
    this.port = attributes.port ?? this.port;
    this.accessFlags = attributes.accessFlags ?? this.accessFlags;
    this.qkey = this.type === QP_TYPE.GSI ? QKEY_GSI : (attributes.qkey ?? this.qkey);
    this.setFlow((attributes.addressVector?.flow as Flow | undefined) ?? this.flow);
    this.pathMtu = attributes.pathMtu ?? this.pathMtu;
    this.destinationQpn = attributes.destinationQpn ?? this.destinationQpn;
    this.maxRdAtomic = attributes.maxRdAtomic ?? this.maxRdAtomic;
    this.maxDestRdAtomic = attributes.maxDestRdAtomic ?? this.maxDestRdAtomic;
    this.minRnrTimer = attributes.minRnrTimer ?? this.minRnrTimer;
    this.timeout = attributes.timeout ?? this.timeout;
    this.ackTimeoutNs = ackTimeoutNs(this.timeout);
    this.retryCount = attributes.retryCount ?? this.retryCount;
    this.rnrRetry = attributes.rnrRetry ?? this.rnrRetry;
  }

  private beginSending(psn: number): void {
    if (this.requester !== null) this.requester.begin(psn);
    else if (this.datagrams !== null) this.datagrams.psn = psn;
  }

  /** @returns the longest message, -1 for a request that no RC queue pair in this state takes. */
  private checkConnected(wr: SendWorkRequest): number {
    if (isReadOrAtomic(wr.opcode) && this.maxRdAtomic === 0) return -1;
    return this.pathMtu * MESSAGE_PACKETS_MAX;
  }

  private checkDatagram(wr: SendWorkRequest): number {
    if (wr.opcode !== WR_OPCODE.SEND && wr.opcode !== WR_OPCODE.SEND_WITH_IMM) return -1;
    const flow = wr.destination?.flow;
    if (!(flow instanceof Flow) || flow.port !== this.port) return -1;
    if (this.type !== QP_TYPE.GSI) return this.device.activeMtus[this.port] as number;
    let length = 0;
    for (let i = 0; i < wr.sgeCount; i++) length += wr.sges[i]?.length ?? 0;
    return length === MAD_BYTES ? MAD_BYTES : -1;
  }

  private popHead(status: WcStatus, vendorError: number): void {
    const { sendQueue: queue, requester } = this;
    const slot = queue.slotOf(queue.headIndex);
    const opcode = queue.opcodes[slot] as number;
    const isSignaled = ((queue.flags[slot] as number) & SEND_FLAG.SIGNALED) !== 0;
    const wrId = queue.wrIds[slot] as number;
    const bytes = queue.lengths[slot] as number;
    queue.retireHead();
    if (requester !== null) requester.unaPacket = 0;
    if (status === WC_STATUS.SUCCESS && !isSignaled) return;
    const wcOpcode = SEND_WC_OPCODES[opcode] as WcOpcode;
    this.sendCq.push(wrId, status, wcOpcode, 0, bytes, 0, this.qpn, 0, vendorError, false);
  }

  private flushSends(): void {
    const { sendQueue: queue } = this;
    while (queue.headIndex !== queue.tailIndex) this.popHead(WC_STATUS.WR_FLUSH_ERR, 0);
  }

  private flushReceives(): void {
    if (this.srq !== null) return;
    while (this.receiveQueue.count > 0) {
      const wrId = this.takeReceive(null);
      const status = WC_STATUS.WR_FLUSH_ERR;
      this.recvCq.push(wrId, status, WC_OPCODE.RECV, 0, 0, 0, this.qpn, 0, 0, false);
    }
  }

  private setFlow(flow: Flow | null): void {
    if (this.flow !== null) this.flow.window.userCount--;
    this.flow = flow;
    if (flow !== null) flow.window.userCount++;
  }

  private leaveWindows(): void {
    this.flow?.window.removeWaiter(this.index);
    this.device.readWindow.removeWaiter(this.index);
  }

  private get isDrained(): boolean {
    // Datagrams complete as they are sent: none is ever half done.
    return this.requester === null || this.sendQueue.headIndex === this.sendQueue.startedIndex;
  }

  private noticeDrained(): void {
    if (!this.isDrainedWanted || !this.isDrained) return;
    this.isDrainedWanted = false;
    this.device.raiseQpEvent(this, DEVICE_EVENT.SQ_DRAINED);
  }
}
