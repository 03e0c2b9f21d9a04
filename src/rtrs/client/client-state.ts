// SPDX-License-Identifier: MIT

/**
 * - `IDLE`: `connect` has not been called.
 * - `CONNECTING`: never connected yet.
 * - `CONNECTED`: by one path at least.
 * - `RECONNECTING`: by none any more.
 * - `CLOSING`: `close` was called, or the session has given up; goodbyes are under way.
 * - `CLOSED`: nothing is left.
 */
export type RtrsClientState =
  | "IDLE"
  | "CONNECTING"
  | "CONNECTED"
  | "RECONNECTING"
  | "CLOSING"
  | "CLOSED";

export const SESSION_TRANSITIONS: Readonly<Record<RtrsClientState, readonly RtrsClientState[]>> = {
  IDLE: ["CONNECTING", "CLOSING"],
  CONNECTING: ["CONNECTED", "CLOSING", "CLOSED"],
  CONNECTED: ["RECONNECTING", "CLOSING"],
  RECONNECTING: ["CONNECTED", "CLOSING", "CLOSED"],
  CLOSING: ["CLOSED"],
  CLOSED: [],
};

/** Numbers since the client was made, but for `inflight`. */
export interface RtrsClientCounters {
  readonly inflight: number;
  readonly completed: number;
  /** Sent again, by another path or after a reconnect. */
  readonly reissued: number;
  /** Of the session: times it came up again after its last path was lost. */
  readonly reconnects: number;
  /** Replies to no request of ours, or on the wrong connection. */
  readonly strayReplies: number;
}
