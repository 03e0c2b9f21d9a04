// SPDX-License-Identifier: MIT
// The receiving half of an RC requester: acknowledgements, NAKs, READ responses and atomic results
// (IBTA vol1 §9.7.5, §9.7.6; facts page, section 11). Works on the state of a `Requester`.
//
// Requests complete strictly in order. A response for PSN p acknowledges every SEND and WRITE
// before it; it can't acknowledge a READ or atomic, whose own response must come first. A later one
// shows that it was lost ("implied NAK").

import { psnAdd, psnDiff } from "../base/index.js";
import {
  AETH_KIND,
  aethSyndrome,
  atomicAckEthOriginalHigh,
  atomicAckEthOriginalLow,
  OPCODE_FLAG,
  rnrTimerNs,
  SYNDROME,
  syndromeKind,
  syndromeValue,
} from "../wire/index.js";
import { type ByteWindow, costOfPackets } from "./byte-window.js";
import { DROP_REASON, type DropReason } from "./counters.js";
import type { Flow } from "./flow.js";
import { writeNative64 } from "./native64.js";
import type { RxPacket } from "./packet-io.js";
import { PAGES } from "./region-pages.js";
import type { Requester } from "./requester.js";
import { waitForPages } from "./requester-pages.js";
import { PROBE_STAGE, REQUESTER_STAGE } from "./requester-stage.js";
import {
  armTimers,
  goBack,
  onLoss,
  onProbeProgress,
  publishDeadline,
  retry,
} from "./retransmit.js";
import { isReadOrAtomic, WC_STATUS, type WcStatus, WR_OPCODE } from "./work-request.js";

/** rnr_retry 7 has no end. */
const RNR_RETRY_FOR_EVER = 7;

/** Takes a response. The packet's shape, ICRC and addresses have been checked; nothing else has. */
export function onResponse(requester: Requester, packet: RxPacket, nowNs: number): DropReason {
  const { psn, flags } = packet;
  if (psnDiff(psn, requester.maxPsn) >= 0) return DROP_REASON.RESPONSE_UNSENT;
  if (psnDiff(psn, requester.unaPsn) < 0) return DROP_REASON.RESPONSE_STALE;
  if ((flags & OPCODE_FLAG.READ_RESPONSE) !== 0) return onReadResponse(requester, packet, nowNs);
  if ((flags & OPCODE_FLAG.HAS_ATOMIC_ACK) !== 0) return onAtomicAck(requester, packet, nowNs);
  const syndrome = aethSyndrome(packet.view, packet.extended);
  switch (syndromeKind(syndrome)) {
    case AETH_KIND.ACK:
      return onAck(requester, psn, nowNs);
    case AETH_KIND.RNR_NAK:
      return onRnrNak(requester, psn, syndrome, nowNs);
    case AETH_KIND.NAK:
      return onNak(requester, psn, syndrome, nowNs);
    default:
      return onBadResponse(requester, syndrome);
  }
}

function onAck(requester: Requester, psn: number, nowNs: number): DropReason {
  const before = requester.unaPsn;
  const isWhole = acknowledge(requester, psn);
  if (requester.unaPsn !== before) afterProgress(requester, nowNs);
  return isWhole ? DROP_REASON.NONE : onImpliedNak(requester, nowNs);
}

function onRnrNak(requester: Requester, psn: number, syndrome: number, nowNs: number): DropReason {
  if (requester.stage === REQUESTER_STAGE.WAIT_RNR) return DROP_REASON.NAK_REPEATED;
  if (!acknowledgeBefore(requester, psn, nowNs)) return onImpliedNak(requester, nowNs);
  if (requester.queue.headIndex === requester.queue.startedIndex) return DROP_REASON.NONE;
  const { qp } = requester;
  const { counters } = requester.device;
  counters.rnrNaksReceived++;
  qp.counters.rnrNaksReceived++;
  if (requester.rnrRetriesLeft === 0) {
    counters.retriesExceeded++;
    qp.counters.retriesExceeded++;
    qp.failHead(WC_STATUS.RNR_RETRY_EXC_ERR, syndrome);
    return DROP_REASON.NONE;
  }
  if (requester.rnrRetriesLeft !== RNR_RETRY_FOR_EVER) requester.rnrRetriesLeft--;
  goBack(requester);
  requester.stage = REQUESTER_STAGE.WAIT_RNR;
  requester.rnrDeadlineNs = nowNs + rnrTimerNs(syndromeValue(syndrome));
  // What was behind the refused packet was dropped and is NAKed: no reason to send it before that.
  requester.isRecovering = true;
  publishDeadline(requester);
  return DROP_REASON.NONE;
}

