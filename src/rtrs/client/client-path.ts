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
import type { CmEvent } from "../../cm/index.js";
import { ACCESS, type WorkCompletion } from "../../verbs/index.js";
import {
  decodeRtrsConnectReply,
  encodeRtrsConnectRequest,
  RTRS_FLAG_NEW_RKEY,
  RTRS_IMMEDIATE,
  RTRS_RKEY_RESPONSE_BYTES,
  RTRS_TYPE,
  type RtrsConnectReply,
  rtrsRkeyResponseChunk,
  rtrsRkeyResponseKey,
  rtrsType,
} from "../../wire/index.js";
import { Connection, type ConnectionOwner } from "../connection.js";
import { connectError, rejectError } from "../errors.js";
import { Heartbeat } from "../heartbeat.js";
import type { RtrsPathAddresses } from "../options.js";
import { Slab } from "../slab.js";
import { randomUuid } from "../uuid.js";
import type { ChunkTable } from "./chunk-table.js";
import type { PathMarks } from "./client-permits.js";
import { InfoExchange } from "./info-exchange.js";
import type {
  ClientPathContext,
  ClientPathOwner,
  ClientPathState,
  RtrsClientPath,
} from "./path-context.js";
import { PathCounters } from "./path-counters.js";
import { depthsOf, postReceives, receiveCount } from "./queue-sizes.js";

const TRANSITIONS: Readonly<Record<ClientPathState, readonly ClientPathState[]>> = {
  IDLE: ["WAITING", "CLOSED"],
  WAITING: ["CONNECTING", "CLOSED"],
  CONNECTING: ["CONNECTED", "DISCONNECTING"],
  CONNECTED: ["DISCONNECTING"],
  DISCONNECTING: ["WAITING", "CLOSED"],
  CLOSED: [],
};

/** Local ACK timeout code for queue pairs of our own: 4.096 us x 2^17 = 0.54 s, eight in a row. */
const ACK_TIMEOUT_CODE = 17;
/** Half of that where another path can take over. */
const ACK_TIMEOUT_CODE_OF_SEVERAL = 16;
/**
 * What a server that goes by it is asked for: 2.1 s, as Linux's client does. Software RoCE of Linux
 * 6.1 loses a connection for half a minute when this runs out under a reply (facts page 16), so it
 * must be longer than our pauses are.
 */
const SERVER_ACK_TIMEOUT_CODE = 19;

/** The code of a server's refusal of a further path of a session that it does not know. */
const SESSION_UNKNOWN = "ENXIO";
/** How often a path's latency is measured where it matters. */
const LATENCY_INTERVAL_NS = 1e9;

export class ClientPath implements ConnectionOwner, RtrsClientPath {
  readonly number: number;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** Kept over reconnects, so that the server can tell the old incarnation from the new. */
  readonly uuid: Uint8Array;
  readonly counters: PathCounters;
  state: ClientPathState = "IDLE";
  connections: Connection[] = [];
  /** While CONNECTED. */
  chunks: ChunkTable | null = null;
  /** Whether the server rotates the keys of its chunks. */
  rotatesKeys = false;
  attemptCount = 0;
  lastError: FarpageError | null = null;
  latencyNs = 0;
  inflight = 0;
  /** A connection took no more: the path must fail. */
  isBroken = false;
  /** Permits that its lost incarnation may still use. */
  readonly marks: PathMarks = { doubted: null, held: null };
  /** The picker's: when it looked at this path last. */
  triedStamp = 0;

  private readonly context: ClientPathContext;
  private readonly owner: ClientPathOwner;
  private readonly random: Random;
  private readonly heartbeat: Heartbeat;
  private reconnectCount = 0;
  /** Times that it was CONNECTED. */
  private connectedCount = 0;
  /** Of the session when the attempt started, and when the path was last CONNECTED. */
  private attemptGeneration = 0;
  private joinedGeneration = 0;
  private offer: RtrsConnectReply | null = null;
  /** Requests that the session will have outstanding; once the offer is there. */
  private permitCount = 0;
  /** INFO_REQ and INFO_RSP of the current attempt. */
  private info: InfoExchange | null = null;
  /** Buffers of the 8-byte replies of a server that rotates keys. */
  private replies: Slab | null = null;
  /** When the current state must have done its work, or WAITING ends. */
  private stateDeadlineNs = Infinity;
  /** How long the first attempt leaves it to other paths to make the session. */
  private headStartNs = 0;
  private latencyDueNs = Infinity;
  /** A heartbeat was sent then, and not acknowledged yet. */
  private measuredNs = 0;
  private isMeasuring = false;
  private delayNs: number;
  private nextConnection = 0;
  private isClosing = false;
  /** Of the session's turn under way. */
  nowNs = 0;

