// SPDX-License-Identifier: MIT
// Which lane of a host a packet is for. A host with several lanes has one UDP port, and each lane
// its own queue pairs: a packet must reach the lane that has the one it names. Everything that is
// looked at lies at a fixed place in the UDP payload, so that the kernel can do it by a program of
// a dozen instructions (`os/steering-program.ts`, which is tested to do the same as this):
//
//   to a queue pair           destination QPN mod lanes: a lane only hands out such numbers
//   REQ                       the last word of the RTRS session's UUID mod lanes: so all paths and
//                             connections of a session come to one lane. (Another protocol's word
//                             there is as good as any: who listens, listens on all lanes.)
//   REQ to the pinned port    lane 0
//   SIDR_REQ                  lane 0
//   SIDR_REP                  request id mod lanes: the lane that asked drew it so
//   other messages of CM      the receiver's comm id mod lanes: it was drawn so
//
// A REJ that says TIMEOUT comes from a peer that knows no comm id of ours: it is for every lane.
// The program brings it to some lane, which hands it on.

import { BTH_BYTES, QPN_GSI } from "./bth.js";
import { REJ_REASON } from "./cm-rej.js";
import { DETH_BYTES } from "./deth.js";
import { MAD_HEADER_BYTES } from "./mad.js";
import { RDMA_CM_HEADER_BYTES } from "./rdma-cm-header.js";

const MAD_AT = BTH_BYTES + DETH_BYTES;
const MESSAGE_AT = MAD_AT + MAD_HEADER_BYTES;
const REQ_PRIVATE_AT = MESSAGE_AT + 140;

/** A lane among those of its host: 0 <= index < count. */
export interface LaneNumber {
  readonly index: number;
  readonly count: number;
}

/** The only lane of its host. */
export const SINGLE_LANE: LaneNumber = { index: 0, count: 1 };

/** The number next to `drawn` that is of the lane. */
export function numberOfLane(lane: LaneNumber, drawn: number): number {
  return drawn - (drawn % lane.count) + lane.index;
}

/** Where in a UDP payload stands what decides: 32 bits, but for the ids of attribute and port. */
export const STEERING_AT = {
  /** The destination QPN is its low 24 bits. */
  QPN: 4,
  /** 16 bits. */
  ATTRIBUTE: MAD_AT + 16,
  /** 16 bits: the port of an RDMA CM service id. */
  REQ_PORT: MESSAGE_AT + 14,
  /** The last word of an RTRS connect request's session UUID. */
  REQ_SESSION: REQ_PRIVATE_AT + RDMA_CM_HEADER_BYTES + 40,
  SIDR_REP_REQUEST: MESSAGE_AT,
  REMOTE_COMM_ID: MESSAGE_AT + 4,
} as const;

const REJ_REASON_AT = MESSAGE_AT + 10;

/** MAD attributes that are steered in a way of their own. */
export const STEERING_ATTRIBUTE = { REQ: 0x10, REJ: 0x12, SIDR_REQ: 0x17, SIDR_REP: 0x18 } as const;

/** How packets are shared out. */
export interface Steering {
  /** 1 .. 64. */
  readonly laneCount: number;
  /** RDMA CM port whose REQs all go to lane 0; 0: none. */
  readonly pinnedPort: number;
}

/** `laneOf`: every lane must see it. */
export const EVERY_LANE = -1;

/**
 * The lane of a packet, `length` bytes of UDP payload at `offset`.
 * @returns 0 .. laneCount - 1, or `EVERY_LANE`; 0 for one that is too short to tell, as the kernel
 *   does.
 */
export function laneOf(view: DataView, offset: number, length: number, steering: Steering): number {
  if (length < STEERING_AT.QPN + 4) return 0;
  const qpn = view.getUint32(offset + STEERING_AT.QPN) & 0xff_ffff;
  if (qpn !== QPN_GSI) return qpn % steering.laneCount;
  return laneOfMad(view, offset, length, steering);
}

function laneOfMad(view: DataView, offset: number, length: number, steering: Steering): number {
  const { laneCount, pinnedPort } = steering;
  if (length < STEERING_AT.ATTRIBUTE + 2) return 0;
  const attribute = view.getUint16(offset + STEERING_AT.ATTRIBUTE);
  let at: number = STEERING_AT.REMOTE_COMM_ID;
  if (attribute === STEERING_ATTRIBUTE.REQ) {
    if (length < STEERING_AT.REQ_PORT + 2) return 0;
    if (view.getUint16(offset + STEERING_AT.REQ_PORT) === pinnedPort) return 0;
    at = STEERING_AT.REQ_SESSION;
  } else if (attribute === STEERING_ATTRIBUTE.SIDR_REQ) {
    return 0;
  } else if (attribute === STEERING_ATTRIBUTE.SIDR_REP) {
    at = STEERING_AT.SIDR_REP_REQUEST;
  } else if (attribute === STEERING_ATTRIBUTE.REJ && length >= REJ_REASON_AT + 2) {
    if (view.getUint16(offset + REJ_REASON_AT) === REJ_REASON.TIMEOUT) return EVERY_LANE;
  }
  return length < at + 4 ? 0 : view.getUint32(offset + at) % laneCount;
}
