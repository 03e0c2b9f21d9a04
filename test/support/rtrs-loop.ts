// SPDX-License-Identifier: MIT
// RTRS without RDMA: both ends of one session in memory, as their doors promise it. Messages are
// delivered in `pump`, in any order; the session can be lost at any moment, with each request
// executed or not and each answer lost or not. For tests of the protocol on top.

import {
  assert,
  ERRNO,
  type FarpageError,
  HeapMemorySource,
  IpAddress,
  type Memory,
  type Random,
  randomBelow,
} from "../../src/base/index.js";
import type { RtrsSession } from "../../src/rnbd/index.js";
import {
  ClientRequest,
  type RtrsClientState,
  type RtrsClientUser,
  type RtrsEnvironment,
  type RtrsServerUser,
  ServerRequest,
  ServerSession,
} from "../../src/rtrs/index.js";

const HEADER_BYTES = 512;

class LoopServerSession extends ServerSession {
  readonly user: RtrsServerUser;
  readonly requests: ServerRequest[];
  private readonly loop: RtrsLoop;
  private count = 0;

  constructor(loop: RtrsLoop, id: number, user: RtrsServerUser) {
    super(id, IpAddress.parse("192.0.2.1"), IpAddress.parse("192.0.2.2"), `${id}`);
    this.name = "loop";
    this.loop = loop;
    this.user = user;
    this.requests = loop.chunks.map((memory, chunk) => {
      const message = new Uint8Array(loop.headerBytes);
      return new ServerRequest(this, this, chunk, message, memory, 0);
    });
  }

  override get inflight(): number {
    return this.count;
  }

  override disconnect(): void {
    this.loop.lose();
  }

  take(request: ServerRequest): void {
    this.count++;
    this.user.onRequest(request);
  }

  reply(request: ServerRequest, errno: number, dataLength: number): void {
    this.count--;
    assert(dataLength >= 0 && dataLength <= request.dataLength, "a reply within the request");
    this.loop.answered(this, request.chunk, errno, errno === 0 ? dataLength : 0);
  }
}

type SlotState = "FREE" | "TAKEN" | "SENT" | "SERVED" | "ANSWERED" | "WAITING" | "FAILING";

class Slot {
  readonly request: ClientRequest;
  state: SlotState = "FREE";
  errno = 0;
  dataLength = 0;
  /** It has been sent since it was submitted. */
  wasSent = false;
  /** ANSWERED: pumps until the answer may arrive. */
  delay = 0;

  constructor(number: number, headerBytes: number) {
    this.request = new ClientRequest(number, new Uint8Array(headerBytes));
  }
}

export interface RtrsLoopOptions {
  readonly queueDepth: number;
  readonly maxIoBytes: number;
  /** Longest user message, default 512. */
  readonly headerBytes?: number;
  /** Null: everything in order, and at once. */
  readonly random: Random | null;
}

/** The client's end is this object itself; the server's end calls `server`. */
export class RtrsLoop implements RtrsSession {
  state: RtrsClientState = "IDLE";
  readonly lastError = null;
  /** Answers of SESS_INFO that are wanted before anything else; the test counts them down. */
  unsettledCount = 0;
  readonly queueDepth: number;
  readonly maxIoBytes: number;
  readonly headerBytes: number;
  /** Whoever serves sessions that come up from now on. */
  server: RtrsServerUser | null = null;
  readonly chunks: readonly Memory[];
  readonly memories = new Set<Memory>();
  readonly slots: readonly Slot[];
  reissues = 0;
  private readonly user: RtrsClientUser;
  private readonly random: Random | null;
  private session: LoopServerSession | null = null;
  /** The last session, while requests of it are still with the server. */
  private draining: LoopServerSession | null = null;
  private sessionCount = 0;
  private isOpen = false;
  private wantsUp = false;
  private wantsDown = false;
  private wantsPermit = false;
  private failure: FarpageError | null = null;

  constructor(user: RtrsClientUser, options: RtrsLoopOptions) {
    this.user = user;
    this.random = options.random;
    this.queueDepth = options.queueDepth - 1;
    this.maxIoBytes = options.maxIoBytes;
    this.headerBytes = options.headerBytes ?? HEADER_BYTES;
    const source = new HeapMemorySource();
    this.chunks = Array.from({ length: options.queueDepth }, () =>
      source.allocate(options.maxIoBytes + 4096),
    );
    this.slots = Array.from({ length: options.queueDepth }, (_, number) => {
      return new Slot(number, this.headerBytes);
    });
  }

  /** Whether nothing of an old session is with a server: only then can a new one come up. */
  get isDrained(): boolean {
    return this.draining === null;
  }

  get isUp(): boolean {
    return this.session !== null;
  }

  // ------------------------------------------------------------------------------ what tests do

