// SPDX-License-Identifier: MIT
// The active side of a connection: REQ out, REP in, RTU out (IBTA vol1 §12.9.7; rocev2 facts
// section 19).

import { ERRNO, FarpageError } from "../base/index.js";
import type { PathMtu } from "../verbs/index.js";
import { type CmRep, RDMA_CM_REQ_PRIVATE_BYTES, REJ_MESSAGE, REJ_REASON } from "../wire/index.js";
import type { CmId } from "./cm-id.js";
import type { Connection } from "./connection.js";
import type { CmEngine, Sender } from "./engine.js";
import { checkPrivateData, reqOf } from "./messages.js";
import { ackTimeoutOf, moveToRts } from "./queue-pair-moves.js";
import { endWithRej, refuse, rejectAgain } from "./rejection.js";
import { endStale } from "./teardown.js";

/** What `CmId.connect` takes: rdma_conn_param and some more. */
export interface ConnectOptions {
  /** At most 56 bytes (UDP port space: 180). */
  readonly privateData?: Uint8Array;
  /**
   * READs and atomics of the peer that we serve at a time, 0 .. the device's limit; default 16.
   * With 0 the queue pair allows remote writes only.
   */
  readonly responderResources?: number;
  /** Own READs and atomics that can be outstanding, 0 .. the device's limit; default 16. */
  readonly initiatorDepth?: number;
  /**
   * Timeouts and sequence NAKs in a row before a request fails, for both sides; 0 .. 7, default 7.
   */
  readonly retryCount?: number;
  /** RNR NAKs in a row before a request of the *peer* fails; 7, the default, is endless. */
  readonly rnrRetryCount?: number;
  readonly flowControl?: boolean;
  /** Default and largest: the port's active MTU. */
  readonly pathMtu?: PathMtu;
  /**
   * Coded local ACK timeout of both sides, 4.096 us * 2^t, 1 .. 31. Default: the connection
   * manager's, on our side raised to the time that the peer says it takes to acknowledge.
   */
  readonly ackTimeout?: number;
  /** Coded ACK timeout that the REQ asks of the peer's side alone, 1 .. 31; else as ours. */
  readonly peerAckTimeout?: number;
  /** Gives up (UNREACHABLE) after so long without an answer. */
  readonly timeoutNs?: number;
}

/** READs and atomics each way, where the user does not say. */
export const RD_ATOMIC_DEFAULT = 16;

/**
 * Sends the REQ of `id`, whose addresses and queue pair are set. @throws FarpageError EINVAL,
 * ENOMEM.
 */
export function sendReq(engine: CmEngine, id: CmId, options: ConnectOptions): void {
  const { qp } = id;
  if (qp === null) {
    throw new FarpageError("EINVAL", "bind a queue pair to the id before it connects");
  }
  const { maxQpRdAtom, maxQpInitRdAtom } = engine.context.queryDevice();
  const privateData = checkPrivateData(options.privateData, RDMA_CM_REQ_PRIVATE_BYTES);
  const proposed = {
    pathMtu: checkMtu(options.pathMtu, engine.context.queryPort(id.devicePort).activeMtu),
    retryCount: within("retryCount", options.retryCount ?? 7, 0, 7),
    ackTimeout: within("ackTimeout", options.ackTimeout ?? engine.tuning.ackTimeout, 1, 31),
    responderResources: within(
      "responderResources",
      options.responderResources ?? Math.min(RD_ATOMIC_DEFAULT, maxQpRdAtom),
      0,
      maxQpRdAtom,
    ),
    initiatorDepth: within(
      "initiatorDepth",
      options.initiatorDepth ?? Math.min(RD_ATOMIC_DEFAULT, maxQpInitRdAtom),
      0,
      maxQpInitRdAtom,
    ),
  };
  const rnrRetryCount = within("rnrRetryCount", options.rnrRetryCount ?? 7, 0, 7);
  const ackTimeout = within("peerAckTimeout", options.peerAckTimeout ?? proposed.ackTimeout, 1, 31);
  const timeoutNs = options.timeoutNs ?? engine.tuning.connectTimeoutNs;

  const connection = id.open(false);
  Object.assign(connection.agreement, proposed);
  connection.localQpn = qp.qpn;
  connection.agreement.receivePsn = engine.random.nextU32() >>> 8;
  // An ACK timeout that the user chose is the user's on our side, whatever the peer says.
  connection.isTimeoutChosen = options.ackTimeout !== undefined;
  connection.setState("REQ_SENT");
  engine.beginTransaction(connection);
  const choices = {
    privateData,
    rnrRetryCount,
    flowControl: options.flowControl ?? false,
    srq: qp.srq !== null,
    ackTimeout,
    localPort: id.localPort,
    remotePort: id.remotePort,
  };
  engine.sendUntilAnswered(connection, reqOf(connection, choices, engine.tuning), timeoutNs);
}

