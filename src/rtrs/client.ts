// SPDX-License-Identifier: MIT
// The client side of an RTRS session (facts page, sections 5 to 11): permits, requests, and what becomes
// of them when the connection is lost.
//
// What is guaranteed, by whom. A request completes once: with the server's answer, or with an errno of
// its own when it can't be answered any more. One with `retry` that was in flight when the path failed
// keeps its permit, and so its chunk, and is executed again after the reconnect: at least once in all,
// and never after it has completed. The server fences: it accepts the path again only when every
// request of the old incarnation has left its devices, so the first execution is over before the
// second starts (a farpage server does so, and a Linux server refuses the path's UUID until then).
// What RTRS can't know is which requests overlap: whoever submits a request to a range of blocks while
// another one to the same blocks is in flight may see both orders, and after a reconnect the older one
// executed once more behind the newer. The protocol on top therefore holds a request back until those
// in flight to the same blocks have completed (see `rnbd/`).

import { assert, ERRNO, FarpageError, IntRing, type Machine, type Memory } from "../base/index.js";
import type { EventChannel } from "../cm/index.js";
import { ACCESS, type ProtectionDomain, WC_FLAG, type WorkCompletion } from "../verbs/index.js";
import {
  RTRS_FLAG_NEED_INVAL,
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
} from "../wire/index.js";
import { RegisteredMemories } from "./client-memory.js";
import { ClientPath, type ClientPathOwner, receiveBufferBytes } from "./client-path.js";
import { ClientRequest } from "./client-request.js";
import { ClientSender, HEADER_ROOM_BYTES } from "./client-sender.js";
import { ClientSlot } from "./client-slot.js";
import type { RtrsClientUser } from "./client-user.js";
import { CompletionPoller, Connection } from "./connection.js";
import type { RtrsEnvironment } from "./environment.js";
import { type ClientSettings, clientSettings, type RtrsClientOptions } from "./options.js";
import { PermitPool } from "./permit-pool.js";
import { Slab } from "./slab.js";
import { randomUuid } from "./uuid.js";

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

/** Message slots start at multiples of this, so that two never share a cache line. */
const SLOT_ALIGNMENT = 64;

export class RtrsClient implements Machine, ClientPathOwner {
  readonly sessionName: string;
  state: RtrsClientState = "IDLE";
  /** Permits that `acquire` can hand out at a time; 0 before the session first connected. */
  queueDepth = 0;
  /** Largest data length of a request, bytes; 0 before the session first connected. */
  maxIoBytes = 0;
  /** Bytes of a chunk of the server. */
  chunkBytes = 0;

