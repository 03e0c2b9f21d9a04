// SPDX-License-Identifier: MIT
// One client's connection: moves bytes between its stream and the phase it is in (handshake, then
// transmission), and sees it to its end.
//
// Reading stops where the client's next bytes would need room that there is not: the socket's
// buffer fills, and the client waits. Writing happens in the server's `pump`, so that one gathered
// write carries every reply that has become ready.

import { assert, ERRNO } from "../base/index.js";
import type { ByteStream } from "./byte-stream.js";
import type { NbdCloseReason } from "./nbd-counters.js";
import { type HandshakeOwner, NbdHandshake } from "./nbd-handshake.js";
import type { NbdServer } from "./nbd-server.js";
import {
  NbdTransmission,
  type TransmissionOwner,
  type TransmissionTerms,
} from "./nbd-transmission.js";
import type { ReplyQueue } from "./reply-queue.js";
import type { PoolUser, RequestPool, RequestSlot, Segment } from "./request-pool.js";
import { INTAKE, type Intake, type Staging } from "./staging.js";

/** What a connection works with; handed from one to the next. */
export interface ConnectionParts {
  readonly pool: RequestPool;
  readonly queue: ReplyQueue;
  readonly staging: Staging;
}

/** Reads of the stream in one turn: the others want theirs too. */
const READS_PER_TURN = 16;
/** Shorter payload than this is staged: one read brings the next requests too. */
const DIRECT_BYTES_MIN = 8192;
/** Times that a turn sends and takes up what that made room for. */
const ROUNDS_PER_TURN = 4;

export class NbdConnection implements HandshakeOwner, TransmissionOwner, PoolUser {
  readonly server: NbdServer;
  /** Who is at the other end, for messages. */
  readonly peer: string;
  /** Why the stream was closed; null while it is open. */
  closeReason: NbdCloseReason | null = null;
  /** When the client must have chosen its export; `Infinity` from then on. */
  handshakeDeadlineNs: number;
  /** It is in the server's list of connections that need a turn. */
  isDirty = false;
  private readonly stream: ByteStream;
  private readonly parts: ConnectionParts;
  private readonly handshake: NbdHandshake;
  private transmission: NbdTransmission | null = null;
  /** Why no more requests are taken; null while they are. */
  private endReason: NbdCloseReason | null = null;
  /** An answer of the handshake may be on its way out. */
  private isAnswering = true;
  /** Staged bytes wait for room. */
  private isBlocked = false;
  /** The stream took less than it was offered. */
  private isWriteBlocked = false;
  private readonly onWrite: () => void;

  /** Use `NbdServer.accept`, which knows whether there is room. */
  constructor(server: NbdServer, stream: ByteStream, parts: ConnectionParts, nowNs: number) {
    this.server = server;
    this.stream = stream;
    this.peer = stream.peer;
    this.parts = parts;
    this.handshakeDeadlineNs = nowNs + server.limits.handshakeTimeoutNs;
    this.handshake = new NbdHandshake(
      this,
      parts.pool,
      parts.queue,
      parts.staging,
      server.exports,
      server.counters,
      server.limits.requestBytesMax,
    );
    this.onWrite = () => {
      server.counters.streamWrites++;
    };
    this.markDirty();
  }

  /** Whether to watch the stream for readability (level-triggered); look again after every turn. */
  get wantsRead(): boolean {
    return this.closeReason === null && this.endReason === null && !this.isBlocked;
  }

  /** Whether to watch the stream for writability. */
  get wantsWrite(): boolean {
    return this.closeReason === null && this.isWriteBlocked;
  }

  /** The stream is closed: forget it. Requests may still be at the device. */
  get isClosed(): boolean {
    return this.closeReason !== null;
  }

  /** The export being used, or null before one is chosen. */
  get exportName(): string | null {
    return this.transmission === null ? null : this.transmission.target.name;
  }

  /** Bytes may have arrived, or the stream's end. Takes requests and submits them. */
  onReadable(_nowNs: number): void {
    let count = 0;
    while (this.wantsRead && this.consume() === INTAKE.NEEDS_MORE && this.wantsRead) {
      if (count === READS_PER_TURN || !this.read()) break;
      count++;
    }
    // What was read last may still complete a request.
    if (this.wantsRead) this.consume();
    if (this.closeReason === null && !this.parts.queue.isEmpty) this.markDirty();
  }

  /** The stream takes bytes again; they leave in the server's `pump`. */
  onWritable(_nowNs: number): void {
    if (!this.isWriteBlocked) return;
    this.isWriteBlocked = false;
    this.markDirty();
  }

  /** Takes no further request; answers those in progress, then closes. */
  shutdown(): void {
    this.end("CLOSED");
  }

  /** Closes the stream at once; what is in progress goes unanswered. */
  close(): void {
    this.onFatal("CLOSED");
  }

  /** The connection's turn, from the server's `pump`: goes on with what waited, and sends. */
  pump(): void {
    const queue = this.parts.queue;
    for (let round = 0; round < ROUNDS_PER_TURN && this.closeReason === null; round++) {
      this.transmission?.resume();
      if (this.isBlocked) this.consume();
      this.flush();
      const hasRoom = queue.takeReleasedCount() > 0 || (this.isAnswering && queue.isEmpty);
      const isWaiting = this.isBlocked || this.transmission?.isStarved === true;
      if (!hasRoom || !isWaiting) {
        this.closeIfDone();
        return;
      }
    }
    if (this.closeReason === null) this.markDirty();
  }

  /** The handshake's time is up. */
  onHandshakeTimeout(): void {
    this.onFatal("HANDSHAKE_TIMEOUT");
  }