  constructor(
    context: ClientPathContext,
    owner: ClientPathOwner,
    number: number,
    addresses: RtrsPathAddresses,
  ) {
    const { settings, environment } = context;
    this.context = context;
    this.owner = owner;
    this.number = number;
    this.source = addresses.source;
    this.destination = addresses.destination;
    this.random = environment.random.fork(number === 0 ? "rtrs path" : `rtrs path ${number}`);
    this.uuid = randomUuid(this.random);
    this.counters = new PathCounters(settings.connectionCount + 1);
    this.delayNs = settings.reconnectDelayNs;
    this.heartbeat = new Heartbeat(settings.heartbeatIntervalNs, settings.heartbeatMissedMax);
  }

  /**
   * The first attempt starts with the next `pump`. Preconditions: IDLE.
   * @param headStartNs how long it waits for another path to make the session first.
   */
  connect(headStartNs = 0): void {
    this.headStartNs = headStartNs;
    this.setState("WAITING", -Infinity);
  }

  /** The next attempt starts with the next `pump`; no-op unless WAITING. */
  hurry(): void {
    if (this.state !== "WAITING") return;
    this.headStartNs = 0;
    this.stateDeadlineNs = -Infinity;
  }

  /** The next connection in turn that has room; null when none has. Preconditions: CONNECTED. */
  pickConnection(): Connection | null {
    const count = this.connections.length - 1;
    for (let i = 0; i < count; i++) {
      this.nextConnection = this.nextConnection >= count ? 1 : this.nextConnection + 1;
      const connection = this.connections[this.nextConnection] as Connection;
      if (connection.hasRoom(1)) return connection;
    }
    return null;
  }

  /** `close` was called. */
  get isLeaving(): boolean {
    return this.isClosing;
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
    this.isBroken = false;
    this.latencyNs = 0;
    this.latencyDueNs = Infinity;
    this.isMeasuring = false;
    this.heartbeat.stop();
    if (!wasConnected && this.connectedCount > 0) this.counters.reconnectsFailed++;
    this.setState("DISCONNECTING", this.nowNs + this.context.settings.disconnectTimeoutNs);
    for (const connection of this.connections) connection.disconnect();
    this.chunks = null;
    this.owner.onPathError(error);
    if (wasConnected) this.owner.onPathDown(this);
  }

  /** Preconditions: `nowNs` was set to this turn's. */
  pump(nowNs: number): void {
    if (this.state === "CONNECTED") this.pumpHeartbeat();
    else if (this.state === "DISCONNECTING") this.pumpDisconnect();
    else if (nowNs >= this.stateDeadlineNs) this.onDeadline();
  }

  deadlineNs(): number {
    if (this.state === "DISCONNECTING" && this.isOver()) return this.nowNs;
    const { heartbeat } = this;
    return Math.min(this.stateDeadlineNs, heartbeat.deadlineNs, this.latencyDueNs);
  }

  onCmEvent(connection: Connection, event: CmEvent): void {
    switch (event.type) {
      case "ESTABLISHED":
        this.onEstablished(connection, event.privateData);
        break;
      case "REJECTED":
        connection.state = "CLOSED";
        this.onRejected(rejectError(event));
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
    if (this.isMeasuring) this.latencyNs = Math.max(1, this.nowNs - this.measuredNs);
    this.isMeasuring = false;
    return true;
  }

  /**
   * Takes the chunk's key out of a reply, before its permit can be used again; nothing to take from
   * a server that does not rotate keys.
   * @returns false when the reply is not what it must be.
   */
  takeKey(permit: number, connection: Connection, completion: WorkCompletion): boolean {
    const { replies } = this;
    if (!this.rotatesKeys || replies === null) return true;
    if (completion.byteLength < RTRS_RKEY_RESPONSE_BYTES) return false;
    const { address, view } = replies.memory;
    const at = connection.receiveAddress - address + completion.wrId * RTRS_RKEY_RESPONSE_BYTES;
    if (rtrsType(view, at) !== RTRS_TYPE.RKEY_RSP) return false;
    if (rtrsRkeyResponseChunk(view, at) !== permit || this.chunks === null) return false;
    this.chunks.keys[permit] = rtrsRkeyResponseKey(view, at);
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
      this.end();
    } else if (this.state === "WAITING") {
      if (this.headStartNs > 0 && this.owner.generation === 0) this.lendHeadStart();
      else this.startAttempt();
    } else {
      this.fail(new FarpageError("ETIMEDOUT", "the server did not answer the session request"));
    }
  }

  /** Of paths that come up together the first makes the session, and the others can join it. */
  private lendHeadStart(): void {
    this.stateDeadlineNs = this.nowNs + this.headStartNs;
    this.headStartNs = 0;
  }

