// SPDX-License-Identifier: MIT
// The client side of an RTRS session (facts page, sections 5 to 11): permits, requests, and what
// becomes of them when the connection is lost.
//
// What is guaranteed, by whom. A request completes once: with the server's answer, or with an errno
// of its own when it can't be answered any more. One with `retry` that was in flight when the path
// failed is executed again after the reconnect: at least once in all, and never after it has
// completed. The server fences: it accepts the path again only when every request of the old
// incarnation has left its devices, so the first execution is over before the second starts (a
// farpage server does so, and a Linux server refuses the path's UUID until then). With its chunks
// free again, a request may go by another permit than before. What RTRS can't know is which
// requests overlap: whoever submits a request to a range of blocks while another one to the same
// blocks is in flight may see both orders, and after a reconnect the older one executed once more
// behind the newer. The protocol on top therefore holds a request back until those in flight to the
// same blocks have completed (see `rnbd/`).

import { assert, ERRNO, FarpageError, type Machine, type Memory } from "../../base/index.js";
import type { EventChannel } from "../../cm/index.js";
import { ACCESS, type ProtectionDomain, WC_FLAG, type WorkCompletion } from "../../verbs/index.js";
import {
  RTRS_IMMEDIATE,
  RTRS_RKEY_RESPONSE_BYTES,
  RTRS_TYPE,
  type RtrsConnectReply,
  rtrsFitsImmediate,
  rtrsImmediateType,
  rtrsReplyErrno,
  rtrsReplyMessageId,
  rtrsRkeyResponseChunk,
  rtrsRkeyResponseKey,
  rtrsType,
} from "../../wire/index.js";
import { CompletionPoller, Connection } from "../connection.js";
import type { RtrsEnvironment } from "../environment.js";
import { type ClientSettings, clientSettings, type RtrsClientOptions } from "../options.js";
import { Slab } from "../slab.js";
import { randomUuid } from "../uuid.js";
import { RegisteredMemories } from "./client-memory.js";
import {
  ClientPath,
  type ClientPathOwner,
  permitCountMax,
  receiveBufferBytes,
} from "./client-path.js";
import type { ClientRequest } from "./client-request.js";
import { ClientRequests } from "./client-requests.js";
import { HEADER_ROOM_BYTES } from "./client-sender.js";
import type { ClientSlot } from "./client-slot.js";
import type { RtrsClientUser } from "./client-user.js";

/**
 * - `IDLE`: `connect` has not been called.
 * - `CONNECTING`: never connected yet.
 * - `CONNECTED`, `RECONNECTING`: as they say.
 * - `CLOSING`: `close` was called, or the session has given up; goodbyes are under way.
 * - `CLOSED`: nothing is left.
 */
export type RtrsClientState =
  | "IDLE"
  | "CONNECTING"
  | "CONNECTED"
  | "RECONNECTING"
  | "CLOSING"
  | "CLOSED";

const TRANSITIONS: Readonly<Record<RtrsClientState, readonly RtrsClientState[]>> = {
  IDLE: ["CONNECTING", "CLOSING"],
  CONNECTING: ["CONNECTED", "CLOSING", "CLOSED"],
  CONNECTED: ["RECONNECTING", "CLOSING"],
  RECONNECTING: ["CONNECTED", "CLOSING", "CLOSED"],
  CLOSING: ["CLOSED"],
  CLOSED: [],
};

/** Numbers since the client was made, but for `inflight`. */
export interface RtrsClientCounters {
  readonly inflight: number;
  readonly completed: number;
  readonly reissued: number;
  readonly reconnects: number;
  /** Replies to no request of ours, or on the wrong connection. */
  readonly strayReplies: number;
}

/** The smallest request that a session is of any use for: a sector. */
const IO_BYTES_MIN = 512;
/** Of the error with which a session ends that was told to. */
const CLOSED_CODE = "ESHUTDOWN";
/** How closely an answer that does not come is noticed: a quarter of its time. */
const LOOKS_PER_TIMEOUT = 4;

export class RtrsClient implements Machine, ClientPathOwner {
  readonly sessionName: string;
  state: RtrsClientState = "IDLE";
  /** Bytes of a chunk of the server; 0 before the session first connected. */
  chunkBytes = 0;

  private readonly environment: RtrsEnvironment;
  private readonly settings: ClientSettings;
  private readonly user: RtrsClientUser;
  private readonly pd: ProtectionDomain;
  private readonly channel: EventChannel;
  private readonly poller = new CompletionPoller();
  private readonly memories: RegisteredMemories;
  private readonly path: ClientPath;
  private readonly requests: ClientRequests;
  /** Buffers of the 8-byte replies of a server that rotates keys. */
  private replies: Slab | null = null;
  /** Down: when requests are not to wait any longer. */
  private requestDeadlineNs = Infinity;
  /** When to look for requests that the server does not answer, if any is in flight. */
  private lookNs = -Infinity;
  /** Once the session is to end: why. */
  private closeError: FarpageError | null = null;
  private nowNs = 0;
  private isPumping = false;
  private reconnectCount = 0;
  private strayCount = 0;

