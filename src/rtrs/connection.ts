// SPDX-License-Identifier: MIT
// One connection of a path, the same on both ends: a queue pair, its completion queue, its CM id,
// and the accounts of its send queue. What its messages mean is the path's business.

import { assert } from "../base/index.js";
import type { CmId } from "../cm/index.js";
import {
  type CompletionQueue,
  type ProtectionDomain,
  QP_STATE,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  SGE_COUNT_MAX,
  WC_OPCODE,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
} from "../verbs/index.js";
import { rtrsHeartbeatImmediate } from "../wire/index.js";

/**
 * What a connection tells the path that it belongs to. Called from `CompletionPoller.poll` alone.
 */
export interface ConnectionOwner {
  /** A message arrived; `completion` is valid during the call. Its receive is used up. */
  onReceive(connection: Connection, completion: WorkCompletion): void;
  /** Send queue slots came free, after `hasRoom` had said no. */
  onRoom(connection: Connection): void;
  /** A work request failed: the queue pair is in ERR. Called for each that does. */
  onConnectionError(connection: Connection, completion: WorkCompletion): void;
}

/** Depths of a connection's queues. */
export interface ConnectionDepths {
  readonly send: number;
  readonly receive: number;
}

/**
 * - `OPENING`: a request or an answer of the CM is under way.
 * - `ESTABLISHED`: both sides know.
 * - `CLOSING`: disconnected from this side; the queue pair is in ERR.
 * - `CLOSED`: the CM says that the connection is over.
 */
export type ConnectionState = "OPENING" | "ESTABLISHED" | "CLOSING" | "CLOSED";

/** Sends are signalled once in at most this many slots (facts page, section 15). */
const SIGNAL_INTERVAL_MAX = 512;

export class Connection {
  /** Number within the path: 0 is the service connection. */
  readonly cid: number;
  readonly owner: ConnectionOwner;
  readonly id: CmId;
  readonly qp: QueuePair;
  readonly cq: CompletionQueue;
  state: ConnectionState = "OPENING";
  /**
   * Bytes of the buffer behind each receive: 0 = empty receives. Set before the first is posted.
   */
  receiveBytes = 0;
  /** Local address and key of receive buffer 0; buffer n follows n * `receiveBytes` later. */
  receiveAddress = 0;
  receiveKey = 0;
  /** In the poller's list of connections with completions. */
  isReady = false;
  /** The poller was told that nothing may be reported any more. */
  isDestroyed = false;

  private readonly receive = new RecvWorkRequest();
  private readonly heartbeat = new SendWorkRequest();
  private readonly signalInterval: number;
  private readonly sendDepth: number;
  /** Slots of the send queue not in use as far as completions have told. Idle: about sendDepth. */
  private sendRoom: number;
  /** Slots posted since the last signalled work request. */
  private unsignalled = 0;
  /** `hasRoom` said no; the owner waits for `onRoom`. */
  private isAwaited = false;
  private readonly onEvent: () => void;

  /**
   * Makes the queues and binds the queue pair to `id` (INIT: receives can be posted).
   * @throws FarpageError ENOMEM when the device has no more queues.
   */
  constructor(
    owner: ConnectionOwner,
    cid: number,
    id: CmId,
    pd: ProtectionDomain,
    depths: ConnectionDepths,
    poller: CompletionPoller,
  ) {
    this.owner = owner;
    this.cid = cid;
    this.id = id;
    this.sendDepth = depths.send;
    this.sendRoom = depths.send;
    this.signalInterval = Math.max(1, Math.min(SIGNAL_INTERVAL_MAX, depths.send >> 2));
    this.cq = pd.context.createCq({ depth: depths.send + depths.receive });
    try {
      this.qp = pd.createQp({
        type: "RC",
        sendCq: this.cq,
        recvCq: this.cq,
        maxSendWr: depths.send,
        maxRecvWr: depths.receive,
        maxSendSge: SGE_COUNT_MAX,
        maxRecvSge: 1,
      });
    } catch (error) {
      this.cq.destroy();
      throw error;
    }
    this.onEvent = () => {
      poller.add(this);
    };
    this.heartbeat.opcode = WR_OPCODE.RDMA_WRITE_WITH_IMM;
    try {
      id.bindQp(this.qp);
    } catch (error) {
      this.qp.destroy();
      this.cq.destroy();
      throw error;
    }
    id.context = this;
    this.cq.requestNotify(false, this.onEvent);
  }

  /** Whether `count` work requests can be posted now; if not, `onRoom` follows. */
  hasRoom(count: number): boolean {
    if (this.sendRoom >= count) return true;
    this.isAwaited = true;
    return false;
  }

  /**
   * Posts a send. Its `wrId` and the SIGNALED flag belong to the connection.
   * Preconditions: `hasRoom`. @returns false when the queue pair does not take it (it is in ERR).
   */
  post(wr: SendWorkRequest): boolean {
    assert(this.sendRoom > 0, "the send queue has room");
    const count = this.unsignalled + 1;
    const isSignalled = count >= this.signalInterval;
    wr.wrId = count;
    wr.sendFlags = isSignalled ? SEND_FLAG.SIGNALED : 0;
    if (this.qp.tryPostSend(wr) !== 0) return false;
    this.unsignalled = isSignalled ? 0 : count;
    this.sendRoom--;
    return true;
  }