  private end(): void {
    this.setState("CLOSED", Infinity);
    this.replies?.free();
    this.replies = null;
    this.owner.onPathClosed(this);
  }

  private onRejected(error: FarpageError): void {
    const { generation } = this.owner;
    // Another server may have taken the address over: what it says of the session is believed once.
    const isPart = generation !== 0 && this.joinedGeneration === generation;
    this.fail(error);
    if (!isPart || error.code !== SESSION_UNKNOWN) return;
    this.joinedGeneration = 0;
    this.owner.onSessionUnknown(this);
  }

  private startAttempt(): void {
    this.attemptCount++;
    this.attemptGeneration = this.owner.generation;
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
      connection = new Connection(this, cid, id, pd, depthsOf(cid, this.permitCount), poller);
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
        firstConnection: this.attemptGeneration === 0,
      }),
      responderResources: 0,
      initiatorDepth: 0,
      retryCount: 7,
      rnrRetryCount: 7,
      ackTimeout: this.owner.hasSeveralPaths ? ACK_TIMEOUT_CODE_OF_SEVERAL : ACK_TIMEOUT_CODE,
      peerAckTimeout: SERVER_ACK_TIMEOUT_CODE,
      timeoutNs: settings.connectTimeoutNs,
    });
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
    this.permitCount = this.owner.onPathOffer(reply);
    if (!this.rotatesKeys || this.replies !== null) return;
    const { environment, pd, settings } = this.context;
    const count = receiveCount(settings.connectionCount, this.permitCount);
    const bytes = count * RTRS_RKEY_RESPONSE_BYTES;
    this.replies = new Slab(environment.memory, pd, bytes, ACCESS.LOCAL_WRITE);
  }

  private requestInfo(): void {
    const { environment, pd, settings } = this.context;
    this.info = new InfoExchange(environment.memory, pd, this.offer as RtrsConnectReply);
    this.info.ask(this.service, settings.sessionName);
    this.stateDeadlineNs = this.nowNs + settings.connectTimeoutNs;
  }

  private onInfoResponse(completion: WorkCompletion): void {
    this.guarded(() => {
      const { generation } = this.owner;
      if (generation !== 0 && generation !== this.attemptGeneration) {
        // The server may have made another session of it, in which nothing is open.
        throw new FarpageError("EAGAIN", "the session was lost meanwhile, and is joined anew");
      }
      this.chunks = (this.info as InfoExchange).read(completion.byteLength);
      this.setState("CONNECTED", Infinity);
      if (this.connectedCount++ > 0) this.counters.reconnectsOk++;
      this.attemptCount = 0;
      this.lastError = null;
      this.delayNs = this.context.settings.reconnectDelayNs;
      this.heartbeat.start(this.nowNs);
      const replies = this.rotatesKeys ? this.replies : null;
      postReceives(this.connections, this.permitCount, replies);
      this.measureLatency();
    });
    if (this.state !== "CONNECTED") return;
    this.owner.onPathUp(this);
    this.joinedGeneration = this.owner.generation;
  }

  /** Starts measuring when it is wanted, or wanted from now on; no-op unless CONNECTED. */
  measureLatency(): void {
    if (this.state !== "CONNECTED") return;
    this.latencyDueNs = this.owner.measuresLatency ? this.nowNs : Infinity;
  }

  private pumpHeartbeat(): void {
    const verdict = this.heartbeat.tick(this.nowNs);
    const isDue = this.nowNs >= this.latencyDueNs;
    if (isDue) this.latencyDueNs = this.nowNs + LATENCY_INTERVAL_NS;
    if (verdict === "SEND" || (isDue && !this.isMeasuring)) {
      if (!this.isMeasuring) this.measuredNs = this.nowNs;
      this.isMeasuring = true;
      this.service.postHeartbeat(RTRS_IMMEDIATE.HEARTBEAT);
    }
    if (verdict === "FAILED") this.fail(new FarpageError("ETIMEDOUT", "the server is silent"));
  }

  private isOver(): boolean {
    return this.connections.every((connection) => connection.state === "CLOSED");
  }

  private pumpDisconnect(): void {
    if (!this.isOver() && this.nowNs < this.stateDeadlineNs) return;
    for (const connection of this.connections) connection.destroy();
    this.connections = [];
    this.info?.free();
    this.info = null;
    if (this.isClosing || this.attemptCount >= this.context.settings.connectAttemptsMax) {
      this.end();
      return;
    }
    // A quarter more or less, so that clients that lost one server do not return in step.
    const spread = 0.75 + randomBelow(this.random, 1000) / 2000;
    this.setState("WAITING", this.nowNs + Math.round(this.delayNs * spread));
    this.delayNs = Math.min(this.delayNs * 2, this.context.settings.reconnectDelayNsMax);
  }
}
