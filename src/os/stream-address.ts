// SPDX-License-Identifier: MIT
// How a stream's address is written in messages.

import type { StreamAddress } from "./door.js";

/** For messages: "unix:/run/x.sock" or "tcp:host:10809". */
export function describeStreamAddress(address: StreamAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `tcp:${host}:${address.port}`;
}
