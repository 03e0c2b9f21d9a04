// SPDX-License-Identifier: MIT
// Depths of the queues of a path's connections (facts page, sections 8 and 15).

import { RTRS_RKEY_RESPONSE_BYTES } from "../../wire/index.js";
import type { Connection, ConnectionDepths } from "../connection.js";
import type { Slab } from "../slab.js";

/** Sends of the service connection: INFO_REQ, heartbeats and their acknowledgements. */
const SERVICE_SENDS = 64;
/** Receives of the service connection: heartbeats and acknowledgements, and INFO_RSP. */
const SERVICE_RECEIVES = 64;

/** @param permitCount of the session; only the service connection is made before it is known. */
export function depthsOf(cid: number, permitCount: number): ConnectionDepths {
  if (cid === 0) return { send: SERVICE_SENDS, receive: SERVICE_RECEIVES };
  return { send: requestSends(permitCount), receive: requestReceives(permitCount) };
}

/**
 * Sends of a connection that carries requests: one per request, and as many again that are answered
 * but not yet accounted for, since only some are signalled.
 */
function requestSends(permitCount: number): number {
  return 2 * permitCount + 16;
}

/** Most requests outstanding that a connection with queues of `queueDepthMax` can carry. */
export function permitCountMax(queueDepthMax: number): number {
  return (queueDepthMax - 16) >>> 1;
}

/**
 * Receives of a connection that carries requests: two per outstanding READ (SEND with invalidate,
 * and the reply), and some for heartbeats (facts page, section 8).
 */
function requestReceives(permitCount: number): number {
  return 2 * permitCount + 8;
}

/** Receive buffers of a path with so many connections for requests. */
export function receiveCount(connectionCount: number, permitCount: number): number {
  return SERVICE_RECEIVES + connectionCount * requestReceives(permitCount);
}

/**
 * Posts all receives of all connections.
 * @param replies has `receiveCount` buffers for replies, one for each; null: they have none.
 */
export function postReceives(
  connections: readonly Connection[],
  permitCount: number,
  replies: Slab | null,
): void {
  const bytes = replies === null ? 0 : RTRS_RKEY_RESPONSE_BYTES;
  let at = replies === null ? 0 : replies.memory.address;
  for (const connection of connections) {
    const count = depthsOf(connection.cid, permitCount).receive;
    connection.receiveAddress = at;
    connection.receiveKey = replies === null ? 0 : replies.region.lkey;
    connection.receiveBytes = bytes;
    for (let slot = 0; slot < count; slot++) connection.postReceive(slot);
    at += count * bytes;
  }
}
