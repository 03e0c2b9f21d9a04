// SPDX-License-Identifier: MIT
// CM SIDR_REQ, service id resolution request (IBTA vol1 §12.11.1): asks for a UD queue pair.

import { clearMessage, hasMessage, readBytes, writeBytes } from "./cm-fields.js";

export const SIDR_REQ_PRIVATE_BYTES = 216;

export interface SidrReq {
  kind: "SIDR_REQ";
  requestId: number;
  pkey: number;
  /** 64 bits in halves; see rdma-cm-header.ts. */
  serviceIdHigh: number;
  serviceIdLow: number;
  /** Always `SIDR_REQ_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const PRIVATE_AT = 16;

/** The SIDR_REQ at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeSidrReq(view: DataView, offset: number): SidrReq | null {
  if (!hasMessage(view, offset)) return null;
  return {
    kind: "SIDR_REQ",
    requestId: view.getUint32(offset),
    pkey: view.getUint16(offset + 4),
    serviceIdHigh: view.getUint32(offset + 8),
    serviceIdLow: view.getUint32(offset + 12),
    privateData: readBytes(view, offset + PRIVATE_AT, SIDR_REQ_PRIVATE_BYTES),
  };
}

/** Writes the whole message, reserved bits as 0. Preconditions: each field fits its bits. */
export function encodeSidrReq(view: DataView, offset: number, request: Readonly<SidrReq>): void {
  clearMessage(view, offset);
  view.setUint32(offset, request.requestId);
  view.setUint16(offset + 4, request.pkey);
  view.setUint32(offset + 8, request.serviceIdHigh);
  view.setUint32(offset + 12, request.serviceIdLow);
  writeBytes(view, offset + PRIVATE_AT, SIDR_REQ_PRIVATE_BYTES, request.privateData);
}
