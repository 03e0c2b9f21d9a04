// SPDX-License-Identifier: MIT
// The user's end of an exchange: rdma_cm_id.

import { FarpageError, type IpAddress } from "../base/index.js";
import { QP_STATE, type QueuePair } from "../verbs/index.js";
import { type ConnectOptions, sendReq } from "./active.js";
import type { Connection, ConnectionState } from "./connection.js";
import type { CmEngine } from "./engine.js";
import type { PortSpace } from "./event.js";
import type { EventChannel } from "./event-channel.js";
import { ephemeralPort } from "./listener.js";
import { type AcceptOptions, acceptReq, isUnicast, rejectReq } from "./passive.js";
import { moveDatagramToRts, moveToInit } from "./queue-pair-moves.js";
import { acceptSidr, rejectSidr, sendSidrReq } from "./sidr.js";
import { disconnect, endConnection } from "./teardown.js";

/** Both ends of an exchange; what `CmId.resolve` takes. */
export interface ResolveOptions {
  /** A local address: the connection's packets come from it. */
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** The peer's port, 1 .. 65535. */
  readonly port: number;
  /** Our port in RDMA CM's header, 1 .. 65535; only informative. Default: an ephemeral one. */
  readonly sourcePort?: number;
  /** IPv4 TOS or IPv6 traffic class of the connection's packets, both ways; default 0. */
  readonly trafficClass?: number;
}

/**
 * A communication id (rdma_create_id(3)): at most one exchange with one peer. What happens to it
 * comes as events of its channel. Active: `resolve`, `bindQp`, `connect`. Passive: it comes with a
 * CONNECT_REQUEST; `bindQp`, post receives, `accept`; or `reject`. At the end: `destroy`.
 */
export class CmId implements Disposable {
  readonly channel: EventChannel;
  readonly portSpace: PortSpace;
  /** Coded RNR timer of the queue pair, 0 .. 31; read when the connection comes up. 0 is 655 ms. */
  minRnrTimer: number;
  /** The user's. */
  context: unknown = null;
  /** Internal: the exchange; null before it begins and once nothing is left of it. */
  connection: Connection | null = null;
  private readonly engine: CmEngine;
  private local: IpAddress | null = null;
  private remote: IpAddress | null = null;
  private ports = { local: 0, remote: 0 };
  private portIndex = -1;
  private trafficClass = 0;
  private queuePair: QueuePair | null = null;
  private hasBegun = false;
  private isGone = false;

  /** Internal: use `EventChannel.createId`. */
  constructor(engine: CmEngine, channel: EventChannel, portSpace: PortSpace) {
    this.engine = engine;
    this.channel = channel;
    this.portSpace = portSpace;
    this.minRnrTimer = engine.tuning.minRnrTimer;
  }

  /** Our address; null before `resolve`. */
  get localAddress(): IpAddress | null {
    return this.local;
  }

  get remoteAddress(): IpAddress | null {
    return this.remote;
  }

  /** RDMA CM's port numbers. Passive: `remotePort` is what the peer's header says. */
  get localPort(): number {
    return this.ports.local;
  }

  get remotePort(): number {
    return this.ports.remote;
  }

  /** The device's port (index of the local address); -1 before `resolve`. */
  get devicePort(): number {
    return this.portIndex;
  }

  get qp(): QueuePair | null {
    return this.queuePair;
  }

  /** Where the exchange stands; IDLE before it, CLOSED when nothing is left of it. */
  get state(): ConnectionState {
    return this.connection?.state ?? (this.hasBegun ? "CLOSED" : "IDLE");
  }

  get isDestroyed(): boolean {
    return this.isGone;
  }

