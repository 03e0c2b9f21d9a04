// SPDX-License-Identifier: MIT
// The passive side of a connection: REQ in, REP out, RTU or data in (IBTA vol1 §12.9.7; what a REQ
// must pass: rocev2 facts section 20).

import { FarpageError, type IpAddress } from "../base/index.js";
import type { PathMtu } from "../verbs/index.js";
import {
  CM_REJ_PRIVATE_BYTES,
  CM_REP_PRIVATE_BYTES,
  CM_TRANSPORT,
  type CmRep,
  type CmReq,
  type CmRtu,
  codeOfMtu,
  decodeRdmaCmHeader,
  MRA_MESSAGE,
  mtuOfCode,
  pkeyMatches,
  RDMA_CM_HEADER_BYTES,
  type RdmaCmHeader,
  REJ_MESSAGE,
  REJ_REASON,
} from "../wire/index.js";
import { RD_ATOMIC_DEFAULT, within } from "./active.js";
import type { CmId } from "./cm-id.js";
import type { Connection } from "./connection.js";
import type { CmEngine, Sender } from "./engine.js";
import type { Listener } from "./listener.js";
import { checkPrivateData, parseServiceId } from "./messages.js";
import { moveToRts } from "./queue-pair-moves.js";
import { endWithRej, refuse, rejectAgain } from "./rejection.js";
import { endStale } from "./teardown.js";

/** What `CmId.accept` takes. */
export interface AcceptOptions {
  /** At most 196 bytes (UDP port space: 136). */
  readonly privateData?: Uint8Array;
  /**
   * READs and atomics of the peer that we serve at a time. Default: what the peer asks for, at most
   * 16. With 0 the queue pair allows remote writes only.
   */
  readonly responderResources?: number;
  /** Own READs and atomics outstanding; never more than the peer serves. Default likewise. */
  readonly initiatorDepth?: number;
  /** RNR NAKs in a row before a request of the *peer* fails; 7, the default, is endless. */
  readonly rnrRetryCount?: number;
  readonly flowControl?: boolean;
  /**
   * Coded local ACK timeout of our side, 4.096 us * 2^t, 1 .. 31. Default: the REQ's, but no longer
   * than the connection manager's (Linux asks for 2.15 s) and no shorter than 4 ms.
   */
  readonly ackTimeout?: number;
  /**
   * Coded time in which this side acknowledges, 0 .. 31: the REP tells it, and the peer reckons the
   * ACK timeout of *its* side with it (`ackTimeoutOf`; Linux's is never below 2.15 s). Default: the
   * device's.
   */
  readonly targetAckDelay?: number;
}

/** Coded: 4.2 ms. A peer that asks for less (Linux reads 0 as 8 us) would get a storm. */
const ACK_TIMEOUT_MIN = 10;

export function onReq(engine: CmEngine, req: CmReq, from: Sender): void {
  const { table } = engine;
  const { caGuidHigh, caGuidLow } = req;
  const known = table.findRemote(from.source, caGuidHigh, caGuidLow, req.localCommId);
  if (known !== null) {
    onKnownReq(engine, known, req, from);
    return;
  }
  const stale = table.findQpn(from.source, caGuidHigh, caGuidLow, req.qpn);
  if (stale !== null) {
    onStaleReq(engine, stale, req, from);
    return;
  }

  const service = parseServiceId(req.serviceIdHigh, req.serviceIdLow);
  const listener =
    service?.portSpace === "TCP"
      ? engine.listeners.find("TCP", service.port, from.destination)
      : null;
  if (listener === null) {
    refuseReq(engine, req, from, REJ_REASON.INVALID_SERVICE_ID);
    return;
  }
  if (!checkPath(engine, req, from)) return;
  const header = checkHeader(req.privateData, from);
  if (header === null || req.transportType !== CM_TRANSPORT.RC) {
    refuseReq(engine, req, from, REJ_REASON.CONSUMER_REJECT);
    return;
  }
  if (!hasRoomFor(engine, listener, from.source)) return;
  admit(engine, listener, req, header, from);
}

