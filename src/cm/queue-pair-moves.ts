// SPDX-License-Identifier: MIT
// The queue pair's way up and down, as RDMA CM leads it (rocev2 facts sections 13 and 19).

import { ACCESS, QP_STATE, type QueuePair } from "../verbs/index.js";
import { QKEY_RDMA_CM } from "../wire/index.js";
import type { Connection } from "./connection.js";

/** Moves a connected queue pair to INIT: receives can be posted from then on. */
export function moveToInit(qp: QueuePair, devicePort: number): void {
  qp.modifyQp({
    state: QP_STATE.INIT,
    pkeyIndex: 0,
    port: devicePort,
    // RDMA CM always allows remote writes; READs and atomics depend on the responder resources.
    accessFlags: ACCESS.REMOTE_WRITE,
  });
}

/** Moves a datagram queue pair from RESET to RTS with RDMA CM's Q_Key. */
export function moveDatagramToRts(qp: QueuePair, devicePort: number, sendPsn: number): void {
  qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: devicePort, qkey: QKEY_RDMA_CM });
  qp.modifyQp({ state: QP_STATE.RTR });
  qp.modifyQp({ state: QP_STATE.RTS, sqPsn: sendPsn });
}

/**
 * Moves a queue pair from INIT to RTS with what both sides agreed on. @throws FarpageError EINVAL.
 */
export function moveToRts(qp: QueuePair, connection: Connection, minRnrTimer: number): void {
  const { agreement, devicePort, remoteAddress, trafficClass } = connection;
  const flow = qp.context.device.flow(devicePort, remoteAddress, trafficClass);
  const served = agreement.responderResources > 0;
  qp.modifyQp({
    state: QP_STATE.RTR,
    addressVector: { flow },
    pathMtu: agreement.pathMtu,
    destinationQpn: agreement.remoteQpn,
    rqPsn: agreement.receivePsn,
    maxDestRdAtomic: agreement.responderResources,
    minRnrTimer,
    accessFlags: served
      ? ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ | ACCESS.REMOTE_ATOMIC
      : ACCESS.REMOTE_WRITE,
  });
  qp.modifyQp({
    state: QP_STATE.RTS,
    timeout: agreement.ackTimeout,
    retryCount: agreement.retryCount,
    rnrRetry: agreement.rnrRetry,
    sqPsn: agreement.sendPsn,
    maxRdAtomic: agreement.initiatorDepth,
  });
}

/** Moves a queue pair to ERR, where everything posted flushes; nothing happens when it is gone. */
export function moveToErr(qp: QueuePair): void {
  if (!qp.isOpen || qp.state === QP_STATE.RESET || qp.state === QP_STATE.ERR) return;
  qp.modifyQp({ state: QP_STATE.ERR });
}

/**
 * The coded ACK timeout of the active side: from the path's life time and the time that the peer
 * takes to acknowledge, as Linux reckons (rocev2 facts section 19), but never more than
 * `ACK_TIMEOUT_MAX`, whatever a peer says.
 * @param own what our REQ said: the path's life time + 1.
 */
export function ackTimeoutOf(targetAckDelay: number, own: number): number {
  const lifetime = own - 1;
  const timeout =
    own >= targetAckDelay
      ? own + (targetAckDelay >= lifetime ? 1 : 0)
      : targetAckDelay + (own >= targetAckDelay - 1 ? 1 : 0);
  return Math.max(own, Math.min(timeout, ACK_TIMEOUT_MAX));
}

/** 2.15 s: what Linux hosts have between them. */
const ACK_TIMEOUT_MAX = 19;
