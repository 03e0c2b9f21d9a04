// SPDX-License-Identifier: MIT
// The requests of a client session: from `acquire` over permit, connection and reply, or the loss
// of the path and another attempt, to `release`. Sized once; nothing is allocated per request.
//
// When a path fails and another is left, what was in flight on it is sent again at once, by the
// other and under the same permits: that is how the server learns that the first is given up, and
// it waits for the first copy before it runs the second (docs/rtrs.md). When none is left, requests
// give their permits back, which are in doubt then, and wait.

import { assert, ERRNO, FarpageError, IntRing } from "../../base/index.js";
import { ACCESS, type ProtectionDomain } from "../../verbs/index.js";
import {
  RTRS_FLAG_NEED_INVAL,
  type RtrsConnectReply,
  rtrsFitsImmediate,
} from "../../wire/index.js";
import type { Connection } from "../connection.js";
import type { RtrsEnvironment } from "../environment.js";
import type { ClientSettings } from "../options.js";
import { Slab } from "../slab.js";
import type { ChunkTable } from "./chunk-table.js";
import type { RegisteredMemories } from "./client-memory.js";
import type { ClientPath } from "./client-path.js";
import { ClientPermits } from "./client-permits.js";
import { ClientRequest } from "./client-request.js";
import { ClientSender, HEADER_ROOM_BYTES } from "./client-sender.js";
import { ClientSlot } from "./client-slot.js";
import type { RtrsClientUser } from "./client-user.js";
import { PathPicker } from "./path-picker.js";
import { PermitPool } from "./permit-pool.js";
import { permitCountMax } from "./queue-sizes.js";
import { ReadStaging } from "./scatter.js";

/** Which requests are sent: none; only those with `retry = false`; all. */
export type RequestGate = "SHUT" | "URGENT" | "OPEN";

/** Message slots start at multiples of this, so that two never share a cache line. */
const SLOT_ALIGNMENT = 64;
/** An answer is waited for at most 2^6 times as long as the first time. */
const ANSWER_DOUBLINGS_MAX = 6;
/** The smallest request that a session is of any use for: a sector. */
const IO_BYTES_MIN = 512;

export class ClientRequests {
  gate: RequestGate = "SHUT";
  /** While SHUT: what requests complete with instead of waiting; 0 = they wait. */
  refusalErrno = 0;
  /** Requests that `acquire` hands out at a time; 0 before `make`. */
  depth = 0;
  /** Largest data length, and bytes of a chunk. */
  ioBytesMax = 0;
  chunkBytes = 0;
  /** `take` found nothing; the user wants to know when there is something. */
  isAwaited = false;
  /** A connection took no more: its path is marked, and must fail. */
  isBroken = false;
  /** Time, as the session knows it. */
  nowNs = 0;
  /** Submitted and not completed. */
  inflight = 0;
  completedCount = 0;
  reissuedCount = 0;
  /** Which path requests go by. */
  readonly picker: PathPicker;

  private readonly paths: readonly ClientPath[];
  private readonly user: RtrsClientUser;
  private readonly settings: ClientSettings;
  private readonly memories: RegisteredMemories;
  private sender: ClientSender | null = null;
  /** By number of the request. */
  private slots: ClientSlot[] = [];
  /** The numbers of the requests that nobody has. */
  private numbers = new PermitPool(1);
  private permits = new ClientPermits(1);
  /** Who has a permit. */
  private slotsByPermit: (ClientSlot | null)[] = [];
  /** Numbers of the requests in state WAITING, MOVING, BLOCKED and FAILING, each oldest first. */
  private waiting = new IntRing(1);
  private moving = new IntRing(1);
  private blocked = new IntRing(1);
  private failing = new IntRing(1);
  private nextSequence = 0;

  /** @param paths the session's, as they come and go. */
  constructor(
    paths: readonly ClientPath[],
    user: RtrsClientUser,
    settings: ClientSettings,
    memories: RegisteredMemories,
  ) {
    this.paths = paths;
    this.user = user;
    this.settings = settings;
    this.memories = memories;
    this.picker = new PathPicker(settings.policy);
  }