  /**
   * Says who will talk to whom (rdma_bind_addr(3), rdma_resolve_addr(3)); nothing is sent, the
   * network finds the way by itself.
   * @throws FarpageError EADDRNOTAVAIL when `source` is not an address of this host; EINVAL for
   *   addresses of two families, a bad port, or an id that has begun already.
   */
  resolve(options: ResolveOptions): void {
    const { source, destination } = options;
    this.assertIdle("resolve");
    const portIndex = this.engine.context.portOf(source);
    if (portIndex < 0) {
      throw new FarpageError("EADDRNOTAVAIL", `${source} is not an address of this host`);
    }
    if (source.family !== destination.family || !isUnicast(destination)) {
      throw new FarpageError("EINVAL", `${source} can't reach ${destination}`);
    }
    const trafficClass = options.trafficClass ?? 0;
    if (!(trafficClass >= 0 && trafficClass <= 255)) {
      throw new FarpageError("EINVAL", `traffic class ${trafficClass} is no byte`);
    }
    const sourcePort = options.sourcePort ?? ephemeralPort(this.engine.random.nextU32());
    this.ports = { local: checkPort(sourcePort), remote: checkPort(options.port) };
    this.local = source;
    this.remote = destination;
    this.portIndex = portIndex;
    this.trafficClass = trafficClass;
  }

  /**
   * Gives the id its queue pair, which stays the caller's to destroy. A connected one must be in
   * RESET or INIT; it is moved to INIT, so that receives can be posted before `connect` or
   * `accept`, and by the exchange to RTS and at the end to ERR. A datagram one is moved to RTS,
   * unless it is there.
   * @throws FarpageError EINVAL when it is of the wrong kind, device or state, or bound already.
   */
  bindQp(qp: QueuePair): void {
    this.assertAlive();
    if (this.portIndex < 0) throw new FarpageError("EINVAL", "resolve the id before bindQp");
    const wanted = this.portSpace === "TCP" ? "RC" : "UD";
    if (qp.type !== wanted) {
      throw new FarpageError(
        "EINVAL",
        `an id of the ${this.portSpace} port space takes ${wanted} queue pairs, not ${qp.type}`,
      );
    }
    if (qp.context.device !== this.engine.context.device) {
      throw new FarpageError("EINVAL", "the queue pair belongs to another device");
    }
    if (this.queuePair !== null) throw new FarpageError("EINVAL", "the id has its queue pair");
    if (wanted === "RC") this.bindConnected(qp);
    else this.bindDatagram(qp);
    this.queuePair = qp;
  }

  /**
   * Asks the peer for a connection (rdma_connect(3)); with the UDP port space, for the queue pair
   * behind its port. ESTABLISHED, REJECTED, UNREACHABLE or CONNECT_ERROR follows.
   * @throws FarpageError EINVAL when the id is not resolved, has no queue pair or has begun
   *   already, or an option is out of its range; ENOMEM.
   */
  connect(options: ConnectOptions = {}): void {
    this.assertIdle("connect");
    if (this.remote === null) throw new FarpageError("EINVAL", "resolve the id before it connects");
    const { timeoutNs } = options;
    if (timeoutNs !== undefined && !(timeoutNs > 0 && Number.isFinite(timeoutNs))) {
      throw new FarpageError("EINVAL", `timeoutNs can't be ${timeoutNs}`);
    }
    if (this.portSpace === "TCP") sendReq(this.engine, this, options);
    else sendSidrReq(this.engine, this, options);
  }

  /**
   * Accepts the request that this id came with (rdma_accept(3)). TCP: the queue pair is in RTS when
   * this returns; ESTABLISHED follows when the peer has answered or sent data, else UNREACHABLE,
   * REJECTED or DISCONNECTED. UDP: that was all.
   * @throws FarpageError EINVAL when there is no request to answer (any more), no queue pair, or an
   *   option is out of its range.
   */
  accept(options: AcceptOptions = {}): void {
    this.assertAlive();
    if (this.portSpace === "TCP") acceptReq(this.engine, this, options);
    else acceptSidr(this.engine, this, options.privateData);
  }

  /**
   * Refuses the request that this id came with (rdma_reject(3)).
   * @param privateData at most 148 bytes; not carried by the UDP port space.
   * @throws FarpageError EINVAL when there is no request to answer (any more).
   */
  reject(privateData?: Uint8Array): void {
    this.assertAlive();
    if (this.portSpace === "TCP") rejectReq(this.engine, this, privateData);
    else rejectSidr(this.engine, this);
  }

