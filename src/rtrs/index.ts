// SPDX-License-Identifier: MIT
export { ClientRequest } from "./client-request.js";
export type { RtrsClientUser } from "./client-user.js";
export type { RtrsEnvironment } from "./environment.js";
export {
  RTRS_PORT,
  type RtrsClientOptions,
  type RtrsPathAddresses,
  type RtrsServerOptions,
} from "./options.js";
export { ServerRequest } from "./server-request.js";
export type { ServerSession } from "./server-session.js";
export type { RtrsServerUser } from "./server-user.js";
export { RtrsClient, type RtrsClientState, RtrsServer } from "./skeleton.js";
