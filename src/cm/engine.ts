// SPDX-License-Identifier: MIT
// What every exchange of the connection manager needs: tables, timers, sending, the ends of
// connections. The exchanges themselves are in active.ts, passive.ts, teardown.ts and sidr.ts.

import { assert, FarpageError, type IpAddress, type Random } from "../base/index.js";
import type { Context, QueuePair } from "../verbs/index.js";
import { type CmMessage, numberOfLane, REJ_REASON } from "../wire/index.js";
import { Connection } from "./connection.js";
import { ConnectionTable } from "./connection-table.js";
import { CmCounters, type CmDrop } from "./counters.js";
import type { CmEvent, CmEventType, PortSpace } from "./event.js";
import { ListenerTable } from "./listener.js";
import type { MadPort } from "./mad-port.js";
import { encodeMad } from "./messages.js";
import { type CmTuning, codedTimeNs } from "./options.js";
import { moveToErr } from "./queue-pair-moves.js";
import { TimerHeap } from "./timer-heap.js";

/** A MAD that is not about a connection goes here: to whoever sent the one it answers. */
export interface Sender {
  readonly devicePort: number;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly transactionHigh: number;
  readonly transactionLow: number;
}

const NO_DATA = new Uint8Array(0);
/** When no buffer was free: try again so much later, without counting it as a repetition. */
const BUFFER_RETRY_NS = 1_000_000;

export class CmEngine {
  readonly context: Context;
  readonly tuning: CmTuning;
  readonly random: Random;
  readonly port: MadPort;
  readonly table = new ConnectionTable();
  readonly listeners = new ListenerTable();
  readonly counters = new CmCounters();
  /** High half of every transaction id that we start. */
  private readonly transactionHigh: number;
  private readonly timers = new TimerHeap<Connection>();
  /** Connections whose clock starts with the next pump, since only then the time is known. */
  private fresh: Connection[] = [];
  /** Passive connections in REP_SENT: their queue pair is asked whether it has heard the peer. */
  readonly awaitingData = new Set<Connection>();
  /** Connected queue pairs that an id has. */
  readonly boundQps = new WeakSet<QueuePair>();
  private nowNs = 0;
  private isPumping = false;

  constructor(context: Context, tuning: CmTuning, random: Random, port: MadPort) {
    this.context = context;
    this.tuning = tuning;
    this.random = random;
    this.port = port;
    this.transactionHigh = random.nextU32();
  }

  /** Starts a pump: time is known until `endPump`. */
  beginPump(nowNs: number): void {
    assert(!this.isPumping, "the connection manager is never re-entered");
    this.isPumping = true;
    this.nowNs = nowNs;
    if (this.fresh.length === 0) return;
    const { fresh } = this;
    this.fresh = [];
    for (const connection of fresh) {
      if (!connection.isFresh) continue;
      connection.isFresh = false;
      this.stamp(connection);
    }
  }

  endPump(): void {
    this.isPumping = false;
  }

  deadlineNs(): number {
    return this.fresh.length > 0 ? 0 : this.timers.deadlineNs();
  }

  /** A connection whose timer is due, its timer taken out; null when none is. */
  takeDue(): Connection | null {
    return this.timers.takeDue(this.nowNs);
  }

  drop(reason: CmDrop): void {
    this.counters.drops[reason]++;
  }

  /** @throws FarpageError ENOMEM when there are `connectionMax` already. */
  createConnection(o: {
    readonly portSpace: PortSpace;
    readonly isPassive: boolean;
    readonly devicePort: number;
    readonly localAddress: IpAddress;
    readonly remoteAddress: IpAddress;
    readonly trafficClass: number;
  }): Connection {
    if (!this.hasRoom()) {
      throw new FarpageError(
        "ENOMEM",
        `there are ${this.table.count} connections; connectionMax allows no more`,
      );
    }
    const connection = new Connection({ ...o, localCommId: this.drawCommId() });
    this.table.add(connection);
    return connection;
  }

  hasRoom(): boolean {
    return this.table.count < this.tuning.connectionMax;
  }

  /** Starts an exchange of our own: a transaction id that no other exchange has. */
  beginTransaction(connection: Connection): void {
    connection.transactionHigh = this.transactionHigh;
    connection.transactionLow = this.random.nextU32();
  }

  /** Sends `message` to the connection's peer once. @returns false when no buffer was free. */
  send(connection: Connection, message: CmMessage): boolean {
    const { transactionHigh, transactionLow } = connection;
    return this.post(connection, encodeMad(message, transactionHigh, transactionLow));
  }

