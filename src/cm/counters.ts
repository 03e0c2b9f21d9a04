// SPDX-License-Identifier: MIT
// What a connection manager counts. A message that changes nothing is dropped for exactly one
// reason.

/** Why a received MAD was dropped without an answer. */
export const CM_DROPS = [
  /** No CM message: wrong class, version, method, attribute or length. */
  "MALFORMED",
  /** Our MADs come back to us, or the sender's address can't be answered. */
  "ADDRESS",
  /** No connection with these comm ids and addresses. */
  "UNKNOWN_ID",
  /** A DREQ that names another queue pair than the connection's. */
  "WRONG_QPN",
  /** The connection's state has no use for it: a duplicate or a late message. */
  "WRONG_STATE",
  /** A request beyond `halfOpenMax`, `halfOpenPerSourceMax` or `connectionMax`. */
  "HALF_OPEN_LIMIT",
  /** A request beyond the listener's backlog. */
  "BACKLOG",
] as const;
export type CmDrop = (typeof CM_DROPS)[number];

/** Everything since the connection manager was made; readers sample, nobody resets. */
export class CmCounters {
  messagesReceived = 0;
  messagesSent = 0;
  /** Sent again because no answer had come. */
  repeats = 0;
  /** Not sent for want of a free buffer: lost as if by the network. */
  sendsWithoutBuffer = 0;
  /** Duplicates that were answered again from memory. */
  duplicatesAnswered = 0;
  /** Requests refused before any listener's application saw them, by a REJ. */
  requestsRefused = 0;
  /** Connections that ended because the peer showed up as a new one. */
  staleConnections = 0;
  connectionsEstablished = 0;
  readonly drops: Record<CmDrop, number> = {
    MALFORMED: 0,
    ADDRESS: 0,
    UNKNOWN_ID: 0,
    WRONG_QPN: 0,
    WRONG_STATE: 0,
    HALF_OPEN_LIMIT: 0,
    BACKLOG: 0,
  };
}
