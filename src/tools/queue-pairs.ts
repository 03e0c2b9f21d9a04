// SPDX-License-Identifier: MIT
// Queue pairs without a connection manager: the peer's numbers came by another way, TCP mostly.

import type { IpAddress } from "../runtime/index.js";
import { ACCESS, type PathMtu, QP_STATE, type QueuePair } from "../verbs/index.js";

/** Both ends of an RC queue pair, as programs exchange them; times and counts are coded. */
export interface RcEnds {
  /** Index of the local address (`Context.portOf`). */
  readonly port: number;
  /** The peer's GID. */
  readonly destination: IpAddress;
  readonly destinationQpn: number;
  /** First PSN that the peer sends, and first that this side sends; 24 bits each. */
  readonly rqPsn: number;
  readonly sqPsn: number;
  /** Both ends must have the same. */
  readonly pathMtu: PathMtu;
  /** What the peer may do; default: writes, READs and atomics. */
  readonly accessFlags?: number;
  /** READs and atomics of this side and of the peer; default 1. */
  readonly maxRdAtomic?: number;
  readonly maxDestRdAtomic?: number;
  /** Default 14 (67 ms), 7, 7, 12 (0.64 ms). */
  readonly timeout?: number;
  readonly retryCount?: number;
  readonly rnrRetry?: number;
  readonly minRnrTimer?: number;
}

/**
 * Moves an RC queue pair from RESET or INIT to RTS. Receives posted before go with it.
 * @throws FarpageError EINVAL naming what is out of range.
 */
export function bringUpRc(qp: QueuePair, ends: RcEnds): void {
  if (qp.state === QP_STATE.RESET) {
    const everything = ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ | ACCESS.REMOTE_ATOMIC;
    const accessFlags = ends.accessFlags ?? everything;
    qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: ends.port, accessFlags });
  }
  using addressVector = qp.pd.createAh({ port: ends.port, destination: ends.destination });
  qp.modifyQp({
    state: QP_STATE.RTR,
    addressVector,
    pathMtu: ends.pathMtu,
    destinationQpn: ends.destinationQpn,
    rqPsn: ends.rqPsn,
    maxDestRdAtomic: ends.maxDestRdAtomic ?? 1,
    minRnrTimer: ends.minRnrTimer ?? 12,
  });
  qp.modifyQp({
    state: QP_STATE.RTS,
    timeout: ends.timeout ?? 14,
    retryCount: ends.retryCount ?? 7,
    rnrRetry: ends.rnrRetry ?? 7,
    sqPsn: ends.sqPsn,
    maxRdAtomic: ends.maxRdAtomic ?? 1,
  });
}

/** This side of a UD queue pair. */
export interface UdEnds {
  readonly port: number;
  readonly qkey: number;
  /** First PSN sent; nobody checks it. */
  readonly sqPsn: number;
}

/** Moves a UD queue pair from RESET to RTS. @throws FarpageError EINVAL. */
export function bringUpUd(qp: QueuePair, ends: UdEnds): void {
  qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: ends.port, qkey: ends.qkey });
  qp.modifyQp({ state: QP_STATE.RTR });
  qp.modifyQp({ state: QP_STATE.RTS, sqPsn: ends.sqPsn });
}
