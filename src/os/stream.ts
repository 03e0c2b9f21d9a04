// SPDX-License-Identifier: MIT
// Stream sockets: Unix and TCP, native where foreign calls work.

import type { OsStream, StreamAddress, StreamListener, StreamOptions } from "./door.js";
import { choosesNative } from "./native.js";
import { connectNative, listenNative } from "./native-stream.js";
import { connectNode, listenNode } from "./node-stream.js";

/** A native socket needs a poller that can watch it. */
function isNative(options: StreamOptions): boolean {
  return choosesNative(options.backend) && options.poller.backend === "native";
}

/**
 * Listens for connections. A socket file that is there already is removed when nobody listens on it.
 * @throws FarpageError EADDRINUSE (somebody listens there), EEXIST (a file that is no socket is in the
 *   way), EACCES, ENOENT (no such directory), ENAMETOOLONG, EADDRNOTAVAIL, ENOTFOUND (unknown host) ...
 */
export function listenStream(
  address: StreamAddress,
  options: StreamOptions,
): Promise<StreamListener> {
  return isNative(options) ? listenNative(address, options) : listenNode(address, options);
}

/**
 * Connects.
 * @throws FarpageError ECONNREFUSED, ENOENT (no such socket file), EACCES, ETIMEDOUT, ENOTFOUND ...
 */
export function connectStream(address: StreamAddress, options: StreamOptions): Promise<OsStream> {
  return isNative(options) ? connectNative(address, options) : connectNode(address, options);
}
