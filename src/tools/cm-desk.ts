// SPDX-License-Identifier: MIT
// Connections of a tool: librdmacm's ids, with their events awaited.

import { setMaxListeners } from "node:events";
import type { AcceptOptions, CmEvent, CmId, ConnectOptions, PortSpace } from "../cm/index.js";
import {
  type CmChannel,
  type CmChannelUser,
  connectError,
  FarpageError,
  type IpAddress,
} from "../runtime/index.js";
import type { QueuePair } from "../verbs/index.js";
import { interruptible, type ToolEnvironment } from "./environment.js";
import type { Queues } from "./queues.js";

/** How long a goodbye waits for the peer's: the connection manager gives up by itself before. */
const GOODBYE_MS = 10_000;

/** A promise that somebody else settles; nobody need look at it. */
class Later<T> {
  readonly promise: Promise<T>;
  resolve: (value: T) => void = () => {};
  reject: (error: unknown) => void = () => {};

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => {});
  }
}

/** A link's queue pair, and who waits for its completions. `Queues` is one. */
export interface LinkQueues {
  readonly qp: QueuePair;
  /** The peer has disconnected: waits for what has not come by now end with `error`. */
  fail(error: unknown): void;
  /** No-op when destroyed already. */
  destroy(): void;
}

export interface LinkOptions {
  /**
   * Answer the peer's goodbye at once, which flushes what is posted; default true. Else it is
   * answered by `disconnect`: what is under way may still be acknowledged.
   */
  readonly answersGoodbye?: boolean;
}

/** One exchange with one peer, and its queue pair. */
export class CmLink<Q extends LinkQueues = Queues> implements Disposable {
  readonly id: CmId;
  readonly queues: Q;
  /** The peer's address and, active side, port: for messages. */
  readonly peer: string;
  /** The peer's answer; null before it, and of a datagram link that was accepted. */
  established: CmEvent | null = null;
  private readonly desk: CmDesk;
  private readonly answersGoodbye: boolean;
  private readonly answer = new Later<CmEvent>();
  private readonly ended = new Later<void>();
  private isOver = false;

  /** Internal: use `CmDesk.open` or `CmDesk.take`. */
  constructor(desk: CmDesk, id: CmId, queues: Q, peer: string, options: LinkOptions) {
    this.desk = desk;
    this.id = id;
    this.queues = queues;
    this.peer = peer;
    this.answersGoodbye = options.answersGoodbye ?? true;
    id.bindQp(queues.qp);
  }

  /** The connection was up and is over: the peer left, or has answered our goodbye. */
  get hasEnded(): boolean {
    return this.isOver;
  }

  /**
   * Settles when a connection is over, whoever ended it: never for datagrams. Rejects when the host
   * closes.
   */
  get over(): Promise<void> {
    return this.ended.promise;
  }

  /**
   * Asks the peer (rdma_connect(3)). Preconditions: the receives that it may fill are posted.
   * @returns its ESTABLISHED.
   * @throws FarpageError ECONNREFUSED with the reason, ETIMEDOUT, EINTR, EINVAL.
   */
  connect(options: ConnectOptions): Promise<CmEvent> {
    this.id.connect(options);
    return this.answered();
  }

  /**
   * Accepts the peer's request (rdma_accept(3)). Preconditions as `connect`.
   * @returns the ESTABLISHED; of the UDP port space null, which has none.
   * @throws FarpageError ECONNREFUSED, ETIMEDOUT when the peer went away meanwhile; EINTR, EINVAL.
   */
  async accept(options: AcceptOptions = {}): Promise<CmEvent | null> {
    this.id.accept(options);
    if (this.id.portSpace === "TCP") return this.answered();
    this.desk.wake();
    return null;
  }

  /** Waits until the peer ends the connection. @throws FarpageError EINTR. */
  async gone(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    await this.desk.wait(this.ended.promise, options.timeoutMs, `${this.peer} does not disconnect`);
  }

  /**
   * Says goodbye, or answers the peer's, and waits for its answer.
   * @param options.timeoutMs default ten seconds, before which the connection manager gives up.
   * @throws FarpageError EINTR; ETIMEDOUT.
   */
  async disconnect(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    this.id.disconnect();
    this.desk.wake();
    if (this.id.state !== "CLOSED" && this.id.state !== "TIMEWAIT") {
      await this.gone({ timeoutMs: options.timeoutMs ?? GOODBYE_MS });
    }
  }

