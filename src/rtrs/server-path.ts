// SPDX-License-Identifier: MIT
// One path of a server session (facts page, sections 5, 7.5, 9, 10.2): its connections, its chunks,
// and a protection domain of its own, so that no key of one client is worth anything to another.
//
// A client that breaks the protocol loses this path and nothing else. A path that closes keeps its
// UUID occupied until the last request of it has left the user's devices: that is the fence on
// which a client's re-issued requests rely. One that is re-issued by another path of the session is
// held back there until its first copy has left (`ServerSession.isHeldElsewhere`).

import { assert, ERRNO, IntRing, type IpAddress } from "../base/index.js";
import type { CmEvent, CmId } from "../cm/index.js";
import {
  type ProtectionDomain,
  SendWorkRequest,
  WC_FLAG,
  type WorkCompletion,
  WR_OPCODE,
} from "../verbs/index.js";
import {
  decodeRtrsInfoRequest,
  encodeRtrsConnectReply,
  RTRS_FLAG_NEW_RKEY,
  RTRS_IMMEDIATE,
  RTRS_INFO_REQUEST_BYTES,
  type RtrsConnectRequest,
  rtrsChunkShift,
  rtrsImmediateType,
  rtrsRequestChunk,
  rtrsRequestOffset,
} from "../wire/index.js";
import { type CompletionPoller, Connection, type ConnectionOwner } from "./connection.js";
import type { RtrsEnvironment } from "./environment.js";
import { Heartbeat } from "./heartbeat.js";
import { RTRS_HEADER_BYTES, type ServerSettings } from "./options.js";
import { CHUNK_STATE, ServerChunks } from "./server-chunks.js";
import { ServerReplies } from "./server-replies.js";
import type { ServerRequest, ServerRequestOwner } from "./server-request.js";
import type { ServerSession } from "./server-session.js";
import { uuidKey } from "./uuid.js";

/**
 * - `CONNECTING`: connections come up; the client has not asked for the chunks yet.
 * - `CONNECTED`: takes requests.
 * - `CLOSING`: the queue pairs are dead; goodbyes are said and requests finish.
 * - `CLOSED`: nothing is left.
 */
export type ServerPathState = "CONNECTING" | "CONNECTED" | "CLOSING" | "CLOSED";

const TRANSITIONS: Readonly<Record<ServerPathState, readonly ServerPathState[]>> = {
  CONNECTING: ["CONNECTED", "CLOSING"],
  CONNECTED: ["CLOSING"],
  CLOSING: ["CLOSED"],
  CLOSED: [],
};

/** What a path tells its server. */
export interface ServerPathOwner {
  /** Whether another session has this name. */
  isNameTaken(name: string, session: ServerSession): boolean;
  onPathUp(path: ServerPath): void;
  onPathClosed(path: ServerPath): void;
  onPathRequest(request: ServerRequest): void;
}

/** What a path takes from its server. */
export interface ServerPathContext {
  readonly environment: RtrsEnvironment;
  readonly settings: ServerSettings;
  readonly poller: CompletionPoller;
}

/**
 * Sends and receives beyond what requests need: heartbeats and their acknowledgements, INFO_RSP.
 */
const SPARE = 64;
/**
 * What clients are told of the time that we take to acknowledge: 4.096 us x 2^21 = 8.6 s, for Linux
 * an ACK timeout as long. A server acknowledges between its disk's work and other processes'. The
 * timer of Linux's software RoCE (6.1) runs out every so often while nothing is late, repeats what
 * happens to be under way, and when that is behind a REG_MR, loses the connection for good (facts
 * page 16): so it must run out seldom. The price is one lost last packet's on a hardware NIC.
 */
const TARGET_ACK_DELAY_CODE = 21;
/**
 * Local ACK timeout code of our queue pairs, 0.54 s, as our client's: eight in a row, and the path
 * is closed. A client whose machine pauses for a second has not died, and a Linux client with one
 * path fails its requests when that is closed; the heartbeat finds a dead one as well.
 */
const ACK_TIMEOUT_CODE = 17;
/**
 * After the client's first DREQ the others get this long to arrive before ours go out: a Linux
 * client whose DREQ crosses ours waits for half a minute (facts page, section 10.3).
 */
const DISCONNECT_GRACE_NS = 200_000_000;

export class ServerPath implements ConnectionOwner, ServerRequestOwner {
  readonly session: ServerSession;
  readonly uuid: string;
  readonly peer: IpAddress;
  readonly local: IpAddress;
  readonly connectionCount: number;
  readonly reconnectCount: number;
  state: ServerPathState = "CONNECTING";
  /** Why the path closed; "" before. */
  closeReason = "";
  /** Requests with the user. */
  inflight = 0;