  /**
   * @throws FarpageError EINVAL for an option out of range; ENOMEM when the device has no more
   *   protection domains.
   */
  constructor(environment: RtrsEnvironment, options: RtrsClientOptions, user: RtrsClientUser) {
    this.environment = environment;
    this.settings = clientSettings(options);
    this.user = user;
    this.sessionName = this.settings.sessionName;
    this.pd = environment.context.allocPd();
    this.channel = environment.cm.createChannel();
    this.memories = new RegisteredMemories(this.pd, !this.settings.invalidate);
    const pathsUuid = randomUuid(environment.random.fork("rtrs session"));
    const addresses = this.settings.paths[0] as (typeof this.settings.paths)[number];
    this.path = new ClientPath(
      {
        environment,
        settings: this.settings,
        pd: this.pd,
        channel: this.channel,
        poller: this.poller,
        pathsUuid,
      },
      this,
      addresses.source,
      addresses.destination,
    );
    this.requests = new ClientRequests(this.path, user, this.settings, this.memories);
  }

  /** Requests that `acquire` hands out at a time; 0 before the session first connected. */
  get queueDepth(): number {
    return this.requests.depth;
  }

  /** Largest data length of a request, bytes; 0 before the session first connected. */
  get maxIoBytes(): number {
    return this.requests.ioBytesMax;
  }

  /** Bytes of a user message that fit a request. */
  get userBytesMax(): number {
    return this.settings.userBytesMax;
  }

  /** Requests submitted and not completed. */
  get inflight(): number {
    return this.requests.inflight;
  }

  /** Why the session is not connected; null while it is, or when nothing went wrong yet. */
  get lastError(): FarpageError | null {
    return this.path.lastError;
  }

  /** Attempts to connect since the session was last connected. */
  get attemptCount(): number {
    return this.path.attemptCount;
  }

  counters(): RtrsClientCounters {
    return {
      inflight: this.requests.inflight,
      completed: this.requests.completedCount,
      reissued: this.requests.reissuedCount,
      reconnects: this.reconnectCount,
      strayReplies: this.strayCount,
    };
  }

  /**
   * Starts connecting; the user hears of `onSessionUp` or `onSessionFailed`. Preconditions: IDLE.
   */
  connect(): void {
    this.setState("CONNECTING");
    this.path.connect();
  }

  /**
   * Ends the session. Requests in flight complete with ESHUTDOWN from the next `pump`; whoever
   * wants them answered waits for `inflight` 0 first. CLOSED when the goodbyes are said or timed
   * out. All that the session holds is given back then, registrations included. No-op when closing
   * already.
   */
  close(): void {
    if (this.state === "CLOSING" || this.state === "CLOSED") return;
    this.startClosing(new FarpageError(CLOSED_CODE, "the session was closed"), ERRNO.ESHUTDOWN);
    this.path.close();
  }

  /**
   * Makes `memory` usable for the data of requests, until `unregisterMemory` or the end of the
   * session.
   * @throws FarpageError EEXIST, ENOMEM.
   */
  registerMemory(memory: Memory): void {
    this.memories.add(memory);
  }

  /**
   * Preconditions: no request with data in `memory` is submitted. A write that has completed may
   * still be repeated by the transport when its acknowledgement was lost; it would then fail the
   * connection, which comes back by itself.
   * @throws FarpageError ENOENT when it is not registered.
   */
  unregisterMemory(memory: Memory): void {
    this.memories.remove(memory);
  }

  /**
   * Takes a request.
   * @returns null when there is none (or the session never connected yet); `onPermitAvailable`
   *   follows.
   */
  acquire(): ClientRequest | null {
    return this.take(false);
  }

  /**
   * Takes a request even when `acquire` has none left: for the few messages that must get through
   * while everything else waits for them, such as opening devices again after a reconnect.
   */
  acquireReserved(): ClientRequest | null {
    return this.take(true);
  }

  private take(isReserved: boolean): ClientRequest | null {
    if (this.state !== "CONNECTING") return this.requests.take(isReserved);
    this.requests.isAwaited = true;
    return null;
  }

  /** Gives a request back. Preconditions: it is acquired and not in flight. */
  release(request: ClientRequest): void {
    this.requests.release(request);
  }

  /**
   * Asks the server for `dataLength` bytes, to be written to `request.memory`. Preconditions: the
   * request is acquired and not in flight; 0 <= dataLength <= maxIoBytes; its memory is registered
   * and holds the range.
   */
  submitRead(request: ClientRequest, dataLength: number): void {
    this.requests.submit(request, true, dataLength);
  }

