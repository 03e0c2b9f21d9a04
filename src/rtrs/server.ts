// SPDX-License-Identifier: MIT
// The server side of RTRS: listens, lets sessions and paths in by the rules of the facts page
// (sections 4.4 and 5.1), and hands their requests to the protocol on top.

import {
  assert,
  ERRNO,
  FarpageError,
  type IpAddress,
  type Machine,
  u16Diff,
} from "../base/index.js";
import type { CmEvent, EventChannel, Listener } from "../cm/index.js";
import {
  decodeRtrsConnectRequest,
  encodeRtrsConnectReply,
  type RtrsConnectRequest,
} from "../wire/index.js";
import { CompletionPoller, Connection } from "./connection.js";
import type { RtrsEnvironment } from "./environment.js";
import {
  RTRS_HEADER_BYTES,
  type RtrsServerOptions,
  type ServerSettings,
  serverSettings,
} from "./options.js";
import { copyBytesOf } from "./server-chunks.js";
import { ServerPath, type ServerPathContext, type ServerPathOwner } from "./server-path.js";
import type { ServerRequest } from "./server-request.js";
import { ServerSession } from "./server-session.js";
import type { RtrsServerUser } from "./server-user.js";
import { ROSTER_FULL } from "./session-roster.js";
import { uuidKey } from "./uuid.js";

/** Numbers since the server was made, but for the first three. */
export interface RtrsServerCounters {
  readonly sessions: number;
  readonly paths: number;
  readonly inflight: number;
  readonly requests: number;
  readonly refusedConnections: number;
  readonly closedPaths: number;
}

/** Connect requests that may wait for an answer. */
const BACKLOG = 128;
/** Of an id whose connect request waits for an answer. */
const REQUEST_STATE = "REQ_RCVD";

export class RtrsServer implements Machine, ServerPathOwner {
  /** Why the path that closed last did so; for logs. */
  lastCloseReason = "";

  private readonly settings: ServerSettings;
  private readonly user: RtrsServerUser;
  private readonly channel: EventChannel;
  private readonly listeners: Listener[] = [];
  private readonly poller = new CompletionPoller();
  private readonly pathContext: ServerPathContext;
  private readonly paths: ServerPath[] = [];
  private readonly pathsByUuid = new Map<string, ServerPath>();
  private readonly sessionsByUuid = new Map<string, ServerSession>();
  private nextSessionId = 1;
  private isClosing = false;
  private isPumping = false;
  private nowNs = 0;
  private requestCount = 0;
  private refusedCount = 0;
  private closedCount = 0;

  /**
   * Listens at once; everything else happens in `pump`.
   * @throws FarpageError EINVAL for an option out of range; EADDRINUSE, EADDRNOTAVAIL.
   */
  constructor(environment: RtrsEnvironment, options: RtrsServerOptions, user: RtrsServerUser) {
    this.settings = serverSettings(options);
    this.user = user;
    this.pathContext = { environment, settings: this.settings, poller: this.poller };
    this.channel = environment.cm.createChannel();
    try {
      for (const address of this.settings.addresses ?? [null]) {
        const { port } = this.settings;
        this.listeners.push(this.channel.listen({ address, port, backlog: BACKLOG }));
      }
    } catch (error) {
      this.channel.close();
      throw error;
    }
  }

  /** Requests outstanding per session. */
  get queueDepth(): number {
    return this.settings.queueDepth;
  }

  get chunkBytes(): number {
    return this.settings.chunkBytes;
  }

  /** Largest data length of a request. */
  get maxIoBytes(): number {
    return this.settings.chunkBytes - RTRS_HEADER_BYTES;
  }

  /** Bytes of chunks when all is there: sessions x paths x queue depth x chunk size. */
  get memoryBytesMax(): number {
    const { sessionCountMax, pathCountMax, queueDepth } = this.settings;
    return sessionCountMax * pathCountMax * queueDepth * this.requestBytes;
  }

  /** Of which each chunk takes so much: itself, and where a short request is copied to. */
  get requestBytes(): number {
    return this.settings.chunkBytes + copyBytesOf(this.settings);
  }

  /** Sessions that are up, in no order. */
  sessions(): readonly ServerSession[] {
    return [...this.sessionsByUuid.values()].filter((session) => session.isUp);
  }

  counters(): RtrsServerCounters {
    let inflight = 0;
    for (const path of this.paths) inflight += path.inflight;
    return {
      sessions: this.sessionsByUuid.size,
      paths: this.paths.length,
      inflight,
      requests: this.requestCount,
      refusedConnections: this.refusedCount,
      closedPaths: this.closedCount,
    };
  }