  onTransmission(terms: TransmissionTerms): void {
    const { pool, queue, staging } = this.parts;
    const { counters, limits } = this.server;
    this.handshakeDeadlineNs = Number.POSITIVE_INFINITY;
    this.server.onJoin(terms.target);
    this.transmission = new NbdTransmission(this, pool, queue, staging, counters, limits, terms);
  }

  onAbort(): void {
    this.end("ABORTED");
  }

  onDisconnect(): void {
    this.end("DISCONNECTED");
  }

  onProgress(): void {
    this.markDirty();
  }

  /** After the stream's end, what comes back from the device only frees the buffers. */
  onSlotComplete(_slot: RequestSlot): void {
    this.markDirty();
  }

  onPartComplete(_segment: Segment): void {
    this.markDirty();
  }

  /** Closes the stream now. The buffers stay with the device until it is done with them. */
  onFatal(reason: NbdCloseReason): void {
    if (this.closeReason !== null) return;
    this.closeReason = reason;
    this.handshakeDeadlineNs = Number.POSITIVE_INFINITY;
    this.isWriteBlocked = false;
    this.server.counters.closed[reason]++;
    this.stream.close();
    this.parts.pool.user = this;
    this.markDirty();
  }

  /** Moves what is staged on, through the phase that the connection is in. */
  private consume(): Intake {
    if (this.endReason !== null || this.closeReason !== null) return INTAKE.STOPPED;
    const intake = this.transmission === null ? this.handshake.consume() : this.consumeRequests();
    this.isBlocked = intake === INTAKE.BLOCKED && this.endReason === null;
    return intake;
  }

  private consumeRequests(): Intake {
    const transmission = this.transmission;
    assert(transmission !== null, "requests come after the handshake");
    // The last option's answer lies where requests will have their buffers.
    if (this.isAnswering && !this.parts.queue.isEmpty) return INTAKE.BLOCKED;
    this.isAnswering = false;
    return transmission.consume();
  }

  /** One read. @returns whether there may be more to read. */
  private read(): boolean {
    const { staging } = this.parts;
    const payload = this.transmission === null ? null : this.transmission.payload;
    const direct = payload === null ? 0 : payload.directBytes;
    if (payload !== null && direct >= DIRECT_BYTES_MIN) {
      const count = this.readTo(payload.directOffset, direct);
      if (count > 0) payload.onDirect(count);
      return count === direct;
    }
    staging.compact();
    const gulp = payload === null ? staging.capacity : payload.gulpBytes;
    const length = Math.min(staging.room, gulp);
    assert(length > 0, "a connection that reads has room");
    const count = this.readTo(staging.end, length);
    if (count > 0) staging.add(count);
    return count === length;
  }

  /** Reads to `offset` of the pool's memory. @returns bytes read, 0 at the end or for none. */
  private readTo(offset: number, length: number): number {
    const count = this.stream.read(this.parts.pool.memory, offset, length);
    if (count > 0) {
      this.server.counters.streamReads++;
      return count;
    }
    if (count === 0) this.onEnd();
    else if (count !== -ERRNO.EAGAIN && count !== -ERRNO.EINTR) this.onFatal("STREAM_ERROR");
    return 0;
  }

  /** The client has closed its end; it may still want its replies. */
  private onEnd(): void {
    const phase = this.transmission === null ? this.handshake : this.transmission;
    this.end(phase.isInsideMessage ? "TRUNCATED" : "END_OF_STREAM");
  }

  private end(reason: NbdCloseReason): void {
    if (this.closeReason !== null || this.endReason !== null) return;
    this.endReason = reason;
    this.isBlocked = false;
    this.markDirty();
  }

  /** Sends what is queued, as far as the stream takes it. */
  private flush(): void {
    const queue = this.parts.queue;
    if (this.closeReason !== null || this.isWriteBlocked || queue.isEmpty) return;
    const result = queue.flush(this.stream, this.onWrite);
    if (result === -ERRNO.EAGAIN) this.isWriteBlocked = true;
    else if (result !== 0) this.onFatal("STREAM_ERROR");
  }

  private closeIfDone(): void {
    if (this.closeReason !== null || this.endReason === null) return;
    if (!this.parts.queue.isEmpty) return;
    if (this.transmission === null || this.transmission.isIdle) this.onFatal(this.endReason);
  }

  private markDirty(): void {
    if (this.isDirty) return;
    this.isDirty = true;
    this.server.onDirty(this);
  }

  /** Nothing of this connection is at a device any more. */
  get isDrained(): boolean {
    return this.closeReason !== null && this.parts.pool.inflight === 0;
  }

  /** Preconditions: `isDrained`. @returns the parts, for the next connection. */
  takeParts(): ConnectionParts {
    assert(this.isDrained, "no device works for a connection that gives its buffers back");
    const { pool, queue, staging } = this.parts;
    pool.reset();
    queue.reset();
    staging.reset();
    if (this.transmission !== null) this.server.onLeave(this.transmission.target);
    return this.parts;
  }

  checkInvariants(): void {
    if (this.closeReason !== null) return;
    this.transmission?.checkInvariants();
    assert(!this.isWriteBlocked || !this.parts.queue.isEmpty, "only unsent bytes block writing");
    const hasTurn = this.isDirty || this.isWriteBlocked;
    assert(this.parts.queue.isEmpty || hasTurn, "what is queued will be sent");
    const isWaiting = this.isBlocked || this.transmission?.isStarved === true;
    assert(!isWaiting || hasTurn || this.parts.pool.inflight > 0, "what waits will go on");
  }
}
