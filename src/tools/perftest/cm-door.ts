// SPDX-License-Identifier: MIT
// The connection manager as perftest uses it: connections asked for and awaited one by one, all on
// one port.

import type { CmEvent, CmId, ConnectOptions, PortSpace } from "../../cm/index.js";
import { type CmChannel, connectError, FarpageError, type IpAddress } from "../../runtime/index.js";
import type { QueuePair } from "../../verbs/index.js";
import { interruptible, type ToolEnvironment } from "../environment.js";

/** What ends when the connection does. */
export interface CmLink {
  readonly id: CmId;
  /** UDP: the peer's queue pair and its Q_Key. */
  readonly remoteQpn: number;
  readonly remoteQkey: number;
  /** Settles when the connection is over, whoever ended it. Never for UDP. */
  readonly over: Promise<void>;
}

export interface CmConnection {
  readonly link: CmLink;
  readonly qp: QueuePair;
}

export interface CmTarget {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly port: number;
}

/** Makes a connection's queue pair. */
export interface QpMaker {
  createQp(): QueuePair;
  /** The queue pair is bound, in INIT (UDP: RTS): receives can be posted. */
  prepare(qp: QueuePair): void;
}

/** A peer's listener may come a little later than the peer's word that it will. */
const REFUSALS_MAX = 20;
const REFUSAL_PAUSE_MS = 100;
/** A peer's request must come within this time after its word. */
const REQUEST_TIMEOUT_MS = 60_000;
/** How long a goodbye may take. */
const GOODBYE_TIMEOUT_MS = 2_000;

/** Connections of one tool. */
export class CmDoor implements Disposable {
  private readonly environment: ToolEnvironment;
  private readonly channel: CmChannel;
  private readonly answers = new Map<CmId, (event: CmEvent) => void>();
  private readonly endings = new Map<CmId, () => void>();
  private readonly requests: CmEvent[] = [];
  private notifyRequest: (() => void) | null = null;
  private readonly failed: Promise<never>;

  constructor(environment: ToolEnvironment) {
    this.environment = environment;
    let fail: (error: unknown) => void = () => {};
    this.failed = new Promise((_, reject) => {
      fail = reject;
    });
    this.failed.catch(() => {});
    this.channel = environment.host.openChannel({
      onCmEvent: (event) => this.onCmEvent(event),
      onCmEnd: (error) => fail(error),
    });
  }

  /** Listens on every address of the host. @returns the port. @throws FarpageError EADDRINUSE. */
  listen(port: number, portSpace: PortSpace): number {
    return this.channel.listen({ address: null, port, portSpace }).port;
  }

  /**
   * The next peer that asks for a connection in `portSpace`.
   * @param options.from refuses everybody else.
   * @param options.isPatient wait for ever.
   * @throws FarpageError ETIMEDOUT, EINTR.
   */
  async request(
    portSpace: PortSpace,
    options: { readonly from?: IpAddress; readonly isPatient?: boolean } = {},
  ): Promise<CmEvent> {
    const { from } = options;
    const endMs =
      options.isPatient === true
        ? Number.POSITIVE_INFINITY
        : performance.now() + REQUEST_TIMEOUT_MS;
    for (;;) {
      const event = this.requests.shift();
      if (event === undefined) {
        await this.requestArrives(endMs - performance.now());
        continue;
      }
      const remote = event.id.remoteAddress;
      const isKnown = from === undefined || remote?.equals(from) === true;
      if (isKnown && event.id.portSpace === portSpace) return event;
      this.refuse(event);
    }
  }

  /** Accepts. @throws FarpageError when the peer has gone. */
  async accept(event: CmEvent, maker: QpMaker, ackTimeout: number): Promise<CmConnection> {
    const { id } = event;
    const qp = maker.createQp();
    const link = this.linkOf(id);
    id.bindQp(qp);
    maker.prepare(qp);
    if (id.portSpace === "UDP") {
      id.accept();
      this.environment.host.wake();
      return { link, qp };
    }
    const answer = this.answerOf(id);
    const { responderResources, initiatorDepth } = event;
    const { maxQpRdAtom, maxQpInitRdAtom } = qp.context.queryDevice();
    id.accept({
      responderResources: Math.min(responderResources, maxQpRdAtom),
      initiatorDepth: Math.min(initiatorDepth, maxQpInitRdAtom),
      ackTimeout,
    });
    const { type, status } = await answer;
    if (type !== "ESTABLISHED") throw connectError(type, status, String(id.remoteAddress));
    return { link, qp };
  }

