// SPDX-License-Identifier: MIT
// CM SIDR_REP, service id resolution response (IBTA vol1 §12.11.2).

import { clearMessage, hasMessage, readBytes, readU24, writeBytes, writeU24 } from "./cm-fields.js";

export const SIDR_REP_INFORMATION_BYTES = 72;
export const SIDR_REP_PRIVATE_BYTES = 136;

/** `SidrRep.status`. */
export const SIDR_STATUS = {
  SUCCESS: 0,
  SERVICE_ID_NOT_SUPPORTED: 1,
  REJECTED: 2,
  NO_QP: 3,
  REDIRECT: 4,
  UNSUPPORTED_VERSION: 5,
} as const;

export interface SidrRep {
  kind: "SIDR_REP";
  /** Copied from the request. */
  requestId: number;
  /** `SIDR_STATUS`; any 8 bits may come from a peer. */
  status: number;
  /** As sent, 8 bits: more than the field's 72 bytes only from a faulty peer. */
  informationLength: number;
  /** 24 bits, of the vendor's ECE options; stands in two places. */
  vendorId: number;
  qpn: number;
  serviceIdHigh: number;
  serviceIdLow: number;
  qkey: number;
  /**
   * The whole field after decoding, valid up to `informationLength`; may be shorter for encoding.
   */
  information: Uint8Array;
  /** Always `SIDR_REP_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const INFORMATION_AT = 24;
const PRIVATE_AT = 96;

/** The SIDR_REP at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeSidrRep(view: DataView, offset: number): SidrRep | null {
  if (!hasMessage(view, offset)) return null;
  return {
    kind: "SIDR_REP",
    requestId: view.getUint32(offset),
    status: view.getUint8(offset + 4),
    informationLength: view.getUint8(offset + 5),
    vendorId: (view.getUint16(offset + 6) << 8) | view.getUint8(offset + 11),
    qpn: readU24(view, offset + 8),
    serviceIdHigh: view.getUint32(offset + 12),
    serviceIdLow: view.getUint32(offset + 16),
    qkey: view.getUint32(offset + 20),
    information: readBytes(view, offset + INFORMATION_AT, SIDR_REP_INFORMATION_BYTES),
    privateData: readBytes(view, offset + PRIVATE_AT, SIDR_REP_PRIVATE_BYTES),
  };
}

/** Writes the whole message. Preconditions: each field fits its bits. */
export function encodeSidrRep(view: DataView, offset: number, reply: Readonly<SidrRep>): void {
  clearMessage(view, offset);
  view.setUint32(offset, reply.requestId);
  view.setUint8(offset + 4, reply.status);
  view.setUint8(offset + 5, reply.informationLength);
  view.setUint16(offset + 6, reply.vendorId >>> 8);
  writeU24(view, offset + 8, reply.qpn, reply.vendorId & 255);
  view.setUint32(offset + 12, reply.serviceIdHigh);
  view.setUint32(offset + 16, reply.serviceIdLow);
  view.setUint32(offset + 20, reply.qkey);
  writeBytes(view, offset + INFORMATION_AT, SIDR_REP_INFORMATION_BYTES, reply.information);
  writeBytes(view, offset + PRIVATE_AT, SIDR_REP_PRIVATE_BYTES, reply.privateData);
}
