// SPDX-License-Identifier: MIT
// The sending half of an RC requester: takes requests from the send queue, gives them PSNs, cuts
// them into packets (IBTA vol1 §9.7; facts page, sections 5 and 11). What comes back is
// completer.ts's, what gets lost retransmit.ts's; all three work on the state that this class
// holds.
//
// The state in one picture (PSNs, modulo 2^24):
//
//     unaPsn <= sendPsn <= maxPsn                 nextPsn: given to the next request that starts
//     oldest     next to   never
//     unacked    send      sent from here on      idle: all four are equal
//
// sendPsn falls back to unaPsn when something was lost (go-back-N) and catches up with maxPsn
// again.
//
// A READ longer than the share of the receive buffer that it may fill is asked for in pieces:
// several READ requests on consecutive PSNs look to the responder like several READs, and need
// exactly the PSNs that one would have.

import { assert, PSN_MASK, psnAdd, psnDiff } from "../base/index.js";
import {
  BTH_BYTES,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  OPCODE_HEADER_BYTES,
  RC,
  writeIeth,
  writeImmediate,
  writeReth,
} from "../wire/index.js";
import { costOfPackets, PACKET_OVERHEAD_BYTES } from "./byte-window.js";
import type { Device } from "./device.js";
import type { Flow } from "./flow.js";
import type { TxBatch } from "./link.js";
import {
  beginPacket,
  finishPacket,
  packetBytes,
  TURN,
  TURN_BYTES,
  type Turn,
} from "./packet-io.js";
import { QP_STATE } from "./qp-state.js";
import type { QpCore } from "./queue-pair.js";
import { hasSource, hasTarget } from "./requester-pages.js";
import { writeReadRequest } from "./requester-reads.js";
import {
  PROBE_STAGE,
  type ProbeStage,
  REQUESTER_STAGE,
  type RequesterStage,
} from "./requester-stage.js";
import { armTimers } from "./retransmit.js";
import type { SendQueue } from "./send-queue.js";
import {
  ACCESS,
  isReadOrAtomic,
  SEND_FLAG,
  WC_STATUS,
  type WcStatus,
  WR_OPCODE,
} from "./work-request.js";

/** What a step of the sender came to, when it sent nothing; more than 0 is the bytes it sent. */
const STEP_BLOCKED = 0;
const STEP_FULL = -1;
/** A local operation was run: a turn's budget must shrink by something. */
const STEP_LOCAL = 64;

/** An acknowledgement is asked for at least every so many packets (rxe's window is 128). */
const ACK_REQUEST_PACKETS = 64;
/**
 * Most PSNs between the oldest unacknowledged and the newest: half the space (IBTA vol1 §9.7.2).
 */
const PSN_SPAN_MAX = (1 << 23) - 1;
/** Most packets of one message, so that a whole one always fits the span. */
export const MESSAGE_PACKETS_MAX = 1 << 22;

/** Opcodes by work request opcode and position: FIRST, MIDDLE, LAST, ONLY. */
const DATA_OPCODES = Uint8Array.of(
  ...[RC.SEND_FIRST, RC.SEND_MIDDLE, RC.SEND_LAST, RC.SEND_ONLY],
  ...[RC.SEND_FIRST, RC.SEND_MIDDLE, RC.SEND_LAST_IMM, RC.SEND_ONLY_IMM],
  ...[RC.SEND_FIRST, RC.SEND_MIDDLE, RC.SEND_LAST_INV, RC.SEND_ONLY_INV],
  ...[RC.WRITE_FIRST, RC.WRITE_MIDDLE, RC.WRITE_LAST, RC.WRITE_ONLY],
  ...[RC.WRITE_FIRST, RC.WRITE_MIDDLE, RC.WRITE_LAST_IMM, RC.WRITE_ONLY_IMM],
);

/** The send side of one RC queue pair. */
export class Requester {
  readonly device: Device;
  readonly qp: QpCore;
  readonly queue: SendQueue;
  stage: RequesterStage = REQUESTER_STAGE.RUN;

  nextPsn = 0;
  unaPsn = 0;
  sendPsn = 0;
  maxPsn = 0;
  /** Packet of the queue's head at which `unaPsn` is. */
  unaPacket = 0;
  /** Request and its packet at which `sendPsn` is. */
  sendIndex = 0;
  sendPacket = 0;