  private readonly context: ServerPathContext;
  private readonly owner: ServerPathOwner;
  private readonly pd: ProtectionDomain;
  private readonly chunks: ServerChunks;
  /** By cid; null where one has not come yet. */
  private readonly connections: (Connection | null)[];
  private readonly shift: number;
  private readonly heartbeat: Heartbeat;
  private readonly replies: ServerReplies;
  /** HELD chunks whose permit is free by now. */
  private readonly released: IntRing;
  private readonly infoWr = new SendWorkRequest();
  /** CONNECTING: when it must be through; CLOSING: when to go on without the peer. */
  private deadline: number;
  /** CLOSING: when to send the DREQs that the client did not. */
  private graceDeadline = Infinity;
  private isBroken = false;
  /** Of the server's turn under way. */
  nowNs: number;

  /** @throws FarpageError ENOMEM. */
  constructor(
    context: ServerPathContext,
    owner: ServerPathOwner,
    session: ServerSession,
    request: RtrsConnectRequest,
    addresses: { readonly peer: IpAddress; readonly local: IpAddress },
    nowNs: number,
  ) {
    const { environment, settings } = context;
    this.context = context;
    this.owner = owner;
    this.session = session;
    this.uuid = uuidKey(request.pathUuid);
    this.peer = addresses.peer;
    this.local = addresses.local;
    this.connectionCount = request.connectionCount;
    this.reconnectCount = request.reconnectCount;
    this.nowNs = nowNs;
    this.deadline = nowNs + settings.connectTimeoutNs;
    this.connections = new Array<Connection | null>(request.connectionCount).fill(null);
    this.shift = rtrsChunkShift(settings.queueDepth);
    this.heartbeat = new Heartbeat(settings.heartbeatIntervalNs, settings.heartbeatMissedMax);
    this.released = new IntRing(settings.queueDepth);
    this.infoWr.opcode = WR_OPCODE.SEND;
    this.pd = environment.context.allocPd();
    try {
      this.chunks = new ServerChunks(environment, settings, this.pd, this, session);
    } catch (error) {
      this.pd.dealloc();
      throw error;
    }
    this.replies = new ServerReplies(this.chunks, settings.alwaysInvalidate);
  }

  /** Whether it joins these two addresses, as all of its connections must. */
  joins(peer: IpAddress, local: IpAddress): boolean {
    return this.peer.equals(peer) && this.local.equals(local);
  }

  hasConnection(cid: number): boolean {
    return this.connections[cid] !== null;
  }

  /**
   * Accepts one of the path's connections. Preconditions: CONNECTING, and `cid` is not there yet.
   * @throws FarpageError ENOMEM; the id is then still the caller's to reject.
   */
  accept(id: CmId, cid: number): void {
    const { settings, environment, poller } = this.context;
    const { maxQpWr } = environment.context.queryDevice();
    const depth = Math.min(settings.queueDepth + SPARE, maxQpWr);
    const depths = { send: depth, receive: depth };
    const connection = new Connection(this, cid, id, this.pd, depths, poller);
    this.connections[cid] = connection;
    if (cid === 0) {
      const { messages } = this.chunks;
      connection.receiveBytes = RTRS_INFO_REQUEST_BYTES;
      connection.receiveAddress = messages.memory.address;
      connection.receiveKey = messages.region.lkey;
      connection.postReceive(0);
    }
    id.accept({
      privateData: encodeRtrsConnectReply({
        errno: 0,
        queueDepth: settings.queueDepth,
        ioBytesMax: settings.chunkBytes - RTRS_HEADER_BYTES,
        headerBytesMax: RTRS_HEADER_BYTES,
        flags: settings.alwaysInvalidate ? RTRS_FLAG_NEW_RKEY : 0,
      }),
      responderResources: 0,
      initiatorDepth: 0,
      rnrRetryCount: 7,
      targetAckDelay: TARGET_ACK_DELAY_CODE,
      ackTimeout: ACK_TIMEOUT_CODE,
    });
  }

  /** Ends the path: its queue pairs at once, the rest when requests have finished. */
  close(reason: string): void {
    this.startClosing(reason, 0);
  }

  /** Makes the transport find out whether the client is still there, ahead of the heartbeat. */
  probe(): void {
    if (this.state === "CONNECTED") this.service.postHeartbeat(RTRS_IMMEDIATE.HEARTBEAT);
  }