  /** Ends it whatever its state; the goodbye goes on without it. */
  destroy(): void {
    this.id.destroy();
    this.queues.destroy();
    this.desk.forget(this);
    this.desk.wake();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Internal. */
  onEvent(event: CmEvent): void {
    switch (event.type) {
      case "ESTABLISHED":
        this.established = event;
        this.answer.resolve(event);
        return;
      case "DISCONNECTED":
        this.isOver = true;
        this.queues.fail(new FarpageError("ENOTCONN", `${this.peer} has disconnected`));
        // Does nothing after our own goodbye.
        if (this.answersGoodbye) this.id.disconnect();
        this.answer.reject(connectError(event.type, event.status, this.peer));
        this.ended.resolve();
        return;
      case "REJECTED":
      case "UNREACHABLE":
      case "CONNECT_ERROR":
        this.answer.reject(failureOf(event, this.peer));
        return;
      default:
        return;
    }
  }

  /** Internal: no event comes any more. */
  onEnd(error: unknown): void {
    this.answer.reject(error);
    this.ended.reject(error);
  }

  private answered(): Promise<CmEvent> {
    this.desk.wake();
    return this.desk.wait(this.answer.promise);
  }
}

/** SIDR's refusals come as UNREACHABLE with the SIDR status; Linux' timeouts with an errno. */
function failureOf(event: CmEvent, peer: string): FarpageError {
  if (event.id.portSpace !== "UDP" || event.type !== "UNREACHABLE" || event.status > 5) {
    return connectError(event.type, event.status, peer);
  }
  const reason = event.status === 1 ? "nobody listens on that port" : `SIDR status ${event.status}`;
  return new FarpageError("ECONNREFUSED", `${peer} gives no queue pair: ${reason}`);
}

/** Which requests are wanted; others are refused. */
export interface RequestFilter {
  readonly portSpace?: PortSpace;
  readonly from?: IpAddress;
  /** How long one may take to come; default: for ever. */
  readonly timeoutMs?: number | undefined;
  /** What is wrong when none comes. */
  readonly late?: string;
}

/** A tool's event channel: its listener, and the links by id. */
export class CmDesk implements CmChannelUser, Disposable {
  private readonly environment: ToolEnvironment;
  private readonly channel: CmChannel;
  private readonly links = new Map<CmId, CmLink<LinkQueues>>();
  private readonly requests: CmEvent[] = [];
  private notify: (() => void) | null = null;
  private failure: unknown = null;

  constructor(environment: ToolEnvironment) {
    this.environment = environment;
    this.channel = environment.host.openChannel(this);
    // Each connection waits with the same signal, and there may be hundreds.
    setMaxListeners(0, environment.signal);
  }

  /**
   * An id that will connect, with its queue pair bound.
   * @param options.source local address; default: the first of the family.
   * @param options.makeQueues makes the queue pair, given the index of the local address.
   * @throws FarpageError EADDRNOTAVAIL, EINVAL.
   */
  open<Q extends LinkQueues>(
    options: LinkOptions & {
      readonly source?: IpAddress;
      readonly destination: IpAddress;
      readonly port: number;
      readonly portSpace?: PortSpace;
      readonly makeQueues: (portIndex: number) => Q;
    },
  ): CmLink<Q> {
    const { destination, port } = options;
    const source = options.source ?? this.environment.host.sourceFor(destination);
    const id = this.channel.createId(options.portSpace ?? "TCP");
    try {
      id.resolve({ source, destination, port });
      const queues = options.makeQueues(id.devicePort);
      return this.enter(id, queues, `${destination} port ${port}`, options);
    } catch (error) {
      id.destroy();
      throw error;
    }
  }

  /**
   * Listens on a port of every address of the host. @returns how to stop.
   * @throws FarpageError EADDRINUSE, EINVAL.
   */
  listen(options: { readonly port: number; readonly portSpace?: PortSpace }): {
    readonly port: number;
    close(): void;
  } {
    const listener = this.channel.listen({ address: null, ...options });
    this.wake();
    return {
      port: listener.port,
      close: () => {
        listener.close();
        for (const event of this.requests.splice(0)) event.id.destroy();
        this.wake();
      },
    };
  }

