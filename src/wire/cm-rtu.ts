// SPDX-License-Identifier: MIT
// CM RTU, ready to use (IBTA vol1 §12.6.9): the active side's answer to a REP.

import { clearMessage, hasMessage, readBytes, writeBytes } from "./cm-fields.js";

export const CM_RTU_PRIVATE_BYTES = 224;

export interface CmRtu {
  kind: "RTU";
  localCommId: number;
  remoteCommId: number;
  /** Always `CM_RTU_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const PRIVATE_AT = 8;

/** The RTU at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeRtu(view: DataView, offset: number): CmRtu | null {
  if (!hasMessage(view, offset)) return null;
  return {
    kind: "RTU",
    localCommId: view.getUint32(offset),
    remoteCommId: view.getUint32(offset + 4),
    privateData: readBytes(view, offset + PRIVATE_AT, CM_RTU_PRIVATE_BYTES),
  };
}

/** Writes the whole message. Preconditions: each field fits its bits. */
export function encodeRtu(view: DataView, offset: number, rtu: Readonly<CmRtu>): void {
  clearMessage(view, offset);
  view.setUint32(offset, rtu.localCommId);
  view.setUint32(offset + 4, rtu.remoteCommId);
  writeBytes(view, offset + PRIVATE_AT, CM_RTU_PRIVATE_BYTES, rtu.privateData);
}
