// SPDX-License-Identifier: MIT
// Resolving a UDP port to a datagram queue pair: SIDR_REQ out, SIDR_REP in, no further messages
// (IBTA vol1 §12.11; rocev2 facts section 19).

import { FarpageError } from "../base/index.js";
import {
  pkeyMatches,
  QKEY_RDMA_CM,
  RDMA_CM_HEADER_BYTES,
  RDMA_CM_SIDR_REQ_PRIVATE_BYTES,
  SIDR_REP_PRIVATE_BYTES,
  SIDR_STATUS,
  type SidrRep,
  type SidrReq,
} from "../wire/index.js";
import type { ConnectOptions } from "./active.js";
import type { CmId } from "./cm-id.js";
import type { Connection } from "./connection.js";
import type { CmEngine, Sender } from "./engine.js";
import { checkPrivateData, encodeMad, parseServiceId, sidrRepOf, sidrReqOf } from "./messages.js";
import { checkHeader, hasRoomFor } from "./passive.js";

/** What tells apart the requests of one peer: it has no GUID, only its request id. */
const NO_GUID = -1;

/** Sends the SIDR_REQ of `id`. @throws FarpageError EINVAL, ENOMEM. */
export function sendSidrReq(engine: CmEngine, id: CmId, options: ConnectOptions): void {
  const data = checkPrivateData(options.privateData, RDMA_CM_SIDR_REQ_PRIVATE_BYTES);
  const timeoutNs = options.timeoutNs ?? engine.tuning.connectTimeoutNs;
  const connection = id.open(false);
  connection.setState("SIDR_REQ_SENT");
  engine.beginTransaction(connection);
  engine.sendUntilAnswered(connection, sidrReqOf(connection, id, data), timeoutNs);
}

export function onSidrReq(engine: CmEngine, request: SidrReq, from: Sender): void {
  const known = engine.table.findRemote(from.source, NO_GUID, NO_GUID, request.requestId);
  if (known !== null) {
    onKnownSidrReq(engine, known);
    return;
  }
  const service = parseServiceId(request.serviceIdHigh, request.serviceIdLow);
  const listener =
    service?.portSpace === "UDP"
      ? engine.listeners.find("UDP", service.port, from.destination)
      : null;
  if (listener === null) {
    refuseSidr(engine, request, from, SIDR_STATUS.SERVICE_ID_NOT_SUPPORTED);
    return;
  }
  const header = checkHeader(request.privateData, from);
  if (header === null || !pkeyMatches(request.pkey)) {
    refuseSidr(engine, request, from, SIDR_STATUS.REJECTED);
    return;
  }
  if (!hasRoomFor(engine, listener, from.source)) return;
  const id = listener.channel.admit(listener, from, header.sourcePort, 0);
  const connection = id.open(true);
  connection.remoteCommId = request.requestId;
  connection.remoteGuidHigh = NO_GUID;
  connection.remoteGuidLow = NO_GUID;
  connection.transactionHigh = from.transactionHigh;
  connection.transactionLow = from.transactionLow;
  connection.serviceIdHigh = request.serviceIdHigh;
  connection.serviceIdLow = request.serviceIdLow;
  connection.listener = listener;
  listener.pendingCount++;
  connection.setState("SIDR_REQ_RCVD");
  engine.table.addRemote(connection);
  engine.table.beginHalfOpen(connection);
  engine.raise(connection, "CONNECT_REQUEST", {
    listener,
    privateData: request.privateData.slice(RDMA_CM_HEADER_BYTES),
  });
}

function onKnownSidrReq(engine: CmEngine, connection: Connection): void {
  if (connection.state !== "ANSWERED") {
    engine.drop("WRONG_STATE");
    return;
  }
  engine.counters.duplicatesAnswered++;
  engine.sendEncoded(connection, connection.answerData);
  engine.lingerOn(connection);
}

/** Says yes to the request behind `id`, with its queue pair. @throws FarpageError EINVAL. */
export function acceptSidr(engine: CmEngine, id: CmId, data: Uint8Array | undefined): void {
  const connection = id.pendingRequest();
  const { qp } = id;
  if (qp === null)
    throw new FarpageError("EINVAL", "bind a queue pair to the id before it accepts");
  const { qkey } = qp.queryQp();
  const privateData = checkPrivateData(data, SIDR_REP_PRIVATE_BYTES);
  const success = { qpn: qp.qpn, qkey: qkey === 0 ? QKEY_RDMA_CM : qkey, data: privateData };
  answerSidr(engine, connection, SIDR_STATUS.SUCCESS, success);
}

/** Says no. */
export function rejectSidr(engine: CmEngine, id: CmId): void {
  answerSidr(engine, id.pendingRequest(), SIDR_STATUS.REJECTED, null);
}

/** Sends the SIDR_REP and keeps it for a peer that did not get it. */
export function answerSidr(
  engine: CmEngine,
  connection: Connection,
  status: number,
  success: Parameters<typeof sidrRepOf>[2],
): void {
  const { remoteCommId, serviceIdHigh, serviceIdLow } = connection;
  const request = { requestId: remoteCommId, serviceIdHigh, serviceIdLow };
  const reply = sidrRepOf(request, status, success);
  const { transactionHigh, transactionLow } = connection;
  connection.answerData = encodeMad(reply, transactionHigh, transactionLow);
  engine.sendEncoded(connection, connection.answerData);
  engine.enterAnswered(connection, null);
}

export function onSidrRep(engine: CmEngine, reply: SidrRep, from: Sender): void {
  const connection = engine.table.find(reply.requestId, from.source, from.destination);
  if (connection === null) {
    engine.drop("UNKNOWN_ID");
    return;
  }
  if (connection.state !== "SIDR_REQ_SENT") {
    engine.drop("WRONG_STATE");
    return;
  }
  const { privateData, status } = reply;
  if (status === SIDR_STATUS.SUCCESS) {
    engine.counters.connectionsEstablished++;
    engine.raise(connection, "ESTABLISHED", {
      privateData,
      remoteQpn: reply.qpn,
      remoteQkey: reply.qkey,
    });
  } else {
    // librdmacm's event for it; the status is the SIDR_REP's.
    engine.raise(connection, "UNREACHABLE", { status, privateData });
  }
  engine.forget(connection);
}

function refuseSidr(engine: CmEngine, request: SidrReq, from: Sender, status: number): void {
  engine.counters.requestsRefused++;
  engine.reply(from, sidrRepOf(request, status, null));
}