  /** Takes no more clients and disconnects those there are; pump until `isClosed`. */
  close(): void {
    if (this.isClosing) return;
    this.isClosing = true;
    for (const listener of this.listeners) listener.close();
    for (const path of this.paths) path.close("the server is shutting down");
    this.closeChannel();
  }

  /** `close` is through: no session, no request, no memory is left. */
  get isClosed(): boolean {
    return this.isClosing && this.paths.length === 0;
  }

  pump(nowNs: number): void {
    assert(!this.isPumping, "pump is not re-entered");
    this.isPumping = true;
    this.nowNs = nowNs;
    for (let i = 0; i < this.paths.length; i++) (this.paths[i] as ServerPath).nowNs = nowNs;
    this.pollEvents();
    this.poller.poll();
    this.probeSessions();
    // Backwards, since a path that closes leaves the list.
    for (let i = this.paths.length - 1; i >= 0; i--) (this.paths[i] as ServerPath).pump(nowNs);
    this.isPumping = false;
  }

  deadlineNs(): number {
    if (this.poller.isReady) return this.nowNs;
    let deadline = Infinity;
    for (let i = 0; i < this.paths.length; i++) {
      deadline = Math.min(deadline, (this.paths[i] as ServerPath).deadlineNs());
    }
    return deadline;
  }

  checkInvariants(): void {
    assert(this.pathsByUuid.size === this.paths.length, "each path is known by its UUID");
    let pathCount = 0;
    for (const session of this.sessionsByUuid.values()) {
      const { paths } = session;
      pathCount += paths.length;
      assert(paths.length > 0, "a session goes with its last path");
      assert(paths.length <= this.settings.pathCountMax, "no more paths than allowed");
      assert(session.isUp || session.inflight === 0, "requests come after onSessionUp");
    }
    assert(pathCount === this.paths.length, "each path has one session");
    const sessionCount = this.sessionsByUuid.size;
    assert(sessionCount <= this.settings.sessionCountMax, "no more sessions than allowed");
    for (const path of this.paths) path.checkInvariants();
  }

  // ------------------------------------------------------------------------------ ServerPathOwner

  isNameTaken(name: string, session: ServerSession): boolean {
    const { roster } = this.settings;
    if (roster !== null) return !session.isUp && !roster.claim(session.rosterPlace, name);
    for (const other of this.sessionsByUuid.values()) {
      if (other === session || other.name !== name) continue;
      // Often it is the same client, whose former process is dead: the sooner we know the better.
      other.probe();
      return true;
    }
    return false;
  }

  onPathUp(path: ServerPath): void {
    const { session } = path;
    if (session.isUp) return;
    session.isUp = true;
    this.user.onSessionUp(session);
  }

  onPathRequest(request: ServerRequest): void {
    this.requestCount++;
    this.user.onRequest(request);
  }

  onPathClosed(path: ServerPath): void {
    const { session } = path;
    this.closedCount++;
    this.lastCloseReason = path.closeReason;
    this.paths.splice(this.paths.indexOf(path), 1);
    this.pathsByUuid.delete(path.uuid);
    session.paths.splice(session.paths.indexOf(path), 1);
    if (session.paths.length > 0) return;
    this.sessionsByUuid.delete(session.uuid);
    if (session.isUp) {
      session.isUp = false;
      this.user.onSessionDown(session);
    }
    this.settings.roster?.leave(session.rosterPlace);
    this.closeChannel();
  }

  // ---------------------------------------------------------------------------------- connections

  /** Sessions whose name is wanted on another lane. */
  private probeSessions(): void {
    const { roster } = this.settings;
    if (roster === null || !roster.hasProbes()) return;
    for (const session of this.sessionsByUuid.values()) {
      if (roster.takeProbe(session.rosterPlace)) session.probe();
    }
  }

  /** Once `isClosed`: ends with it the requests that nobody will answer. */
  private closeChannel(): void {
    if (this.isClosed) this.channel.close();
  }

  private pollEvents(): void {
    for (;;) {
      const event = this.channel.poll();
      if (event === null) return;
      if (event.type === "CONNECT_REQUEST") {
        this.onConnectRequest(event);
        continue;
      }
      const connection: unknown = event.id.context;
      if (!(connection instanceof Connection) || connection.isDestroyed) continue;
      (connection.owner as ServerPath).onCmEvent(connection, event);
    }
  }

  private onConnectRequest(event: CmEvent): void {
    if (event.id.state !== REQUEST_STATE) {
      // The client has withdrawn its request before we came to it.
      event.id.destroy();
      return;
    }
    const request = decodeRtrsConnectRequest(event.privateData);
    const errno = typeof request === "string" ? ERRNO.ECONNRESET : this.admit(event, request);
    if (errno === 0) return;
    this.refusedCount++;
    const nothing = { queueDepth: 0, ioBytesMax: 0, headerBytesMax: 0, flags: 0 };
    if (event.id.state === REQUEST_STATE) {
      event.id.reject(encodeRtrsConnectReply({ errno, ...nothing }));
    }
    event.id.destroy();
  }