  /** Sends a MAD that has been encoded before. */
  sendEncoded(connection: Connection, mad: Uint8Array): void {
    this.post(connection, mad);
  }

  /** Sends `message` now, and again and again until the clock is stopped or `budgetNs` is over. */
  sendUntilAnswered(connection: Connection, message: CmMessage, budgetNs: number): void {
    const { transactionHigh, transactionLow } = connection;
    connection.message = encodeMad(message, transactionHigh, transactionLow);
    connection.intervalNs = this.tuning.repeatNsMin;
    if (!this.post(connection, connection.message)) connection.intervalNs = BUFFER_RETRY_NS;
    this.startClock(connection, budgetNs);
  }

  /** Sends what waits for an answer once more, and says when to do so next. */
  repeat(connection: Connection): void {
    const { message } = connection;
    assert(message !== null, "there is something to repeat");
    if (this.post(connection, message)) {
      this.counters.repeats++;
      const { repeatNsMin, repeatNsMax } = this.tuning;
      const next = Math.max(connection.intervalNs * 2, repeatNsMin);
      connection.intervalNs = Math.min(next, repeatNsMax);
      this.arm(connection, connection.intervalNs);
    } else {
      this.arm(connection, BUFFER_RETRY_NS);
    }
  }

  /** Sends what waits for an answer once more, out of turn: its timer is left alone. */
  resend(connection: Connection): void {
    if (connection.message !== null) this.post(connection, connection.message);
  }

  /** Answers the sender of a message that belongs to no connection. */
  reply(to: Sender, message: CmMessage): void {
    const mad = encodeMad(message, to.transactionHigh, to.transactionLow);
    this.count(this.port.send(to.devicePort, to.source, 0, mad));
  }

  /**
   * Waits for the service time that the peer's MRA asks for, within the bounds of `mraWaitNsMax`.
   */
  extend(connection: Connection, serviceTimeout: number): void {
    const untilNs = this.nowNs + codedTimeNs(serviceTimeout) + this.tuning.repeatNsMin;
    const timerNs = Math.min(untilNs, Math.max(connection.mraLimitNs, connection.giveUpNs));
    connection.giveUpNs = Math.max(connection.giveUpNs, timerNs);
    connection.intervalNs = this.tuning.repeatNsMin;
    this.timers.arm(connection, timerNs);
  }

  /** Whether the time of a connection whose timer fired is over. */
  isOverdue(connection: Connection): boolean {
    return this.nowNs >= connection.giveUpNs;
  }

  stopClock(connection: Connection): void {
    this.timers.disarm(connection);
    connection.isFresh = false;
    connection.message = null;
    connection.giveUpNs = Number.POSITIVE_INFINITY;
  }

  /** The application has answered a request, or nobody will. */
  endRequest(connection: Connection): void {
    const { listener } = connection;
    if (listener === null) return;
    assert(listener.pendingCount > 0, "a listener counts its requests");
    listener.pendingCount--;
    connection.listener = null;
  }

  /** The connection is over; late packets and duplicate requests may still come (timewait). */
  enterTimewait(connection: Connection): void {
    this.leave(connection);
    connection.answerReason = REJ_REASON.STALE_CONNECTION;
    connection.setState("TIMEWAIT");
    this.linger(connection, codedTimeNs(connection.agreement.ackTimeout));
  }

  /**
   * The exchange is over, and its last word is kept for a peer that asks again.
   * @param message the last word as a MAD, if it is to be repeated unasked too, or null.
   */
  enterAnswered(connection: Connection, message: Uint8Array | null): void {
    this.leave(connection);
    connection.setState("ANSWERED");
    connection.message = message;
    connection.intervalNs = this.tuning.repeatNsMin;
    this.linger(connection, this.tuning.lingerNs);
  }

  /**
   * A peer has asked again for the last word of an exchange: it is kept as long again, or the next
   * repetition would look like a new request.
   */
  lingerOn(connection: Connection): void {
    if (connection.state !== "ANSWERED") return;
    this.table.renewLingering(connection);
    this.startClock(connection, this.tuning.lingerNs);
  }

  /** Timewait is over. A passive side still knows old REQs: they must not look like new ones. */
  exitTimewait(connection: Connection): void {
    this.raise(connection, "TIMEWAIT_EXIT");
    if (!connection.isPassive) {
      this.forget(connection);
      return;
    }
    connection.setState("ANSWERED");
    this.startClock(connection, this.tuning.lingerNs);
  }

