// SPDX-License-Identifier: MIT
// perftest's connections by RDMA CM: asked for until the peer listens, ended after what the peer
// has sent last was acknowledged.

import type { CmEvent, ConnectOptions, PortSpace } from "../../cm/index.js";
import { FarpageError, type IpAddress } from "../../runtime/index.js";
import type { QueuePair } from "../../verbs/index.js";
import type { CmDesk, CmLink, LinkQueues } from "../cm-desk.js";
import { interruptible, type ToolEnvironment } from "../environment.js";

export type PerfLink = CmLink<LinkQueues>;

export interface CmTarget {
  readonly portSpace: PortSpace;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly port: number;
}

/** Makes a connection's queue pair. */
export interface QpMaker {
  createQp(): QueuePair;
  /** The queue pair is bound, in INIT (UDP: RTS): receives can be posted. */
  prepare(qp: QueuePair): void;
  /** The peer has disconnected; waits for what has not come by now should end. */
  onGone(): void;
}

/** A peer's listener may come a little later than the peer's word that it will. */
const REFUSALS_MAX = 20;
const REFUSAL_PAUSE_MS = 100;
/** How long a goodbye may take. */
const GOODBYE_TIMEOUT_MS = 2_000;
/** The peer ends a test when its part is done: ours may still wait for an acknowledgement. */
const OPTIONS = { answersGoodbye: false } as const;

/**
 * Connects, and tries again for two seconds while nobody listens.
 * @param maker called anew for each try.
 * @throws FarpageError ECONNREFUSED, ETIMEDOUT, EADDRNOTAVAIL, EINTR.
 */
export async function connectPatiently(
  environment: ToolEnvironment,
  desk: CmDesk,
  target: CmTarget,
  maker: QpMaker,
  options: ConnectOptions,
): Promise<PerfLink> {
  for (let tries = 1; ; tries++) {
    const link = desk.open({ ...target, ...OPTIONS, makeQueues: () => queuesOf(maker) });
    try {
      maker.prepare(link.queues.qp);
      await link.connect(options);
      return link;
    } catch (error) {
      link.destroy();
      const isRefused = error instanceof FarpageError && error.code === "ECONNREFUSED";
      if (!isRefused || tries === REFUSALS_MAX) throw error;
    }
    await interruptible(
      environment.signal,
      new Promise((resolve) => setTimeout(resolve, REFUSAL_PAUSE_MS)),
    );
  }
}

/** Accepts a peer's request. @throws FarpageError ECONNREFUSED, ETIMEDOUT when it has gone. */
export async function acceptPeer(
  desk: CmDesk,
  event: CmEvent,
  maker: QpMaker,
  ackTimeout: number,
): Promise<PerfLink> {
  const link = desk.take(event, queuesOf(maker), OPTIONS);
  const { responderResources, initiatorDepth } = event;
  const { maxQpRdAtom, maxQpInitRdAtom } = link.queues.qp.context.queryDevice();
  const accepting = {
    responderResources: Math.min(responderResources, maxQpRdAtom),
    initiatorDepth: Math.min(initiatorDepth, maxQpInitRdAtom),
    ackTimeout,
  };
  try {
    maker.prepare(link.queues.qp);
    await link.accept(link.id.portSpace === "TCP" ? accepting : {});
    return link;
  } catch (error) {
    link.destroy();
    throw error;
  }
}

/**
 * Ends a connection, whether the peer answers or not.
 * @param options.afterPeer let the peer do it first: what it has sent last may not have been
 *   acknowledged yet.
 * @throws FarpageError EINTR.
 */
export async function hangUp(
  link: PerfLink,
  options: { readonly afterPeer?: boolean } = {},
): Promise<void> {
  const timeoutMs = GOODBYE_TIMEOUT_MS;
  if (link.id.portSpace === "TCP" && !link.id.isDestroyed) {
    if (options.afterPeer === true) await orLate(link.gone({ timeoutMs }));
    await orLate(link.disconnect({ timeoutMs }));
  }
  link.destroy();
}

async function orLate(goodbye: Promise<void>): Promise<void> {
  try {
    await goodbye;
  } catch (error) {
    if (!(error instanceof FarpageError) || error.code !== "ETIMEDOUT") throw error;
  }
}

function queuesOf(maker: QpMaker): LinkQueues {
  const qp = maker.createQp();
  return { qp, fail: () => maker.onGone(), destroy: () => qp.destroy() };
}
