// SPDX-License-Identifier: MIT
// What can be asked of a device and its ports: ibv_query_device(3), ibv_query_port(3).

import type { IpAddress } from "../base/index.js";
import type { PathMtu } from "../transport/index.js";

/** Limits of a device: ibv_device_attr. */
export interface DeviceAttributes {
  readonly maxQp: number;
  /** Requests in one queue of a queue pair. */
  readonly maxQpWr: number;
  /** Scatter/gather entries of one request. */
  readonly maxSge: number;
  /** Bytes that an INLINE send may carry. */
  readonly maxInlineData: number;
  /** Completions that a completion queue can hold. */
  readonly maxCqe: number;
  readonly maxMr: number;
  /** Receives that a shared receive queue can hold. */
  readonly maxSrqWr: number;
  /** READs and atomics of a peer that one queue pair serves at a time. */
  readonly maxQpRdAtom: number;
  /** READs and atomics that one queue pair has outstanding. */
  readonly maxQpInitRdAtom: number;
  /** Ports: one for each local address of the host. */
  readonly physicalPortCount: number;
  /** Coded time, 4.096 us * 2^n, in which this device acknowledges. */
  readonly localCaAckDelay: number;
}

/** One port, which is one local address: ibv_port_attr. */
export interface PortAttributes {
  readonly state: "ACTIVE";
  /** GID 0, the only one: the address itself. */
  readonly gid: IpAddress;
  readonly gidTableLength: 1;
  /** The largest path MTU that the link behind the port carries. */
  readonly activeMtu: PathMtu;
  /** P_Key 0xFFFF, the only one. */
  readonly pkeyTableLength: 1;
  /** Bytes of the longest message. */
  readonly maxMessageBytes: number;
}