  /** Sends `dataLength` bytes of `request.memory` to the server. Preconditions: as `submitRead`. */
  submitWrite(request: ClientRequest, dataLength: number): void {
    this.requests.submit(request, false, dataLength);
  }

  /**
   * Lets requests with `retry` pass: the waiting ones, in the order of their submits, and all that
   * follow until the session is lost. `onRequestReissue` is called for each waiting one.
   * Preconditions: CONNECTED.
   */
  reissue(): void {
    assert(this.state === "CONNECTED", "requests are issued on a connected session");
    this.requests.reissue();
  }

  /** Completes every request that waits for the session with `errno`, from the next `pump`. */
  failWaiting(errno: number): void {
    this.requests.failWaiting(errno);
  }

  pump(nowNs: number): void {
    assert(!this.isPumping, "pump is not re-entered");
    this.isPumping = true;
    this.nowNs = nowNs;
    const { path, requests } = this;
    this.pollEvents();
    this.poller.poll();
    if (requests.isBroken) this.breakPath();
    if (nowNs >= this.lookNs && requests.inflight > 0) this.lookForOverdue(nowNs);
    path.pump(nowNs);
    if (nowNs >= this.requestDeadlineNs) this.expire();
    requests.completeFailing();
    if (this.isPermitDue()) {
      requests.isAwaited = false;
      this.user.onPermitAvailable();
    }
    if (this.state === "CLOSING" && path.state === "CLOSED") this.finishClosing();
    this.isPumping = false;
  }

  deadlineNs(): number {
    const { requests } = this;
    const isDue = requests.hasFailing || requests.isBroken || this.isPermitDue();
    if (isDue || this.poller.isReady) return this.nowNs;
    const lookNs = requests.inflight > 0 ? this.lookNs : Infinity;
    return Math.min(this.path.deadlineNs(), this.requestDeadlineNs, lookNs);
  }

  private isPermitDue(): boolean {
    return this.state !== "CONNECTING" && this.requests.isAvailableDue;
  }

  checkInvariants(): void {
    this.path.checkInvariants();
    this.requests.checkInvariants();
    const isConnected = this.state === "CONNECTED";
    assert(isConnected === (this.path.state === "CONNECTED"), "connected as its path is");
    assert(isConnected === (this.requests.gate !== "SHUT"), "requests pass while connected");
  }

  // ------------------------------------------------------------------------------ ClientPathOwner

  onPathOffer(path: ClientPath, reply: RtrsConnectReply): number {
    const chunkBytes = reply.ioBytesMax + reply.headerBytesMax;
    const { environment, pd, requests, settings } = this;
    if (!rtrsFitsImmediate(reply.queueDepth, chunkBytes) || reply.ioBytesMax < IO_BYTES_MIN) {
      throw new FarpageError("EPROTO", `the server offers chunks of ${chunkBytes} bytes`);
    }
    if (settings.userBytesMax + HEADER_ROOM_BYTES > reply.headerBytesMax) {
      const what = `the server takes headers of ${reply.headerBytesMax} bytes only`;
      throw new FarpageError("EMSGSIZE", what);
    }
    if (requests.depth === 0) {
      const deviceMax = permitCountMax(environment.context.queryDevice().maxQpWr);
      const permitCount = Math.min(reply.queueDepth, settings.queueDepthMax, deviceMax);
      requests.make(environment, pd, permitCount, reply.ioBytesMax);
      this.chunkBytes = chunkBytes;
    } else if (reply.queueDepth < requests.permitCount || reply.ioBytesMax < requests.ioBytesMax) {
      // Users have built on what was offered first (facts page, trap 16).
      throw new FarpageError("EPROTO", "the server came back with a smaller queue or chunk size");
    }
    if (path.rotatesKeys && this.replies === null) {
      const { connectionCount } = settings;
      const bytes = RTRS_RKEY_RESPONSE_BYTES;
      const length = receiveBufferBytes(connectionCount, requests.permitCount, bytes);
      this.replies = new Slab(environment.memory, pd, length, ACCESS.LOCAL_WRITE);
    }
    return requests.permitCount;
  }

  onPathUp(path: ClientPath): void {
    const { replies } = this;
    if (path.rotatesKeys && replies !== null) {
      path.postReceives(replies.memory.address, replies.region.lkey, RTRS_RKEY_RESPONSE_BYTES);
    } else {
      path.postReceives(0, 0, 0);
    }
    // The first time there is nothing that could have to wait for the user.
    const isFirst = this.state === "CONNECTING";
    if (!isFirst) this.reconnectCount++;
    this.setState("CONNECTED");
    this.requests.gate = isFirst ? "OPEN" : "URGENT";
    this.requests.refusalErrno = 0;
    this.requestDeadlineNs = Infinity;
    this.user.onSessionUp();
  }

