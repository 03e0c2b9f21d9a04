// SPDX-License-Identifier: MIT
// One path of a client session: from connecting its queue pairs one by one, over the info exchange
// and the heartbeat, to the wait before the next attempt (facts page, sections 4, 5, 9, 10.1).
// Requests are `ClientSender`'s (client-sender.ts); what becomes of them when the path fails is the
// session's business.

import {
  assert,
  FarpageError,
  type IpAddress,
  type Random,
  randomBelow,
} from "../../base/index.js";
import type { CmEvent, EventChannel } from "../../cm/index.js";
import {
  ACCESS,
  type ProtectionDomain,
  SendWorkRequest,
  type WorkCompletion,
  WR_OPCODE,
} from "../../verbs/index.js";
import {
  decodeRtrsConnectReply,
  decodeRtrsInfoResponse,
  encodeRtrsConnectRequest,
  RTRS_FLAG_NEW_RKEY,
  RTRS_IMMEDIATE,
  RTRS_INFO_REQUEST_BYTES,
  type RtrsConnectReply,
  rtrsInfoResponseBytes,
  writeRtrsInfoRequest,
} from "../../wire/index.js";
import { type CompletionPoller, Connection, type ConnectionOwner } from "../connection.js";
import type { RtrsEnvironment } from "../environment.js";
import { connectError, rejectError } from "../errors.js";
import { Heartbeat } from "../heartbeat.js";
import type { ClientSettings } from "../options.js";
import { Slab } from "../slab.js";
import { randomUuid } from "../uuid.js";
import { ChunkTable } from "./chunk-table.js";

/**
 * - `IDLE`: never connected.
 * - `WAITING`: for the time of the next attempt.
 * - `CONNECTING`: connections come up one after another, then the info exchange.
 * - `CONNECTED`: takes requests.
 * - `DISCONNECTING`: the queue pairs are dead, the CM says goodbye.
 * - `CLOSED`: for good.
 *
 * Linux has the same machine with DISCONNECTING and WAITING as one state, RECONNECTING.
 */
export type ClientPathState =
  | "IDLE"
  | "WAITING"
  | "CONNECTING"
  | "CONNECTED"
  | "DISCONNECTING"
  | "CLOSED";

const TRANSITIONS: Readonly<Record<ClientPathState, readonly ClientPathState[]>> = {
  IDLE: ["WAITING", "CLOSED"],
  WAITING: ["CONNECTING", "CLOSED"],
  CONNECTING: ["CONNECTED", "DISCONNECTING"],
  CONNECTED: ["DISCONNECTING"],
  DISCONNECTING: ["WAITING", "CLOSED"],
  CLOSED: [],
};

/** What a path tells its session; called from `pump` and `onCmEvent`, and from the poller. */
export interface ClientPathOwner {
  /**
   * The server has said what it offers; the session makes what depends on it.
   * @returns how many requests the session will have outstanding.
   * @throws FarpageError when the session can't go on with these parameters.
   */
  onPathOffer(path: ClientPath, reply: RtrsConnectReply): number;
  onPathUp(path: ClientPath): void;
  /** The path takes no requests any more, and no byte of its peer arrives any more. */
  onPathDown(path: ClientPath): void;
  /** The path is CLOSED: told to, or because its attempts are used up. */
  onPathClosed(path: ClientPath): void;
  /** A message on a connection of a CONNECTED path. */
  onPathReceive(path: ClientPath, connection: Connection, completion: WorkCompletion): void;
  /** Send queue slots came free. */
  onPathRoom(path: ClientPath): void;
}

/** What a path takes from its session. */
export interface ClientPathContext {
  readonly environment: RtrsEnvironment;
  readonly settings: ClientSettings;
  readonly pd: ProtectionDomain;
  readonly channel: EventChannel;
  readonly poller: CompletionPoller;
  readonly pathsUuid: Uint8Array;
}

/** Sends of the service connection: INFO_REQ, heartbeats and their acknowledgements. */
const SERVICE_SENDS = 64;
/** Receives of the service connection: heartbeats and acknowledgements, and INFO_RSP. */
const SERVICE_RECEIVES = 64;
/** Local ACK timeout code for queue pairs of our own: 4.096 us x 2^17 = 0.54 s, eight in a row. */
const ACK_TIMEOUT_CODE = 17;
/**
 * What a server that goes by it is asked for: 2.1 s, as Linux's client does. Software RoCE of Linux
 * 6.1 loses a connection for half a minute when this runs out under a reply (facts page 16), so it
 * must be longer than our pauses are.
 */
const SERVER_ACK_TIMEOUT_CODE = 19;

