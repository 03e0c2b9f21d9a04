// SPDX-License-Identifier: MIT
// Where a user's ids and listeners live, and where their events wait: rdma_event_channel.

import { FarpageError } from "../base/index.js";
import { CmId } from "./cm-id.js";
import type { CmEngine, Sender } from "./engine.js";
import type { CmEvent, PortSpace } from "./event.js";
import { ephemeralPort, Listener, type ListenOptions } from "./listener.js";

/** Tries to find a free port for `listen` with port 0, before it says that there is none. */
const PORT_DRAWS_MAX = 256;

/**
 * A user's part of the connection manager. Events wait here until they are polled; an id has at
 * most four in its life, so that the queue is bounded by the number of ids.
 */
export class EventChannel implements Disposable {
  private readonly engine: CmEngine;
  private readonly onClosed: (channel: EventChannel) => void;
  private readonly ids = new Set<CmId>();
  private readonly listeners = new Set<Listener>();
  private events: CmEvent[] = [];
  /** Events before this index have been polled. */
  private head = 0;
  private isClosed = false;

  /** Internal: use `ConnectionManager.createChannel`. */
  constructor(engine: CmEngine, onClosed: (channel: EventChannel) => void) {
    this.engine = engine;
    this.onClosed = onClosed;
  }

  /** Ids that are not destroyed. */
  get idCount(): number {
    return this.ids.size;
  }

  /**
   * The next event, oldest first, or null (rdma_get_cm_event(3)). Nothing needs to be acknowledged.
   */
  poll(): CmEvent | null {
    for (;;) {
      const event = this.events[this.head];
      if (event === undefined) {
        this.events = [];
        this.head = 0;
        return null;
      }
      this.head++;
      if (this.head > 64 && this.head * 2 > this.events.length) {
        this.events = this.events.slice(this.head);
        this.head = 0;
      }
      if (!event.id.isDestroyed) return event;
    }
  }

  /**
   * Waits for peers at an address and port (rdma_listen(3)).
   * @throws FarpageError EADDRINUSE when somebody else waits there; EADDRNOTAVAIL when the address
   *   is not one of this host; EINVAL for a port or backlog that is none, or a closed channel.
   */
  listen(options: ListenOptions): Listener {
    this.assertOpen();
    const { address, port } = options;
    if (!Number.isInteger(port) || port < 0 || port > 65_535) {
      throw new FarpageError("EINVAL", `${port} is no port; ports are 0 .. 65535`);
    }
    const backlog = options.backlog ?? 128;
    if (!Number.isInteger(backlog) || backlog < 1) {
      throw new FarpageError("EINVAL", `a backlog of ${backlog} takes no requests`);
    }
    if (address !== null && this.engine.context.portOf(address) < 0) {
      throw new FarpageError("EADDRNOTAVAIL", `${address} is not an address of this host`);
    }
    const listener = new Listener(this, options, port === 0 ? this.drawPort(options) : port);
    this.engine.listeners.add(listener);
    this.listeners.add(listener);
    return listener;
  }

  /** An id to connect with (rdma_create_id(3)). @throws FarpageError EINVAL when closed. */
  createId(portSpace: PortSpace = "TCP"): CmId {
    this.assertOpen();
    const id = new CmId(this.engine, this, portSpace);
    this.ids.add(id);
    return id;
  }

  /** Closes the listeners and destroys the ids. No-op when closed already. */
  close(): void {
    if (this.isClosed) return;
    for (const listener of [...this.listeners]) listener.close();
    for (const id of [...this.ids]) id.destroy();
    this.isClosed = true;
    this.events = [];
    this.head = 0;
    this.onClosed(this);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Internal: something has happened to an id of this channel. */
  push(event: CmEvent): void {
    this.events.push(event);
  }

  /** Internal: an id for a request that has come to `listener`. */
  admit(listener: Listener, from: Sender, remotePort: number, trafficClass: number): CmId {
    const id = new CmId(this.engine, this, listener.portSpace);
    id.setPassiveEnds({
      portIndex: from.devicePort,
      local: from.destination,
      remote: from.source,
      localPort: listener.port,
      remotePort,
      trafficClass,
    });
    this.ids.add(id);
    return id;
  }

  /** Internal: ends the requests that nobody has seen yet. */
  closeListener(listener: Listener): void {
    this.engine.listeners.remove(listener);
    this.listeners.delete(listener);
    for (const event of this.events.slice(this.head)) {
      if (event.type === "CONNECT_REQUEST" && event.listener === listener) event.id.destroy();
    }
  }

  /** Internal: an id was destroyed. */
  forgetId(id: CmId): void {
    this.ids.delete(id);
  }

  private drawPort(options: ListenOptions): number {
    const portSpace = options.portSpace ?? "TCP";
    for (let draw = 0; draw < PORT_DRAWS_MAX; draw++) {
      const port = ephemeralPort(this.engine.random.nextU32());
      if (!this.engine.listeners.isTaken(portSpace, port, options.address)) return port;
    }
    throw new FarpageError("EADDRINUSE", `no free ${portSpace} port was found; name one`);
  }

  private assertOpen(): void {
    if (this.isClosed) throw new FarpageError("EINVAL", "the event channel was closed");
  }
}
