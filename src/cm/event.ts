// SPDX-License-Identifier: MIT
// Events of the connection manager, in librdmacm's vocabulary (rdma_get_cm_event(3)).

import type { CmId, Listener } from "./index.js";

/** Port spaces of RDMA CM: TCP for connected queue pairs, UDP for datagrams (SIDR). */
export type PortSpace = "TCP" | "UDP";

/**
 * - `CONNECT_REQUEST`: a peer asks; answer with `id.accept` or `id.reject` (`id` is new, `listener`
 *   says whose).
 * - `ESTABLISHED`: the connection is up on this side (UDP: `remoteQpn` and `remoteQkey` are known).
 * - `REJECTED`: the peer said no; `status` is the REJ reason, `privateData` the peer's.
 * - `UNREACHABLE`: no answer in time; `status` is ETIMEDOUT.
 * - `CONNECT_ERROR`: an answer came, but this side could not use it; `status` is an errno.
 * - `DISCONNECTED`: the connection is over: the peer left, or answered our `disconnect`; `status`
 *   is 0 or ETIMEDOUT.
 * - `TIMEWAIT_EXIT`: no packet of the old connection can arrive any more.
 */
export type CmEventType =
  | "CONNECT_REQUEST"
  | "ESTABLISHED"
  | "REJECTED"
  | "UNREACHABLE"
  | "CONNECT_ERROR"
  | "DISCONNECTED"
  | "TIMEWAIT_EXIT";

export interface CmEvent {
  readonly type: CmEventType;
  readonly id: CmId;
  /** CONNECT_REQUEST: the listener that the request reached; else null. */
  readonly listener: Listener | null;
  readonly status: number;
  /**
   * The message's whole private data field, zero padded (its sent length is not on the wire); else
   * empty.
   */
  readonly privateData: Uint8Array;
  /** CONNECT_REQUEST, ESTABLISHED: READs and atomics that the peer wants this side to serve. */
  readonly responderResources: number;
  /** CONNECT_REQUEST, ESTABLISHED: READs and atomics that the peer is ready to serve. */
  readonly initiatorDepth: number;
  /** The peer's queue pair and, for UDP, its Q_Key; 0 where the event has none. */
  readonly remoteQpn: number;
  readonly remoteQkey: number;
}