export class ClientPath implements ConnectionOwner {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** Kept over reconnects, so that the server can tell the old incarnation from the new. */
  readonly uuid: Uint8Array;
  state: ClientPathState = "IDLE";
  connections: Connection[] = [];
  /** While CONNECTED. */
  chunks: ChunkTable | null = null;
  /** Whether the server rotates the keys of its chunks. */
  rotatesKeys = false;
  /** Attempts since the path was last CONNECTED, the current one included. */
  attemptCount = 0;
  /** Why the last attempt or connection ended; null while all is well. */
  lastError: FarpageError | null = null;
  /** Time from the last heartbeat to its acknowledgement. */
  latencyNs = 0;

  private readonly context: ClientPathContext;
  private readonly owner: ClientPathOwner;
  private readonly random: Random;
  private readonly heartbeat: Heartbeat;
  private reconnectCount = 0;
  private offer: RtrsConnectReply | null = null;
  /** Requests that the session will have outstanding; once the offer is there. */
  private permitCount = 0;
  /** INFO_REQ and INFO_RSP of the current attempt. */
  private setup: Slab | null = null;
  private readonly infoRequest = new SendWorkRequest();
  /** When the current state must have done its work, or WAITING ends. */
  private stateDeadlineNs = Infinity;
  private delayNs: number;
  private isClosing = false;
  private nowNs = 0;

  constructor(
    context: ClientPathContext,
    owner: ClientPathOwner,
    source: IpAddress,
    destination: IpAddress,
  ) {
    this.context = context;
    this.owner = owner;
    this.source = source;
    this.destination = destination;
    this.random = context.environment.random.fork("rtrs path");
    this.uuid = randomUuid(this.random);
    this.delayNs = context.settings.reconnectDelayNs;
    const { heartbeatIntervalNs, heartbeatMissedMax } = context.settings;
    this.heartbeat = new Heartbeat(heartbeatIntervalNs, heartbeatMissedMax);
    this.infoRequest.opcode = WR_OPCODE.SEND;
  }

  /** The first attempt starts with the next `pump`. Preconditions: IDLE. */
  connect(): void {
    this.setState("WAITING", -Infinity);
  }

  /** Ends the path for good; `onPathClosed` follows from `pump`. */
  close(): void {
    this.isClosing = true;
    if (this.state === "IDLE" || this.state === "WAITING") {
      this.stateDeadlineNs = -Infinity;
    } else if (this.state === "CONNECTING" || this.state === "CONNECTED") {
      this.fail(new FarpageError("ESHUTDOWN", "the session was closed"));
    }
  }

  /**
   * The path is of no use any more: kills its queue pairs at once, then says goodbye and connects
   * again later. No-op unless CONNECTING or CONNECTED.
   */
  fail(error: FarpageError): void {
    if (this.state !== "CONNECTING" && this.state !== "CONNECTED") return;
    const wasConnected = this.state === "CONNECTED";
    this.lastError = error;
    this.heartbeat.stop();
    this.setState("DISCONNECTING", this.nowNs + this.context.settings.disconnectTimeoutNs);
    for (const connection of this.connections) connection.disconnect();
    this.chunks = null;
    if (wasConnected) this.owner.onPathDown(this);
  }

  pump(nowNs: number): void {
    this.nowNs = nowNs;
    if (this.state === "CONNECTED") this.pumpHeartbeat();
    else if (this.state === "DISCONNECTING") this.pumpDisconnect();
    else if (nowNs >= this.stateDeadlineNs) this.onDeadline();
  }

  deadlineNs(): number {
    if (this.state === "DISCONNECTING" && this.isOver()) return this.nowNs;
    return Math.min(this.stateDeadlineNs, this.heartbeat.deadlineNs);
  }

  onCmEvent(connection: Connection, event: CmEvent, nowNs: number): void {
    this.nowNs = nowNs;
    switch (event.type) {
      case "ESTABLISHED":
        this.onEstablished(connection, event.privateData);
        break;
      case "REJECTED":
        connection.state = "CLOSED";
        this.fail(rejectError(event));
        break;
      case "UNREACHABLE":
      case "CONNECT_ERROR":
        connection.state = "CLOSED";
        this.fail(connectError(event, this.destination));
        break;
      case "DISCONNECTED":
        connection.onDisconnected();
        this.fail(new FarpageError("ECONNRESET", "the server has disconnected"));
        break;
      default:
        break;
    }
  }

  // ------------------------------------------------------------------------------ ConnectionOwner

  onReceive(connection: Connection, completion: WorkCompletion): void {
    if (this.state === "CONNECTED") {
      this.heartbeat.onTraffic();
      this.owner.onPathReceive(this, connection, completion);
    } else if (this.state === "CONNECTING") {
      this.onInfoResponse(completion);
    }
  }

  onRoom(_connection: Connection): void {
    if (this.state === "CONNECTED") this.owner.onPathRoom(this);
  }

