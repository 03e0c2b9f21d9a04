// SPDX-License-Identifier: MIT
// Requests the other way. On the wire of RTRS only the client sends requests, and it stays so: a
// server that has something to ask of its client opens a session of its own back to it. The client
// says in a request of its own, whatever the protocol on top makes of it, where it listens and what
// token it knows; the token is the name of the session that comes back, so that only who was told
// it can call. A peer that never asks to be called sees nothing of this (docs/rtrs.md).

import { assert, ERRNO, FarpageError, type IpAddress, type Machine } from "../base/index.js";
import { RtrsClient } from "./client/client.js";
import type { RtrsClientUser } from "./client/client-user.js";
import type { RtrsEnvironment } from "./environment.js";
import type { RtrsClientOptions, RtrsServerOptions } from "./options.js";
import { RtrsServer } from "./server.js";
import type { ServerRequest } from "./server-request.js";
import type { ServerSession } from "./server-session.js";
import type { RtrsServerUser } from "./server-user.js";

/** What a client tells its server, to be called back. */
export interface CallbackOffer {
  /** Where it listens: a port of the CM, not of UDP. */
  readonly port: number;
  /** 32 hexadecimal digits: 128 random bits. */
  readonly token: string;
}

/** Ports to try: those of the dynamic range. */
const PORT_MIN = 49_152;
const PORT_COUNT = 65_536 - PORT_MIN;
const PORT_TRIES = 32;
/** A session that comes back and one that the old is still to be missed of. */
const SESSIONS_MAX = 2;

export interface CallbackOptions
  extends Omit<RtrsServerOptions, "addresses" | "port" | "sessionCountMax"> {
  /** Where the client's own sessions come from, and go to. */
  readonly local: IpAddress;
  readonly peer: IpAddress;
}

/** A client's end of what comes back: a server that lets in the one peer that knows the token. */
export class RtrsCallback implements Machine, RtrsServerUser {
  readonly offer: CallbackOffer;
  readonly server: RtrsServer;
  private readonly options: CallbackOptions;
  private readonly user: RtrsServerUser;

  /** @throws FarpageError as `RtrsServer`; EADDRINUSE when no port is free. */
  constructor(environment: RtrsEnvironment, options: CallbackOptions, user: RtrsServerUser) {
    const { local, peer: _peer, ...server } = options;
    this.options = options;
    this.user = user;
    const random = environment.random.fork("rtrs callback");
    const words = Array.from({ length: 4 }, () => random.nextU32().toString(16).padStart(8, "0"));
    const token = words.join("");
    for (let tries = PORT_TRIES; ; tries--) {
      const port = PORT_MIN + (random.nextU32() % PORT_COUNT);
      try {
        const all = { ...server, addresses: [local], port, sessionCountMax: SESSIONS_MAX };
        this.server = new RtrsServer(environment, all, this);
        this.offer = { port, token };
        return;
      } catch (error) {
        const isTaken = error instanceof FarpageError && error.code === "EADDRINUSE";
        if (!isTaken || tries <= 0) throw error;
      }
    }
  }

  /** Ends what has come; pump until `isClosed`. */
  close(): void {
    this.server.close();
  }

  get isClosed(): boolean {
    return this.server.isClosed;
  }

  pump(nowNs: number): void {
    this.server.pump(nowNs);
  }

  deadlineNs(): number {
    return this.server.deadlineNs();
  }

  checkInvariants(): void {
    this.server.checkInvariants();
    assert(this.server.counters().sessions <= SESSIONS_MAX, "one calls, and the one before it");
  }

  // -------------------------------------------------------------------------------- RtrsServerUser

  admit(client: IpAddress, session: ServerSession | null): number {
    if (!client.equals(this.options.peer)) return ERRNO.EACCES;
    return this.user.admit?.(client, session) ?? 0;
  }

  onSessionUp(session: ServerSession): void {
    if (this.isCalled(session)) this.user.onSessionUp(session);
    else session.disconnect();
  }

  onSessionDown(session: ServerSession): void {
    if (this.isCalled(session)) this.user.onSessionDown(session);
  }

  onRequest(request: ServerRequest): void {
    if (this.isCalled(request.session)) this.user.onRequest(request);
    else request.complete(ERRNO.EACCES);
  }

  private isCalled(session: ServerSession): boolean {
    return session.name === this.offer.token;
  }
}

/**
 * A server's end: a session back to the client of `session`, which has made `offer`. It is the
 * caller's, to connect and to pump.
 * @throws FarpageError EINVAL for an offer that can't be one; as `RtrsClient`.
 */
export function callBack(
  environment: RtrsEnvironment,
  session: ServerSession,
  offer: CallbackOffer,
  user: RtrsClientUser,
  options: Omit<RtrsClientOptions, "paths" | "port" | "sessionName"> = {},
): RtrsClient {
  const { port, token: sessionName } = offer;
  if (!/^[0-9a-f]{32}$/.test(sessionName)) {
    throw new FarpageError("EINVAL", `"${sessionName}" is not a token: 32 hexadecimal digits`);
  }
  const paths = [{ source: session.local, destination: session.peer }];
  return new RtrsClient(environment, { ...options, paths, port, sessionName }, user);
}
