// SPDX-License-Identifier: MIT
// Timers and retransmission of an RC requester (IBTA vol1 §9.7.6.1, §9.7.7.3; facts page, sections
// 11, 12, 24).
//
// Recovery is go-back-N from the oldest unacknowledged PSN. Four things start it: the local ACK
// timeout, a sequence NAK, a response that shows that an earlier one was lost ("implied NAK"), and
// a probe. A lost last packet, a lost ACK and a lost NAK leave a requester with nothing but its
// timeout, which Linux' CM makes two seconds long. So after a few round trips of silence it repeats
// its oldest packet: a responder that had it answers with where it is, one that had not goes on
// from there. A probe is no retry: it costs one packet, uses up no retry count, and moves no
// cursor.

import { psnDiff } from "../base/index.js";
import type { ByteWindow } from "./byte-window.js";
import type { Flow } from "./flow.js";
import type { Requester } from "./requester.js";
import { PROBE_STAGE, REQUESTER_STAGE } from "./requester-stage.js";
import { isReadOrAtomic, WC_STATUS } from "./work-request.js";

const NEVER = Number.POSITIVE_INFINITY;
/** Unit of the local ACK timeout code (IBTA vol1 §9.7.6.1.3). */
const ACK_TIMEOUT_UNIT_NS = 4096;
/** A probe comes no sooner: a peer in user space may be busy for a millisecond or two. */
const PROBE_DELAY_NS_MIN = 2_000_000;
/**
 * How long a partly answered probe waits for the rest: longer than a scheduler's slice, since a
 * peer that was preempted in the middle of a burst has lost nothing.
 */
const SUSPECT_DELAY_NS_MIN = 4_000_000;

/** Nanoseconds of a local ACK timeout code, Infinity for 0. */
export function ackTimeoutNs(code: number): number {
  return code === 0 ? NEVER : ACK_TIMEOUT_UNIT_NS * 2 ** code;
}

/** Starts the ACK and probe timers afresh: something was sent after silence, or acknowledged. */
export function armTimers(requester: Requester, nowNs: number): void {
  if (!requester.isOutstanding) {
    requester.ackDeadlineNs = NEVER;
    requester.probeDeadlineNs = NEVER;
  } else {
    requester.ackDeadlineNs = nowNs + ackPatienceNs(requester);
    requester.probeCount = 0;
    armProbe(requester, nowNs);
  }
  publishDeadline(requester);
}

/**
 * The time to wait for an ACK: as the code says, longer where round trips are. IBTA vol1 §9.7.6.1.3
 * allows up to four times as much, and a peer that has to wait for a processor needs it.
 */
function ackPatienceNs(requester: Requester): number {
  const { ackTimeoutNs } = requester.qp;
  const { rttNs, rttVariationNs } = (requester.qp.flow as Flow).window;
  return Math.min(4 * ackTimeoutNs, Math.max(ackTimeoutNs, 2 * (rttNs + 4 * rttVariationNs)));
}

/** Sets the probe timer for the next of a row of probes, each after twice the time of the last. */
function armProbe(requester: Requester, nowNs: number): void {
  const { window } = requester.qp.flow as Flow;
  requester.probeDeadlineNs = NEVER;
  if (!requester.device.probes || window.rttNs === 0) return;
  const base = Math.max(PROBE_DELAY_NS_MIN, 4 * (window.rttNs + window.rttVariationNs));
  requester.probeDeadlineNs = nowNs + base * 2 ** requester.probeCount;
}

/** Tells the device's timer when this requester is next due. */
export function publishDeadline(requester: Requester): void {
  const { ackDeadlineNs, rnrDeadlineNs, probeDeadlineNs } = requester;
  const first = Math.min(ackDeadlineNs, probeDeadlineNs, rnrDeadlineNs);
  requester.device.setTimer(requester.qp, first);
}

/** The device's timer for this queue pair is due. */
export function onTimer(requester: Requester, nowNs: number): void {
  if (requester.rnrDeadlineNs <= nowNs) {
    requester.rnrDeadlineNs = NEVER;
    if (requester.stage === REQUESTER_STAGE.WAIT_RNR) requester.stage = REQUESTER_STAGE.RUN;
    requester.device.activate(requester.qp);
  }
  if (requester.ackDeadlineNs <= nowNs) {
    onAckTimeout(requester, nowNs);
  } else if (requester.probeDeadlineNs <= nowNs) {
    onProbeTimer(requester, nowNs);
  }
  publishDeadline(requester);
}