  private readonly environment: RtrsEnvironment;
  private readonly settings: ClientSettings;
  private readonly user: RtrsClientUser;
  private readonly pd: ProtectionDomain;
  private readonly channel: EventChannel;
  private readonly poller = new CompletionPoller();
  private readonly memories: RegisteredMemories;
  private readonly path: ClientPath;
  private sender: ClientSender | null = null;
  private messages: Slab | null = null;
  /** Buffers of the 8-byte replies of a server that rotates keys. */
  private replies: Slab | null = null;
  private permits: PermitPool | null = null;
  /** By permit. */
  private slots: ClientSlot[] = [];
  /** Permits kept back for `acquireReserved`. */
  private reserved = 0;
  /** Permits in state WAITING, oldest first. */
  private waiting = new IntRing(1);
  /** Permits in state BLOCKED, oldest first. */
  private blocked = new IntRing(1);
  /** Permits in state FAILING, oldest first. */
  private failing = new IntRing(1);
  /** Requests with `retry` may be issued: the user has called `reissue` since the session came up. */
  private isOpen = false;
  private isAwaitingPermit = false;
  private nextConnection = 0;
  private nextSequence = 0;
  private requestDeadlineNs = Infinity;
  private isExpired = false;
  /** Once the session is to end: why, and with what its requests complete. */
  private closeError: FarpageError | null = null;
  private closeErrno = 0;
  /** A connection took no more: its path is to fail with the next `pump`. */
  private isBroken = false;
  private nowNs = 0;
  private isPumping = false;
  private inflightCount = 0;
  private completedCount = 0;
  private reissuedCount = 0;
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
  }

  /** Bytes of a user message that fit a request. */
  get userBytesMax(): number {
    return this.settings.userBytesMax;
  }

  /** Requests submitted and not completed. */
  get inflight(): number {
    return this.inflightCount;
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
      inflight: this.inflightCount,
      completed: this.completedCount,
      reissued: this.reissuedCount,
      reconnects: this.reconnectCount,
      strayReplies: this.strayCount,
    };
  }

  /** Starts connecting; the user hears of `onSessionUp` or `onSessionFailed`. Preconditions: IDLE. */
  connect(): void {
    this.setState("CONNECTING");
    this.path.connect();
  }

  /**
   * Ends the session. Requests in flight complete with ESHUTDOWN from the next `pump`; whoever wants
   * them answered waits for `inflight` 0 first. CLOSED when the goodbyes are said or timed out. All
   * that the session holds is given back then, registrations included. No-op when closing already.
   */
  close(): void {
    if (this.state === "CLOSING" || this.state === "CLOSED") return;
    this.startClosing(new FarpageError("ESHUTDOWN", "the session was closed"), ERRNO.ESHUTDOWN);
    this.path.close();
  }

  /**
   * Makes `memory` usable for the data of requests, until `unregisterMemory` or the end of the session.
   * @throws FarpageError EEXIST, ENOMEM.
   */
  registerMemory(memory: Memory): void {
    this.memories.add(memory);
  }

  /**
   * Preconditions: no request with data in `memory` is submitted. A write that has completed may still be
   * repeated by the transport when its acknowledgement was lost; it would then fail the connection,
   * which comes back by itself.
   * @throws FarpageError ENOENT when it is not registered.
   */
  unregisterMemory(memory: Memory): void {
    this.memories.remove(memory);
  }

  /**
   * Takes a permit, the lowest that is free.
   * @returns null when there is none (or the session never connected yet); `onPermitAvailable` follows.
   */
  acquire(): ClientRequest | null {
    return this.take(this.reserved);
  }

  /**
   * Takes a permit even when `acquire` has none left: for the few messages that must get through while
   * everything else waits for them, such as opening devices again after a reconnect.
   */
  acquireReserved(): ClientRequest | null {
    return this.take(0);
  }

  private take(keepCount: number): ClientRequest | null {
    const { permits } = this;
    if (permits === null || this.state === "CONNECTING" || permits.freeCount <= keepCount) {
      this.isAwaitingPermit = true;
      return null;
    }
    const slot = this.slots[permits.take()] as ClientSlot;
    assert(slot.state === "FREE", "a free permit's slot is free");
    slot.state = "TAKEN";
    slot.request.retry = true;
    return slot.request;
  }

  /** Gives a permit back. Preconditions: it is taken and not submitted. */
  release(request: ClientRequest): void {
    const slot = this.slotOf(request);
    assert(slot.state === "TAKEN", "a released permit is not in flight");
    slot.state = "FREE";
    request.context = null;
    request.memory = null;
    (this.permits as PermitPool).give(request.permit);
  }

  /**
   * Asks the server for `dataLength` bytes, to be written to `request.memory`.
   * Preconditions: the request is acquired and not in flight; 0 <= dataLength <= maxIoBytes; its memory
   * is registered and holds the range.
   */
  submitRead(request: ClientRequest, dataLength: number): void {
    this.submit(request, true, dataLength);
  }

  /** Sends `dataLength` bytes of `request.memory` to the server. Preconditions: as `submitRead`. */
  submitWrite(request: ClientRequest, dataLength: number): void {
    this.submit(request, false, dataLength);
  }

  /**
   * Lets requests with `retry` pass: the waiting ones, in the order of their submits, and all that
   * follow until the session is lost. `onRequestReissue` is called for each waiting one.
   * Preconditions: CONNECTED.
   */
  reissue(): void {
    assert(this.state === "CONNECTED", "requests are issued on a connected session");
    this.isOpen = true;
    for (let count = this.waiting.count; count > 0 && this.waiting.count > 0; count--) {
      const slot = this.slots[this.waiting.shift()] as ClientSlot;
      const errno = this.user.onRequestReissue(slot.request);
      if (errno !== 0) {
        this.failLater(slot, errno);
        continue;
      }
      if (slot.wasIssued) {
        slot.request.reissueCount++;
        this.reissuedCount++;
      }
      this.issue(slot);
    }
  }

  /** Completes every request that waits for the session with `errno`, from the next `pump`. */
  failWaiting(errno: number): void {
    while (this.waiting.count > 0) {
      this.failLater(this.slots[this.waiting.shift()] as ClientSlot, errno);
    }
  }

  pump(nowNs: number): void {
    assert(!this.isPumping, "pump is not re-entered");
    this.isPumping = true;
    this.nowNs = nowNs;
    this.pollEvents();
    this.poller.poll();
    if (this.isBroken) this.breakPath();
    this.path.pump(nowNs);
    if (nowNs >= this.requestDeadlineNs) this.expire();
    this.completeFailing();
    if (this.isPermitDue()) {
      this.isAwaitingPermit = false;
      this.user.onPermitAvailable();
    }
    if (this.state === "CLOSING" && this.path.state === "CLOSED") this.finishClosing();
    this.isPumping = false;
  }

  deadlineNs(): number {
    if (this.poller.isReady || this.failing.count > 0 || this.isBroken) return this.nowNs;
    if (this.isPermitDue()) return this.nowNs;
    return Math.min(this.path.deadlineNs(), this.requestDeadlineNs);
  }

  private isPermitDue(): boolean {
    if (!this.isAwaitingPermit || this.permits === null || this.state === "CONNECTING")
      return false;
    return this.permits.freeCount > this.reserved;
  }

  checkInvariants(): void {
    this.path.checkInvariants();
    assert((this.state === "CONNECTED") === (this.path.state === "CONNECTED"), "as its path");
    let inflight = 0;
    let taken = 0;
    for (const slot of this.slots) {
      if (slot.state !== "FREE") taken++;
      if (slot.state !== "FREE" && slot.state !== "TAKEN") inflight++;
      assert((slot.connection !== null) === (slot.state === "ISSUED"), "issued on a connection");
      assert(!slot.isOpen || slot.state === "ISSUED", "the server has a key only while issued");
      // The server may have invalidated it already: the reply is on its way.
      const isValid = slot.region?.isValid ?? false;
      assert(!isValid || slot.isOpen, "no other key is valid");
      assert(slot.state !== "ISSUED" || this.state === "CONNECTED", "issued while connected");
    }
    assert(inflight === this.inflightCount, "requests in flight are counted");
    const free = this.permits === null ? 0 : this.permits.freeCount;
    assert(taken + free === this.slots.length, "each permit is either free or somebody's");
  }

  // ------------------------------------------------------------------------------ ClientPathOwner

  onPathOffer(path: ClientPath, reply: RtrsConnectReply): void {
    const chunkBytes = reply.ioBytesMax + reply.headerBytesMax;
    if (!rtrsFitsImmediate(reply.queueDepth, chunkBytes) || reply.ioBytesMax < 512) {
      throw new FarpageError(
        "EPROTO",
        `the server offers impossible chunks of ${chunkBytes} bytes`,
      );
    }
    if (this.settings.userBytesMax + HEADER_ROOM_BYTES > reply.headerBytesMax) {
      throw new FarpageError(
        "EMSGSIZE",
        `the server takes headers of ${reply.headerBytesMax} bytes only`,
      );
    }
    if (this.slots.length === 0) {
      this.makeSlots(Math.min(reply.queueDepth, this.settings.queueDepthMax));
      this.maxIoBytes = reply.ioBytesMax;
      this.chunkBytes = chunkBytes;
    } else if (reply.queueDepth < this.slots.length || reply.ioBytesMax < this.maxIoBytes) {
      // Requests in flight hold permits and sizes of the first offer (facts page, trap 16).
      throw new FarpageError("EPROTO", "the server came back with a smaller queue or chunk size");
    }
    if (path.rotatesKeys && this.replies === null) {
      const { connectionCount } = this.settings;
      const bytes = receiveBufferBytes(
        connectionCount,
        this.slots.length,
        RTRS_RKEY_RESPONSE_BYTES,
      );
      this.replies = new Slab(this.environment.memory, this.pd, bytes, ACCESS.LOCAL_WRITE);
    }
  }

  onPathUp(path: ClientPath): void {
    const { replies } = this;
    if (path.rotatesKeys && replies !== null) {
      path.postReceives(replies.memory.address, replies.region.lkey, RTRS_RKEY_RESPONSE_BYTES);
    } else {
      path.postReceives(0, 0, 0);
    }
    // The first time there is nothing that could have to wait for the user.
    this.isOpen = this.state === "CONNECTING";
    if (!this.isOpen) this.reconnectCount++;
    this.setState("CONNECTED");
    this.isExpired = false;
    this.requestDeadlineNs = Infinity;
    this.user.onSessionUp();
  }

  onPathDown(_path: ClientPath): void {
    this.isOpen = false;
    if (this.state === "CONNECTED") {
      this.setState("RECONNECTING");
      this.requestDeadlineNs = this.nowNs + this.settings.requestTimeoutNs;
    }
    this.recallRequests();
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
    const slot = this.slots[rtrsReplyMessageId(immediate)];
    const isStray = slot === undefined || slot.connection !== connection;
    if (!isStray && path.rotatesKeys && !this.takeKey(path, slot, completion)) {
      path.fail(new FarpageError("EPROTO", "the server's reply carries no key for its chunk"));
      return;
    }
    connection.postReceive(receiveSlot);
    if (isStray) this.strayCount++;
    else this.complete(slot, rtrsReplyErrno(immediate));
  }

  onPathRoom(path: ClientPath): void {
    // Only those that are blocked now: one that finds no room again goes back to the end.
    for (let count = this.blocked.count; count > 0 && path.state === "CONNECTED"; count--) {
      this.issue(this.slots[this.blocked.shift()] as ClientSlot);
    }
  }

  // ------------------------------------------------------------------------------------- requests

  private slotOf(request: ClientRequest): ClientSlot {
    const slot = this.slots[request.permit];
    assert(slot !== undefined && slot.request === request, "the request is of this session");
    return slot;
  }

  private submit(request: ClientRequest, isRead: boolean, dataLength: number): void {
    const slot = this.slotOf(request);
    assert(slot.state === "TAKEN", "a submitted request is acquired and not in flight");
    assert(dataLength >= 0 && dataLength <= this.maxIoBytes, "data length in range");
    assert(request.userLength <= this.settings.userBytesMax, "user message length in range");
    request.isRead = isRead;
    request.dataLength = dataLength;
    request.errno = 0;
    request.reissueCount = 0;
    slot.sequence = this.nextSequence++;
    slot.wasIssued = false;
    this.inflightCount++;
    if (this.state === "CONNECTED" && (this.isOpen || !request.retry)) this.issue(slot);
    else if (this.closeError !== null) this.failLater(slot, this.closeErrno);
    else if (!request.retry) this.failLater(slot, ERRNO.ENOTCONN);
    else if (this.isExpired) this.failLater(slot, ERRNO.ETIMEDOUT);
    else this.wait(slot);
  }

  private issue(slot: ClientSlot): void {
    const connection = this.pickConnection();
    const { chunks } = this.path;
    if (connection === null || chunks === null) {
      slot.state = "BLOCKED";
      this.blocked.push(slot.request.permit);
      return;
    }
    slot.state = "ISSUED";
    slot.connection = connection;
    slot.wasIssued = true;
    const isTaken = (this.sender as ClientSender).issue(slot, connection, chunks);
    // A dead connection takes nothing; when the path fails the request is recalled.
    if (!isTaken) this.isBroken = true;
  }

  /** The next connection in turn that has room, or null. */
  private pickConnection(): Connection | null {
    const { connections } = this.path;
    const count = connections.length - 1;
    for (let i = 0; i < count; i++) {
      this.nextConnection = this.nextConnection >= count ? 1 : this.nextConnection + 1;
      const connection = connections[this.nextConnection] as Connection;
      if (connection.hasRoom(1)) return connection;
    }
    return null;
  }

  private wait(slot: ClientSlot): void {
    slot.state = "WAITING";
    this.waiting.push(slot.request.permit);
  }

  private failLater(slot: ClientSlot, errno: number): void {
    slot.state = "FAILING";
    slot.request.errno = errno;
    this.failing.push(slot.request.permit);
  }

  /** Stores the chunk's key before its permit can be used again. */
  private takeKey(path: ClientPath, slot: ClientSlot, completion: WorkCompletion): boolean {
    if (completion.byteLength < RTRS_RKEY_RESPONSE_BYTES) return false;
    const connection = slot.connection as Connection;
    const { memory } = this.replies as Slab;
    const at =
      connection.receiveAddress - memory.address + completion.wrId * RTRS_RKEY_RESPONSE_BYTES;
    const { permit } = slot.request;
    if (rtrsType(memory.view, at) !== RTRS_TYPE.RKEY_RSP) return false;
    if (rtrsRkeyResponseChunk(memory.view, at) !== permit || path.chunks === null) return false;
    path.chunks.keys[permit] = rtrsRkeyResponseKey(memory.view, at);
    return true;
  }

  /** From the reply on the server can't write any more: only then does the user get the request. */
  private complete(slot: ClientSlot, errno: number): void {
    this.withdraw(slot);
    slot.state = "TAKEN";
    slot.request.errno = errno;
    this.inflightCount--;
    this.completedCount++;
    this.user.onRequestComplete(slot.request);
  }

  private withdraw(slot: ClientSlot): void {
    slot.connection = null;
    if (!slot.isOpen) return;
    slot.isOpen = false;
    // Nothing is left to do where the server has invalidated the key.
    if (slot.region !== null) slot.region.invalidate();
  }

  /** The path is down: everything that was sent or about to be comes back. */
  private recallRequests(): void {
    while (this.blocked.count > 0) this.blocked.shift();
    while (this.waiting.count > 0) this.waiting.shift();
    const recalled = this.slots.filter((slot) => {
      return slot.state === "ISSUED" || slot.state === "BLOCKED" || slot.state === "WAITING";
    });
    recalled.sort((a, b) => a.sequence - b.sequence);
    for (const slot of recalled) {
      this.withdraw(slot);
      if (this.closeError !== null) this.failLater(slot, this.closeErrno);
      else if (slot.request.retry) this.wait(slot);
      else this.failLater(slot, ERRNO.ECONNRESET);
    }
  }

  private expire(): void {
    this.requestDeadlineNs = Infinity;
    this.isExpired = true;
    this.failWaiting(ERRNO.ETIMEDOUT);
  }

  private completeFailing(): void {
    // Only those that are there now: the user may submit again from inside.
    for (let count = this.failing.count; count > 0; count--) {
      const slot = this.slots[this.failing.shift()] as ClientSlot;
      this.complete(slot, slot.request.errno);
    }
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

  private breakPath(): void {
    this.isBroken = false;
    this.path.fail(new FarpageError("ECONNRESET", "the connection takes no more requests"));
  }

  /** @throws FarpageError ENOMEM; nothing is left over then. */
  private makeSlots(count: number): void {
    const { environment, settings } = this;
    const room = settings.userBytesMax + HEADER_ROOM_BYTES;
    const slotBytes = Math.ceil(room / SLOT_ALIGNMENT) * SLOT_ALIGNMENT;
    const messages = new Slab(environment.memory, this.pd, count * slotBytes, ACCESS.LOCAL_WRITE);
    const slots: ClientSlot[] = [];
    try {
      for (let permit = 0; permit < count; permit++) {
        const offset = permit * slotBytes;
        const bytes = messages.memory.bytes.subarray(offset, offset + settings.userBytesMax);
        const region = settings.invalidate ? this.pd.allocMr() : null;
        slots.push(new ClientSlot(new ClientRequest(permit, bytes), offset, region));
      }
    } catch (error) {
      for (const slot of slots) slot.region?.deregister();
      messages.free();
      throw error;
    }
    this.slots = slots;
    this.messages = messages;
    const readFlags = settings.remoteInvalidate ? RTRS_FLAG_NEED_INVAL : 0;
    this.sender = new ClientSender(messages, this.memories, readFlags);
    this.permits = new PermitPool(count);
    this.reserved = Math.min(settings.reservedPermits, count - 1);
    this.queueDepth = count - this.reserved;
    this.waiting = new IntRing(count);
    this.blocked = new IntRing(count);
    this.failing = new IntRing(count);
  }

  private startClosing(error: FarpageError, errno: number): void {
    this.setState("CLOSING");
    this.closeError = error;
    this.closeErrno = errno;
    this.requestDeadlineNs = Infinity;
    this.failWaiting(errno);
  }

  private finishClosing(): void {
    if (this.failing.count > 0) return;
    this.setState("CLOSED");
    for (const slot of this.slots) slot.region?.deregister();
    this.messages?.free();
    this.replies?.free();
    this.memories.removeAll();
    this.channel.close();
    this.pd.dealloc();
    const error = this.closeError as FarpageError;
    if (this.closeErrno !== ERRNO.ESHUTDOWN) this.user.onSessionFailed(error);
  }
}
