// SPDX-License-Identifier: MIT
// CM MRA, message receipt acknowledgement (IBTA vol1 §12.6.6): "I have it, the answer takes
// longer".

import { clearMessage, hasMessage, readBytes, writeBytes } from "./cm-fields.js";

export const CM_MRA_PRIVATE_BYTES = 222;

/** `CmMra.acknowledged`: which message has arrived. */
export const MRA_MESSAGE = { REQ: 0, REP: 1, LAP: 2 } as const;

export interface CmMra {
  kind: "MRA";
  localCommId: number;
  remoteCommId: number;
  /** `MRA_MESSAGE`, 2 bits. */
  acknowledged: number;
  /** 5 bits: the answer will take up to 4.096 us * 2^value. */
  serviceTimeout: number;
  /** Always `CM_MRA_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const PRIVATE_AT = 10;

/** The MRA at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeMra(view: DataView, offset: number): CmMra | null {
  if (!hasMessage(view, offset)) return null;
  return {
    kind: "MRA",
    localCommId: view.getUint32(offset),
    remoteCommId: view.getUint32(offset + 4),
    acknowledged: view.getUint8(offset + 8) >>> 6,
    serviceTimeout: view.getUint8(offset + 9) >>> 3,
    privateData: readBytes(view, offset + PRIVATE_AT, CM_MRA_PRIVATE_BYTES),
  };
}

/** Writes the whole message, reserved bits as 0. Preconditions: each field fits its bits. */
export function encodeMra(view: DataView, offset: number, mra: Readonly<CmMra>): void {
  clearMessage(view, offset);
  view.setUint32(offset, mra.localCommId);
  view.setUint32(offset + 4, mra.remoteCommId);
  view.setUint8(offset + 8, mra.acknowledged << 6);
  view.setUint8(offset + 9, mra.serviceTimeout << 3);
  writeBytes(view, offset + PRIVATE_AT, CM_MRA_PRIVATE_BYTES, mra.privateData);
}
