// SPDX-License-Identifier: MIT
// Saying no, being told no, and being told to wait: REJ and MRA (IBTA vol1 §12.6.6, §12.6.7).

import { ERRNO } from "../base/index.js";
import { type CmMra, type CmRej, MRA_MESSAGE, REJ_MESSAGE, REJ_REASON } from "../wire/index.js";
import type { Connection } from "./connection.js";
import type { CmEngine, Sender } from "./engine.js";
import { encodeMad, rejOf, rejOfConnection } from "./messages.js";

const NO_DATA = new Uint8Array(0);

/** Refuses a message that belongs to no connection. */
export function refuse(
  engine: CmEngine,
  from: Sender,
  remoteCommId: number,
  rejected: number,
  reason: number,
  information?: Uint8Array,
): void {
  engine.counters.requestsRefused++;
  engine.reply(from, rejOf(remoteCommId, rejected, reason, information));
}

/** Ends an exchange with a REJ, which is said again to a peer that missed it. */
export function endWithRej(
  engine: CmEngine,
  connection: Connection,
  reason: number,
  privateData: Uint8Array = NO_DATA,
): void {
  const { state, transactionHigh, transactionLow } = connection;
  connection.answerReason = reason;
  connection.answerData = privateData;
  const rej = rejFor(
    engine,
    connection,
    state === "REQ_RCVD" ? REJ_MESSAGE.REQ : REJ_MESSAGE.OTHER,
  );
  engine.send(connection, rej);
  // A peer that has our REP may think that it is connected, and say nothing more: tell it again
  // until it must have heard. One that waits for a REP asks by itself.
  const mad = state === "REP_SENT" ? encodeMad(rej, transactionHigh, transactionLow) : null;
  engine.enterAnswered(connection, mad);
}

/** Says the last word of an exchange again, in the form that fits what the peer has sent. */
export function rejectAgain(engine: CmEngine, connection: Connection, rejected: number): void {
  engine.counters.duplicatesAnswered++;
  engine.send(connection, rejFor(engine, connection, rejected));
  engine.lingerOn(connection);
}

function rejFor(engine: CmEngine, connection: Connection, rejected: number): CmRej {
  const { answerReason, answerData } = connection;
  return rejOfConnection(connection, rejected, answerReason, answerData, engine.tuning);
}

export function onRej(engine: CmEngine, rej: CmRej, from: Sender): void {
  const connection = findRejected(engine, rej, from);
  if (connection === null) {
    engine.drop("UNKNOWN_ID");
    return;
  }
  const details = { status: rej.reason, privateData: rej.privateData };
  switch (connection.state) {
    case "REQ_SENT":
    case "REQ_RCVD":
    case "REP_SENT":
      engine.failQp(connection);
      engine.raise(connection, "REJECTED", details);
      // A stale connection's queue pairs must rest before they are used again.
      if (rej.reason === REJ_REASON.STALE_CONNECTION) {
        engine.enterTimewait(connection);
        return;
      }
      if (!connection.isPassive) {
        engine.forget(connection);
        return;
      }
      // A late copy of the REQ must not look like a new one.
      connection.answerReason = REJ_REASON.STALE_CONNECTION;
      engine.enterAnswered(connection, null);
      return;
    case "ESTABLISHED":
      engine.failQp(connection);
      engine.raise(connection, "DISCONNECTED", { status: ERRNO.ECONNRESET });
      engine.enterTimewait(connection);
      return;
    case "DREQ_SENT":
      engine.raise(connection, "DISCONNECTED");
      engine.enterTimewait(connection);
      return;
    case "ANSWERED":
      // Both sides have said no: nobody will ask again.
      connection.isPassive ? engine.drop("WRONG_STATE") : engine.forget(connection);
      return;
    default:
      engine.drop("WRONG_STATE");
      return;
  }
}

/** The connection that a REJ is about, by the ids that its kind carries; null when none fits. */
function findRejected(engine: CmEngine, rej: CmRej, from: Sender): Connection | null {
  const { table } = engine;
  if (rej.reason === REJ_REASON.TIMEOUT && rej.informationLength >= 8) {
    // The peer gave up: it names itself by GUID and comm id (rocev2 facts section 18).
    const { buffer, byteOffset, byteLength } = rej.information;
    const view = new DataView(buffer, byteOffset, byteLength);
    const { source } = from;
    return table.findRemote(source, view.getUint32(0), view.getUint32(4), rej.localCommId);
  }
  const connection = table.find(rej.remoteCommId, from.source, from.destination);
  if (connection === null || connection.portSpace !== "TCP") return null;
  // A peer that refuses our REQ need not have a comm id yet; afterwards both must fit.
  if (connection.state === "REQ_SENT") return connection;
  return connection.remoteCommId === rej.localCommId ? connection : null;
}

export function onMra(engine: CmEngine, mra: CmMra, from: Sender): void {
  const connection = engine.table.find(mra.remoteCommId, from.source, from.destination);
  if (connection === null) {
    engine.drop("UNKNOWN_ID");
    return;
  }
  const { state } = connection;
  const isForReq = state === "REQ_SENT" && mra.acknowledged === MRA_MESSAGE.REQ;
  const isForRep =
    state === "REP_SENT" &&
    mra.acknowledged === MRA_MESSAGE.REP &&
    mra.localCommId === connection.remoteCommId;
  if (!isForReq && !isForRep) {
    engine.drop("WRONG_STATE");
    return;
  }
  engine.extend(connection, mra.serviceTimeout);
}