  /** Posts the receive with buffer `slot`; with empty receives all slots are alike. */
  postReceive(slot: number): boolean {
    const wr = this.receive;
    wr.wrId = slot;
    if (this.receiveBytes === 0) {
      wr.sgeCount = 0;
    } else {
      const sge = wr.sges[0] as (typeof wr.sges)[number];
      sge.address = this.receiveAddress + slot * this.receiveBytes;
      sge.length = this.receiveBytes;
      sge.lkey = this.receiveKey;
      wr.sgeCount = 1;
    }
    return this.qp.tryPostRecv(wr) === 0;
  }

  /**
   * Sends a heartbeat or its acknowledgement: a zero-length RDMA write. One that finds no room is
   * dropped: so much traffic is a sign of life by itself.
   * @param type HEARTBEAT or HEARTBEAT_ACK.
   */
  postHeartbeat(type: number): void {
    if (this.sendRoom === 0) return;
    this.heartbeat.immediate = rtrsHeartbeatImmediate(type);
    this.post(this.heartbeat);
  }

  /** The queue pair neither sends nor takes anything from now on; the peer is not told yet. */
  fence(): void {
    if (this.isDestroyed || this.qp.state === QP_STATE.ERR) return;
    this.qp.modifyQp({ state: QP_STATE.ERR });
  }

  /** Fences the queue pair and tells the peer. */
  disconnect(): void {
    if (this.state === "CLOSING" || this.state === "CLOSED") return;
    const wasOpening = this.state === "OPENING";
    // A request that is still under way is withdrawn when the id is destroyed.
    this.state = wasOpening ? "CLOSED" : "CLOSING";
    if (wasOpening) this.fence();
    else this.id.disconnect();
  }

  /**
   * The peer has left, or answered our goodbye; the CM's answer to it does not wait for anything.
   */
  onDisconnected(): void {
    this.state = "CLOSED";
    this.id.disconnect();
  }

  /** Ends queue pair, queue and id; nothing is reported any more. */
  destroy(): void {
    assert(!this.isDestroyed, "a connection is destroyed once");
    this.isDestroyed = true;
    this.state = "CLOSED";
    this.id.context = null;
    this.id.destroy();
    this.qp.destroy();
    this.cq.destroy();
  }

  /** Asks to be told of the next completion. */
  arm(): void {
    this.cq.requestNotify(false, this.onEvent);
  }

  /** @returns how much of `into` was filled. */
  pollCq(into: WorkCompletion[]): number {
    return this.isDestroyed ? 0 : this.cq.pollCq(into);
  }

  /** Takes one completion apart. */
  onCompletion(completion: WorkCompletion): void {
    if (completion.status !== WC_STATUS.SUCCESS) {
      this.owner.onConnectionError(this, completion);
    } else if (completion.opcode >= WC_OPCODE.RECV) {
      this.owner.onReceive(this, completion);
    } else {
      this.sendRoom += completion.wrId;
      if (this.isAwaited) {
        this.isAwaited = false;
        this.owner.onRoom(this);
      }
    }
  }

  checkInvariants(): void {
    assert(this.sendRoom >= 0 && this.sendRoom <= this.sendDepth, "send queue account in range");
    assert(this.unsignalled < this.signalInterval, "a signalled send follows in time");
  }
}

/** Completions taken at a time, and batches of one connection before others have their turn. */
const BATCH_COUNT = 32;
const BATCHES_MAX = 16;

/**
 * Collects the completions of all connections of a client or server: only those that have some are
 * looked at, so that idle sessions cost nothing.
 */
export class CompletionPoller {
  private readonly batch: WorkCompletion[];
  /** `ready[0 .. readyCount - 1]`; kept longer so that nothing is allocated. */
  private ready: (Connection | null)[] = [];
  private readyCount = 0;
  private later: (Connection | null)[] = [];

  constructor() {
    this.batch = Array.from({ length: BATCH_COUNT }, () => new WorkCompletion());
  }

  /** Whether `poll` has work. */
  get isReady(): boolean {
    return this.readyCount > 0;
  }

  add(connection: Connection): void {
    if (connection.isReady) return;
    connection.isReady = true;
    this.ready[this.readyCount++] = connection;
  }

  /** Hands out what has completed on the connections that were ready when it was called. */
  poll(): void {
    const now = this.ready;
    const count = this.readyCount;
    this.ready = this.later;
    this.readyCount = 0;
    this.later = now;
    for (let i = 0; i < count; i++) {
      const connection = now[i] as Connection;
      now[i] = null;
      connection.isReady = false;
      this.drain(connection);
    }
  }

  private drain(connection: Connection): void {
    let isArmed = false;
    for (let round = 0; round < BATCHES_MAX; ) {
      const count = connection.pollCq(this.batch);
      if (count === 0) {
        // Nothing may slip in between the last look and the arming: look once more.
        if (isArmed || connection.isDestroyed) return;
        connection.arm();
        isArmed = true;
        continue;
      }
      for (let i = 0; i < count && !connection.isDestroyed; i++) {
        connection.onCompletion(this.batch[i] as WorkCompletion);
      }
      round++;
    }
    this.add(connection);
  }
}
