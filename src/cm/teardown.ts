// SPDX-License-Identifier: MIT
// The ends of connections: DREQ and DREP, ids that are closed in any state, giving up (IBTA vol1
// §12.9.8; rocev2 facts section 19).

import { ERRNO, unreachable } from "../base/index.js";
import { type CmDrep, type CmDreq, REJ_REASON, SIDR_STATUS } from "../wire/index.js";
import type { Connection } from "./connection.js";
import type { CmEngine, Sender } from "./engine.js";
import { endWithRej } from "./rejection.js";
import { answerSidr } from "./sidr.js";

const NO_DATA = new Uint8Array(0);

/**
 * Ends what the connection is doing, with the message that fits its state; nothing happens to one
 * that is over. The connection may live on by itself, to repeat that message or to rest.
 */
export function endConnection(engine: CmEngine, connection: Connection): void {
  engine.failQp(connection);
  switch (connection.state) {
    case "REQ_SENT":
      endWithRej(engine, connection, REJ_REASON.TIMEOUT);
      return;
    case "REQ_RCVD":
    case "REP_SENT":
      endWithRej(engine, connection, REJ_REASON.CONSUMER_REJECT);
      return;
    case "ESTABLISHED":
      sendDreq(engine, connection);
      return;
    case "DREQ_RCVD":
      sendDrep(engine, connection);
      engine.enterTimewait(connection);
      return;
    case "SIDR_REQ_SENT":
    case "IDLE":
      engine.forget(connection);
      return;
    case "SIDR_REQ_RCVD":
      answerSidr(engine, connection, SIDR_STATUS.REJECTED, null);
      return;
    case "DREQ_SENT":
    case "TIMEWAIT":
    case "ANSWERED":
    case "CLOSED":
      return;
    default:
      unreachable(connection.state);
      return;
  }
}

/**
 * The user ends the connection: as `endConnection`, but the id stays, and is told. An exchange that
 * was never established is told at once; a DREQ that we answer was told of when it came.
 */
export function disconnect(engine: CmEngine, connection: Connection): void {
  const { state } = connection;
  if (state === "REQ_SENT" || state === "REQ_RCVD" || state === "REP_SENT") {
    engine.raise(connection, "DISCONNECTED");
  }
  endConnection(engine, connection);
}

/** The peer has begun anew, as if this connection did not exist: end it, if it is one. */
export function endStale(engine: CmEngine, connection: Connection): void {
  engine.counters.staleConnections++;
  if (connection.state !== "ESTABLISHED") return;
  engine.failQp(connection);
  sendDreq(engine, connection);
}

export function onDreq(engine: CmEngine, dreq: CmDreq, from: Sender): void {
  const connection = engine.table.find(dreq.remoteCommId, from.source, from.destination);
  if (connection === null || connection.remoteCommId !== dreq.localCommId) {
    // What the peer wants is the case already.
    engine.drop("UNKNOWN_ID");
    engine.reply(from, drepOf(dreq.remoteCommId, dreq.localCommId));
    return;
  }
  if (dreq.remoteQpn !== connection.localQpn) {
    engine.drop("WRONG_QPN");
    return;
  }
  switch (connection.state) {
    case "REP_SENT":
    case "ESTABLISHED":
      connection.transactionHigh = from.transactionHigh;
      connection.transactionLow = from.transactionLow;
      engine.stopClock(connection);
      engine.awaitingData.delete(connection);
      engine.table.endHalfOpen(connection);
      connection.setState("DREQ_RCVD");
      // The answer waits for the application, as in Linux: it may have work to stop first.
      engine.raise(connection, "DISCONNECTED");
      return;
    case "DREQ_SENT":
      // The two have crossed; both sides want to end, so nothing is left to wait for.
      engine.reply(from, drepOf(connection.localCommId, connection.remoteCommId));
      engine.raise(connection, "DISCONNECTED");
      engine.enterTimewait(connection);
      return;
    case "TIMEWAIT":
    case "ANSWERED":
      engine.counters.duplicatesAnswered++;
      engine.reply(from, drepOf(connection.localCommId, connection.remoteCommId));
      return;
    default:
      engine.drop("WRONG_STATE");
      return;
  }
}

export function onDrep(engine: CmEngine, drep: CmDrep, from: Sender): void {
  const connection = engine.table.find(drep.remoteCommId, from.source, from.destination);
  if (connection === null || connection.remoteCommId !== drep.localCommId) {
    engine.drop("UNKNOWN_ID");
    return;
  }
  if (connection.state !== "DREQ_SENT") {
    engine.drop("WRONG_STATE");
    return;
  }
  engine.raise(connection, "DISCONNECTED");
  engine.enterTimewait(connection);
}

/** A connection's timer has fired. */
export function onTimer(engine: CmEngine, connection: Connection): void {
  if (!engine.isOverdue(connection)) {
    engine.repeat(connection);
    return;
  }
  const status = ERRNO.ETIMEDOUT;
  switch (connection.state) {
    case "REQ_SENT":
    case "REP_SENT":
      engine.failQp(connection);
      engine.raise(connection, "UNREACHABLE", { status });
      endWithRej(engine, connection, REJ_REASON.TIMEOUT);
      return;
    case "DREQ_SENT":
      engine.raise(connection, "DISCONNECTED", { status });
      engine.enterTimewait(connection);
      return;
    case "SIDR_REQ_SENT":
      engine.raise(connection, "UNREACHABLE", { status });
      engine.forget(connection);
      return;
    case "TIMEWAIT":
      engine.exitTimewait(connection);
      return;
    default:
      engine.forget(connection);
      return;
  }
}

function sendDreq(engine: CmEngine, connection: Connection): void {
  const { localCommId, remoteCommId, agreement } = connection;
  connection.setState("DREQ_SENT");
  engine.beginTransaction(connection);
  engine.sendUntilAnswered(
    connection,
    {
      kind: "DREQ",
      localCommId,
      remoteCommId,
      remoteQpn: agreement.remoteQpn,
      privateData: NO_DATA,
    },
    engine.tuning.disconnectTimeoutNs,
  );
}

function sendDrep(engine: CmEngine, connection: Connection): void {
  engine.send(connection, drepOf(connection.localCommId, connection.remoteCommId));
}

function drepOf(localCommId: number, remoteCommId: number): CmDrep {
  return { kind: "DREP", localCommId, remoteCommId, privateData: NO_DATA };
}