  /** Preconditions: `nowNs` was set to this turn's. */
  pump(nowNs: number): void {
    if (this.isBroken) {
      this.isBroken = false;
      this.close("a connection takes no more replies");
    }
    if (this.state === "CONNECTING" && nowNs >= this.deadline) {
      this.close("the client did not finish connecting");
    } else if (this.state === "CONNECTED") {
      const verdict = this.heartbeat.tick(nowNs);
      if (verdict === "SEND") this.service.postHeartbeat(RTRS_IMMEDIATE.HEARTBEAT);
      if (verdict === "FAILED") this.close("the client is silent");
    }
    while (this.released.count > 0) this.begin(this.released.shift());
    if (this.state === "CLOSING") this.pumpClosing();
  }

  deadlineNs(): number {
    if (this.isBroken || this.released.count > 0 || this.isFinished()) return this.nowNs;
    // Once a closing path has waited for its peer, only its user's requests are left to wait for.
    const isWaiting = this.state === "CONNECTING" || this.state === "CLOSING";
    const isDue = this.isParted() || this.nowNs >= this.deadline;
    const deadline = isWaiting && !isDue ? this.deadline : Infinity;
    return Math.min(deadline, this.graceDeadline, this.heartbeat.deadlineNs);
  }

  onCmEvent(connection: Connection, event: CmEvent): void {
    switch (event.type) {
      case "ESTABLISHED":
        if (connection.state === "OPENING") connection.state = "ESTABLISHED";
        break;
      case "DISCONNECTED":
        connection.onDisconnected();
        this.startClosing("the client has disconnected", DISCONNECT_GRACE_NS);
        break;
      case "REJECTED":
      case "UNREACHABLE":
      case "CONNECT_ERROR":
        connection.state = "CLOSED";
        this.close("a connection could not be set up");
        break;
      default:
        break;
    }
  }

  checkInvariants(): void {
    let busy = 0;
    for (const state of this.chunks.states) if (state === CHUNK_STATE.BUSY) busy++;
    assert(busy === this.inflight, "requests with the user are counted");
    this.chunks.checkInvariants(this.state === "CONNECTED");
    for (const connection of this.connections) connection?.checkInvariants();
  }

  // ------------------------------------------------------------------------------ ConnectionOwner

  onReceive(connection: Connection, completion: WorkCompletion): void {
    if (this.state === "CONNECTING") {
      this.onInfoRequest(connection, completion);
    } else if (this.state === "CONNECTED") {
      if ((completion.flags & WC_FLAG.WITH_IMM) === 0) {
        this.close("a message without an immediate");
        return;
      }
      connection.postReceive(0);
      this.heartbeat.onTraffic();
      this.onImmediate(connection, completion.immediate);
    }
  }

  onRoom(_connection: Connection): void {
    if (this.state === "CONNECTED" && !this.replies.sendBlocked()) this.isBroken = true;
  }

  onConnectionError(connection: Connection, completion: WorkCompletion): void {
    this.close(`connection ${connection.cid} failed, work completion status ${completion.status}`);
  }

  // ------------------------------------------------------------------------------------- requests

  /** `ServerRequest.complete`. */
  reply(request: ServerRequest, errno: number, dataLength: number): void {
    const { chunk } = request;
    const { chunks } = this;
    assert(chunks.states[chunk] === CHUNK_STATE.BUSY, "a request is completed once");
    assert(errno >= 0 && errno < 512, "errno fits the immediate");
    assert(dataLength >= 0 && dataLength <= request.dataLength, "no more data than was asked for");
    this.inflight--;
    if (this.state !== "CONNECTED") {
      // Nobody is there to hear it.
      chunks.release(chunk);
      this.session.onPermitFree(chunk);
      return;
    }
    chunks.replyErrnos[chunk] = errno;
    chunks.replyLengths[chunk] = dataLength;
    if (!this.replies.send(chunk)) this.isBroken = true;
  }

  /** Whether a request of this permit came by this path and has no reply yet. */
  holds(permit: number): boolean {
    return this.chunks.states[permit] !== CHUNK_STATE.FREE;
  }

  /** No other path has a request of this permit any more: if one is held here, it is next. */
  onPermitFree(permit: number): void {
    if (this.chunks.states[permit] === CHUNK_STATE.HELD) this.released.push(permit);
  }

  private onImmediate(connection: Connection, immediate: number): void {
    const type = rtrsImmediateType(immediate);
    if (type === RTRS_IMMEDIATE.IO_REQUEST) {
      this.onRequest(connection, immediate);
    } else if (type === RTRS_IMMEDIATE.HEARTBEAT) {
      this.service.postHeartbeat(RTRS_IMMEDIATE.HEARTBEAT_ACK);
    }
    // An acknowledgement has said all by coming. What a later version may say of its own accord is
    // ignored, as Linux and our client do: it names no chunk, and its receive is posted again.
  }