  /** Lets the session come up with the next pump in which `server` is free to take it. */
  allow(): void {
    this.wantsUp = true;
  }

  /** Loses the session: what is sent reaches the server or not, what is answered is lost. */
  lose(): void {
    const { session } = this;
    this.wantsUp = false;
    if (session === null) return;
    for (const slot of this.shuffled("SENT")) if (this.chance(2)) this.serve(session, slot);
    this.session = null;
    this.isOpen = false;
    this.wantsDown = true;
    this.draining = session;
    for (const slot of this.slots) {
      if (slot.state === "SENT" || slot.state === "SERVED" || slot.state === "ANSWERED") {
        slot.state = slot.request.retry ? "WAITING" : "FAILING";
        slot.errno = ERRNO.ECONNRESET;
      }
    }
    this.settle();
  }

  /** The server's process dies: it never hears of anything again, and answers nothing. */
  kill(): void {
    this.lose();
    this.draining = null;
    this.server = null;
  }

  /** The session fails for good. */
  fail(error: FarpageError): void {
    this.lose();
    this.failure = error;
  }

  answered(session: LoopServerSession, chunk: number, errno: number, dataLength: number): void {
    if (session === this.session) {
      const slot = this.slots[chunk] as Slot;
      assert(slot.state === "SERVED", "an answer to a request");
      slot.state = "ANSWERED";
      slot.errno = errno;
      slot.dataLength = dataLength;
      // Some answers dawdle, so that much can happen behind the back of an executed request.
      slot.delay = this.random === null || this.chance(4) ? 0 : randomBelow(this.random, 60);
    }
    this.settle();
  }

  // ------------------------------------------------------------------------------- RtrsSession

  connect(): void {
    this.state = "CONNECTING";
  }

  close(): void {
    this.lose();
    this.wantsDown = false;
    this.state = "CLOSING";
  }

  acquire(): ClientRequest | null {
    return this.take(1);
  }

  acquireReserved(): ClientRequest | null {
    return this.take(0);
  }

  release(request: ClientRequest): void {
    assert(this.state !== "CLOSED", "requests go with their session");
    const slot = this.slotOf(request);
    assert(slot.state === "TAKEN", "a released permit is taken");
    slot.state = "FREE";
    request.context = null;
    request.memory = null;
  }

  submitRead(request: ClientRequest, dataLength: number): void {
    this.submit(request, true, dataLength);
  }

  submitWrite(request: ClientRequest, dataLength: number): void {
    this.submit(request, false, dataLength);
  }

  reissue(): void {
    assert(this.session !== null, "reissued in a session");
    this.isOpen = true;
    for (const slot of this.slots) {
      if (slot.state !== "WAITING") continue;
      if (slot.wasSent) slot.request.reissueCount++;
      slot.errno = this.user.onRequestReissue(slot.request);
      slot.state = slot.errno === 0 ? "SENT" : "FAILING";
      slot.wasSent = true;
      if (slot.errno === 0) this.reissues++;
    }
  }

  failWaiting(errno: number): void {
    for (const slot of this.slots) {
      if (slot.state !== "WAITING") continue;
      slot.state = "FAILING";
      slot.errno = errno;
    }
  }

  registerMemory(memory: Memory): void {
    assert(!this.memories.has(memory), "registered once");
    this.memories.add(memory);
  }

  unregisterMemory(memory: Memory): void {
    assert(this.memories.delete(memory), "registered before");
  }

  pump(_nowNs: number): void {
    const { session } = this;
    if (session !== null) {
      for (const slot of this.shuffled("SENT")) {
        if (this.session === session && this.chance(3)) this.serve(session, slot);
      }
    }
    for (const slot of this.shuffled("ANSWERED")) {
      if (slot.delay > 0) slot.delay--;
      else if (slot.state === "ANSWERED" && this.chance(3)) this.finish(slot);
    }
    this.tellDown();
    for (const slot of this.shuffled("FAILING")) this.complete(slot, slot.errno);
    this.tellFailure();
    this.tellUp();
    if (this.wantsPermit && this.freeCount > 1) {
      this.wantsPermit = false;
      this.user.onPermitAvailable();
    }
    if (this.state === "CLOSING" && this.isDrained) this.state = "CLOSED";
  }

  deadlineNs(): number {
    const busy = this.slots.some((s) => ["SENT", "ANSWERED", "FAILING"].includes(s.state));
    const canUp = this.wantsUp && this.session === null && this.isDrained;
    const canClose = this.state === "CLOSING" && this.isDrained;
    return busy || canUp || canClose || this.wantsDown || this.failure !== null ? 0 : Infinity;
  }

  checkInvariants(): void {
    assert(this.session === null || this.state !== "CLOSED", "no session when closed");
  }

