// SPDX-License-Identifier: MIT
// What a path of a client session takes from the session and tells it, and what users see of it.

import type { FarpageError, IpAddress } from "../../base/index.js";
import type { EventChannel } from "../../cm/index.js";
import type { ProtectionDomain, WorkCompletion } from "../../verbs/index.js";
import type { RtrsConnectReply } from "../../wire/index.js";
import type { CompletionPoller, Connection } from "../connection.js";
import type { RtrsEnvironment } from "../environment.js";
import type { ClientSettings } from "../options.js";
import type { ClientPath } from "./client-path.js";
import type { PathCounters } from "./path-counters.js";

/**
 * - `IDLE`: never connected.
 * - `WAITING`: for the time of the next attempt.
 * - `CONNECTING`: connections come up one after another, then the info exchange.
 * - `CONNECTED`: takes requests.
 * - `DISCONNECTING`: the queue pairs are dead, the CM says goodbye.
 * - `CLOSED`: for good.
 *
 * Linux has the same machine with DISCONNECTING and WAITING as one state, RECONNECTING.
 */
export type ClientPathState =
  | "IDLE"
  | "WAITING"
  | "CONNECTING"
  | "CONNECTED"
  | "DISCONNECTING"
  | "CLOSED";

/** What the user of a session may know of a path. */
export interface RtrsClientPath {
  /** Tells paths of a session apart, from 0; never used twice. */
  readonly number: number;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly state: ClientPathState;
  /** Attempts since the path was last CONNECTED, the current one included. */
  readonly attemptCount: number;
  /** Why the last attempt or connection ended; null while all is well. */
  readonly lastError: FarpageError | null;
  /** It ends for good: it was removed, or the session is closed. */
  readonly isLeaving: boolean;
  /** From the last measured heartbeat to its acknowledgement; 0 before the first. */
  readonly latencyNs: number;
  /** Requests sent by this path and not answered. */
  readonly inflight: number;
  readonly counters: PathCounters;
}

/** What a path tells its session; called from `pump` and `onCmEvent`, and from the poller. */
export interface ClientPathOwner {
  /**
   * Counts how often the session has come up, while it is up; 0 while it is down. An attempt that
   * starts at 0 may make the session at the server, any other only join it.
   */
  readonly generation: number;
  readonly hasSeveralPaths: boolean;
  /** Whether latencies are wanted more often than heartbeats tell them. */
  readonly measuresLatency: boolean;
  /**
   * The server has said what it offers; the session makes what depends on it.
   * @returns how many requests the session will have outstanding.
   * @throws FarpageError when the session can't go on with these parameters.
   */
  onPathOffer(reply: RtrsConnectReply): number;
  onPathUp(path: ClientPath): void;
  /** The path takes no requests any more, and no byte of its peer arrives any more. */
  onPathDown(path: ClientPath): void;
  /** An attempt or a connection of a path ended with this error. */
  onPathError(error: FarpageError): void;
  /** The server of the path does not know a session that the path was part of. */
  onSessionUnknown(path: ClientPath): void;
  /** The path is CLOSED: told to, or because its attempts are used up. */
  onPathClosed(path: ClientPath): void;
  /** A message on a connection of a CONNECTED path. */
  onPathReceive(path: ClientPath, connection: Connection, completion: WorkCompletion): void;
  /** Send queue slots came free. */
  onPathRoom(path: ClientPath): void;
}

/** What a path takes from its session. */
export interface ClientPathContext {
  readonly environment: RtrsEnvironment;
  readonly settings: ClientSettings;
  readonly pd: ProtectionDomain;
  readonly channel: EventChannel;
  readonly poller: CompletionPoller;
  readonly pathsUuid: Uint8Array;
}
