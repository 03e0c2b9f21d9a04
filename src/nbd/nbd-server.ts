// SPDX-License-Identifier: MIT
// An NBD endpoint: exports, connections and the memory that they share out among them.
//
// Sans-I/O: the owner accepts streams, calls a connection when its stream is readable or writable,
// and calls `pump` once a turn after the devices' own `pump`, in which requests complete.

import { assert, type Machine, type Memory, type MemorySource, ObjectRing } from "../base/index.js";
import type { ByteStream } from "./byte-stream.js";
import { type ConnectionParts, NbdConnection } from "./nbd-connection.js";
import { NbdCounters } from "./nbd-counters.js";
import type { NbdExport, NbdExports } from "./nbd-export.js";
import { type NbdLimits, nbdLimits, poolLayout } from "./nbd-limits.js";
import { ReplyQueue } from "./reply-queue.js";
import { RequestPool } from "./request-pool.js";
import { Staging } from "./staging.js";

export interface NbdServerOptions {
  /** What is served; may change while the server runs. */
  readonly exports: NbdExports;
  /** Where buffers come from; all of them are allocated when the server is made. */
  readonly memory: MemorySource;
  readonly limits?: Partial<NbdLimits>;
}

export class NbdServer implements Machine {
  readonly exports: NbdExports;
  readonly limits: NbdLimits;
  readonly counters: NbdCounters = new NbdCounters();
  /**
   * Every buffer that block requests will ever name; one Memory per connection that there can be.
   * A device that needs its memory registered registers these.
   */
  readonly memories: readonly Memory[];
  private readonly source: MemorySource;
  private readonly parts: readonly ConnectionParts[];
  /** Those that no connection uses. */
  private readonly freeParts: ConnectionParts[];
  /** Connections that hold parts: open ones, and closed ones whose requests are at a device. */
  private readonly connections: NbdConnection[] = [];
  /** Connections that need a turn, each once. */
  private readonly dirty: ObjectRing<NbdConnection>;
  /** Exports with connections in transmission. */
  private readonly active: NbdExport[] = [];
  private isShutDown = false;
  private isReleased = false;
  /** The time of the last `pump` if there is more to do now, else -1. */
  private againNs = -1;

  /**
   * @throws FarpageError EINVAL for limits out of range, ENOMEM when `memory` has not enough.
   */
  constructor(options: NbdServerOptions) {
    const limits = nbdLimits(options.limits ?? {});
    this.exports = options.exports;
    this.limits = limits;
    this.source = options.memory;
    this.memories = allocateAll(options.memory, limits);
    this.parts = this.memories.map((memory) => {
      const pool = new RequestPool(memory, limits, this.counters);
      const staging = new Staging(pool, limits.stagingBytes);
      return { pool, queue: new ReplyQueue(pool), staging };
    });
    this.freeParts = [...this.parts].reverse();
    this.dirty = new ObjectRing<NbdConnection>(limits.connectionCountMax);
  }

  /** Bytes of all `memories`. */
  get memoryBytes(): number {
    return this.memories.length * poolLayout(this.limits).byteLength;
  }

  /** Connections whose stream is open. */
  get connectionCount(): number {
    let count = 0;
    for (const connection of this.connections) if (!connection.isClosed) count++;
    return count;
  }

  /** No connection is open and no request is at a device. */
  get isIdle(): boolean {
    return this.connections.length === 0;
  }

  /**
   * Serves `stream` from now on.
   * @returns null, the stream closed, when as many connections as there can be are served already,
   *   or after `shutdown`.
   */
  accept(stream: ByteStream, nowNs: number): NbdConnection | null {
    const parts = this.isShutDown ? undefined : this.freeParts.pop();
    if (parts === undefined) {
      this.counters.refused++;
      stream.close();
      return null;
    }
    this.counters.connections++;
    const connection = new NbdConnection(this, stream, parts, nowNs);
    this.connections.push(connection);
    return connection;
  }

  /** Sends what is complete and goes on with what waited. Call it after the devices' `pump`. */
  pump(nowNs: number): void {
    assert(!this.isReleased, "a closed server is not pumped");
    const submittedBefore = this.counters.blockRequests;
    for (const target of this.active) target.pump();
    // Those that become dirty again have their next turn in the next pump.
    for (let count = this.dirty.count; count > 0; count--) {
      const connection = this.dirty.shift() as NbdConnection;
      connection.isDirty = false;
      connection.pump();
      if (connection.isDrained && !connection.isDirty) this.release(connection);
    }
    for (const connection of this.connections) {
      if (connection.handshakeDeadlineNs <= nowNs) connection.onHandshakeTimeout();
    }
    const hasSubmitted = this.counters.blockRequests !== submittedBefore;
    this.againNs = hasSubmitted || this.dirty.count > 0 ? nowNs : -1;
  }

  deadlineNs(): number {
    if (this.dirty.count > 0 || this.againNs >= 0) return Math.max(this.againNs, 0);
    let deadline = Number.POSITIVE_INFINITY;
    for (const connection of this.connections) {
      deadline = Math.min(deadline, connection.handshakeDeadlineNs);
    }
    return deadline;
  }

  /** Takes no new connections; lets the open ones finish their requests, then closes them. */
  shutdown(): void {
    this.isShutDown = true;
    for (const connection of this.connections) connection.shutdown();
  }

  /** Gives the memory back. Preconditions: `isIdle`. */
  close(): void {
    assert(this.isIdle, "no connection uses the memory of a server that closes");
    if (this.isReleased) return;
    this.isReleased = true;
    for (const memory of this.memories) this.source.free(memory);
  }

  /** @internal A connection needs a turn. */
  onDirty(connection: NbdConnection): void {
    const queued = this.dirty.push(connection);
    assert(queued, "every connection fits the list of those that need a turn");
  }

  /** @internal A connection enters transmission on `target`. */
  onJoin(target: NbdExport): void {
    if (target.connectionCount === 0) this.active.push(target);
    target.join(this.limits.requestCountMax + this.limits.segmentCount);
  }

  /** @internal Its last request has come back. */
  onLeave(target: NbdExport): void {
    target.leave();
    if (target.connectionCount === 0) this.active.splice(this.active.indexOf(target), 1);
  }

  private release(connection: NbdConnection): void {
    this.freeParts.push(connection.takeParts());
    this.connections.splice(this.connections.indexOf(connection), 1);
  }

  checkInvariants(): void {
    const { connections, freeParts, parts } = this;
    assert(connections.length + freeParts.length === parts.length, "all memory is accounted for");
    for (const connection of connections) connection.checkInvariants();
    for (const target of this.active) {
      assert(target.connectionCount > 0, "an active export has connections");
    }
  }
}

/** One memory per connection; all or none. */
function allocateAll(source: MemorySource, limits: NbdLimits): Memory[] {
  const memories: Memory[] = [];
  try {
    for (let i = 0; i < limits.connectionCountMax; i++) {
      memories.push(source.allocate(poolLayout(limits).byteLength, "NBD requests"));
    }
  } catch (error) {
    for (const memory of memories) source.free(memory);
    throw error;
  }
  return memories;
}