function onNak(requester: Requester, psn: number, syndrome: number, nowNs: number): DropReason {
  const { qp } = requester;
  const { counters } = requester.device;
  if (syndrome === SYNDROME.NAK_PSN_SEQUENCE) {
    counters.sequenceNaksReceived++;
    qp.counters.sequenceNaksReceived++;
    if (!acknowledgeBefore(requester, psn, nowNs)) return onImpliedNak(requester, nowNs);
    if (requester.isRecovering) return DROP_REASON.NAK_REPEATED;
    startRecovery(requester, nowNs);
    return DROP_REASON.NONE;
  }
  let status: WcStatus;
  switch (syndrome) {
    case SYNDROME.NAK_INVALID_REQUEST:
      counters.invalidRequestNaksReceived++;
      qp.counters.invalidRequestNaksReceived++;
      status = WC_STATUS.REM_INV_REQ_ERR;
      break;
    case SYNDROME.NAK_REMOTE_ACCESS:
      counters.accessNaksReceived++;
      qp.counters.accessNaksReceived++;
      status = WC_STATUS.REM_ACCESS_ERR;
      break;
    case SYNDROME.NAK_REMOTE_OPERATIONAL:
      counters.operationalNaksReceived++;
      qp.counters.operationalNaksReceived++;
      status = WC_STATUS.REM_OP_ERR;
      break;
    default:
      return onBadResponse(requester, syndrome);
  }
  if (!acknowledgeBefore(requester, psn, nowNs)) return onImpliedNak(requester, nowNs);
  qp.failHead(status, syndrome);
  return DROP_REASON.NONE;
}

/** Goes back because of a loss that a response has shown. Counts as a retry. */
function startRecovery(requester: Requester, nowNs: number): void {
  onLoss(requester, nowNs);
  if (retry(requester)) requester.isRecovering = true;
  publishDeadline(requester);
}

/** A response beyond a READ or atomic that is not answered: the answer was lost. */
function onImpliedNak(requester: Requester, nowNs: number): DropReason {
  if (requester.isRecovering || requester.stage === REQUESTER_STAGE.WAIT_RNR) {
    return DROP_REASON.RESPONSE_AHEAD;
  }
  requester.device.counters.impliedNaks++;
  requester.qp.counters.impliedNaks++;
  startRecovery(requester, nowNs);
  return DROP_REASON.RESPONSE_AHEAD;
}

/** A response that fits nothing: the connection is beyond repair (IBTA vol1 §9.9.2.4.1). */
function onBadResponse(requester: Requester, syndrome: number): DropReason {
  requester.qp.failHead(WC_STATUS.BAD_RESP_ERR, syndrome);
  return DROP_REASON.NONE;
}

