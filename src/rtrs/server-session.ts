// SPDX-License-Identifier: MIT
import type { IpAddress } from "../base/index.js";

/** One client on a server: what its paths have in common. */
export interface ServerSession {
  /** Unique on the server while the session lives. */
  readonly name: string;
  /** Number of the session on this server, never used twice. */
  readonly id: number;
  /** Where the client's first path comes from. */
  readonly peer: IpAddress;
  /** Requests that the user has and has not completed. */
  readonly inflight: number;
  /** The user's own. */
  context: unknown;
  /** Disconnects all paths; `onSessionDown` follows. The client will usually come back. */
  disconnect(): void;
}