  /** @returns 0 when the connection was accepted, else the errno to refuse it with. */
  private admit(event: CmEvent, request: RtrsConnectRequest): number {
    if (this.isClosing) return ERRNO.ECONNRESET;
    if (request.connectionCount > this.settings.connectionCountMax) return ERRNO.ECONNRESET;
    const known = this.pathsByUuid.get(uuidKey(request.pathUuid));
    const refusal =
      known === undefined
        ? this.refuseNew(event, request)
        : this.refuseKnown(known, event, request);
    if (refusal !== 0) return refusal;
    let path = known;
    try {
      path ??= this.makePath(event, request);
      path.accept(event.id, request.connectionId);
      return 0;
    } catch (error) {
      if (!(error instanceof FarpageError)) throw error;
      path?.close(`a connection could not be accepted: ${error.message}`);
      return ERRNO.ENOMEM;
    }
  }

  private refuseKnown(path: ServerPath, event: CmEvent, request: RtrsConnectRequest): number {
    const { remoteAddress: peer, localAddress: local } = event.id;
    // A request of an earlier attempt has been under way for long, and says nothing.
    const isLaterAttempt = u16Diff(request.reconnectCount, path.reconnectCount) > 0;
    if (isLaterAttempt && peer?.equals(path.peer) === true) {
      // The client has given its old connections up. No need to wait until a heartbeat tells us; it
      // may come in when the requests of the old ones have finished.
      path.close("the client connects anew");
    }
    // A path is one pair of addresses (facts page, section 1), and its client was admitted by its.
    const isFitting =
      path.state === "CONNECTING" &&
      peer !== null &&
      local !== null &&
      path.joins(peer, local) &&
      path.session.uuid === uuidKey(request.pathsUuid) &&
      path.connectionCount === request.connectionCount &&
      !path.hasConnection(request.connectionId);
    return isFitting ? 0 : ERRNO.ECONNRESET;
  }

  private refuseNew(event: CmEvent, request: RtrsConnectRequest): number {
    const session = this.sessionsByUuid.get(uuidKey(request.pathsUuid));
    const peer = event.id.remoteAddress;
    const errno = peer === null ? ERRNO.EACCES : this.user.admit?.(peer, session ?? null);
    if (errno !== undefined && errno !== 0) return errno;
    if (session !== undefined) return this.refuseFurther(session, event);
    if (!request.firstConnection) return ERRNO.ENXIO;
    return this.sessionsByUuid.size >= this.settings.sessionCountMax ? ERRNO.ENOMEM : 0;
  }

  /** As Linux does (facts page 4.4), which has room for 128 paths. */
  private refuseFurther(session: ServerSession, event: CmEvent): number {
    const { remoteAddress: peer, localAddress: local } = event.id;
    if (peer === null || local === null || session.joins(peer, local)) return ERRNO.EEXIST;
    // A client that has lost all paths may have told its user so, who goes on with other requests:
    // those must not meet the old ones in a device.
    if (!session.isLive) return ERRNO.ECONNRESET;
    return session.paths.length >= this.settings.pathCountMax ? ERRNO.ECONNRESET : 0;
  }

  /** @throws FarpageError ENOMEM. */
  private makePath(event: CmEvent, request: RtrsConnectRequest): ServerPath {
    const { remoteAddress: peer, localAddress: local } = event.id;
    assert(peer !== null && local !== null, "a connect request has two addresses");
    const uuid = uuidKey(request.pathsUuid);
    const known = this.sessionsByUuid.get(uuid);
    const session = known ?? this.makeSession(peer, local, uuid);
    const addresses = { peer, local };
    let path: ServerPath;
    try {
      path = new ServerPath(this.pathContext, this, session, request, addresses, this.nowNs);
    } catch (error) {
      if (known === undefined) this.settings.roster?.leave(session.rosterPlace);
      throw error;
    }
    this.paths.push(path);
    this.pathsByUuid.set(path.uuid, path);
    session.paths.push(path);
    this.sessionsByUuid.set(uuid, session);
    return path;
  }

  /** @throws FarpageError ENOMEM when the lanes together have as many as may be. */
  private makeSession(peer: IpAddress, local: IpAddress, uuid: string): ServerSession {
    const session = new ServerSession(this.nextSessionId++, peer, local, uuid);
    const { roster } = this.settings;
    if (roster === null) return session;
    session.rosterPlace = roster.enter();
    if (session.rosterPlace !== ROSTER_FULL) return session;
    throw new FarpageError("ENOMEM", "there are as many sessions as may be");
  }
}