  /** A request could not be executed here: it completes with this status when it is the oldest. */
  failedStatus: WcStatus = WC_STATUS.SUCCESS;
  failedIndex = 0;

  /** READ and atomic requests sent and not answered in full, 0 .. maxRdAtomic. */
  readsOutstanding = 0;
  /** What this queue pair has taken from the flow's window and from the device's READ window. */
  sendTaken = 0;
  readTaken = 0;
  packetsSinceAckRequest = 0;
  costSinceAckRequest = 0;

  retriesLeft = 0;
  rnrRetriesLeft = 0;
  /** Went back already: further sequence NAKs tell nothing new until something is acknowledged. */
  isRecovering = false;
  ackDeadlineNs = Number.POSITIVE_INFINITY;
  rnrDeadlineNs = Number.POSITIVE_INFINITY;
  probeDeadlineNs = Number.POSITIVE_INFINITY;
  probeStage: ProbeStage = PROBE_STAGE.NONE;
  probeCount = 0;
  /** First PSN that the running probe did not repeat, and the first that was unsent at the time. */
  probeEndPsn = 0;
  probeSendPsn = 0;
  /** The READ or atomic whose place in on-demand memory was asked for; -1 if none. */
  pagesAskedPsn = -1;
  /** The packet whose round trip is being measured, -1 if none. */
  timedPsn = -1;
  timedNs = 0;

  constructor(device: Device, qp: QpCore) {
    this.device = device;
    this.qp = qp;
    this.queue = qp.sendQueue;
  }

  /** On the way to RTS: the first PSN to send. */
  begin(psn: number): void {
    this.nextPsn = psn;
    this.unaPsn = psn;
    this.sendPsn = psn;
    this.maxPsn = psn;
    this.retriesLeft = this.qp.retryCount;
    this.rnrRetriesLeft = this.qp.rnrRetry;
  }

  /** Whether anything sent is not acknowledged (as far as this pass over the queue has come). */
  get isOutstanding(): boolean {
    return this.unaPsn !== this.sendPsn;
  }

  /** Sends what may be sent, at most about `TURN_BYTES`. */
  transmit(nowNs: number, tx: TxBatch): Turn {
    if (this.stage !== REQUESTER_STAGE.RUN) return TURN.IDLE;
    if (this.probeStage === PROBE_STAGE.DUE && !this.sendProbe(tx)) return TURN.FULL;
    if (this.isWaitingForPages) return TURN.IDLE;
    for (let budget = TURN_BYTES; budget > 0; ) {
      const step = this.step(nowNs, tx);
      if (step === STEP_FULL) return TURN.FULL;
      if (step === STEP_BLOCKED) return TURN.IDLE;
      budget -= step;
    }
    return TURN.MORE;
  }

  /** Faults were served, of this queue pair's or others' pages: it looks for itself. */
  onPagesServed(): void {
    if (this.isWaitingForPages) this.stage = REQUESTER_STAGE.RUN;
  }

  /** Number of the piece of a READ, and so of its request, that ends behind packet `packet`. */
  readPieceEnd(slot: number, packet: number): number {
    const piece = this.device.readPieceBytes / this.qp.pathMtu;
    const end = (Math.floor(packet / piece) + 1) * piece;
    return Math.min(end, this.queue.packetCounts[slot] as number);
  }

  /** Gives up request `index`: it completes with `status` as soon as it is the oldest. */
  fail(index: number, status: WcStatus): void {
    this.failedIndex = index;
    this.failedStatus = status;
    this.qp.retire();
  }

  /** Forgets all state but the queue's contents. */
  reset(): void {
    this.releaseAll();
    this.stage = REQUESTER_STAGE.RUN;
    this.begin(0);
    this.unaPacket = 0;
    this.sendIndex = this.queue.tailIndex;
    this.sendPacket = 0;
    this.failedStatus = WC_STATUS.SUCCESS;
    this.isRecovering = false;
    this.probeStage = PROBE_STAGE.NONE;
    this.probeCount = 0;
    this.timedPsn = -1;
    this.pagesAskedPsn = -1;
    this.ackDeadlineNs = Number.POSITIVE_INFINITY;
    this.rnrDeadlineNs = Number.POSITIVE_INFINITY;
    this.probeDeadlineNs = Number.POSITIVE_INFINITY;
  }

