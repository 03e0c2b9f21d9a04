// SPDX-License-Identifier: MIT
import type { StreamAddress } from "./door.js";

/** For messages: "unix:/run/x.sock" or "tcp:host:10809". */
export function describeStreamAddress(address: StreamAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `tcp:${host}:${address.port}`;
}
