// SPDX-License-Identifier: MIT
import type { MemoryRegion } from "../../verbs/index.js";
import type { Connection } from "../connection.js";
import type { ClientPath } from "./client-path.js";
import type { ClientRequest } from "./client-request.js";

/**
 * Where a request is:
 * - `FREE`: with the session.
 * - `TAKEN`: with the user.
 * - `WAITING`: submitted; the session is down, or not told to go on yet.
 * - `BLOCKED`: submitted; no permit is free, or no send queue has room.
 * - `ISSUED`: sent; the reply is to come.
 * - `MOVING`: was sent by a path that has failed; keeps its permit, and waits for room on another.
 * - `FAILING`: submitted; will complete with `request.errno` in the next `pump`.
 */
export type SlotState = "FREE" | "TAKEN" | "WAITING" | "BLOCKED" | "ISSUED" | "MOVING" | "FAILING";

/** What the session keeps about a request besides what its user sees. */
export class ClientSlot {
  readonly request: ClientRequest;
  /** First byte of the user message in the session's message slab. */
  readonly messageOffset: number;
  /** The fast-register region for reads; null when reads use the long-lived key. */
  readonly region: MemoryRegion | null;
  state: SlotState = "FREE";
  /** While ISSUED or MOVING: permit, which is chunk and message id as well; else -1. */
  permit = -1;
  /** While ISSUED: the path that carries it, and since when. */
  path: ClientPath | null = null;
  issuedNs = 0;
  /** While ISSUED: the connection that carries it; its reply must come the same way. */
  connection: Connection | null = null;
  /** Number of the submit among all of the session: the order in which requests are re-issued. */
  sequence = 0;
  /** Whether it has been issued since it was submitted. */
  wasIssued = false;
  /** While ISSUED: when a look at all requests first found it there; -1 before that. */
  seenNs = -1;
  /** While ISSUED: `region` is open to the server, unless the server has closed it already. */
  isOpen = false;

  constructor(request: ClientRequest, messageOffset: number, region: MemoryRegion | null) {
    this.request = request;
    this.messageOffset = messageOffset;
    this.region = region;
  }
}
