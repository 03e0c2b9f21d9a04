// SPDX-License-Identifier: MIT

export {
  type AccessLevel,
  type AccessRule,
  AccessRules,
  parseAccessFile,
  parseAccessRule,
} from "./access-rules.js";
export type { ChunkWatch, WatchedChunks } from "./chunk-watch.js";
export { RtrsClient, type RtrsClientCounters, type RtrsClientState } from "./client/client.js";
export { ClientRequest } from "./client/client-request.js";
export type { RtrsClientUser } from "./client/client-user.js";
export type { RtrsEnvironment } from "./environment.js";
export {
  RTRS_PORT,
  type RtrsClientOptions,
  type RtrsPathAddresses,
  type RtrsServerOptions,
} from "./options.js";
export { RtrsServer, type RtrsServerCounters } from "./server.js";
export { ServerRequest } from "./server-request.js";
export { ServerSession } from "./server-session.js";
export type { RtrsServerUser } from "./server-user.js";