  onConnectionError(connection: Connection, completion: WorkCompletion): void {
    const where = `connection ${connection.cid}, work completion status ${completion.status}`;
    this.fail(new FarpageError("ECONNRESET", `the connection failed (${where})`));
  }

  /** A heartbeat immediate arrived. @returns whether `type` was one. */
  onHeartbeat(type: number): boolean {
    if (type === RTRS_IMMEDIATE.HEARTBEAT) {
      this.service.postHeartbeat(RTRS_IMMEDIATE.HEARTBEAT_ACK);
      return true;
    }
    if (type !== RTRS_IMMEDIATE.HEARTBEAT_ACK) return false;
    this.latencyNs = this.nowNs - this.heartbeat.sentNs;
    return true;
  }

  checkInvariants(): void {
    assert((this.chunks !== null) === (this.state === "CONNECTED"), "chunks while connected");
    const isLive = this.state !== "IDLE" && this.state !== "WAITING" && this.state !== "CLOSED";
    assert(isLive || this.connections.length === 0, "no connection without a reason");
    for (const connection of this.connections) connection.checkInvariants();
  }

  // ----------------------------------------------------------------------------------- stages

  private get service(): Connection {
    return this.connections[0] as Connection;
  }

  private setState(state: ClientPathState, deadlineNs: number): void {
    assert(TRANSITIONS[this.state].includes(state), `path moves from ${this.state} to ${state}`);
    this.state = state;
    this.stateDeadlineNs = deadlineNs;
  }

  private onDeadline(): void {
    if (this.isClosing) {
      this.setState("CLOSED", Infinity);
      this.owner.onPathClosed(this);
    } else if (this.state === "WAITING") {
      this.startAttempt();
    } else {
      this.fail(new FarpageError("ETIMEDOUT", "the server did not answer the session request"));
    }
  }

  private startAttempt(): void {
    this.attemptCount++;
    this.reconnectCount = (this.reconnectCount + 1) & 0xffff;
    this.offer = null;
    this.setState("CONNECTING", Infinity);
    this.guarded(() => this.openConnection(0));
  }