  /**
   * A server has said what it offers: makes everything the first time, and compares after that.
   * @returns the number of permits.
   * @throws FarpageError ENOMEM; EPROTO, EMSGSIZE when requests would not fit.
   */
  takeOffer(environment: RtrsEnvironment, pd: ProtectionDomain, reply: RtrsConnectReply): number {
    const { settings } = this;
    const chunkBytes = reply.ioBytesMax + reply.headerBytesMax;
    if (!rtrsFitsImmediate(reply.queueDepth, chunkBytes) || reply.ioBytesMax < IO_BYTES_MIN) {
      throw new FarpageError("EPROTO", `the server offers chunks of ${chunkBytes} bytes`);
    }
    if (settings.userBytesMax + HEADER_ROOM_BYTES > reply.headerBytesMax) {
      const what = `the server takes headers of ${reply.headerBytesMax} bytes only`;
      throw new FarpageError("EMSGSIZE", what);
    }
    if (this.depth === 0) {
      const deviceMax = permitCountMax(environment.context.queryDevice().maxQpWr);
      const permitCount = Math.min(reply.queueDepth, settings.queueDepthMax, deviceMax);
      this.make(environment, pd, permitCount, reply.ioBytesMax);
      this.chunkBytes = chunkBytes;
    } else if (reply.queueDepth < this.permits.count || reply.ioBytesMax < this.ioBytesMax) {
      // Users have built on what was offered first (facts page, trap 16).
      throw new FarpageError("EPROTO", "the server came back with a smaller queue or chunk size");
    }
    return this.permits.count;
  }

  /**
   * Reserved requests come out of the permits as long as there is more than one; the only permit is
   * shared.
   * @throws FarpageError ENOMEM; nothing is left over then.
   */
  private make(
    environment: RtrsEnvironment,
    pd: ProtectionDomain,
    permitCount: number,
    ioBytesMax: number,
  ): void {
    const { settings } = this;
    const depth = Math.max(1, permitCount - settings.reservedRequests);
    const count = depth + settings.reservedRequests;
    const room = settings.userBytesMax + HEADER_ROOM_BYTES;
    const slotBytes = Math.ceil(room / SLOT_ALIGNMENT) * SLOT_ALIGNMENT;
    // Behind the slots zeroes, to wipe headers with.
    const bytes = count * slotBytes + HEADER_ROOM_BYTES;
    const messages = new Slab(environment.memory, pd, bytes, ACCESS.LOCAL_WRITE);
    const slots: ClientSlot[] = [];
    try {
      for (let number = 0; number < count; number++) {
        const offset = number * slotBytes;
        const bytes = messages.memory.bytes.subarray(offset, offset + settings.userBytesMax);
        const region = settings.invalidate ? pd.allocMr() : null;
        slots.push(new ClientSlot(new ClientRequest(number, bytes), offset, region));
      }
    } catch (error) {
      for (const slot of slots) slot.region?.deregister();
      messages.free();
      throw error;
    }
    const flags = settings.remoteInvalidate ? RTRS_FLAG_NEED_INVAL : 0;
    const staging = new ReadStaging(environment.memory, this.memories, ioBytesMax);
    const zeroes = count * slotBytes;
    this.sender = new ClientSender(messages, zeroes, this.memories, staging, flags);
    this.slots = slots;
    this.depth = depth;
    this.ioBytesMax = ioBytesMax;
    this.numbers = new PermitPool(count);
    this.permits = new ClientPermits(permitCount);
    this.slotsByPermit = new Array<ClientSlot | null>(permitCount).fill(null);
    this.waiting = new IntRing(count);
    this.moving = new IntRing(count);
    this.blocked = new IntRing(count);
    this.failing = new IntRing(count);
  }