  /** Forgets the connection altogether. */
  forget(connection: Connection): void {
    this.leave(connection);
    connection.setState("CLOSED");
    this.table.remove(connection);
    if (connection.id !== null) connection.id.connectionClosed();
    connection.id = null;
  }

  /** Tells the user, if there is one. */
  raise(connection: Connection, type: CmEventType, details: Partial<CmEvent> = {}): void {
    const { id } = connection;
    if (id === null) return;
    id.channel.push({
      listener: null,
      status: 0,
      privateData: NO_DATA,
      responderResources: 0,
      initiatorDepth: 0,
      remoteQpn: 0,
      remoteQkey: 0,
      ...details,
      type,
      id,
    });
  }

  /** Moves the queue pair of the connection's id, if it still has one, to ERR. */
  failQp(connection: Connection): void {
    const qp = connection.id?.qp ?? null;
    if (qp !== null && connection.portSpace === "TCP") moveToErr(qp);
  }

  checkInvariants(): void {
    assert(!this.isPumping, "no pump is going on");
    this.timers.checkInvariants();
    this.table.checkInvariants();
    let halfOpenCount = 0;
    for (const connection of this.table.all()) {
      const { state } = connection;
      const isTimed = connection.heapIndex >= 0 || connection.isFresh;
      const waits = state === "REQ_RCVD" || state === "SIDR_REQ_RCVD" || state === "DREQ_RCVD";
      const rests = state === "IDLE" || state === "ESTABLISHED" || waits;
      assert(isTimed !== rests, "whatever waits for the peer has a clock, nothing else");
      assert((connection.listener !== null) === (waits && state !== "DREQ_RCVD"), "requests wait");
      assert(this.awaitingData.has(connection) === (state === "REP_SENT"), "REPs wait for data");
      const isAsked = state === "REQ_RCVD" || state === "REP_SENT" || state === "SIDR_REQ_RCVD";
      assert(connection.isHalfOpen === isAsked, "half open until it is established or over");
      if (isAsked) halfOpenCount++;
      assert(
        connection.id === null || connection.id.connection === connection,
        "an id and its connection know each other",
      );
    }
    assert(halfOpenCount <= this.tuning.halfOpenMax, "half-open connections are bounded");
    assert(this.table.lingerCount <= this.tuning.lingerCountMax, "lingering ones are bounded");
  }

  /**
   * (Re)starts the clock of what has just been sent: repetitions, and giving up after `budgetNs`.
   */
  private startClock(connection: Connection, budgetNs: number): void {
    connection.budgetNs = budgetNs;
    if (this.isPumping) {
      this.stamp(connection);
    } else if (!connection.isFresh) {
      this.timers.disarm(connection);
      connection.isFresh = true;
      this.fresh.push(connection);
    }
  }

  private stamp(connection: Connection): void {
    connection.giveUpNs = this.nowNs + connection.budgetNs;
    connection.mraLimitNs = this.nowNs + this.tuning.mraWaitNsMax;
    this.arm(connection, connection.message === null ? connection.budgetNs : connection.intervalNs);
  }

  private arm(connection: Connection, delayNs: number): void {
    this.timers.arm(connection, Math.min(this.nowNs + delayNs, connection.giveUpNs));
  }

  /** What every end has in common; the state is the caller's. */
  private leave(connection: Connection): void {
    this.stopClock(connection);
    this.endRequest(connection);
    this.awaitingData.delete(connection);
    this.table.endHalfOpen(connection);
    this.table.removeQpn(connection);
  }

  private linger(connection: Connection, budgetNs: number): void {
    const oldest = this.table.addLingering(connection, this.tuning.lingerCountMax);
    this.startClock(connection, budgetNs);
    if (oldest === null) return;
    if (oldest.state === "TIMEWAIT") this.raise(oldest, "TIMEWAIT_EXIT");
    this.forget(oldest);
  }

  private post(connection: Connection, mad: Uint8Array): boolean {
    // CM traffic is not the connection's data: traffic class 0, as Linux has it.
    return this.count(this.port.send(connection.devicePort, connection.remoteAddress, 0, mad));
  }

  private count(wasSent: boolean): boolean {
    if (wasSent) this.counters.messagesSent++;
    else this.counters.sendsWithoutBuffer++;
    return wasSent;
  }

  /** Ids are of the device's lane, by which a peer's answers find it. */
  private drawCommId(): number {
    const { lane } = this.context.device;
    for (;;) {
      const commId = numberOfLane(lane, this.random.nextU32());
      const isWhole = commId !== 0 && commId <= 0xffff_ffff;
      if (isWhole && !this.table.hasCommId(commId)) return commId;
    }
  }
}