  /** Runs a step of connecting; an error of it fails the attempt. */
  private guarded(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (!(error instanceof FarpageError)) throw error;
      this.fail(error);
    }
  }

  private openConnection(cid: number): void {
    const { settings, channel, pd, poller, pathsUuid } = this.context;
    const id = channel.createId();
    let connection: Connection;
    try {
      const { source, destination } = this;
      id.resolve({ source, destination, port: settings.port });
      connection = new Connection(this, cid, id, pd, this.depthsOf(cid), poller);
    } catch (error) {
      id.destroy();
      throw error;
    }
    this.connections.push(connection);
    id.connect({
      privateData: encodeRtrsConnectRequest({
        connectionId: cid,
        connectionCount: settings.connectionCount + 1,
        reconnectCount: this.reconnectCount,
        pathUuid: this.uuid,
        pathsUuid,
        firstConnection: true,
      }),
      responderResources: 0,
      initiatorDepth: 0,
      retryCount: 7,
      rnrRetryCount: 7,
      ackTimeout: ACK_TIMEOUT_CODE,
      peerAckTimeout: SERVER_ACK_TIMEOUT_CODE,
      timeoutNs: settings.connectTimeoutNs,
    });
  }

  private depthsOf(cid: number): { send: number; receive: number } {
    if (cid === 0) return { send: SERVICE_SENDS, receive: SERVICE_RECEIVES };
    return { send: requestSends(this.permitCount), receive: requestReceives(this.permitCount) };
  }

  private onEstablished(connection: Connection, privateData: Uint8Array): void {
    if (this.state !== "CONNECTING") return;
    connection.state = "ESTABLISHED";
    this.guarded(() => {
      if (connection.cid === 0) this.takeOffer(privateData);
      const next = connection.cid + 1;
      if (next <= this.context.settings.connectionCount) this.openConnection(next);
      else this.requestInfo();
    });
  }

  private takeOffer(privateData: Uint8Array): void {
    const reply = decodeRtrsConnectReply(privateData);
    if (typeof reply === "string") {
      throw new FarpageError("EPROTO", `the server's connect reply is unusable: ${reply}`);
    }
    if (reply.errno !== 0 || reply.queueDepth === 0) {
      throw new FarpageError("EPROTO", "the server accepted the connection but offers nothing");
    }
    this.rotatesKeys = (reply.flags & RTRS_FLAG_NEW_RKEY) !== 0;
    this.offer = reply;
    this.permitCount = this.owner.onPathOffer(this, reply);
  }

  private requestInfo(): void {
    const { environment, pd, settings } = this.context;
    const responseBytes = rtrsInfoResponseBytes((this.offer as RtrsConnectReply).queueDepth);
    const bytes = RTRS_INFO_REQUEST_BYTES + responseBytes;
    const setup = new Slab(environment.memory, pd, bytes, ACCESS.LOCAL_WRITE);
    this.setup = setup;
    writeRtrsInfoRequest(setup.memory.bytes, 0, settings.sessionName);
    const service = this.service;
    service.receiveAddress = setup.memory.address + RTRS_INFO_REQUEST_BYTES;
    service.receiveBytes = responseBytes;
    service.receiveKey = setup.region.lkey;
    const sge = this.infoRequest.sges[0] as (typeof this.infoRequest.sges)[number];
    sge.address = setup.memory.address;
    sge.length = RTRS_INFO_REQUEST_BYTES;
    sge.lkey = setup.region.lkey;
    this.infoRequest.sgeCount = 1;
    if (!service.postReceive(0) || !service.post(this.infoRequest)) {
      throw new FarpageError("ECONNRESET", "the connection failed before the info exchange");
    }
    this.stateDeadlineNs = this.nowNs + settings.connectTimeoutNs;
  }

  private onInfoResponse(completion: WorkCompletion): void {
    this.guarded(() => {
      this.chunks = this.readInfoResponse(completion.byteLength);
      this.setState("CONNECTED", Infinity);
      this.attemptCount = 0;
      this.lastError = null;
      this.delayNs = this.context.settings.reconnectDelayNs;
      this.heartbeat.start(this.nowNs);
    });
    if (this.state === "CONNECTED") this.owner.onPathUp(this);
  }

  private readInfoResponse(length: number): ChunkTable {
    const { view } = (this.setup as Slab).memory;
    const offer = this.offer as RtrsConnectReply;
    const regions = decodeRtrsInfoResponse(view, RTRS_INFO_REQUEST_BYTES, length);
    if (typeof regions === "string") {
      throw new FarpageError("EPROTO", `the server's INFO_RSP is unusable: ${regions}`);
    }
    return new ChunkTable(regions, offer.queueDepth, offer.ioBytesMax + offer.headerBytesMax);
  }

  /**
   * Posts all receives of all connections, each with a buffer of its own.
   * @param bytes of each buffer; 0 = empty receives.
   */
  postReceives(address: number, key: number, bytes: number): void {
    let at = address;
    for (const connection of this.connections) {
      const count = connection.cid === 0 ? SERVICE_RECEIVES : requestReceives(this.permitCount);
      connection.receiveAddress = at;
      connection.receiveKey = key;
      connection.receiveBytes = bytes;
      for (let slot = 0; slot < count; slot++) connection.postReceive(slot);
      at += count * bytes;
    }
  }

  private pumpHeartbeat(): void {
    const verdict = this.heartbeat.tick(this.nowNs);
    if (verdict === "SEND") this.service.postHeartbeat(RTRS_IMMEDIATE.HEARTBEAT);
    if (verdict === "FAILED") this.fail(new FarpageError("ETIMEDOUT", "the server is silent"));
  }

  private isOver(): boolean {
    return this.connections.every((connection) => connection.state === "CLOSED");
  }

  private pumpDisconnect(): void {
    if (!this.isOver() && this.nowNs < this.stateDeadlineNs) return;
    for (const connection of this.connections) connection.destroy();
    this.connections = [];
    this.setup?.free();
    this.setup = null;
    if (this.isClosing || this.attemptCount >= this.context.settings.connectAttemptsMax) {
      this.setState("CLOSED", Infinity);
      this.owner.onPathClosed(this);
      return;
    }
    // A quarter more or less, so that clients that lost one server do not return in step.
    const spread = 0.75 + randomBelow(this.random, 1000) / 2000;
    this.setState("WAITING", this.nowNs + Math.round(this.delayNs * spread));
    this.delayNs = Math.min(this.delayNs * 2, this.context.settings.reconnectDelayNsMax);
  }
}

/**
 * Sends of a connection that carries requests: one per request, and as many again that are answered
 * but not yet accounted for, since only some are signalled.
 */
function requestSends(permitCount: number): number {
  return 2 * permitCount + 16;
}

/** Most requests outstanding that a connection with queues of `queueDepthMax` can carry. */
export function permitCountMax(queueDepthMax: number): number {
  return (queueDepthMax - 16) >>> 1;
}

/**
 * Receives of a connection that carries requests: two per outstanding READ (SEND with invalidate,
 * and the reply), and some for heartbeats (facts page, section 8).
 */
function requestReceives(permitCount: number): number {
  return 2 * permitCount + 8;
}

/** Bytes of receive buffers that `ClientPath.postReceives` needs. */
export function receiveBufferBytes(
  connectionCount: number,
  permitCount: number,
  bytes: number,
): number {
  return (SERVICE_RECEIVES + connectionCount * requestReceives(permitCount)) * bytes;
}