/** A REQ with a comm id that we know: lost answers, impatience, or a peer that has begun anew. */
function onKnownReq(engine: CmEngine, connection: Connection, req: CmReq, from: Sender): void {
  const { agreement, state } = connection;
  const isSame =
    connection.isPassive &&
    agreement.remoteQpn === req.qpn &&
    agreement.sendPsn === req.startingPsn;
  if (!isSame) {
    onStaleReq(engine, connection, req, from);
    return;
  }
  switch (state) {
    case "REQ_RCVD":
      engine.counters.duplicatesAnswered++;
      engine.send(connection, {
        kind: "MRA",
        localCommId: connection.localCommId,
        remoteCommId: connection.remoteCommId,
        acknowledged: MRA_MESSAGE.REQ,
        serviceTimeout: engine.tuning.mraServiceTimeout,
        privateData: NO_DATA,
      });
      return;
    case "REP_SENT":
      // The REP has been lost, or crosses this. Linux waits for its timer here; sooner is better.
      engine.counters.duplicatesAnswered++;
      engine.resend(connection);
      return;
    case "TIMEWAIT":
    case "ANSWERED":
      rejectAgain(engine, connection, REJ_MESSAGE.REQ);
      return;
    default:
      engine.drop("WRONG_STATE");
      return;
  }
}

function onStaleReq(engine: CmEngine, stale: Connection, req: CmReq, from: Sender): void {
  refuseReq(engine, req, from, REJ_REASON.STALE_CONNECTION);
  endStale(engine, stale);
}

/**
 * Checks the path between the two ports; refuses the REQ when it is none.
 *
 * DEVIATION: Linux does not compare the primary local GID with the packet's source, so that a REQ
 * can make it send its REPs to a third host; and it takes MTUs that its own link does not carry.
 * Both are refused here (tests "primary local GID", "MTU").
 */
function checkPath(engine: CmEngine, req: CmReq, from: Sender): boolean {
  const { primary, alternate } = req;
  const isPath =
    primary.localGid.equals(from.source) &&
    primary.remoteGid.equals(from.destination) &&
    pkeyMatches(req.pkey);
  if (!isPath) {
    const gid = new Uint8Array(16);
    from.destination.writeGid(new DataView(gid.buffer), 0);
    refuseReq(engine, req, from, REJ_REASON.INVALID_GID, gid);
    return false;
  }
  if (alternate.localLid !== 0 || alternate.remoteLid !== 0) {
    refuseReq(engine, req, from, REJ_REASON.INVALID_ALTERNATE_GID);
    return false;
  }
  const { activeMtu } = engine.context.queryPort(from.devicePort);
  const mtu = mtuOfCode(req.mtuCode);
  if (mtu === 0 || mtu > activeMtu) {
    // IBTA vol1 §12.6.7.2: the additional information is the largest acceptable code.
    const code = Uint8Array.of(codeOfMtu(activeMtu) << 4);
    refuseReq(engine, req, from, REJ_REASON.INVALID_MTU, code);
    return false;
  }
  return true;
}

/**
 * RDMA CM's header, when it is one and names the address that was reached. Its source is only
 * informative (packets come from elsewhere), but must be an address that could be answered.
 */
export function checkHeader(privateData: Uint8Array, from: Sender): RdmaCmHeader | null {
  const { buffer, byteOffset, byteLength } = privateData;
  const header = decodeRdmaCmHeader(new DataView(buffer, byteOffset, byteLength), 0);
  if (header === null || !header.destination.equals(from.destination)) return null;
  if (header.source.family !== from.destination.family) return null;
  return isUnicast(header.source) ? header : null;
}

/** Whether an address can be a host's: neither unspecified nor multicast nor broadcast. */
export function isUnicast(address: IpAddress): boolean {
  if (address.family === 4) {
    const first = address.word3 >>> 24;
    return first !== 0 && first < 224;
  }
  const isUnspecified = (address.word0 | address.word1 | address.word2 | address.word3) === 0;
  return !isUnspecified && address.word0 >>> 24 !== 0xff;
}