  /**
   * Ends the connection, in whatever state it is (rdma_disconnect(3)): the queue pair goes to ERR
   * and flushes, the peer is told. DISCONNECTED follows, unless it has come already. No-op when the
   * exchange has ended or never begun.
   */
  disconnect(): void {
    this.assertAlive();
    if (this.connection !== null) disconnect(this.engine, this.connection);
  }

  /**
   * Ends the id in whatever state it is; no event of it comes after this. The peer is told what
   * fits: a goodbye goes on being repeated without the id. The queue pair is in ERR afterwards and
   * stays its owner's. No-op when destroyed already.
   */
  destroy(): void {
    if (this.isGone) return;
    const { connection } = this;
    if (connection !== null) endConnection(this.engine, connection);
    if (this.connection !== null) this.connection.id = null;
    this.connection = null;
    if (this.queuePair !== null) this.engine.boundQps.delete(this.queuePair);
    this.queuePair = null;
    this.isGone = true;
    this.channel.forgetId(this);
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Internal: the exchange begins. @throws FarpageError ENOMEM. */
  open(isPassive: boolean): Connection {
    const connection = this.engine.createConnection({
      portSpace: this.portSpace,
      isPassive,
      devicePort: this.portIndex,
      localAddress: this.local as IpAddress,
      remoteAddress: this.remote as IpAddress,
      trafficClass: this.trafficClass,
    });
    connection.id = this;
    this.connection = connection;
    this.hasBegun = true;
    return connection;
  }

  /** Internal: a passive id's two ends. */
  setPassiveEnds(o: {
    readonly portIndex: number;
    readonly local: IpAddress;
    readonly remote: IpAddress;
    readonly localPort: number;
    readonly remotePort: number;
    readonly trafficClass: number;
  }): void {
    this.portIndex = o.portIndex;
    this.local = o.local;
    this.remote = o.remote;
    this.ports = { local: o.localPort, remote: o.remotePort };
    this.trafficClass = o.trafficClass;
  }

  /** Internal: nothing is left of the exchange. */
  connectionClosed(): void {
    this.connection = null;
  }

  /** Internal: the request that waits for an answer. @throws FarpageError EINVAL. */
  pendingRequest(): Connection {
    const { connection } = this;
    const { state } = this;
    if (connection !== null && (state === "REQ_RCVD" || state === "SIDR_REQ_RCVD")) {
      return connection;
    }
    throw new FarpageError("EINVAL", `the id has no request to answer: it is in ${state}`);
  }

  private bindConnected(qp: QueuePair): void {
    if (this.engine.boundQps.has(qp)) {
      throw new FarpageError("EINVAL", `${qp.name()} is bound to another id`);
    }
    if (qp.state !== QP_STATE.RESET && qp.state !== QP_STATE.INIT) {
      throw new FarpageError("EINVAL", `${qp.name()} is in ${qp.stateName}; it must be in RESET`);
    }
    moveToInit(qp, this.portIndex);
    this.engine.boundQps.add(qp);
  }

  private bindDatagram(qp: QueuePair): void {
    if (qp.state === QP_STATE.RTS) return;
    moveDatagramToRts(qp, this.portIndex, this.engine.random.nextU32() >>> 8);
  }

  private assertAlive(): void {
    if (this.isGone) throw new FarpageError("EINVAL", "the id was destroyed");
  }

  private assertIdle(verb: string): void {
    this.assertAlive();
    if (!this.hasBegun) return;
    throw new FarpageError(
      "EINVAL",
      `an id serves one exchange, and this one is in ${this.state}; make another to ${verb}`,
    );
  }
}

function checkPort(port: number): number {
  if (Number.isInteger(port) && port >= 1 && port <= 65_535) return port;
  throw new FarpageError("EINVAL", `${port} is no port; ports are 1 .. 65535`);
}