function onReadResponse(requester: Requester, packet: RxPacket, nowNs: number): DropReason {
  const { queue, qp } = requester;
  const { flags, psn, payloadLength } = packet;
  const isCovered = acknowledgeBefore(requester, psn, nowNs);
  if (!isCovered) return onImpliedNak(requester, nowNs);
  const slot = queue.slotOf(queue.headIndex);
  const hasAeth = (flags & OPCODE_FLAG.HAS_AETH) !== 0;
  const syndrome = hasAeth ? aethSyndrome(packet.view, packet.extended) : 0;
  if (!isStarted(requester) || queue.opcodes[slot] !== WR_OPCODE.RDMA_READ) {
    return onBadResponse(requester, syndrome);
  }
  const index = requester.unaPacket;
  const position = index * qp.pathMtu;
  const bytes = Math.min(qp.pathMtu, (queue.lengths[slot] as number) - position);
  const endsPiece = index + 1 === requester.readPieceEnd(slot, index);
  const isEnd = (flags & OPCODE_FLAG.ENDS_MESSAGE) !== 0;
  // A repeated READ may begin with MIDDLE or LAST (rxe) or FIRST or ONLY (others); where it ends is
  // the same for all.
  if (payloadLength !== bytes || isEnd !== endsPiece || syndromeKind(syndrome) !== AETH_KIND.ACK) {
    return onBadResponse(requester, syndrome);
  }
  const { regions } = requester.device;
  if (queue.sges.isPaged(slot) && bytes > 0) {
    const result = queue.sges.ready(slot, regions, position, bytes, true);
    if (result === PAGES.WAITING) return onPageAbsent(requester);
    if (result === PAGES.REFUSED) {
      qp.failHead(WC_STATUS.LOC_PROT_ERR, 0);
      return DROP_REASON.NONE;
    }
  }
  const { bytes: source, payloadOffset } = packet;
  if (!queue.sges.scatter(slot, regions, position, bytes, source, payloadOffset)) {
    qp.failHead(WC_STATUS.LOC_PROT_ERR, 0);
    return DROP_REASON.NONE;
  }
  advanceHead(requester, slot, index + 1);
  afterProgress(requester, nowNs);
  return DROP_REASON.NONE;
}

function onAtomicAck(requester: Requester, packet: RxPacket, nowNs: number): DropReason {
  const { queue, qp } = requester;
  if (!acknowledgeBefore(requester, packet.psn, nowNs)) return onImpliedNak(requester, nowNs);
  const syndrome = aethSyndrome(packet.view, packet.extended);
  const slot = queue.slotOf(queue.headIndex);
  const opcode = queue.opcodes[slot] as number;
  const isAtomic = isReadOrAtomic(opcode) && opcode !== WR_OPCODE.RDMA_READ;
  if (!isStarted(requester) || !isAtomic || syndromeKind(syndrome) !== AETH_KIND.ACK) {
    return onBadResponse(requester, syndrome);
  }
  const high = atomicAckEthOriginalHigh(packet.view, packet.extended + 4);
  const low = atomicAckEthOriginalLow(packet.view, packet.extended + 4);
  const { regions, scratch } = requester.device;
  if (queue.sges.isPaged(slot)) {
    const result = queue.sges.ready(slot, regions, 0, 8, true);
    if (result === PAGES.WAITING) return onPageAbsent(requester);
    if (result === PAGES.REFUSED) {
      qp.failHead(WC_STATUS.LOC_PROT_ERR, 0);
      return DROP_REASON.NONE;
    }
  }
  writeNative64(scratch.view, 0, high, low);
  if (!queue.sges.scatter(slot, regions, 0, 8, scratch.bytes, 0)) {
    qp.failHead(WC_STATUS.LOC_PROT_ERR, 0);
    return DROP_REASON.NONE;
  }
  advanceHead(requester, slot, 1);
  afterProgress(requester, nowNs);
  return DROP_REASON.NONE;
}

/**
 * A response whose place is not there is dropped, as hardware does, and asked for again once the
 * fault is served: no loss and no retry, and what follows it tells nothing new meanwhile.
 */
function onPageAbsent(requester: Requester): DropReason {
  goBack(requester);
  requester.isRecovering = true;
  // An RNR wait (of something that the peer has taken after all) is over with this response.
  requester.rnrDeadlineNs = Number.POSITIVE_INFINITY;
  waitForPages(requester);
  publishDeadline(requester);
  return DROP_REASON.PAGE_ABSENT;
}

function isStarted(requester: Requester): boolean {
  return requester.queue.headIndex !== requester.queue.startedIndex;
}

/**
 * Acknowledges everything before `psn`, as any response does.
 * @returns whether `psn` is now the oldest; it is not when a READ or atomic before it has no
 *   answer.
 */
function acknowledgeBefore(requester: Requester, psn: number, nowNs: number): boolean {
  if (psn === requester.unaPsn) return true;
  const before = requester.unaPsn;
  acknowledge(requester, psnAdd(psn, -1));
  // Progress alone renews the retries: an answer that stands before an unanswered READ must not.
  if (requester.unaPsn !== before) afterProgress(requester, nowNs);
  return psn === requester.unaPsn;
}

