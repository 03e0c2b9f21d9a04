// SPDX-License-Identifier: MIT
import type { IpAddress } from "../base/index.js";
import type { ServerPath } from "./server-path.js";

/** One client on a server: what its paths have in common. Has one path for now. */
export class ServerSession {
  /** Number of the session on this server, never used twice. */
  readonly id: number;
  /** Where the client's first path comes from. */
  readonly peer: IpAddress;
  /** The name that the client gives; "" before `onSessionUp`. Unique while the session lives. */
  name = "";
  /** The user's own. */
  context: unknown = null;
  /** Internal: the session's name on the wire, in hexadecimal. */
  readonly uuid: string;
  /** Internal. */
  path: ServerPath | null = null;
  /** Internal: the user has heard of it. */
  isUp = false;

  /** Internal: made by the server. */
  constructor(id: number, peer: IpAddress, uuid: string) {
    this.id = id;
    this.peer = peer;
    this.uuid = uuid;
  }

  /** Requests that the user has and has not completed. */
  get inflight(): number {
    return this.path === null ? 0 : this.path.inflight;
  }

  /** Disconnects the client; `onSessionDown` follows. It will usually come back. */
  disconnect(): void {
    this.path?.close("the server has ended the session");
  }
}
