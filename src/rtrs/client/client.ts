// SPDX-License-Identifier: MIT
// The client side of an RTRS session (facts page, sections 5 to 11): permits, requests, and what
// becomes of them when the connection is lost.
//
// What is guaranteed, by whom: docs/rtrs.md. A request completes once: with the server's answer, or
// with an errno of its own when it can't be answered any more. One that was in flight when its path
// failed is executed again by another path, or with `retry` after the reconnect: at least once in
// all, and never after it has completed. The server fences: a request that comes by another path
// waits until the first copy has left the devices, and a path that comes back waits for all of its
// old ones. What RTRS can't know is which requests overlap: whoever submits a request to a range of
// blocks while another one to the same blocks is in flight may see both orders. The protocol on top
// therefore holds a request back until those in flight to the same blocks have completed (`rnbd/`).

import { assert, ERRNO, FarpageError, type Machine, type Memory } from "../../base/index.js";
import type { EventChannel } from "../../cm/index.js";
import { type ProtectionDomain, WC_FLAG, type WorkCompletion } from "../../verbs/index.js";
import {
  RTRS_IMMEDIATE,
  type RtrsConnectReply,
  rtrsImmediateType,
  rtrsReplyErrno,
  rtrsReplyMessageId,
} from "../../wire/index.js";
import { CompletionPoller, Connection } from "../connection.js";
import type { RtrsEnvironment } from "../environment.js";
import {
  type ClientSettings,
  clientSettings,
  type RtrsClientOptions,
  type RtrsPathAddresses,
  type RtrsPathPolicy,
} from "../options.js";
import { sessionUuid } from "../uuid.js";
import { RegisteredMemories } from "./client-memory.js";
import type { ClientPath } from "./client-path.js";
import { ClientPaths } from "./client-paths.js";
import type { ClientRequest } from "./client-request.js";
import { ClientRequests } from "./client-requests.js";
import {
  type RtrsClientCounters,
  type RtrsClientState,
  SESSION_TRANSITIONS,
} from "./client-state.js";
import type { RtrsClientUser } from "./client-user.js";
import type { ClientPathOwner, RtrsClientPath } from "./path-context.js";

/** Of the error with which a session ends that was told to. */
const CLOSED_CODE = "ESHUTDOWN";
/** How closely an answer that does not come is noticed: a quarter of its time. */
const LOOKS_PER_TIMEOUT = 4;

export class RtrsClient implements Machine, ClientPathOwner {
  readonly sessionName: string;
  state: RtrsClientState = "IDLE";

  private readonly environment: RtrsEnvironment;
  private readonly settings: ClientSettings;
  private readonly user: RtrsClientUser;
  private readonly pd: ProtectionDomain;
  private readonly channel: EventChannel;
  private readonly poller = new CompletionPoller();
  private readonly memories: RegisteredMemories;
  private readonly pathSet: ClientPaths;
  private readonly requests: ClientRequests;
  /** Down: when requests are not to wait any longer. */
  private requestDeadlineNs = Infinity;
  /** When to look for requests that the server does not answer, if any is in flight. */
  private lookNs = -Infinity;
  /** Once the session is to end: why. */
  private closeError: FarpageError | null = null;
  private nowNs = 0;
  private isPumping = false;
  /** Times that the session has come up. */
  private upCount = 0;
  private strayCount = 0;
  private pathError: FarpageError | null = null;

  /**
   * @throws FarpageError EINVAL for an option out of range; ENOMEM: no more protection domains.
   */
  constructor(environment: RtrsEnvironment, options: RtrsClientOptions, user: RtrsClientUser) {
    this.environment = environment;
    this.settings = clientSettings(options);
    this.user = user;
    this.sessionName = this.settings.sessionName;
    this.pd = environment.context.allocPd();
    this.channel = environment.cm.createChannel();
    this.memories = new RegisteredMemories(this.pd, !this.settings.invalidate);
    const pathsUuid = sessionUuid(environment);
    const { settings, pd, channel, poller } = this;
    const context = { environment, settings, pd, channel, poller, pathsUuid };
    this.pathSet = new ClientPaths(context, this);
    for (const addresses of settings.paths) this.pathSet.add(addresses);
    this.requests = new ClientRequests(this.pathSet.list, user, settings, this.memories);
  }

  /** The session's paths, in the order in which they were added; changes as they come and go. */
  get paths(): readonly RtrsClientPath[] {
    return this.pathSet.list;
  }

  /** Of the next requests. */
  get policy(): RtrsPathPolicy {
    return this.requests.picker.policy;
  }

  set policy(policy: RtrsPathPolicy) {
    this.requests.picker.policy = policy;
    for (const path of this.pathSet.list) path.measureLatency();
  }

