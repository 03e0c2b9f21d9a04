// SPDX-License-Identifier: MIT
// CM DREQ, disconnection request (IBTA vol1 §12.6.10).

import { clearMessage, hasMessage, readBytes, readU24, writeBytes, writeU24 } from "./cm-fields.js";

export const CM_DREQ_PRIVATE_BYTES = 220;

export interface CmDreq {
  kind: "DREQ";
  localCommId: number;
  remoteCommId: number;
  /** The *receiver's* queue pair, 24 bits: a DREQ that names another is not for this connection. */
  remoteQpn: number;
  /** Always `CM_DREQ_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const PRIVATE_AT = 12;

/** The DREQ at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeDreq(view: DataView, offset: number): CmDreq | null {
  if (!hasMessage(view, offset)) return null;
  return {
    kind: "DREQ",
    localCommId: view.getUint32(offset),
    remoteCommId: view.getUint32(offset + 4),
    remoteQpn: readU24(view, offset + 8),
    privateData: readBytes(view, offset + PRIVATE_AT, CM_DREQ_PRIVATE_BYTES),
  };
}

/** Writes the whole message, reserved bits as 0. Preconditions: each field fits its bits. */
export function encodeDreq(view: DataView, offset: number, dreq: Readonly<CmDreq>): void {
  clearMessage(view, offset);
  view.setUint32(offset, dreq.localCommId);
  view.setUint32(offset + 4, dreq.remoteCommId);
  writeU24(view, offset + 8, dreq.remoteQpn, 0);
  writeBytes(view, offset + PRIVATE_AT, CM_DREQ_PRIVATE_BYTES, dreq.privateData);
}
