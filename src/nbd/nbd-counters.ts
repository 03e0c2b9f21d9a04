// SPDX-License-Identifier: MIT
// What an NBD endpoint counts. Plain numbers, read by `runtime/` for metrics and by tests.

/** Why a connection ended. */
export const NBD_CLOSE_REASONS = [
  /** The client sent DISC, and everything before it was answered. */
  "DISCONNECTED",
  /** The client sent NBD_OPT_ABORT. */
  "ABORTED",
  /** The client closed its end between two messages, without DISC. */
  "END_OF_STREAM",
  /** The client closed its end inside a message. */
  "TRUNCATED",
  /** Reading or writing failed (reset, broken pipe). */
  "STREAM_ERROR",
  /** The owner called `close` or `shutdown`. */
  "CLOSED",
  "HANDSHAKE_TIMEOUT",
  /** Client flags that the server did not offer. */
  "BAD_CLIENT_FLAGS",
  /** An option that doesn't start with IHAVEOPT. */
  "BAD_OPTION_MAGIC",
  /** An option longer than any client has reason to send. */
  "OPTION_TOO_LONG",
  "TOO_MANY_OPTIONS",
  /** NBD_OPT_EXPORT_NAME, which has no way to say no, for a name that isn't served. */
  "NO_SUCH_EXPORT",
  /** A request that doesn't start with the negotiated magic: the stream is out of step. */
  "BAD_REQUEST_MAGIC",
  /** A payload longer than can be skipped in reasonable time (64-bit lengths). */
  "PAYLOAD_TOO_LONG",
  /** The device failed when part of a READ's simple reply was out: the only honest way on. */
  "READ_FAILED_IN_REPLY",
] as const;
export type NbdCloseReason = (typeof NBD_CLOSE_REASONS)[number];

/** Counts since the server was made. */
export class NbdCounters {
  /** Connections accepted. */
  connections = 0;
  /** Connections refused because `connectionCountMax` were being served. */
  refused = 0;
  /** Connections ended, by reason. */
  readonly closed: Record<NbdCloseReason, number>;
  /** Requests taken, by command number; 0 .. 7, and 8 for all that are unknown. */
  readonly requests: Float64Array = new Float64Array(9);
  /** Requests answered with an error. */
  requestErrors = 0;
  /** Block requests made of them. */
  blockRequests = 0;
  /** Options refused. */
  optionErrors = 0;
  /** Payload of successful READs and WRITEs. */
  readBytes = 0;
  writtenBytes = 0;
  /** Calls that moved bytes in or out of streams. */
  streamReads = 0;
  streamWrites = 0;

  constructor() {
    const entries = NBD_CLOSE_REASONS.map((reason) => [reason, 0] as const);
    this.closed = Object.fromEntries(entries) as Record<NbdCloseReason, number>;
  }
}
