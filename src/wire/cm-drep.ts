// SPDX-License-Identifier: MIT
// CM DREP, disconnection reply (IBTA vol1 §12.6.11).

import { clearMessage, hasMessage, readBytes, writeBytes } from "./cm-fields.js";

export const CM_DREP_PRIVATE_BYTES = 224;

export interface CmDrep {
  kind: "DREP";
  localCommId: number;
  remoteCommId: number;
  /** Always `CM_DREP_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const PRIVATE_AT = 8;

/** The DREP at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeDrep(view: DataView, offset: number): CmDrep | null {
  if (!hasMessage(view, offset)) return null;
  return {
    kind: "DREP",
    localCommId: view.getUint32(offset),
    remoteCommId: view.getUint32(offset + 4),
    privateData: readBytes(view, offset + PRIVATE_AT, CM_DREP_PRIVATE_BYTES),
  };
}

/** Writes the whole message. Preconditions: each field fits its bits. */
export function encodeDrep(view: DataView, offset: number, drep: Readonly<CmDrep>): void {
  clearMessage(view, offset);
  view.setUint32(offset, drep.localCommId);
  view.setUint32(offset + 4, drep.remoteCommId);
  writeBytes(view, offset + PRIVATE_AT, CM_DREP_PRIVATE_BYTES, drep.privateData);
}