  /** Gives back all that this queue pair has taken from windows. */
  releaseAll(): void {
    const flow = this.qp.flow;
    if (flow !== null) {
      flow.window.release(this.sendTaken);
      this.sendTaken = 0;
      this.device.wakeOne(flow.window);
    }
    this.device.readWindow.release(this.readTaken);
    this.readTaken = 0;
    this.device.wakeOne(this.device.readWindow);
    this.readsOutstanding = 0;
  }

  checkInvariants(): void {
    const { queue } = this;
    queue.checkInvariants();
    assert(psnDiff(this.sendPsn, this.unaPsn) >= 0, "nothing is sent before the oldest unacked");
    assert(psnDiff(this.maxPsn, this.sendPsn) >= 0, "maxPsn is the newest");
    assert(psnDiff(this.nextPsn, this.maxPsn) >= 0, "only numbered packets are sent");
    assert(this.isOutstanding || this.sendTaken === 0, "an idle queue pair holds no window");
    assert(this.isOutstanding || this.readTaken === 0, "an idle queue pair holds no READ window");
    assert(this.isOutstanding || this.readsOutstanding === 0, "an idle queue pair awaits no data");
    assert(this.readsOutstanding <= this.qp.maxRdAtomic, "READs stay below the initiator depth");
    if (queue.headIndex !== queue.startedIndex) {
      const first = queue.firstPsns[queue.slotOf(queue.headIndex)] as number;
      assert(psnAdd(first, this.unaPacket) === this.unaPsn, "unaPsn is inside the oldest request");
    }
  }

  private get isWaitingForPages(): boolean {
    return this.stage === REQUESTER_STAGE.WAIT_PAGES;
  }

  private step(nowNs: number, tx: TxBatch): number {
    const { queue } = this;
    if (this.sendIndex === queue.tailIndex) return STEP_BLOCKED;
    if (this.failedStatus !== WC_STATUS.SUCCESS && this.sendIndex === this.failedIndex) {
      return STEP_BLOCKED;
    }
    const slot = queue.slotOf(this.sendIndex);
    if (this.sendIndex === queue.startedIndex && !this.start(slot)) return STEP_BLOCKED;
    if (queue.packetCounts[slot] === 0) {
      // Was run when it started; a second pass over the queue must not run it again.
      this.sendIndex = (this.sendIndex + 1) | 0;
      this.qp.retire();
      return STEP_LOCAL;
    }
    return isReadOrAtomic(queue.opcodes[slot] as number)
      ? this.stepRead(slot, nowNs, tx)
      : this.stepData(slot, nowNs, tx);
  }

  /** Begins the next request: checks what must hold, gives it PSNs or runs it. */
  private start(slot: number): boolean {
    const { queue, qp } = this;
    if (qp.state !== QP_STATE.RTS) return false;
    const opcode = queue.opcodes[slot] as number;
    const isFenced = ((queue.flags[slot] as number) & SEND_FLAG.FENCE) !== 0;
    if (isFenced && this.readsOutstanding > 0) return false;
    if (opcode >= WR_OPCODE.LOCAL_INV) return this.startLocal(slot, opcode);
    const length = queue.lengths[slot] as number;
    const count = Math.max(1, Math.ceil(length / qp.pathMtu));
    if (psnDiff(this.nextPsn, this.unaPsn) + count > PSN_SPAN_MAX) return false;
    const access = isReadOrAtomic(opcode) ? ACCESS.LOCAL_WRITE : 0;
    const { regions } = this.device;
    if (!queue.isInline(slot) && !queue.sges.resolve(slot, regions, qp.pdIndex, access)) {
      this.fail(this.sendIndex, WC_STATUS.LOC_PROT_ERR);
      return false;
    }
    queue.firstPsns[slot] = this.nextPsn;
    queue.packetCounts[slot] = count;
    this.nextPsn = psnAdd(this.nextPsn, count);
    queue.startedIndex = (queue.startedIndex + 1) | 0;
    return true;
  }