export function onRep(engine: CmEngine, rep: CmRep, from: Sender): void {
  const connection = engine.table.find(rep.remoteCommId, from.source, from.destination);
  if (connection === null || connection.isPassive || connection.portSpace !== "TCP") {
    engine.drop("UNKNOWN_ID");
    return;
  }
  switch (connection.state) {
    case "REQ_SENT":
      onFirstRep(engine, connection, rep, from);
      return;
    case "ESTABLISHED":
      if (rep.localCommId !== connection.remoteCommId) {
        engine.drop("UNKNOWN_ID");
        return;
      }
      // Our RTU was lost.
      engine.counters.duplicatesAnswered++;
      sendRtu(engine, connection);
      return;
    case "ANSWERED":
      // We have given up, and the peer has not heard of it. It waits with this comm id.
      connection.remoteCommId = rep.localCommId;
      rejectAgain(engine, connection, REJ_MESSAGE.OTHER);
      return;
    default:
      engine.drop("WRONG_STATE");
      return;
  }
}

function onFirstRep(engine: CmEngine, connection: Connection, rep: CmRep, from: Sender): void {
  const { table } = engine;
  const { caGuidHigh, caGuidLow, qpn } = rep;
  if (table.findRemote(from.source, caGuidHigh, caGuidLow, rep.localCommId) !== null) {
    engine.drop("WRONG_STATE");
    return;
  }
  const stale = table.findQpn(from.source, caGuidHigh, caGuidLow, qpn);
  if (stale !== null) {
    // The peer's queue pair belongs to a connection that we believe alive (rocev2 facts section
    // 19).
    refuse(engine, from, rep.localCommId, REJ_MESSAGE.REP, REJ_REASON.STALE_CONNECTION);
    endStale(engine, stale);
    return;
  }
  connection.remoteCommId = rep.localCommId;
  connection.remoteGuidHigh = caGuidHigh;
  connection.remoteGuidLow = caGuidLow;
  agree(connection, rep);
  const { id } = connection;
  try {
    if (id === null || id.qp === null) throw new FarpageError("EBADF", "the queue pair is gone");
    moveToRts(id.qp, connection, id.minRnrTimer);
  } catch (error) {
    failConnect(engine, connection, error);
    return;
  }
  establish(engine, connection, rep);
}

/** Takes over what the REP decides (rocev2 facts section 19, first table, active side). */
function agree(connection: Connection, rep: CmRep): void {
  const { agreement } = connection;
  agreement.remoteQpn = rep.qpn;
  agreement.sendPsn = rep.startingPsn;
  agreement.rnrRetry = rep.rnrRetryCount;
  // Never more than our REQ offered and asked for, whatever the peer says.
  agreement.initiatorDepth = Math.min(agreement.initiatorDepth, rep.responderResources);
  agreement.responderResources = Math.min(agreement.responderResources, rep.initiatorDepth);
  if (!connection.isTimeoutChosen) {
    agreement.ackTimeout = ackTimeoutOf(rep.targetAckDelay, agreement.ackTimeout);
  }
}

function establish(engine: CmEngine, connection: Connection, rep: CmRep): void {
  engine.stopClock(connection);
  connection.setState("ESTABLISHED");
  engine.table.addRemote(connection);
  engine.table.addQpn(connection);
  engine.counters.connectionsEstablished++;
  sendRtu(engine, connection);
  engine.raise(connection, "ESTABLISHED", {
    privateData: rep.privateData,
    responderResources: rep.initiatorDepth,
    initiatorDepth: rep.responderResources,
    remoteQpn: rep.qpn,
  });
}

function failConnect(engine: CmEngine, connection: Connection, error: unknown): void {
  if (!(error instanceof FarpageError)) throw error;
  engine.failQp(connection);
  engine.raise(connection, "CONNECT_ERROR", { status: errnoOf(error) });
  endWithRej(engine, connection, REJ_REASON.CONSUMER_REJECT);
}

function sendRtu(engine: CmEngine, connection: Connection): void {
  const { localCommId, remoteCommId } = connection;
  engine.send(connection, { kind: "RTU", localCommId, remoteCommId, privateData: NO_DATA });
}

const NO_DATA = new Uint8Array(0);

/** The errno that an error's code names; EINVAL for a code that is none. */
export function errnoOf(error: FarpageError): number {
  const numbers: Readonly<Record<string, number>> = ERRNO;
  return numbers[error.code] ?? ERRNO.EINVAL;
}

/** `value` when it is an integer of the range. @throws FarpageError EINVAL. */
export function within(name: string, value: number, minimum: number, maximum: number): number {
  if (Number.isInteger(value) && value >= minimum && value <= maximum) return value;
  throw new FarpageError("EINVAL", `${name} must be ${minimum} .. ${maximum}, not ${value}`);
}

function checkMtu(wanted: PathMtu | undefined, activeMtu: PathMtu): PathMtu {
  if (wanted === undefined) return activeMtu;
  if (wanted <= activeMtu && [256, 512, 1024, 2048, 4096].includes(wanted)) return wanted;
  throw new FarpageError(
    "EINVAL",
    `path MTU ${wanted}: this port carries 256, 512, 1024, 2048 or 4096 up to ${activeMtu}`,
  );
}
