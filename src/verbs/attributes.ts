// SPDX-License-Identifier: MIT
// What can be asked of a device, a port or a queue pair, and what a queue pair can be told. Names and
// meanings follow ibv_query_device(3), ibv_query_port(3), ibv_modify_qp(3).

import type { Destination } from "../transport/index.js";

/** Kinds of queue pair: reliable connected, and unreliable datagram. */
export type QpType = "RC" | "UD";

/** Queue pair states, as in ibv_qp_state. */
export type QpState = "RESET" | "INIT" | "RTR" | "RTS" | "SQD" | "SQE" | "ERR";

/** RoCE path MTUs in bytes of payload per packet. */
export type PathMtu = 256 | 512 | 1024 | 2048 | 4096;

/**
 * Attributes of `QueuePair.modifyQp`; a property that is present is one bit of ibv_qp_attr_mask.
 * Which of them a transition needs and takes is in rocev2 facts section 13 (IBTA vol1 §10.3.1).
 */
export interface QpAttributes {
  /** The state to move to; absent: stay. */
  readonly state?: QpState;
  /** Index of the local port (address of the host), from 0. */
  readonly port?: number;
  /** What peers may do through this queue pair: `ACCESS.REMOTE_*` bits. */
  readonly access?: number;
  /** UD: the key that arriving datagrams must carry, 32 bits. */
  readonly qkey?: number;
  /** RC: where the peer is; see `ProtectionDomain.createAh`. */
  readonly destination?: Destination;
  /** RC: the largest payload of a packet, both ways. */
  readonly pathMtu?: PathMtu;
  /** RC: the peer's queue pair, 24 bits. */
  readonly destinationQpn?: number;
  /** RC: first PSN that the peer will send, 24 bits. */
  readonly receivePsn?: number;
  /** RC: READs and atomics of the peer that are served at a time, 0 .. `maxQpRdAtom`. */
  readonly maxDestRdAtomic?: number;
  /** RC: coded time (0 .. 31) that a peer is told to wait when no receive is posted. */
  readonly minRnrTimer?: number;
  /** RC: coded local ACK timeout, 4.096 us * 2^t, 0 .. 31; 0 = never. */
  readonly timeout?: number;
  /** RC: timeouts and sequence NAKs in a row before giving up, 0 .. 7. */
  readonly retryCount?: number;
  /** RC: RNR NAKs in a row before giving up, 0 .. 6; 7 = never give up. */
  readonly rnrRetry?: number;
  /** First PSN sent, 24 bits. */
  readonly sendPsn?: number;
  /** RC: own READs and atomics outstanding at a time, 0 .. `maxQpInitRdAtom`. */
  readonly maxRdAtomic?: number;
}

/** Limits of a device: ibv_device_attr. */
export interface DeviceAttributes {
  readonly maxQp: number;
  readonly maxQpWr: number;
  readonly maxSge: number;
  readonly maxCq: number;
  readonly maxCqe: number;
  readonly maxMr: number;
  readonly maxPd: number;
  readonly maxSrq: number;
  readonly maxSrqWr: number;
  /** READs and atomics that one queue pair serves, and has outstanding, at most. */
  readonly maxQpRdAtom: number;
  readonly maxQpInitRdAtom: number;
  /** Local addresses. */
  readonly physicalPortCount: number;
  /** Coded time that this device may take to acknowledge, as CM tells peers. */
  readonly localCaAckDelay: number;
}

/** State of one port: ibv_port_attr. A port is one local address. */
export interface PortAttributes {
  readonly state: "ACTIVE";
  /** Largest path MTU that the link behind the port carries. */
  readonly activeMtu: PathMtu;
  readonly gidTableLength: number;
  readonly pkeyTableLength: number;
  /** Largest message in bytes. */
  readonly maxMessageBytes: number;
}