  /** Requests that `acquire` hands out at a time; 0 before the session first connected. */
  get queueDepth(): number {
    return this.requests.depth;
  }

  /** Bytes of a chunk of the server; 0 before the session first connected. */
  get chunkBytes(): number {
    return this.requests.chunkBytes;
  }

  /** Largest data length of a request, bytes; 0 before the session first connected. */
  get maxIoBytes(): number {
    return this.requests.ioBytesMax;
  }

  /** Bytes of a user message. */
  get userBytesMax(): number {
    return this.settings.userBytesMax;
  }

  /** Requests submitted and not completed. */
  get inflight(): number {
    return this.requests.inflight;
  }

  /** Why the session is not connected; null while it is, or when nothing went wrong yet. */
  get lastError(): FarpageError | null {
    return this.state === "CONNECTED" ? null : this.pathError;
  }

  /** Attempts to connect since the session was last connected, of the path with the most. */
  get attemptCount(): number {
    return this.paths.reduce((most, { attemptCount }) => Math.max(most, attemptCount), 0);
  }

  /**
   * Permits that a lost path may still use at the server, since the session was lost with requests
   * in flight and came back by another path. A request that is answered settles one. Who must not
   * have a new request overtake an old one that got no answer sends requests with `retry = false`
   * that change nothing until this is 0, and calls `reissue` then.
   */
  get unsettledCount(): number {
    return this.requests.unsettledCount;
  }

  counters(): RtrsClientCounters {
    return {
      inflight: this.requests.inflight,
      completed: this.requests.completedCount,
      reissued: this.requests.reissuedCount,
      reconnects: Math.max(0, this.upCount - 1),
      strayReplies: this.strayCount,
    };
  }

  /** Starts connecting; `onSessionUp` or `onSessionFailed` follows. Preconditions: IDLE. */
  connect(): void {
    this.setState("CONNECTING");
    this.pathSet.connect();
  }

  /**
   * Adds a path, which connects from the next `pump` on, for as long as it takes.
   * @throws FarpageError EEXIST when the session has it already, ENOSPC (128 paths), ESHUTDOWN.
   */
  addPath(addresses: RtrsPathAddresses): RtrsClientPath {
    this.refuseWhenClosing();
    const path = this.pathSet.add(addresses);
    if (this.state !== "IDLE") path.connect();
    return path;
  }

  /**
   * Takes a path away; what is in flight on it goes on by another.
   * @throws FarpageError ENOENT, EBUSY for the last path (`close` ends a session), ESHUTDOWN.
   */
  removePath(number: number): void {
    this.refuseWhenClosing();
    const path = this.pathSet.find(number);
    const isLast = this.pathSet.list.every(
      (other) => other === path || other.isLeaving || other.state === "CLOSED",
    );
    if (isLast) {
      throw new FarpageError("EBUSY", "the last path of a session can't be removed");
    }
    path.close();
    if (path.state === "CLOSED") this.pathSet.drop(path);
  }