  /** Gives everything back. Preconditions: nothing is in flight, and no queue pair is alive. */
  free(): void {
    for (const slot of this.slots) slot.region?.deregister();
    this.sender?.free();
    this.depth = 0;
    this.slots = [];
  }

  /** @param isReserved whether it may be one of the reserved. @returns null when there is none. */
  take(isReserved: boolean): ClientRequest | null {
    const keepCount = isReserved ? 0 : this.settings.reservedRequests;
    if (this.depth === 0 || this.numbers.freeCount <= keepCount) {
      this.isAwaited = true;
      return null;
    }
    const slot = this.slots[this.numbers.take()] as ClientSlot;
    assert(slot.state === "FREE", "a request that nobody has is free");
    slot.state = "TAKEN";
    slot.request.retry = true;
    return slot.request;
  }

  /** Whether the user should be told that `take(false)` would find something again. */
  get isAvailableDue(): boolean {
    if (!this.isAwaited || this.depth === 0) return false;
    return this.numbers.freeCount > this.settings.reservedRequests;
  }

  release(request: ClientRequest): void {
    const slot = this.slotOf(request);
    assert(slot.state === "TAKEN", "a released request is not in flight");
    slot.state = "FREE";
    request.clear();
    this.numbers.give(request.number);
  }

  submit(request: ClientRequest, isRead: boolean, dataLength: number): void {
    const slot = this.slotOf(request);
    assert(slot.state === "TAKEN", "a submitted request is acquired and not in flight");
    assert(dataLength >= 0 && dataLength <= this.ioBytesMax, "data length in range");
    assert(request.userLength <= this.settings.userBytesMax, "user message length in range");
    this.sender?.staging.check(request, isRead, dataLength);
    request.isRead = isRead;
    request.dataLength = dataLength;
    request.errno = 0;
    request.reissueCount = 0;
    slot.sequence = this.nextSequence++;
    slot.wasIssued = false;
    this.inflight++;
    if (this.gate === "OPEN" || (this.gate === "URGENT" && !request.retry)) this.issue(slot);
    else if (this.refusalErrno !== 0) this.failLater(slot, this.refusalErrno);
    else if (request.retry) this.wait(slot);
    else this.failLater(slot, ERRNO.ENOTCONN);
  }