  // ------------------------------------------------------------------------------------- inside

  private get freeCount(): number {
    return this.slots.filter((slot) => slot.state === "FREE").length;
  }

  private slotOf(request: ClientRequest): Slot {
    const slot = this.slots.find((one) => one.request === request);
    assert(slot !== undefined, "the request is of this session");
    return slot;
  }

  private take(keep: number): ClientRequest | null {
    const slot = this.slots.find((one) => one.state === "FREE");
    if (this.sessionCount === 0 || slot === undefined || this.freeCount <= keep) {
      this.wantsPermit = true;
      return null;
    }
    slot.state = "TAKEN";
    slot.request.retry = true;
    slot.request.userMessage.fill(0xcc);
    return slot.request;
  }

  private submit(request: ClientRequest, isRead: boolean, dataLength: number): void {
    const slot = this.slotOf(request);
    assert(slot.state === "TAKEN", "a submitted permit is taken");
    assert(dataLength <= this.maxIoBytes, "no more data than allowed");
    assert(
      dataLength === 0 || this.memories.has(request.memory as Memory),
      "data in registered memory",
    );
    request.isRead = isRead;
    request.dataLength = dataLength;
    request.reissueCount = 0;
    slot.wasSent = false;
    if (this.session !== null && (this.isOpen || !request.retry)) {
      slot.state = "SENT";
      slot.wasSent = true;
    } else if (request.retry) slot.state = "WAITING";
    else {
      slot.state = "FAILING";
      slot.errno = ERRNO.ENOTCONN;
    }
  }

  private serve(session: LoopServerSession, slot: Slot): void {
    const { request } = slot;
    const served = session.requests[this.slots.indexOf(slot)] as ServerRequest;
    served.userMessage.set(request.userMessage);
    served.userLength = request.userLength;
    served.isRead = request.isRead;
    served.dataLength = request.dataLength;
    if (!request.isRead && request.dataLength > 0) {
      const { memory, memoryOffset, dataLength } = request;
      const data = (memory as Memory).bytes.subarray(memoryOffset, memoryOffset + dataLength);
      served.memory.bytes.set(data, served.memoryOffset);
    }
    slot.state = "SERVED";
    session.take(served);
  }

  private finish(slot: Slot): void {
    const { request, dataLength } = slot;
    if (request.isRead && dataLength > 0) {
      const data = (this.chunks[this.slots.indexOf(slot)] as Memory).bytes.subarray(0, dataLength);
      (request.memory as Memory).bytes.set(data, request.memoryOffset);
    }
    this.complete(slot, slot.errno);
  }

  private complete(slot: Slot, errno: number): void {
    slot.state = "TAKEN";
    slot.request.errno = errno;
    this.user.onRequestComplete(slot.request);
  }

  /** The old session ends on the server when its last request has been answered. */
  private settle(): void {
    const { draining } = this;
    if (draining === null || draining.inflight > 0) return;
    this.draining = null;
    draining.user.onSessionDown(draining);
  }

  private tellDown(): void {
    if (!this.wantsDown) return;
    this.wantsDown = false;
    this.state = "RECONNECTING";
    this.user.onSessionDown();
  }

  private tellFailure(): void {
    if (this.failure === null) return;
    const { failure } = this;
    this.failure = null;
    for (const slot of this.slots) {
      if (slot.state === "WAITING") this.complete(slot, ERRNO.ECONNABORTED);
    }
    this.state = "CLOSED";
    this.user.onSessionFailed(failure);
  }

  private tellUp(): void {
    if (!this.wantsUp || this.session !== null || this.server === null || !this.isDrained) return;
    if (this.state !== "CONNECTING" && this.state !== "RECONNECTING") return;
    this.wantsUp = false;
    this.isOpen = this.sessionCount === 0;
    this.session = new LoopServerSession(this, ++this.sessionCount, this.server);
    this.server.onSessionUp(this.session);
    this.state = "CONNECTED";
    this.user.onSessionUp();
  }

  private shuffled(state: SlotState): Slot[] {
    const slots = this.slots.filter((slot) => slot.state === state);
    if (this.random === null) return slots;
    for (let i = slots.length - 1; i > 0; i--) {
      const other = randomBelow(this.random, i + 1);
      [slots[i], slots[other]] = [slots[other] as Slot, slots[i] as Slot];
    }
    return slots;
  }

  /** True without a random source, else in all but one of `bound` cases. */
  private chance(bound: number): boolean {
    return this.random === null || randomBelow(this.random, bound) !== 0;
  }
}

/** What a `RnbdClient` over a `RtrsLoop` takes of a host: memory alone. */
export function loopEnvironment(): RtrsEnvironment {
  return { memory: new HeapMemorySource() } as unknown as RtrsEnvironment;
}
