// SPDX-License-Identifier: MIT
// Looking at a running session and changing its paths, by the instance's control socket.

import type { IpAddress } from "../../base/index.js";
import type { RtrsClient } from "../../rtrs/index.js";
import type { SessionControlRequest } from "../observe/index.js";
import { completePath, findPath, parsePath } from "./path-spec.js";
import { type SessionStatus, sessionStatus } from "./session-status.js";

/**
 * Does what `request` asks for, in the order policy, paths added, paths removed, and tells how the
 * session is then. What was done before an error stays done.
 * @param own this host's addresses.
 * @throws FarpageError EINVAL, ENOENT, EEXIST, EBUSY (the last path), EADDRNOTAVAIL.
 */
export function controlSession(
  client: RtrsClient,
  own: readonly IpAddress[],
  request: SessionControlRequest,
): SessionStatus {
  const { policy, addPaths = [], removePaths = [], reset } = request;
  if (policy !== undefined) client.policy = policy;
  for (const text of addPaths) client.addPath(completePath(parsePath(text), own));
  for (const text of removePaths) {
    client.removePath(findPath(parsePath(text), client.paths).number);
  }
  if (reset === true) for (const { counters } of client.paths) counters.reset();
  return sessionStatus(client, own);
}
