// SPDX-License-Identifier: MIT
// The connection manager of one device: librdmacm's vocabulary over QP1, without I/O, callbacks or
// promises. What to read first: rocev2 facts sections 17 to 21 (IBTA vol1 chapter 12, annex A11).

import { assert, type Machine, unreachable } from "../base/index.js";
import { type CmMad, decodeCmMad } from "../wire/index.js";
import { onRep } from "./active.js";
import type { CmCounters } from "./counters.js";
import { CmEngine, type Sender } from "./engine.js";
import { EventChannel } from "./event-channel.js";
import { GsiPort } from "./gsi.js";
import { MAD_BYTES, type MadPort, type ReceivedMad } from "./mad-port.js";
import { type ConnectionManagerOptions, resolveTuning } from "./options.js";
import { isUnicast, onReq, onRtu, pollData } from "./passive.js";
import { onMra, onRej } from "./rejection.js";
import { onSidrRep, onSidrReq } from "./sidr.js";
import { onDrep, onDreq, onTimer } from "./teardown.js";

/**
 * One per device: it owns QP1 of every port. In a turn of the loop it is pumped before its users,
 * which then poll their channels; what they post goes out when the device is pumped.
 */
export class ConnectionManager implements Machine, Disposable {
  private readonly engine: CmEngine;
  private readonly channels = new Set<EventChannel>();
  private isReleased = false;

  /**
   * @param port internal: something else than QP1, for tests.
   * @throws FarpageError EINVAL for an option out of its range; EBUSY when somebody else has QP1;
   *   ENOMEM.
   */
  constructor(options: ConnectionManagerOptions, port: MadPort | null = null) {
    const tuning = resolveTuning(options);
    const { context, memory, random } = options;
    const { receiveDepth, sendDepth } = tuning;
    const madPort = port ?? new GsiPort({ context, memory, receiveDepth, sendDepth });
    this.engine = new CmEngine(context, tuning, random, madPort);
  }

  get counters(): CmCounters {
    return this.engine.counters;
  }

  /** Ids, listeners, and exchanges that go on without an id: 0 when nothing is left. */
  get liveCount(): number {
    let idCount = 0;
    for (const channel of this.channels) idCount += channel.idCount;
    return idCount + this.engine.listeners.count + this.engine.table.count;
  }

  /** Goodbyes that still wait for the peer's answer. */
  get goodbyeCount(): number {
    let count = 0;
    for (const connection of this.engine.table.all()) {
      if (connection.state === "DREQ_SENT") count++;
    }
    return count;
  }

  createChannel(): EventChannel {
    assert(!this.isReleased, "the connection manager is not released");
    const channel = new EventChannel(this.engine, (closed) => this.channels.delete(closed));
    this.channels.add(channel);
    return channel;
  }

  /** Takes in what has arrived on QP1, fires due timers. Events are in the channels afterwards. */
  pump(nowNs: number): void {
    if (this.isReleased) return;
    const { engine } = this;
    engine.beginPump(nowNs);
    try {
      for (let mad = engine.port.receive(); mad !== null; mad = engine.port.receive()) {
        this.onMad(mad);
      }
      pollData(engine);
      for (let due = engine.takeDue(); due !== null; due = engine.takeDue()) onTimer(engine, due);
    } finally {
      engine.endPump();
    }
  }

  deadlineNs(): number {
    return this.isReleased ? Number.POSITIVE_INFINITY : this.engine.deadlineNs();
  }

  checkInvariants(): void {
    this.engine.checkInvariants();
  }

  /**
   * Closes every channel, which tells every peer goodbye. The goodbyes are on QP1 now: go on
   * pumping the connection manager and the device until `goodbyeCount` is 0 or one has waited long
   * enough, then `release`.
   */
  close(): void {
    for (const channel of [...this.channels]) channel.close();
  }

  /**
   * Gives QP1 and its buffers back, whatever is left. Closes first. No-op when released already.
   */
  release(): void {
    if (this.isReleased) return;
    this.close();
    this.isReleased = true;
    this.engine.port.close();
  }

  [Symbol.dispose](): void {
    this.release();
  }

  private onMad(received: ReceivedMad): void {
    const { engine } = this;
    engine.counters.messagesReceived++;
    const mad = decodeCmMad(received.view, received.offset, MAD_BYTES);
    if (typeof mad === "string") {
      engine.drop("MALFORMED");
      return;
    }
    if (!isUnicast(received.source)) {
      engine.drop("ADDRESS");
      return;
    }
    const { transactionHigh, transactionLow } = mad;
    const { devicePort, source, destination } = received;
    this.dispatch(mad, { devicePort, source, destination, transactionHigh, transactionLow });
  }

  private dispatch(mad: CmMad, from: Sender): void {
    const { engine } = this;
    const { message } = mad;
    switch (message.kind) {
      case "REQ":
        onReq(engine, message, from);
        return;
      case "REP":
        onRep(engine, message, from);
        return;
      case "RTU":
        onRtu(engine, message, from);
        return;
      case "REJ":
        onRej(engine, message, from);
        return;
      case "MRA":
        onMra(engine, message, from);
        return;
      case "DREQ":
        onDreq(engine, message, from);
        return;
      case "DREP":
        onDrep(engine, message, from);
        return;
      case "SIDR_REQ":
        onSidrReq(engine, message, from);
        return;
      case "SIDR_REP":
        onSidrRep(engine, message, from);
        return;
      default:
        unreachable(message);
        return;
    }
  }
}