/** Whether another request fits; one that does not is ignored, so that it can be repeated later. */
export function hasRoomFor(engine: CmEngine, listener: Listener, source: IpAddress): boolean {
  const { table, tuning } = engine;
  const isFlood =
    table.halfOpenCount >= tuning.halfOpenMax ||
    table.halfOpenCountOf(source) >= tuning.halfOpenPerSourceMax ||
    !engine.hasRoom();
  if (isFlood) {
    engine.drop("HALF_OPEN_LIMIT");
    return false;
  }
  if (listener.pendingCount >= listener.backlog) {
    engine.drop("BACKLOG");
    return false;
  }
  return true;
}

/** Makes the connection and its id, and tells the listener's channel. */
function admit(
  engine: CmEngine,
  listener: Listener,
  req: CmReq,
  header: RdmaCmHeader,
  from: Sender,
): void {
  const id = listener.channel.admit(listener, from, header.sourcePort, req.primary.trafficClass);
  const connection = id.open(true);
  connection.remoteCommId = req.localCommId;
  connection.remoteGuidHigh = req.caGuidHigh;
  connection.remoteGuidLow = req.caGuidLow;
  connection.transactionHigh = from.transactionHigh;
  connection.transactionLow = from.transactionLow;
  const { agreement } = connection;
  agreement.remoteQpn = req.qpn;
  agreement.sendPsn = req.startingPsn;
  agreement.pathMtu = mtuOfCode(req.mtuCode) as PathMtu;
  agreement.retryCount = req.retryCount;
  agreement.rnrRetry = req.rnrRetryCount;
  agreement.ackTimeout = passiveAckTimeout(req.primary.ackTimeout, engine.tuning.ackTimeout);
  agreement.responderResources = req.initiatorDepth;
  agreement.initiatorDepth = req.responderResources;
  connection.listener = listener;
  listener.pendingCount++;
  connection.setState("REQ_RCVD");
  engine.table.addRemote(connection);
  engine.table.addQpn(connection);
  engine.table.beginHalfOpen(connection);
  engine.raise(connection, "CONNECT_REQUEST", {
    listener,
    privateData: req.privateData.slice(RDMA_CM_HEADER_BYTES),
    responderResources: req.initiatorDepth,
    initiatorDepth: req.responderResources,
    remoteQpn: req.qpn,
  });
}

function passiveAckTimeout(asked: number, own: number): number {
  return asked === 0 ? own : Math.min(Math.max(asked, ACK_TIMEOUT_MIN), own);
}

/** Answers the request behind `id` with a REP. @throws FarpageError EINVAL. */
export function acceptReq(engine: CmEngine, id: CmId, options: AcceptOptions): void {
  const connection = id.pendingRequest();
  const { qp } = id;
  if (qp === null)
    throw new FarpageError("EINVAL", "bind a queue pair to the id before it accepts");
  const { maxQpRdAtom, maxQpInitRdAtom, localCaAckDelay } = engine.context.queryDevice();
  const { agreement } = connection;
  const privateData = checkPrivateData(options.privateData, CM_REP_PRIVATE_BYTES);
  const rnrRetryCount = within("rnrRetryCount", options.rnrRetryCount ?? 7, 0, 7);
  const targetAckDelay = within("targetAckDelay", options.targetAckDelay ?? localCaAckDelay, 0, 31);
  const served = Math.min(agreement.responderResources, RD_ATOMIC_DEFAULT, maxQpRdAtom);
  const asked = Math.min(agreement.initiatorDepth, RD_ATOMIC_DEFAULT, maxQpInitRdAtom);
  const resources = options.responderResources ?? served;
  const depth = options.initiatorDepth ?? asked;
  within("responderResources", resources, 0, maxQpRdAtom);
  within("initiatorDepth", depth, 0, maxQpInitRdAtom);
  if (options.ackTimeout !== undefined) {
    agreement.ackTimeout = within("ackTimeout", options.ackTimeout, 1, 31);
  }
  agreement.responderResources = resources;
  // More than the peer serves would only be refused there.
  agreement.initiatorDepth = Math.min(depth, agreement.initiatorDepth);
  agreement.receivePsn = engine.random.nextU32() >>> 8;
  connection.localQpn = qp.qpn;
  try {
    moveToRts(qp, connection, id.minRnrTimer);
  } catch (error) {
    // As Linux: a queue pair that does not come up refuses the peer.
    endWithRej(engine, connection, REJ_REASON.CONSUMER_REJECT);
    engine.failQp(connection);
    throw error;
  }
  engine.endRequest(connection);
  connection.setState("REP_SENT");
  engine.awaitingData.add(connection);
  const rep = repOf(engine, connection, {
    rnrRetryCount,
    targetAckDelay,
    flowControl: options.flowControl ?? false,
    srq: qp.srq !== null,
    privateData,
  });
  engine.sendUntilAnswered(connection, rep, engine.tuning.replyTimeoutNs);
}

