// SPDX-License-Identifier: MIT
// Who waits for connections, and where: rdma_listen(3).

import { assert, FarpageError, type IpAddress } from "../base/index.js";
import type { PortSpace } from "./event.js";
import type { EventChannel } from "./event-channel.js";

export interface ListenOptions {
  /** A local address; null: every address of the host. */
  readonly address: IpAddress | null;
  /** 1 .. 65535; 0 picks a free one. */
  readonly port: number;
  /** Default "TCP". */
  readonly portSpace?: PortSpace;
  /** Requests that may wait for `accept` or `reject`; further ones are ignored. Default 128. */
  readonly backlog?: number;
}

/** A place where peers can connect; made by `EventChannel.listen`. */
export class Listener implements Disposable {
  readonly channel: EventChannel;
  readonly address: IpAddress | null;
  readonly port: number;
  readonly portSpace: PortSpace;
  readonly backlog: number;
  /** The user's. */
  context: unknown = null;
  /** Requests that wait for the application. Internal to the connection manager. */
  pendingCount = 0;
  private isClosed = false;

  /** Internal: use `EventChannel.listen`. */
  constructor(channel: EventChannel, options: ListenOptions, port: number) {
    this.channel = channel;
    this.address = options.address;
    this.port = port;
    this.portSpace = options.portSpace ?? "TCP";
    this.backlog = options.backlog ?? 128;
  }

  /** Stops listening. Requests that were not answered are rejected; established ids live on. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.channel.closeListener(this);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** First and last port that `listen` and `resolve` pick by themselves: Linux's default range. */
const EPHEMERAL_PORT_FIRST = 32_768;
const EPHEMERAL_PORT_LAST = 60_999;

/** An ephemeral port drawn by `random` in 0 .. 2^32 - 1. */
export function ephemeralPort(random: number): number {
  return EPHEMERAL_PORT_FIRST + (random % (EPHEMERAL_PORT_LAST - EPHEMERAL_PORT_FIRST + 1));
}

/** Listeners by port space and port. */
export class ListenerTable {
  private readonly byPort = new Map<string, Listener[]>();
  count = 0;

  /** @throws FarpageError EADDRINUSE when a listener there would take the same requests. */
  add(listener: Listener): void {
    const key = `${listener.portSpace}/${listener.port}`;
    const others = this.byPort.get(key) ?? [];
    if (this.isTaken(listener.portSpace, listener.port, listener.address)) {
      throw new FarpageError(
        "EADDRINUSE",
        `${listener.portSpace} port ${listener.port} of ${listener.address ?? "this host"} ` +
          "already has a listener; close it or choose another port",
      );
    }
    this.byPort.set(key, [...others, listener]);
    this.count++;
  }

  /** Whether a listener at `address` would overlap one that exists. */
  isTaken(portSpace: PortSpace, port: number, address: IpAddress | null): boolean {
    const others = this.byPort.get(`${portSpace}/${port}`) ?? [];
    return others.some((o) => o.address === null || address === null || o.address.equals(address));
  }

  remove(listener: Listener): void {
    const key = `${listener.portSpace}/${listener.port}`;
    const others = this.byPort.get(key) ?? [];
    assert(others.includes(listener), "a listener is where it was entered");
    const left = others.filter((o) => o !== listener);
    if (left.length === 0) this.byPort.delete(key);
    else this.byPort.set(key, left);
    this.count--;
  }

  /** The listener that takes a request to `address`, or null. */
  find(portSpace: PortSpace, port: number, address: IpAddress): Listener | null {
    const candidates = this.byPort.get(`${portSpace}/${port}`) ?? [];
    return candidates.find((c) => c.address === null || c.address.equals(address)) ?? null;
  }
}