  /** Opens the gate and issues what waits, each as its user now wants it. */
  reissue(): void {
    this.gate = "OPEN";
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

  failWaiting(errno: number): void {
    while (this.waiting.count > 0) {
      this.failLater(this.slots[this.waiting.shift()] as ClientSlot, errno);
    }
  }

  /** Permits or room in the send queues may be there again. Those with a permit go first. */
  issueBlocked(): void {
    this.issueFrom(this.moving);
    this.issueFrom(this.blocked);
  }

  /** Permits that lost paths may still use at the server (doubts.ts). */
  get unsettledCount(): number {
    return this.permits.doubtedCount;
  }

  /** The path is connected again: the server has nothing left of its former incarnation. */
  settlePath(path: ClientPath): void {
    this.permits.onConnected(path);
  }

  /**
   * The path is down, and another is connected: what was in flight goes on by that, each request
   * under its permit, the oldest first. The user does not hear of it.
   */
  move(path: ClientPath): void {
    this.permits.onPathLost(path);
    const moved = this.slots.filter((slot) => slot.path === path);
    moved.sort((a, b) => a.sequence - b.sequence);
    for (const slot of moved) {
      this.permits.onLost(path, slot.permit);
      this.takeBack(slot);
      path.counters.failedOver++;
      slot.request.reissueCount++;
      this.reissuedCount++;
      slot.state = "MOVING";
      this.moving.push(slot.request.number);
    }
    this.issueBlocked();
  }

  /**
   * The last path is down: everything that was sent or about to be comes back. Permits do, too, and
   * are in doubt. Requests without `retry` fail.
   */
  recall(): void {
    this.gate = "SHUT";
    this.blocked.clear();
    this.moving.clear();
    this.waiting.clear();
    const recalled = this.slots.filter(({ state }) => {
      return state === "ISSUED" || state === "MOVING" || state === "BLOCKED" || state === "WAITING";
    });
    recalled.sort((a, b) => a.sequence - b.sequence);
    for (const path of this.paths) this.permits.onPathLost(path);
    for (const slot of recalled) {
      if (slot.path !== null) this.permits.onLost(slot.path, slot.permit);
      this.withdraw(slot);
      if (this.refusalErrno !== 0) this.failLater(slot, this.refusalErrno);
      else if (slot.request.retry) this.wait(slot);
      else this.failLater(slot, ERRNO.ECONNRESET);
    }
  }

  /**
   * A path on which the server has left a request unanswered for `timeoutNs`, doubled each time
   * that it was issued again, so that a device which is slow and no more gets the time that it
   * needs. Time counts from the first look that finds a request. Null when there is none.
   */
  findOverdue(nowNs: number, timeoutNs: number): ClientPath | null {
    for (const slot of this.slots) {
      if (slot.state !== "ISSUED") continue;
      if (slot.seenNs < 0) slot.seenNs = nowNs;
      const doublings = Math.min(slot.request.reissueCount, ANSWER_DOUBLINGS_MAX);
      if (nowNs - slot.seenNs >= timeoutNs * 2 ** doublings) return slot.path;
    }
    return null;
  }

  /** Whether some will complete in the next `completeFailing`. */
  get hasFailing(): boolean {
    return this.failing.count > 0;
  }

  completeFailing(): void {
    // Only those that are there now: the user may submit again from inside.
    for (let count = this.failing.count; count > 0; count--) {
      const slot = this.slots[this.failing.shift()] as ClientSlot;
      this.complete(slot, slot.request.errno);
    }
  }

  /** Whose reply a message id is when it comes by `connection`; null when it is nobody's. */
  replyOwner(messageId: number, connection: Connection): ClientSlot | null {
    const slot = this.slotsByPermit[messageId] ?? null;
    return slot !== null && slot.connection === connection ? slot : null;
  }

  /** The server has answered. */
  answer(slot: ClientSlot, errno: number): void {
    slot.path?.counters.latency.add(this.nowNs - slot.issuedNs);
    this.permits.onAnswered(slot.permit, this.paths);
    if (this.permits.isHeld(slot.permit)) this.wipe(slot);
    this.complete(slot, errno);
  }

  /** From here on the server can't write any more: only then does the user get the request. */
  complete(slot: ClientSlot, errno: number): void {
    this.withdraw(slot);
    slot.state = "TAKEN";
    slot.request.errno = errno;
    this.sender?.settle(slot.request);
    this.inflight--;
    this.completedCount++;
    if (this.moving.count + this.blocked.count > 0) this.issueBlocked();
    this.user.onRequestComplete(slot.request);
  }

  checkInvariants(): void {
    let inflight = 0;
    let taken = 0;
    let issued = 0;
    let moving = 0;
    for (const slot of this.slots) {
      const isIssued = slot.state === "ISSUED";
      if (isIssued) issued++;
      if (slot.state !== "FREE") taken++;
      if (slot.state !== "FREE" && slot.state !== "TAKEN") inflight++;
      const isMoving = slot.state === "MOVING";
      if (isMoving) moving++;
      assert((slot.connection !== null) === isIssued, "issued on a connection");
      assert((slot.path !== null) === isIssued, "issued by a path");
      assert(slot.permit >= 0 === (isIssued || isMoving), "issued by a permit");
      assert(
        slot.permit < 0 || this.slotsByPermit[slot.permit] === slot,
        "a permit has one holder",
      );
      assert(!slot.isOpen || isIssued, "the server has a key only while the request is issued");
      // The server may have closed it already; then its reply is on the way.
      const isValid = slot.region?.isValid ?? false;
      assert(!isValid || slot.isOpen, "no other key is valid");
      assert(!isIssued || this.gate !== "SHUT", "issued while the gate is open");
    }
    assert(inflight === this.inflight, "requests in flight are counted");
    assert(moving === this.moving.count, "moving requests are in their queue");
    const carried = this.paths.reduce((sum, path) => sum + path.inflight, 0);
    assert(carried === issued, "each path counts what it carries");
    if (this.depth === 0) return;
    assert(taken + this.numbers.freeCount === this.slots.length, "each request is somebody's");
    assert(
      issued + moving + this.permits.freeCount === this.permits.count,
      "each permit is somebody's",
    );
  }

  private slotOf(request: ClientRequest): ClientSlot {
    const slot = this.slots[request.number];
    assert(slot !== undefined && slot.request === request, "the request is of this session");
    return slot;
  }

  private issue(slot: ClientSlot): void {
    if (this.tryIssue(slot)) return;
    slot.state = "BLOCKED";
    this.blocked.push(slot.request.number);
  }

  private issueFrom(ring: IntRing): void {
    while (ring.count > 0 && this.gate !== "SHUT") {
      if (!this.tryIssue(this.slots[ring.peek()] as ClientSlot)) return;
      ring.shift();
    }
  }

  /** @returns false when no permit is free, or no connection has room. */
  private tryIssue(slot: ClientSlot): boolean {
    if (slot.permit < 0 && this.permits.freeCount === 0) return false;
    let connection = this.picker.pick(this.paths);
    if (connection === null) return false;
    if (slot.permit < 0) {
      const permit = this.permits.choose(this.gate === "URGENT");
      connection = this.permits.connectionFor(permit) ?? connection;
      if (!connection.hasRoom(1)) return false;
      this.permits.take(permit);
      slot.permit = permit;
    }
    this.slotsByPermit[slot.permit] = slot;
    const { request } = slot;
    const path = connection.owner as ClientPath;
    slot.state = "ISSUED";
    slot.path = path;
    slot.connection = connection;
    slot.wasIssued = true;
    slot.seenNs = -1;
    slot.issuedNs = this.nowNs;
    path.inflight++;
    const bytes = request.dataLength + request.userLength;
    path.counters.onIssue(request.isRead, bytes, connection.cid);
    const chunks = path.chunks as ChunkTable;
    const isTaken = (this.sender as ClientSender).issue(slot, connection, chunks);
    // A dead connection takes nothing; when its path fails the request goes on by another.
    if (!isTaken) {
      path.isBroken = true;
      this.isBroken = true;
    }
    return true;
  }

  /** An answered request is to be none to a lost path either (client-permits.ts). */
  private wipe({ permit, request, path, connection }: ClientSlot): void {
    if (path === null || connection === null || !connection.hasRoom(1)) return;
    const chunks = path.chunks as ChunkTable;
    const offset = request.dataLength + request.userLength;
    (this.sender as ClientSender).wipe(permit, offset, connection, chunks);
    this.permits.onWipe(permit, connection);
  }

  private wait(slot: ClientSlot): void {
    slot.state = "WAITING";
    this.waiting.push(slot.request.number);
  }

  private failLater(slot: ClientSlot, errno: number): void {
    slot.state = "FAILING";
    slot.request.errno = errno;
    this.failing.push(slot.request.number);
  }

  /** Takes back all that `tryIssue` gave: permit, path and connection, key. */
  private withdraw(slot: ClientSlot): void {
    this.takeBack(slot);
    if (slot.permit < 0) return;
    this.slotsByPermit[slot.permit] = null;
    this.permits.give(slot.permit);
    slot.permit = -1;
  }

  /** The same but for the permit. */
  private takeBack(slot: ClientSlot): void {
    const { path, connection } = slot;
    if (path !== null && connection !== null) {
      path.inflight--;
      path.counters.onWithdraw(connection.cid);
    }
    slot.path = null;
    slot.connection = null;
    if (!slot.isOpen) return;
    slot.isOpen = false;
    // Nothing is left to do where the server has invalidated the key.
    if (slot.region !== null) slot.region.invalidate();
  }
}
