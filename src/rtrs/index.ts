// SPDX-License-Identifier: MIT

export {
  type AccessLevel,
  type AccessRule,
  AccessRules,
  parseAccessFile,
  parseAccessRule,
} from "./access-rules.js";
export {
  type CallbackOffer,
  type CallbackOptions,
  callBack,
  RtrsCallback,
} from "./callback.js";
export type { ChunkWatch, WatchedChunks } from "./chunk-watch.js";
export { RtrsClient } from "./client/client.js";
export { ClientRequest } from "./client/client-request.js";
export type { RtrsClientCounters, RtrsClientState } from "./client/client-state.js";
export type { RtrsClientUser } from "./client/client-user.js";
export type { LatencyHistogram } from "./client/latency-histogram.js";
export type { ClientPathState, RtrsClientPath } from "./client/path-context.js";
export type { ConnectionCounters, PathCounters } from "./client/path-counters.js";
export { DataPiece } from "./client/scatter.js";
export type { RtrsEnvironment } from "./environment.js";
export {
  RTRS_PATH_POLICIES,
  RTRS_PORT,
  type RtrsClientOptions,
  type RtrsPathAddresses,
  type RtrsPathPolicy,
  type RtrsServerOptions,
} from "./options.js";
export { RtrsServer, type RtrsServerCounters } from "./server.js";
export { ServerRequest } from "./server-request.js";
export { ServerSession } from "./server-session.js";
export type { RtrsServerUser } from "./server-user.js";
export { type RosterOptions, SessionRoster } from "./session-roster.js";
