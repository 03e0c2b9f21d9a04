// SPDX-License-Identifier: MIT
// An NBD endpoint on a listening socket: accepts connections and gives each its turn in the lane.

import type { Machine } from "../base/index.js";
import type { NbdConnection, NbdServer } from "../nbd/index.js";
import type { OsStream, StreamListener } from "../os/index.js";
import type { Log } from "./log.js";
import { RepeatedWarning } from "./repeated-warning.js";

interface Client {
  readonly stream: OsStream;
  readonly connection: NbdConnection;
}

export class NbdEndpoint implements Machine {
  /** Null where connections come from another lane, by `adopt`. */
  readonly listener: StreamListener | null;
  readonly server: NbdServer;
  private readonly log: Log;
  private readonly turnedAway: RepeatedWarning;
  private readonly clients: Client[] = [];
  /** Accepted elsewhere, not served yet. */
  private readonly arrived: OsStream[] = [];
  private draining = false;
  /** Asked for each connection: whether it was handed on to another lane. */
  handsOn: ((stream: OsStream) => boolean) | null = null;
  /** Told when a connection is gone. */
  onGone: (() => void) | null = null;

  constructor(server: NbdServer, listener: StreamListener | null, log: Log) {
    this.server = server;
    this.listener = listener;
    this.log = log;
    this.turnedAway = new RepeatedWarning(log);
  }

  /** No connection is open and no request at the device. */
  get isIdle(): boolean {
    return this.clientCount === 0 && this.server.isIdle;
  }

  pump(nowNs: number): void {
    if (!this.draining && this.listener?.readable === true) this.accept(this.listener, nowNs);
    for (const stream of this.arrived.splice(0)) this.serve(stream, nowNs);
    for (let i = 0; i < this.clients.length; i++) {
      const { stream, connection } = this.clients[i] as Client;
      if (stream.readable && connection.wantsRead) connection.onReadable(nowNs);
      if (stream.writable && connection.wantsWrite) connection.onWritable(nowNs);
    }
    this.server.pump(nowNs);
    for (let i = this.clients.length - 1; i >= 0; i--) this.settle(i);
  }

  deadlineNs(): number {
    if (this.arrived.length > 0) return 0;
    return this.server.deadlineNs();
  }

  checkInvariants(): void {
    this.server.checkInvariants();
  }

  /** No more connections; those there are finish what they have begun, and close. */
  drain(): void {
    if (this.draining) return;
    this.draining = true;
    this.listener?.close();
    this.server.shutdown();
  }

  /** Closes every connection at once, whatever it has begun. Call `drain` first. */
  abort(): void {
    for (const { connection } of this.clients) connection.close();
    this.clients.length = 0;
  }

  /** Logs what was counted and not said yet. */
  sayUnsaid(): void {
    this.turnedAway.flush();
  }

  /** Serves a connection that another lane has accepted, from the next turn on. */
  adopt(stream: OsStream): void {
    this.arrived.push(stream);
  }

  /** Connections that are served. */
  get clientCount(): number {
    return this.clients.length + this.arrived.length;
  }

  private accept(listener: StreamListener, nowNs: number): void {
    for (;;) {
      const stream = listener.accept();
      if (stream === null) return;
      if (this.handsOn?.(stream) !== true) this.serve(stream, nowNs);
    }
  }

  private serve(stream: OsStream, nowNs: number): void {
    const connection = this.server.accept(stream, nowNs);
    if (connection === null) {
      const { connectionCountMax } = this.server.limits;
      this.turnedAway.say(
        "",
        `nbd client ${stream.peer} turned away: ${connectionCountMax} are connected, and no ` +
          "more are taken (--nbd-connections)",
      );
      this.onGone?.();
      return;
    }
    this.log.debug(`nbd client ${stream.peer} connected`);
    this.clients.push({ stream, connection });
  }

  private settle(index: number): void {
    const { stream, connection } = this.clients[index] as Client;
    if (!connection.isClosed) {
      stream.setInterest(connection.wantsRead, connection.wantsWrite);
      return;
    }
    this.clients.splice(index, 1);
    this.onGone?.();
    this.log.debug(`nbd client ${stream.peer} gone: ${connection.closeReason ?? "closed"}`);
  }
}