  /**
   * Connects, and tries again for two seconds when nobody listens yet.
   * @param maker called anew for each try.
   * @throws FarpageError ECONNREFUSED, ETIMEDOUT, EADDRNOTAVAIL, EINTR.
   */
  async connect(
    portSpace: PortSpace,
    target: CmTarget,
    maker: QpMaker,
    options: ConnectOptions,
  ): Promise<CmConnection> {
    for (let refusals = 1; ; refusals++) {
      const qp = maker.createQp();
      const id = this.channel.createId(portSpace);
      const link = this.linkOf(id);
      id.resolve(target);
      id.bindQp(qp);
      maker.prepare(qp);
      const answer = this.answerOf(id);
      id.connect(options);
      this.environment.host.wake();
      const { type, status, remoteQpn, remoteQkey } = await answer;
      if (type === "ESTABLISHED") return { link: { ...link, remoteQpn, remoteQkey }, qp };
      id.destroy();
      qp.destroy();
      const isRefused = type === "REJECTED" || (portSpace === "UDP" && type === "UNREACHABLE");
      if (!isRefused || refusals === REFUSALS_MAX) {
        throw connectError(type, status, `${target.destination} port ${target.port}`);
      }
      await interruptible(
        this.environment.signal,
        new Promise((resolve) => setTimeout(resolve, REFUSAL_PAUSE_MS)),
      );
    }
  }

  /**
   * Ends a connection.
   * @param options.afterPeer let the peer do it first: what it has sent last may not have been
   *   acknowledged yet.
   */
  async hangUp(link: CmLink, options: { readonly afterPeer?: boolean } = {}): Promise<void> {
    if (link.id.portSpace === "TCP") {
      if (options.afterPeer === true) await settles(link.over);
      if (!link.id.isDestroyed) link.id.disconnect();
      this.environment.host.wake();
      await settles(link.over);
    }
    link.id.destroy();
    this.environment.host.wake();
  }

  /** Stops listening and ends what is left. */
  close(): void {
    for (const event of this.requests.splice(0)) event.id.destroy();
    this.channel.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private onCmEvent(event: CmEvent): void {
    const { id, type } = event;
    if (type === "CONNECT_REQUEST") {
      this.requests.push(event);
      this.notifyRequest?.();
      return;
    }
    if (type === "TIMEWAIT_EXIT") return;
    this.answers.get(id)?.(event);
    if (type !== "ESTABLISHED") this.endings.get(id)?.();
  }

  private refuse(event: CmEvent): void {
    event.id.reject();
    event.id.destroy();
    this.environment.host.wake();
  }

  private answerOf(id: CmId): Promise<CmEvent> {
    const answer = new Promise<CmEvent>((resolve) => {
      this.answers.set(id, resolve);
    }).finally(() => this.answers.delete(id));
    this.environment.host.wake();
    return interruptible(this.environment.signal, Promise.race([answer, this.failed]));
  }

  private linkOf(id: CmId): CmLink {
    const over = new Promise<void>((resolve) => {
      this.endings.set(id, resolve);
    });
    return { id, remoteQpn: 0, remoteQkey: 0, over };
  }

  private async requestArrives(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const arrived = new Promise<void>((resolve, reject) => {
      this.notifyRequest = resolve;
      if (!Number.isFinite(timeoutMs)) return;
      const late = new FarpageError("ETIMEDOUT", "the peer said that it connects, and did not");
      timer = setTimeout(() => reject(late), Math.max(0, timeoutMs));
    });
    try {
      await interruptible(this.environment.signal, Promise.race([arrived, this.failed]));
    } finally {
      this.notifyRequest = null;
      clearTimeout(timer);
    }
  }
}

/** Waits for `over`, for as long as a goodbye may take. */
async function settles(over: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, GOODBYE_TIMEOUT_MS);
  });
  await Promise.race([over, late]);
  clearTimeout(timer);
}