function repOf(
  engine: CmEngine,
  connection: Connection,
  choices: Pick<CmRep, "rnrRetryCount" | "targetAckDelay" | "flowControl" | "srq" | "privateData">,
): CmRep {
  const { agreement, localCommId, remoteCommId } = connection;
  return {
    kind: "REP",
    localCommId,
    remoteCommId,
    qkey: 0,
    qpn: connection.localQpn,
    vendorId: 0,
    localEecn: 0,
    startingPsn: agreement.receivePsn,
    responderResources: agreement.responderResources,
    initiatorDepth: agreement.initiatorDepth,
    failoverAccepted: 0,
    caGuidHigh: engine.tuning.caGuid.high,
    caGuidLow: engine.tuning.caGuid.low,
    ...choices,
  };
}

/** Refuses the request behind `id`. @throws FarpageError EINVAL. */
export function rejectReq(engine: CmEngine, id: CmId, data: Uint8Array | undefined): void {
  const connection = id.pendingRequest();
  const privateData = checkPrivateData(data, CM_REJ_PRIVATE_BYTES).slice();
  engine.failQp(connection);
  endWithRej(engine, connection, REJ_REASON.CONSUMER_REJECT, privateData);
}

export function onRtu(engine: CmEngine, rtu: CmRtu, from: Sender): void {
  const connection = engine.table.find(rtu.remoteCommId, from.source, from.destination);
  if (connection === null || connection.remoteCommId !== rtu.localCommId) {
    engine.drop("UNKNOWN_ID");
    return;
  }
  const { state, answerReason } = connection;
  if (state === "REP_SENT") {
    establishPassive(engine, connection);
    return;
  }
  // We have taken the REP back, and the peer has not heard of it.
  if (state === "ANSWERED" && answerReason !== REJ_REASON.STALE_CONNECTION) {
    rejectAgain(engine, connection, REJ_MESSAGE.OTHER);
    return;
  }
  engine.drop("WRONG_STATE");
}

/** Data stands for a lost RTU (IBTA vol1 §12.9.7.1, "communication established"). */
export function pollData(engine: CmEngine): void {
  if (engine.awaitingData.size === 0) return;
  for (const connection of engine.awaitingData) {
    const qp = connection.id?.qp ?? null;
    if (qp?.isOpen === true && qp.hasHeardPeer) establishPassive(engine, connection);
  }
}

function establishPassive(engine: CmEngine, connection: Connection): void {
  engine.stopClock(connection);
  engine.awaitingData.delete(connection);
  engine.table.endHalfOpen(connection);
  connection.setState("ESTABLISHED");
  engine.counters.connectionsEstablished++;
  const { agreement } = connection;
  engine.raise(connection, "ESTABLISHED", {
    responderResources: agreement.responderResources,
    initiatorDepth: agreement.initiatorDepth,
    remoteQpn: agreement.remoteQpn,
  });
}

function refuseReq(
  engine: CmEngine,
  req: CmReq,
  from: Sender,
  reason: number,
  information?: Uint8Array,
): void {
  refuse(engine, from, req.localCommId, REJ_MESSAGE.REQ, reason, information);
}

const NO_DATA = new Uint8Array(0);
