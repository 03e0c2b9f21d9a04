// SPDX-License-Identifier: MIT
// CM REJ, reject (IBTA vol1 §12.6.7; RoCEv2 facts §18).

import { clearMessage, hasMessage, readBytes, writeBytes } from "./cm-fields.js";

export const CM_REJ_INFORMATION_BYTES = 72;
export const CM_REJ_PRIVATE_BYTES = 148;

/** Why a connection is refused (IBTA vol1 §12.6.7.2). */
export const REJ_REASON = {
  NO_QP: 1,
  NO_EEC: 2,
  NO_RESOURCES: 3,
  TIMEOUT: 4,
  UNSUPPORTED: 5,
  INVALID_COMM_ID: 6,
  INVALID_COMM_INSTANCE: 7,
  INVALID_SERVICE_ID: 8,
  INVALID_TRANSPORT_TYPE: 9,
  STALE_CONNECTION: 10,
  RDC_DOES_NOT_EXIST: 11,
  INVALID_GID: 12,
  INVALID_LID: 13,
  INVALID_SL: 14,
  INVALID_TRAFFIC_CLASS: 15,
  INVALID_HOP_LIMIT: 16,
  INVALID_PACKET_RATE: 17,
  INVALID_ALTERNATE_GID: 18,
  INVALID_ALTERNATE_LID: 19,
  INVALID_ALTERNATE_SL: 20,
  INVALID_ALTERNATE_TRAFFIC_CLASS: 21,
  INVALID_ALTERNATE_HOP_LIMIT: 22,
  INVALID_ALTERNATE_PACKET_RATE: 23,
  CM_REDIRECT: 24,
  PORT_REDIRECT: 25,
  INVALID_MTU: 26,
  INSUFFICIENT_RESPONDER_RESOURCES: 27,
  CONSUMER_REJECT: 28,
  INVALID_RNR_RETRY_COUNT: 29,
  DUPLICATE_LOCAL_COMM_ID: 30,
  INVALID_CLASS_VERSION: 31,
  INVALID_FLOW_LABEL: 32,
  INVALID_ALTERNATE_FLOW_LABEL: 33,
  VENDOR_OPTION_NOT_SUPPORTED: 35,
} as const;
export type RejReason = (typeof REJ_REASON)[keyof typeof REJ_REASON];

/** `CmRej.rejected`: which message is refused. 3 is reserved. */
export const REJ_MESSAGE = { REQ: 0, REP: 1, OTHER: 2 } as const;

const REASON_NAMES = new Map<number, string>(
  Object.entries(REJ_REASON).map(([name, reason]) => [reason, name]),
);

/** A reason as a person reads it: `"INVALID_SERVICE_ID"`, or `"reason 99"` for an unlisted one. */
export function rejReasonName(reason: number): string {
  return REASON_NAMES.get(reason) ?? `reason ${reason}`;
}

export interface CmRej {
  kind: "REJ";
  /** 0 when the sender has assigned none. */
  localCommId: number;
  remoteCommId: number;
  /** `REJ_MESSAGE`, 2 bits. */
  rejected: number;
  /** `REJ_REASON`, 16 bits; any number may come from a peer. */
  reason: number;
  /** As sent, 7 bits: more than the field's 72 bytes only from a faulty peer. */
  informationLength: number;
  /**
   * The whole field after decoding, valid up to `informationLength`; may be shorter for encoding.
   */
  information: Uint8Array;
  /** Always `CM_REJ_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const INFORMATION_AT = 12;
const PRIVATE_AT = 84;

/** The REJ at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeRej(view: DataView, offset: number): CmRej | null {
  if (!hasMessage(view, offset)) return null;
  return {
    kind: "REJ",
    localCommId: view.getUint32(offset),
    remoteCommId: view.getUint32(offset + 4),
    rejected: view.getUint8(offset + 8) >>> 6,
    informationLength: view.getUint8(offset + 9) >>> 1,
    reason: view.getUint16(offset + 10),
    information: readBytes(view, offset + INFORMATION_AT, CM_REJ_INFORMATION_BYTES),
    privateData: readBytes(view, offset + PRIVATE_AT, CM_REJ_PRIVATE_BYTES),
  };
}

/** Writes the whole message, reserved bits as 0. Preconditions: each field fits its bits. */
export function encodeRej(view: DataView, offset: number, rej: Readonly<CmRej>): void {
  clearMessage(view, offset);
  view.setUint32(offset, rej.localCommId);
  view.setUint32(offset + 4, rej.remoteCommId);
  view.setUint8(offset + 8, rej.rejected << 6);
  view.setUint8(offset + 9, rej.informationLength << 1);
  view.setUint16(offset + 10, rej.reason);
  writeBytes(view, offset + INFORMATION_AT, CM_REJ_INFORMATION_BYTES, rej.information);
  writeBytes(view, offset + PRIVATE_AT, CM_REJ_PRIVATE_BYTES, rej.privateData);
}
