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
  readonly listener: StreamListener;
  readonly server: NbdServer;
  private readonly log: Log;
  private readonly turnedAway: RepeatedWarning;
  private readonly clients: Client[] = [];
  private draining = false;

  constructor(server: NbdServer, listener: StreamListener, log: Log) {
    this.server = server;
    this.listener = listener;
    this.log = log;
    this.turnedAway = new RepeatedWarning(log);
  }

  /** No connection is open and no request at the device. */
  get isIdle(): boolean {
    return this.clients.length === 0 && this.server.isIdle;
  }

  pump(nowNs: number): void {
    if (!this.draining && this.listener.readable) this.accept(nowNs);
    for (let i = 0; i < this.clients.length; i++) {
      const { stream, connection } = this.clients[i] as Client;
      if (stream.readable && connection.wantsRead) connection.onReadable(nowNs);
      if (stream.writable && connection.wantsWrite) connection.onWritable(nowNs);
    }
    this.server.pump(nowNs);
    for (let i = this.clients.length - 1; i >= 0; i--) this.settle(i);
  }

  deadlineNs(): number {
    return this.server.deadlineNs();
  }

  checkInvariants(): void {
    this.server.checkInvariants();
  }

  /** No more connections; those there are finish what they have begun, and close. */
  drain(): void {
    if (this.draining) return;
    this.draining = true;
    this.listener.close();
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

  private accept(nowNs: number): void {
    for (;;) {
      const stream = this.listener.accept();
      if (stream === null) return;
      const connection = this.server.accept(stream, nowNs);
      if (connection === null) {
        const { connectionCountMax } = this.server.limits;
        this.turnedAway.say(
          "",
          `nbd client ${stream.peer} turned away: ${connectionCountMax} are connected, and no ` +
            "more are taken (--nbd-connections)",
        );
        continue;
      }
      this.log.debug(`nbd client ${stream.peer} connected`);
      this.clients.push({ stream, connection });
    }
  }

  private settle(index: number): void {
    const { stream, connection } = this.clients[index] as Client;
    if (!connection.isClosed) {
      stream.setInterest(connection.wantsRead, connection.wantsWrite);
      return;
    }
    this.clients.splice(index, 1);
    this.log.debug(`nbd client ${stream.peer} gone: ${connection.closeReason ?? "closed"}`);
  }
}