  onPathDown(_path: ClientPath): void {
    if (this.state === "CONNECTED") {
      this.setState("RECONNECTING");
      this.requestDeadlineNs = this.nowNs + this.settings.requestTimeoutNs;
    }
    this.requests.recall();
    if (this.state === "RECONNECTING") this.user.onSessionDown();
  }

  onPathClosed(path: ClientPath): void {
    if (this.state === "CLOSING") return;
    // Nobody asked for it: the attempts are used up.
    const error =
      path.lastError ?? new FarpageError("ETIMEDOUT", "no attempt to connect succeeded");
    this.startClosing(error, ERRNO.ECONNABORTED);
  }

  onPathReceive(path: ClientPath, connection: Connection, completion: WorkCompletion): void {
    const { immediate } = completion;
    const receiveSlot = completion.wrId;
    if ((completion.flags & WC_FLAG.WITH_IMM) === 0) {
      // SEND with invalidate: the device has closed the region; the reply says whose it was.
      connection.postReceive(receiveSlot);
      return;
    }
    const type = rtrsImmediateType(immediate);
    if (type !== RTRS_IMMEDIATE.IO_REPLY && type !== RTRS_IMMEDIATE.IO_REPLY_INVALIDATED) {
      connection.postReceive(receiveSlot);
      path.onHeartbeat(type);
      return;
    }
    const slot = this.requests.replyOwner(rtrsReplyMessageId(immediate), connection);
    if (slot !== null && path.rotatesKeys && !this.takeKey(path, slot, completion)) {
      path.fail(new FarpageError("EPROTO", "the server's reply carries no key for its chunk"));
      return;
    }
    connection.postReceive(receiveSlot);
    if (slot === null) this.strayCount++;
    else this.requests.complete(slot, rtrsReplyErrno(immediate));
  }

  onPathRoom(_path: ClientPath): void {
    this.requests.issueBlocked();
  }

  /** Stores the chunk's key before its permit can be used again. */
  private takeKey(path: ClientPath, slot: ClientSlot, completion: WorkCompletion): boolean {
    if (completion.byteLength < RTRS_RKEY_RESPONSE_BYTES) return false;
    const connection = slot.connection as Connection;
    const { memory } = this.replies as Slab;
    const at =
      connection.receiveAddress - memory.address + completion.wrId * RTRS_RKEY_RESPONSE_BYTES;
    const { permit } = slot;
    if (rtrsType(memory.view, at) !== RTRS_TYPE.RKEY_RSP) return false;
    if (rtrsRkeyResponseChunk(memory.view, at) !== permit || path.chunks === null) return false;
    path.chunks.keys[permit] = rtrsRkeyResponseKey(memory.view, at);
    return true;
  }

  // -------------------------------------------------------------------------------------- session

  private setState(state: RtrsClientState): void {
    assert(TRANSITIONS[this.state].includes(state), `session moves from ${this.state} to ${state}`);
    this.state = state;
  }

  private pollEvents(): void {
    for (;;) {
      const event = this.channel.poll();
      if (event === null) return;
      const connection: unknown = event.id.context;
      if (connection instanceof Connection && !connection.isDestroyed) {
        this.path.onCmEvent(connection, event, this.nowNs);
      }
    }
  }

  private expire(): void {
    this.requestDeadlineNs = Infinity;
    this.requests.refusalErrno = ERRNO.ETIMEDOUT;
    this.requests.failWaiting(ERRNO.ETIMEDOUT);
  }

  /** A heartbeat tells that the server's service connection is alive, and of no other. */
  private lookForOverdue(nowNs: number): void {
    const { answerTimeoutNs } = this.settings;
    this.lookNs = nowNs + answerTimeoutNs / LOOKS_PER_TIMEOUT;
    if (this.state !== "CONNECTED") return;
    if (!this.requests.isAnswerOverdue(nowNs, answerTimeoutNs)) return;
    this.path.fail(new FarpageError("ETIMEDOUT", "the server leaves a request unanswered"));
  }

  private breakPath(): void {
    this.requests.isBroken = false;
    this.path.fail(new FarpageError("ECONNRESET", "the connection takes no more requests"));
  }

  private startClosing(error: FarpageError, errno: number): void {
    this.setState("CLOSING");
    this.closeError = error;
    this.requestDeadlineNs = Infinity;
    this.requests.refusalErrno = errno;
    this.requests.failWaiting(errno);
  }

  private finishClosing(): void {
    if (this.requests.hasFailing) return;
    this.setState("CLOSED");
    this.requests.free();
    this.replies?.free();
    this.memories.removeAll();
    this.channel.close();
    this.pd.dealloc();
    const error = this.closeError as FarpageError;
    if (error.code !== CLOSED_CODE) this.user.onSessionFailed(error);
  }
}
