// SPDX-License-Identifier: MIT
import type { IpAddress } from "../base/index.js";
import type { ServerPath } from "./server-path.js";
import { ROSTER_FULL, type RosterPlace } from "./session-roster.js";

/** One client on a server: what its paths have in common. */
export class ServerSession {
  /** Number of the session on this server, never used twice. */
  readonly id: number;
  /** Where the client's first path comes from. */
  readonly peer: IpAddress;
  /** Which address of this host it comes to. */
  readonly local: IpAddress;
  /** The name that the client gives; "" before `onSessionUp`. Unique while the session lives. */
  name = "";
  /** The user's own. */
  context: unknown = null;
  /** Internal: the session's name on the wire, in hexadecimal. */
  readonly uuid: string;
  /** Internal: all that are not CLOSED, oldest first; never empty while the server knows it. */
  readonly paths: ServerPath[] = [];
  /** Internal: the user has heard of it. */
  isUp = false;
  /** Internal: its place among the sessions of all lanes, where there are several. */
  rosterPlace: RosterPlace = ROSTER_FULL;

  /** Internal: made by the server. */
  constructor(id: number, peer: IpAddress, local: IpAddress, uuid: string) {
    this.id = id;
    this.peer = peer;
    this.local = local;
    this.uuid = uuid;
  }

  /** Paths that take requests. */
  get pathCount(): number {
    return this.paths.filter((path) => path.state === "CONNECTED").length;
  }

  /** Where the paths come from that can still carry something, oldest first. */
  get clients(): readonly IpAddress[] {
    const paths = this.paths.filter(({ state }) => state === "CONNECTING" || state === "CONNECTED");
    return paths.map(({ peer }) => peer);
  }

  /** Requests that the user has and has not completed. */
  get inflight(): number {
    let inflight = 0;
    for (const path of this.paths) inflight += path.inflight;
    return inflight;
  }

  /** Internal: some path is up or coming up; if none is, the session is going down. */
  get isLive(): boolean {
    return this.paths.some((path) => path.state === "CONNECTING" || path.state === "CONNECTED");
  }

  /** Disconnects the client; `onSessionDown` follows. It will usually come back. */
  disconnect(): void {
    for (const path of this.paths) path.close("the server has ended the session");
  }

  /** Internal: whether a path joins these addresses already. */
  joins(peer: IpAddress, local: IpAddress): boolean {
    return this.paths.some((path) => path.joins(peer, local));
  }

  /** Internal: makes the transport find out whether the client is still there. */
  probe(): void {
    for (const path of this.paths) path.probe();
  }

  /**
   * Internal: a request with `permit` has come by `path`. A permit stands for one request of the
   * session, so one that another path still holds means that the client has given that path up and
   * sent its requests again: it is closed.
   * @returns whether the user still has the request's first copy, by another path.
   */
  isHeldElsewhere(permit: number, path: ServerPath): boolean {
    let isHeld = false;
    for (let i = 0; i < this.paths.length; i++) {
      const other = this.paths[i] as ServerPath;
      if (other === path || !other.holds(permit)) continue;
      other.close(`the client sends request ${permit} of this path by another`);
      if (other.holds(permit)) isHeld = true;
    }
    return isHeld;
  }

  /** Internal: the user has given back the request of `permit` that a closing path held. */
  onPermitFree(permit: number): void {
    for (let i = 0; i < this.paths.length; i++) (this.paths[i] as ServerPath).onPermitFree(permit);
  }
}