  private refuseWhenClosing(): void {
    if (this.state === "CLOSING" || this.state === "CLOSED") {
      throw new FarpageError("ESHUTDOWN", "the session is closed");
    }
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
    this.pathSet.close();
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

  /** Takes a request; null when there is none or no session yet: `onPermitAvailable` follows. */
  acquire(): ClientRequest | null {
    return this.take(false);
  }

  /**
   * Takes a request even when `acquire` has none left: for the few messages that everything else
   * waits for, such as opening devices again after a reconnect.
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
   * Asks the server for 0 .. maxIoBytes bytes, to be written to `request.memory`, which is
   * registered and holds the range. Preconditions: the request is acquired and not in flight.
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
    const { pathSet, requests } = this;
    requests.nowNs = nowNs;
    pathSet.setNow(nowNs);
    this.pollEvents();
    this.poller.poll();
    if (requests.isBroken) this.breakPaths();
    if (nowNs >= this.lookNs && requests.inflight > 0) this.lookForOverdue(nowNs);
    pathSet.pump(nowNs);
    if (nowNs >= this.requestDeadlineNs) this.expire();
    requests.completeFailing();
    if (this.isPermitDue) {
      requests.isAwaited = false;
      this.user.onPermitAvailable();
    }
    if (this.state === "CLOSING" && pathSet.isAllClosed) this.finishClosing();
    this.isPumping = false;
  }

  deadlineNs(): number {
    const { requests } = this;
    const isDue = requests.hasFailing || requests.isBroken || this.isPermitDue;
    if (isDue || this.poller.isReady) return this.nowNs;
    const lookNs = requests.inflight > 0 ? this.lookNs : Infinity;
    return Math.min(this.pathSet.deadlineNs(), this.requestDeadlineNs, lookNs);
  }

  private get isPermitDue(): boolean {
    return this.state !== "CONNECTING" && this.requests.isAvailableDue;
  }

  checkInvariants(): void {
    for (const path of this.pathSet.list) path.checkInvariants();
    this.requests.checkInvariants();
    const isConnected = this.state === "CONNECTED";
    assert(isConnected === this.pathSet.connectedCount > 0, "connected as its paths are");
    assert(isConnected === (this.requests.gate !== "SHUT"), "requests pass while connected");
  }

  // ------------------------------------------------------------------------------ ClientPathOwner

  get generation(): number {
    return this.state === "CONNECTED" ? this.upCount : 0;
  }

  get hasSeveralPaths(): boolean {
    return this.paths.length > 1;
  }

  get measuresLatency(): boolean {
    return this.policy === "min-latency";
  }

  onPathOffer(reply: RtrsConnectReply): number {
    return this.requests.takeOffer(this.environment, this.pd, reply);
  }

  onPathUp(path: ClientPath): void {
    const { requests, user } = this;
    requests.settlePath(path);
    user.onPathUp?.(path);
    if (this.state === "CONNECTED") {
      requests.issueBlocked();
      return;
    }
    // The first time there is nothing that could have to wait for the user.
    const isFirst = this.state === "CONNECTING";
    this.upCount++;
    this.pathError = null;
    this.setState("CONNECTED");
    requests.gate = isFirst ? "OPEN" : "URGENT";
    requests.refusalErrno = 0;
    this.requestDeadlineNs = Infinity;
    // Now there is a session to join.
    this.pathSet.hurry();
    user.onSessionUp();
  }

  onPathDown(path: ClientPath): void {
    const { requests, user } = this;
    if (this.state === "CONNECTED" && this.pathSet.connectedCount > 0) {
      requests.move(path);
      user.onPathDown?.(path);
      return;
    }
    const wasConnected = this.state === "CONNECTED";
    if (wasConnected) {
      this.setState("RECONNECTING");
      this.requestDeadlineNs = this.nowNs + this.settings.requestTimeoutNs;
      this.pathSet.hurry();
    }
    requests.recall();
    user.onPathDown?.(path);
    if (wasConnected) user.onSessionDown();
  }

  onPathError(error: FarpageError): void {
    this.pathError = error;
  }

  onSessionUnknown(path: ClientPath): void {
    const what = `the server has forgotten the session: it says so at ${path.destination}`;
    for (const other of this.pathSet.list) {
      if (other.state === "CONNECTED") other.fail(new FarpageError("ECONNRESET", what));
    }
  }

  onPathClosed(path: ClientPath): void {
    if (this.state === "CLOSING") return;
    if (path.isLeaving) {
      this.pathSet.drop(path);
      return;
    }
    if (!this.pathSet.isAllClosed) return;
    // Nobody asked for it: the attempts are used up.
    const error =
      this.pathError ?? new FarpageError("ETIMEDOUT", "no attempt to connect succeeded");
    this.startClosing(error, ERRNO.ECONNABORTED);
  }

  onPathReceive(path: ClientPath, connection: Connection, completion: WorkCompletion): void {
    const { immediate, wrId: receiveSlot } = completion;
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
    if (slot !== null && !path.takeKey(slot.permit, connection, completion)) {
      path.fail(new FarpageError("EPROTO", "the server's reply carries no key for its chunk"));
      return;
    }
    connection.postReceive(receiveSlot);
    if (slot === null) this.strayCount++;
    else this.requests.answer(slot, rtrsReplyErrno(immediate));
  }

  onPathRoom(_path: ClientPath): void {
    this.requests.issueBlocked();
  }

  // -------------------------------------------------------------------------------------- session

  private setState(state: RtrsClientState): void {
    assert(
      SESSION_TRANSITIONS[this.state].includes(state),
      `session moves from ${this.state} to ${state}`,
    );
    this.state = state;
  }

  private pollEvents(): void {
    for (;;) {
      const event = this.channel.poll();
      if (event === null) return;
      const connection: unknown = event.id.context;
      if (connection instanceof Connection && !connection.isDestroyed) {
        (connection.owner as ClientPath).onCmEvent(connection, event);
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
    const path = this.requests.findOverdue(nowNs, answerTimeoutNs);
    path?.fail(new FarpageError("ETIMEDOUT", "the server leaves a request unanswered"));
  }

  private breakPaths(): void {
    this.requests.isBroken = false;
    const error = new FarpageError("ECONNRESET", "the connection takes no more requests");
    for (const path of this.pathSet.list) if (path.isBroken) path.fail(error);
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
    this.memories.removeAll();
    this.channel.close();
    this.pd.dealloc();
    const error = this.closeError as FarpageError;
    if (error.code !== CLOSED_CODE) this.user.onSessionFailed(error);
  }
}