  /** Runs REG_MR or LOCAL_INV, once in its life, in its place in the queue. */
  private startLocal(slot: number, opcode: number): boolean {
    const { queue, qp } = this;
    const { regions } = this.device;
    const key = queue.keys[slot] as number;
    let isDone: boolean;
    if (opcode === WR_OPCODE.LOCAL_INV) {
      // A retransmission of anything earlier may still need the region.
      if (queue.headIndex !== this.sendIndex) return false;
      isDone = regions.invalidate(qp.pdIndex, key);
    } else {
      isDone = regions.registerFast(
        qp.pdIndex,
        queue.regionIndexes[slot] as number,
        key,
        queue.compareHighs[slot] as number,
        queue.compareLows[slot] as number,
        queue.registerAddresses[slot] as number,
        queue.lengths[slot] as number,
      );
    }
    if (!isDone) {
      this.fail(this.sendIndex, WC_STATUS.LOC_QP_OP_ERR);
      return false;
    }
    queue.startedIndex = (queue.startedIndex + 1) | 0;
    return true;
  }

  /** Sends one packet of a SEND or WRITE. */
  private stepData(slot: number, nowNs: number, tx: TxBatch): number {
    const flow = this.qp.flow as Flow;
    const mtu = this.qp.pathMtu;
    const packet = this.sendPacket;
    const payload = Math.min(mtu, (this.queue.lengths[slot] as number) - packet * mtu);
    const cost = payload + PACKET_OVERHEAD_BYTES;
    // One packet may always go: others' lost packets must not hold this queue pair up.
    if (!flow.window.hasRoom(cost) && this.sendTaken > 0) {
      flow.window.wait(this.qp.index, cost);
      return STEP_BLOCKED;
    }
    const isLast = packet + 1 === this.queue.packetCounts[slot];
    const ackRequest =
      isLast ||
      this.packetsSinceAckRequest + 1 >= ACK_REQUEST_PACKETS ||
      this.costSinceAckRequest + cost >= flow.window.limitBytes / 4 ||
      !flow.window.hasRoom(2 * cost);
    const length = this.writeData(slot, packet, ackRequest, tx);
    if (length <= 0) return length;
    flow.window.take(cost);
    this.sendTaken += cost;
    this.costSinceAckRequest = ackRequest ? 0 : this.costSinceAckRequest + cost;
    this.packetsSinceAckRequest = ackRequest ? 0 : this.packetsSinceAckRequest + 1;
    this.advance(slot, packet + 1, nowNs);
    return length;
  }

  /** Sends the request for (a piece of) a READ, or an atomic. */
  private stepRead(slot: number, nowNs: number, tx: TxBatch): number {
    if (this.readsOutstanding >= this.qp.maxRdAtomic) return STEP_BLOCKED;
    const packet = this.sendPacket;
    const end = this.readPieceEnd(slot, packet);
    const bytes = this.queue.lengths[slot] as number;
    const cost = costOfPackets(bytes, this.qp.pathMtu, packet, end);
    const window = this.device.readWindow;
    if (!window.hasRoom(cost) && this.readTaken > 0) {
      window.wait(this.qp.index, cost);
      return STEP_BLOCKED;
    }
    if (this.queue.sges.isPaged(slot) && !hasTarget(this, slot, packet, end)) return STEP_BLOCKED;
    const length = writeReadRequest(this, slot, packet, tx);
    if (length <= 0) return length;
    window.take(cost);
    this.readTaken += cost;
    this.readsOutstanding++;
    this.advance(slot, end, nowNs);
    return length;
  }

  /** Moves the cursor over packets just sent. */
  private advance(slot: number, toPacket: number, nowNs: number): void {
    const { queue } = this;
    const wasOutstanding = this.isOutstanding;
    const psn = this.sendPsn;
    this.sendPsn = (psn + toPacket - this.sendPacket) & PSN_MASK;
    if (psnDiff(this.sendPsn, this.maxPsn) > 0) {
      if (this.timedPsn < 0 && psn === this.maxPsn) {
        this.timedPsn = psn;
        this.timedNs = nowNs;
      }
      this.maxPsn = this.sendPsn;
    } else {
      this.device.counters.packetsRetransmitted++;
      this.qp.counters.packetsRetransmitted++;
    }
    if (toPacket === queue.packetCounts[slot]) {
      this.sendIndex = (this.sendIndex + 1) | 0;
      this.sendPacket = 0;
    } else {
      this.sendPacket = toPacket;
    }
    if (!wasOutstanding) armTimers(this, nowNs);
  }