  private onRequest(connection: Connection, immediate: number): void {
    const chunk = rtrsRequestChunk(immediate, this.shift);
    const offset = rtrsRequestOffset(immediate, this.shift);
    const fault = this.chunks.take(chunk, offset, connection);
    if (fault !== null) {
      this.close(`a request that breaks the protocol: ${fault}`);
      return;
    }
    // Rare: a copy of it is still under way.
    if (this.session.paths.length > 1 && this.session.isHeldElsewhere(chunk, this)) return;
    this.begin(chunk);
  }

  /** Hands a request to the user. */
  private begin(chunk: number): void {
    this.chunks.states[chunk] = CHUNK_STATE.BUSY;
    this.inflight++;
    const request = this.chunks.requests[chunk] as ServerRequest;
    if (request.userLength > this.context.settings.userBytesMax) {
      request.complete(ERRNO.EMSGSIZE);
    } else {
      this.owner.onPathRequest(request);
    }
  }

  // --------------------------------------------------------------------------------------- stages

  private get service(): Connection {
    return this.connections[0] as Connection;
  }

  private setState(state: ServerPathState): void {
    assert(TRANSITIONS[this.state].includes(state), `path moves from ${this.state} to ${state}`);
    this.state = state;
  }

  /** A bad one gets no answer, only a disconnect: so it is with Linux (facts page, section 5.3). */
  private onInfoRequest(connection: Connection, completion: WorkCompletion): void {
    const { bytes } = this.chunks.messages.memory;
    const isPlain = connection.cid === 0 && (completion.flags & WC_FLAG.WITH_IMM) === 0;
    const info = isPlain ? decodeRtrsInfoRequest(bytes, 0, completion.byteLength) : "BAD_TYPE";
    if (typeof info === "string") {
      this.close(`an INFO_REQ that breaks the protocol: ${info}`);
    } else if (this.connections.includes(null)) {
      this.close("an INFO_REQ before all connections were there");
    } else if (this.owner.isNameTaken(info.name, this.session)) {
      this.close(`another session is named "${info.name}"`);
    } else if (this.session.isUp && info.name !== this.session.name) {
      this.close(`a path of session "${this.session.name}" says that it is "${info.name}"`);
    } else {
      this.session.name = info.name;
      this.goUp();
    }
  }

  private goUp(): void {
    const { chunks } = this;
    for (const connection of this.connections) {
      const live = connection as Connection;
      live.receiveBytes = 0;
      for (let i = 0; i < this.context.settings.queueDepth + SPARE; i++) {
        if (!live.postReceive(0)) break;
      }
    }
    chunks.announce();
    const wr = this.infoWr;
    const sge = wr.sges[0] as (typeof wr.sges)[number];
    sge.address = chunks.messages.memory.address + RTRS_INFO_REQUEST_BYTES;
    sge.length = chunks.infoResponseBytes;
    sge.lkey = chunks.messages.region.lkey;
    wr.sgeCount = 1;
    this.setState("CONNECTED");
    this.deadline = Infinity;
    this.heartbeat.start(this.nowNs);
    if (!this.service.post(wr)) this.isBroken = true;
    this.owner.onPathUp(this);
  }

  private startClosing(reason: string, graceNs: number): void {
    if (this.state === "CLOSING" || this.state === "CLOSED") return;
    this.setState("CLOSING");
    this.closeReason = reason;
    this.heartbeat.stop();
    for (const connection of this.connections) connection?.fence();
    this.graceDeadline = this.nowNs + graceNs;
    this.deadline = this.graceDeadline + this.context.settings.disconnectTimeoutNs;
    this.replies.drop();
    this.released.clear();
    this.chunks.releaseHeld();
  }

  private isParted(): boolean {
    if (this.state !== "CLOSING") return false;
    return this.connections.every((connection) => {
      return connection === null || connection.state === "CLOSED";
    });
  }

  /** Requests have finished, and the peer has been heard of or waited for. */
  private isFinished(): boolean {
    if (this.state !== "CLOSING" || this.inflight > 0) return false;
    return this.isParted() || this.nowNs >= this.deadline;
  }

  private pumpClosing(): void {
    if (this.nowNs >= this.graceDeadline) {
      this.graceDeadline = Infinity;
      for (const connection of this.connections) connection?.disconnect();
    }
    if (!this.isFinished()) return;
    for (const connection of this.connections) connection?.destroy();
    this.connections.fill(null);
    this.chunks.free();
    this.pd.dealloc();
    this.setState("CLOSED");
    this.owner.onPathClosed(this);
  }
}