  /**
   * The next CONNECT_REQUEST that is `wanted` and has not been withdrawn; answer it by `take` or
   * `refuse`.
   * @throws FarpageError ETIMEDOUT, EINTR.
   */
  async request(wanted: RequestFilter = {}): Promise<CmEvent> {
    const { timeoutMs, late = "the peer said that it connects, and did not" } = wanted;
    const deadlineMs = performance.now() + (timeoutMs ?? 0);
    for (;;) {
      const event = this.requests.shift();
      if (event === undefined) {
        if (this.failure !== null) throw this.failure;
        const moved = new Promise<void>((resolve) => {
          this.notify = resolve;
        });
        const leftMs = Math.max(0, deadlineMs - performance.now());
        await this.wait(moved, timeoutMs === undefined ? undefined : leftMs, late);
      } else if (isPending(event) && isWanted(event, wanted)) {
        return event;
      } else {
        this.refuse(event);
      }
    }
  }

  /** The link of a request, to be accepted. @throws FarpageError EINVAL when it is gone. */
  take<Q extends LinkQueues>(event: CmEvent, queues: Q, options: LinkOptions = {}): CmLink<Q> {
    return this.enter(event.id, queues, String(event.id.remoteAddress), options);
  }

  /** Says no, unless the peer has withdrawn its request meanwhile. */
  refuse(event: CmEvent): void {
    if (isPending(event)) event.id.reject();
    event.id.destroy();
    this.wake();
  }

  /** Ends every link and listener. */
  close(): void {
    for (const link of [...this.links.values()]) link.destroy();
    this.channel.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  onCmEvent(event: CmEvent): void {
    if (event.type !== "CONNECT_REQUEST") {
      this.links.get(event.id)?.onEvent(event);
      return;
    }
    this.requests.push(event);
    this.notify?.();
  }

  onCmEnd(error: unknown): void {
    this.failure ??= error;
    for (const link of this.links.values()) link.onEnd(error);
    this.notify?.();
  }

  /** Internal. */
  wake(): void {
    this.environment.host.wake();
  }

  /** Internal. */
  forget(link: CmLink<LinkQueues>): void {
    this.links.delete(link.id);
  }

  /**
   * As `request`, of a peer that makes `wanted` of them, when `count` have come: the first may take
   * for ever, each further one `timeoutMs`.
   * @throws FarpageError ETIMEDOUT, EINTR.
   */
  requestOf(wanted: number, count: number, timeoutMs: number): Promise<CmEvent> {
    const late = `${count} of ${wanted} connections came, then none for ${timeoutMs / 1000} s`;
    return this.request({ timeoutMs: count === 0 ? undefined : timeoutMs, late });
  }

  /** Internal: waits for `promise`, the user's Ctrl-C or the end of the time. */
  async wait<T>(promise: Promise<T>, timeoutMs?: number, late?: string): Promise<T> {
    if (timeoutMs === undefined) return interruptible(this.environment.signal, promise);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      const error = new FarpageError("ETIMEDOUT", late ?? "it takes too long");
      timer = setTimeout(() => reject(error), timeoutMs);
    });
    try {
      return await interruptible(this.environment.signal, Promise.race([promise, timeout]));
    } finally {
      clearTimeout(timer);
    }
  }

  private enter<Q extends LinkQueues>(
    id: CmId,
    queues: Q,
    peer: string,
    options: LinkOptions,
  ): CmLink<Q> {
    try {
      const link = new CmLink(this, id, queues, peer, options);
      this.links.set(id, link);
      return link;
    } catch (error) {
      queues.destroy();
      throw error;
    }
  }
}

/** A peer whose patience has ended withdraws its request. */
function isPending({ id }: CmEvent): boolean {
  return id.state === "REQ_RCVD" || id.state === "SIDR_REQ_RCVD";
}

function isWanted({ id }: CmEvent, { portSpace, from }: RequestFilter): boolean {
  if (portSpace !== undefined && id.portSpace !== portSpace) return false;
  return from === undefined || id.remoteAddress?.equals(from) === true;
}