  /** Repeats the oldest unacknowledged packet, asking for an answer. @returns false when full. */
  private sendProbe(tx: TxBatch): boolean {
    const { queue } = this;
    const slot = queue.slotOf(queue.headIndex);
    const isRead = isReadOrAtomic(queue.opcodes[slot] as number);
    const length = isRead
      ? writeReadRequest(this, slot, this.unaPacket, tx)
      : this.writeData(slot, this.unaPacket, true, tx);
    if (length === STEP_FULL) return false;
    if (length === STEP_BLOCKED) return true;
    const end = isRead ? this.readPieceEnd(slot, this.unaPacket) : this.unaPacket + 1;
    this.probeStage = PROBE_STAGE.SENT;
    this.probeEndPsn = psnAdd(this.unaPsn, end - this.unaPacket);
    this.probeSendPsn = this.sendPsn;
    // A sample could now be of either transmission.
    this.timedPsn = -1;
    return true;
  }

  /** Writes packet `packet` of a SEND or WRITE. @returns its bytes, STEP_FULL, or STEP_BLOCKED. */
  private writeData(slot: number, packet: number, ackRequest: boolean, tx: TxBatch): number {
    const { queue, qp } = this;
    const flow = qp.flow as Flow;
    const mtu = qp.pathMtu;
    const count = queue.packetCounts[slot] as number;
    const bytes = queue.lengths[slot] as number;
    const payload = Math.min(mtu, bytes - packet * mtu);
    const isLast = packet + 1 === count;
    const position = count === 1 ? 3 : isLast ? 2 : packet === 0 ? 0 : 1;
    const opcode = DATA_OPCODES[(queue.opcodes[slot] as number) * 4 + position] as number;
    const flags = OPCODE_FLAGS[opcode] as number;
    const headerBytes = OPCODE_HEADER_BYTES[opcode] as number;
    const length = packetBytes(headerBytes, payload);
    const isPaged = queue.sges.isPaged(slot) && !queue.isInline(slot);
    if (isPaged && payload > 0 && !hasSource(this, slot, packet * mtu, payload)) {
      return STEP_BLOCKED;
    }
    const at = tx.reserve(flow, length);
    if (at < 0) return STEP_FULL;

    const isSolicited = isLast && ((queue.flags[slot] as number) & SEND_FLAG.SOLICITED) !== 0;
    const psn = psnAdd(queue.firstPsns[slot] as number, packet);
    beginPacket(tx, at, opcode, isSolicited, payload, qp.destinationQpn, ackRequest, psn);
    let extended = at + BTH_BYTES;
    if ((flags & OPCODE_FLAG.HAS_RETH) !== 0) {
      const high = queue.addressHighs[slot] as number;
      const low = queue.addressLows[slot] as number;
      writeReth(tx.view, extended, high, low, queue.keys[slot] as number, bytes);
      extended += 16;
    }
    if ((flags & OPCODE_FLAG.HAS_IMM) !== 0) {
      writeImmediate(tx.view, extended, queue.immediates[slot] as number);
    } else if ((flags & OPCODE_FLAG.HAS_IETH) !== 0) {
      writeIeth(tx.view, extended, queue.keys[slot] as number);
    }
    if (queue.isInline(slot)) {
      queue.copyInlineTo(slot, packet * mtu, payload, tx.bytes, at + headerBytes);
    } else if (!this.gather(slot, packet * mtu, payload, tx, at + headerBytes)) {
      return STEP_BLOCKED;
    }
    finishPacket(qp, tx, flow, at, length);
    return length;
  }

  private gather(slot: number, position: number, length: number, tx: TxBatch, at: number): boolean {
    const { sges } = this.queue;
    if (sges.gather(slot, this.device.regions, position, length, tx.bytes, at)) return true;
    // The region was closed under a request that still needed it.
    this.fail(this.indexOfSlot(slot), WC_STATUS.LOC_PROT_ERR);
    return false;
  }

  /** Stages only: the request in `slot`, the oldest or the one at the cursor. */
  indexOfSlot(slot: number): number {
    const { queue } = this;
    return slot === queue.slotOf(this.sendIndex) ? this.sendIndex : queue.headIndex;
  }
}
