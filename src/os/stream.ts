// SPDX-License-Identifier: MIT
// Stream sockets: Unix and TCP, native where foreign calls work.

import type { OsStream, StreamAddress, StreamListener, StreamOptions } from "./door.js";
import { choosesNative } from "./native.js";
import { connectNative, listenNative } from "./native-stream.js";
import { connectNode, listenNode } from "./node-stream.js";
import { checkUnixPath } from "./socket-address.js";

/** Checks the address; a native socket also needs a poller that can watch it. */
function isNative(address: StreamAddress, options: StreamOptions): boolean {
  // node:net would cut a long path short without a word.
  if (address.kind === "unix") checkUnixPath(address.path);
  return choosesNative(options.backend) && options.poller.backend === "native";
}

/**
 * Listens for connections. A socket file that is there already is removed when nobody listens on
 * it.
 * @throws FarpageError EADDRINUSE (somebody listens there), EEXIST (a file that is no socket is
 *   in the way), EACCES, ENOENT (no such directory), ENAMETOOLONG, EADDRNOTAVAIL, ENOTFOUND
 *   (unknown host) ...
 */
export async function listenStream(
  address: StreamAddress,
  options: StreamOptions,
): Promise<StreamListener> {
  return isNative(address, options) ? listenNative(address, options) : listenNode(address, options);
}

/**
 * Connects.
 * @throws FarpageError ECONNREFUSED, ENOENT (no such socket file), EACCES, ETIMEDOUT, ENOTFOUND ...
 */
export async function connectStream(
  address: StreamAddress,
  options: StreamOptions,
): Promise<OsStream> {
  return isNative(address, options)
    ? connectNative(address, options)
    : connectNode(address, options);
}