function onAckTimeout(requester: Requester, nowNs: number): void {
  requester.device.counters.timeouts++;
  requester.qp.counters.timeouts++;
  const window = windowOfOldest(requester);
  // Where other queue pairs hear from that host, the way there is open: this one's peer is gone.
  if (nowNs - window.heardNs >= requester.qp.ackTimeoutNs) window.collapse(nowNs);
  retry(requester);
  // From here on a sequence NAK is news again.
  requester.isRecovering = false;
}

function onProbeTimer(requester: Requester, nowNs: number): void {
  const isSuspect = requester.probeStage === PROBE_STAGE.SUSPECT;
  if (isSuspect && requester.unaPsn === requester.probeEndPsn) {
    // The peer had exactly what the probe gave it, and nothing of what was sent before it. (One
    // that got further had received more, and only stopped in the middle: it is probed again.)
    onLoss(requester, nowNs);
    goBack(requester);
    return;
  }
  requester.device.counters.probes++;
  requester.qp.counters.probes++;
  requester.probeStage = PROBE_STAGE.DUE;
  requester.probeCount++;
  armProbe(requester, nowNs);
  requester.device.activate(requester.qp);
}

/** Something was acknowledged while a probe was out: is the rest on its way, or lost? */
export function onProbeProgress(requester: Requester, nowNs: number): void {
  if (requester.probeStage === PROBE_STAGE.DUE) {
    requester.probeStage = PROBE_STAGE.NONE;
    return;
  }
  if (psnDiff(requester.unaPsn, requester.probeEndPsn) < 0) return;
  if (psnDiff(requester.unaPsn, requester.probeSendPsn) >= 0 || !requester.isOutstanding) {
    requester.probeStage = PROBE_STAGE.NONE;
    return;
  }
  requester.probeStage = PROBE_STAGE.SUSPECT;
  const { rttNs } = (requester.qp.flow as Flow).window;
  requester.probeDeadlineNs = nowNs + Math.max(SUSPECT_DELAY_NS_MIN, 2 * rttNs);
  publishDeadline(requester);
}

/** A loss was seen: the window that the lost packets took shrinks. */
export function onLoss(requester: Requester, nowNs: number): void {
  windowOfOldest(requester).shrink(nowNs, (requester.qp.flow as Flow).window.rttNs);
}

/**
 * Goes back to the oldest unacknowledged packet if a retry is left, else gives the queue pair up.
 * @returns whether it went back.
 */
export function retry(requester: Requester): boolean {
  if (requester.retriesLeft === 0) {
    requester.device.counters.retriesExceeded++;
    requester.qp.counters.retriesExceeded++;
    requester.qp.failHead(WC_STATUS.RETRY_EXC_ERR, 0);
    return false;
  }
  requester.retriesLeft--;
  goBack(requester);
  return true;
}

/** Everything sent and not acknowledged is to be sent again. */
export function goBack(requester: Requester): void {
  requester.releaseAll();
  requester.sendIndex = requester.queue.headIndex;
  requester.sendPacket = requester.unaPacket;
  requester.sendPsn = requester.unaPsn;
  requester.packetsSinceAckRequest = 0;
  requester.costSinceAckRequest = 0;
  requester.timedPsn = -1;
  requester.pagesAskedPsn = -1;
  requester.probeStage = PROBE_STAGE.NONE;
  requester.ackDeadlineNs = NEVER;
  requester.probeDeadlineNs = NEVER;
  requester.device.activate(requester.qp);
}

/** The window that what was lost has probably filled: a response's if the oldest awaits data. */
function windowOfOldest(requester: Requester): ByteWindow {
  const { queue, device, qp } = requester;
  const slot = queue.slotOf(queue.headIndex);
  const isRead =
    queue.headIndex !== queue.tailIndex && isReadOrAtomic(queue.opcodes[slot] as number);
  return isRead ? device.readWindow : (qp.flow as Flow).window;
}
