// SPDX-License-Identifier: MIT
// What goes wrong while a path connects, as errors that a person can act on.

import { errnoName, FarpageError, type IpAddress } from "../base/index.js";
import type { CmEvent } from "../cm/index.js";
import { decodeRtrsConnectReply } from "../wire/index.js";

/** REJ reason "consumer defined": the RTRS server itself said no, with an errno. */
const REASON_CONSUMER = 28;
/** REJ reason "invalid service id": nobody listens on that port. */
const REASON_NO_SERVICE = 8;

/** The error of a REJECTED event. */
export function rejectError(event: CmEvent): FarpageError {
  if (event.status === REASON_NO_SERVICE) {
    return new FarpageError("ECONNREFUSED", "no RTRS server listens on that port");
  }
  const reply = decodeRtrsConnectReply(event.privateData);
  if (event.status !== REASON_CONSUMER || typeof reply === "string") {
    return new FarpageError("ECONNREFUSED", `the connection was rejected (reason ${event.status})`);
  }
  const name = errnoName(reply.errno);
  return new FarpageError(name, `the server refused the session: ${name}${hint(name)}`);
}

function hint(name: string): string {
  switch (name) {
    case "ECONNRESET":
      return " (it is still closing the previous connection, or refuses the parameters)";
    case "EACCES":
      return " (its access rules have none for this client's address: --allow at the server)";
    case "EEXIST":
      return " (the session has a path between these addresses already)";
    case "ENXIO":
      return " (it does not know the session)";
    case "ENOMEM":
      return " (it has no memory or no place for another session)";
    default:
      return "";
  }
}

/** The error of an UNREACHABLE or CONNECT_ERROR event. */
export function connectError(event: CmEvent, destination: IpAddress): FarpageError {
  if (event.type === "UNREACHABLE") {
    return new FarpageError("ETIMEDOUT", `no answer from ${destination}`);
  }
  return new FarpageError(
    "ECONNABORTED",
    `the connection to ${destination} could not be set up (${errnoName(event.status)})`,
  );
}
