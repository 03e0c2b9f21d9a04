// SPDX-License-Identifier: MIT
// CM REP, reply to a request for communication (IBTA vol1 §12.6.8; RoCEv2 facts §18).

import { clearMessage, hasMessage, readBytes, readU24, writeBytes, writeU24 } from "./cm-fields.js";

export const CM_REP_PRIVATE_BYTES = 196;

export interface CmRep {
  kind: "REP";
  localCommId: number;
  remoteCommId: number;
  qkey: number;
  /** The sender's queue pair, 24 bits. */
  qpn: number;
  /** 24 bits, of the vendor's ECE options; stands in three places. */
  vendorId: number;
  localEecn: number;
  /** First PSN that the *receiver* of the REP shall send with, 24 bits. */
  startingPsn: number;
  responderResources: number;
  initiatorDepth: number;
  /** 5 bits: 4.096 us * 2^value. */
  targetAckDelay: number;
  /** 2 bits. */
  failoverAccepted: number;
  flowControl: boolean;
  /** 3 bits. */
  rnrRetryCount: number;
  srq: boolean;
  caGuidHigh: number;
  caGuidLow: number;
  /** Always `CM_REP_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const PRIVATE_AT = 36;

/** The REP at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeRep(view: DataView, offset: number): CmRep | null {
  if (!hasMessage(view, offset)) return null;
  const delay = view.getUint8(offset + 26);
  const retry = view.getUint8(offset + 27);
  const vendorHigh = view.getUint8(offset + 15);
  const vendorMiddle = view.getUint8(offset + 19);
  return {
    kind: "REP",
    localCommId: view.getUint32(offset),
    remoteCommId: view.getUint32(offset + 4),
    qkey: view.getUint32(offset + 8),
    qpn: readU24(view, offset + 12),
    vendorId: (vendorHigh << 16) | (vendorMiddle << 8) | view.getUint8(offset + 23),
    localEecn: readU24(view, offset + 16),
    startingPsn: readU24(view, offset + 20),
    responderResources: view.getUint8(offset + 24),
    initiatorDepth: view.getUint8(offset + 25),
    targetAckDelay: delay >>> 3,
    failoverAccepted: (delay >>> 1) & 3,
    flowControl: (delay & 1) !== 0,
    rnrRetryCount: retry >>> 5,
    srq: (retry & 0x10) !== 0,
    caGuidHigh: view.getUint32(offset + 28),
    caGuidLow: view.getUint32(offset + 32),
    privateData: readBytes(view, offset + PRIVATE_AT, CM_REP_PRIVATE_BYTES),
  };
}

/** Writes the whole message, reserved bits as 0. Preconditions: each field fits its bits. */
export function encodeRep(view: DataView, offset: number, rep: Readonly<CmRep>): void {
  clearMessage(view, offset);
  view.setUint32(offset, rep.localCommId);
  view.setUint32(offset + 4, rep.remoteCommId);
  view.setUint32(offset + 8, rep.qkey);
  writeU24(view, offset + 12, rep.qpn, rep.vendorId >>> 16);
  writeU24(view, offset + 16, rep.localEecn, (rep.vendorId >>> 8) & 255);
  writeU24(view, offset + 20, rep.startingPsn, rep.vendorId & 255);
  view.setUint8(offset + 24, rep.responderResources);
  view.setUint8(offset + 25, rep.initiatorDepth);
  const flowControl = rep.flowControl ? 1 : 0;
  view.setUint8(offset + 26, (rep.targetAckDelay << 3) | (rep.failoverAccepted << 1) | flowControl);
  view.setUint8(offset + 27, (rep.rnrRetryCount << 5) | (rep.srq ? 0x10 : 0));
  view.setUint32(offset + 28, rep.caGuidHigh);
  view.setUint32(offset + 32, rep.caGuidLow);
  writeBytes(view, offset + PRIVATE_AT, CM_REP_PRIVATE_BYTES, rep.privateData);
}