/**
 * Acknowledges SENDs and WRITEs through `psn`.
 * @returns false when a READ or atomic at or before `psn` stands in the way.
 */
function acknowledge(requester: Requester, psn: number): boolean {
  const { queue } = requester;
  while (isStarted(requester) && psnDiff(psn, requester.unaPsn) >= 0) {
    const slot = queue.slotOf(queue.headIndex);
    if (isReadOrAtomic(queue.opcodes[slot] as number)) return false;
    const acked = psnDiff(psn, queue.firstPsns[slot] as number) + 1;
    advanceHead(requester, slot, Math.min(acked, queue.packetCounts[slot] as number));
  }
  return true;
}

/** The oldest request is acknowledged up to packet `toPacket`; completes it when that is all. */
function advanceHead(requester: Requester, slot: number, toPacket: number): void {
  const { queue, qp } = requester;
  const from = requester.unaPacket;
  const count = queue.packetCounts[slot] as number;
  const isCursorHere = requester.sendIndex === queue.headIndex;
  const sentPacket = isCursorHere ? requester.sendPacket : count;
  const isRead = isReadOrAtomic(queue.opcodes[slot] as number);
  // What the cursor has not reached again since it went back holds nothing of the window.
  const counted = Math.min(toPacket, sentPacket);
  if (counted > from) {
    const cost = costOfPackets(queue.lengths[slot] as number, qp.pathMtu, from, counted);
    release(requester, isRead, cost);
    const endsPiece = isRead && counted === requester.readPieceEnd(slot, counted - 1);
    if (endsPiece) requester.readsOutstanding--;
  }
  requester.unaPacket = toPacket;
  requester.unaPsn = psnAdd(requester.unaPsn, toPacket - from);
  if (isCursorHere && toPacket > sentPacket) {
    // It went back for nothing: what it would have repeated next had arrived.
    windowOf(requester, isRead).restore();
    requester.sendPacket = toPacket;
    requester.sendPsn = requester.unaPsn;
  }
  if (toPacket < count) return;
  if (isCursorHere) {
    requester.sendIndex = (requester.sendIndex + 1) | 0;
    requester.sendPacket = 0;
  }
  qp.completeHead(WC_STATUS.SUCCESS, 0);
}

function release(requester: Requester, isRead: boolean, cost: number): void {
  const window = windowOf(requester, isRead);
  if (isRead) requester.readTaken -= cost;
  else requester.sendTaken -= cost;
  window.release(cost);
  window.grow(cost);
  requester.device.wakeOne(window);
}

function windowOf(requester: Requester, isRead: boolean): ByteWindow {
  return isRead ? requester.device.readWindow : (requester.qp.flow as Flow).window;
}

/** Something was acknowledged: counters start over, timers too, and the cursor may go on. */
function afterProgress(requester: Requester, nowNs: number): void {
  const { qp, device, queue } = requester;
  requester.retriesLeft = qp.retryCount;
  requester.rnrRetriesLeft = qp.rnrRetry;
  requester.isRecovering = false;
  if (requester.stage === REQUESTER_STAGE.WAIT_RNR) {
    // It was taken after all: the NAK was an old one.
    requester.stage = REQUESTER_STAGE.RUN;
    requester.rnrDeadlineNs = Number.POSITIVE_INFINITY;
  }
  const { window } = qp.flow as Flow;
  if (requester.timedPsn >= 0 && psnDiff(requester.unaPsn, requester.timedPsn) > 0) {
    window.addRoundTrip(nowNs - requester.timedNs);
    requester.timedPsn = -1;
  }
  window.onProgress(nowNs, window.rttNs);
  device.readWindow.onProgress(nowNs, window.rttNs);
  armTimers(requester, nowNs);
  if (requester.probeStage !== PROBE_STAGE.NONE) onProbeProgress(requester, nowNs);
  qp.retire();
  if (requester.sendIndex !== queue.tailIndex) device.activate(qp);
}
