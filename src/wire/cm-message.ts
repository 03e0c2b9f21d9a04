// SPDX-License-Identifier: MIT
// A MAD of communication management as a whole: header, attribute, message (RoCEv2 facts §17, §18).

import { assert, unreachable } from "../base/index.js";
import { type CmDrep, decodeDrep, encodeDrep } from "./cm-drep.js";
import { type CmDreq, decodeDreq, encodeDreq } from "./cm-dreq.js";
import { type CmMra, decodeMra, encodeMra } from "./cm-mra.js";
import { type CmRej, decodeRej, encodeRej } from "./cm-rej.js";
import { type CmRep, decodeRep, encodeRep } from "./cm-rep.js";
import { type CmReq, decodeReq, encodeReq } from "./cm-req.js";
import { type CmRtu, decodeRtu, encodeRtu } from "./cm-rtu.js";
import {
  decodeMadHeader,
  encodeMadHeader,
  MAD_BASE_VERSION,
  MAD_BYTES,
  MAD_CLASS_CM,
  MAD_CLASS_VERSION_CM,
  MAD_HEADER_BYTES,
  MAD_METHOD_SEND,
} from "./mad.js";
import { decodeSidrRep, encodeSidrRep, type SidrRep } from "./sidr-rep.js";
import { decodeSidrReq, encodeSidrReq, type SidrReq } from "./sidr-req.js";

/**
 * Attribute ids of the messages. LAP (0x19) and APR (0x1A), alternate paths, are not spoken here.
 */
export const CM_ATTRIBUTE = {
  REQ: 0x10,
  MRA: 0x11,
  REJ: 0x12,
  REP: 0x13,
  RTU: 0x14,
  DREQ: 0x15,
  DREP: 0x16,
  SIDR_REQ: 0x17,
  SIDR_REP: 0x18,
} as const;

export type CmMessage = CmReq | CmMra | CmRej | CmRep | CmRtu | CmDreq | CmDrep | SidrReq | SidrRep;

/** A message with what its MAD's header adds. */
export interface CmMad {
  /** Opaque 64 bits in halves; an answer copies those of what it answers. */
  transactionHigh: number;
  transactionLow: number;
  /** Vendor ECE options of REQ, REP and SIDR_REP; 0 unless both sides are of one vendor. */
  attributeModifier: number;
  message: CmMessage;
}

/** Why a MAD is no CM message; named after the field that is wrong. To be dropped silently. */
export type CmMadFault =
  | "LENGTH"
  | "BASE_VERSION"
  | "MANAGEMENT_CLASS"
  | "CLASS_VERSION"
  | "METHOD"
  | "ATTRIBUTE";

/**
 * Takes a MAD apart and copies it out; `offset` is that of the MAD, behind the DETH.
 * @returns the fault's name, a string, when it is no CM message that farpage speaks. Never throws.
 */
export function decodeCmMad(view: DataView, offset: number, length: number): CmMad | CmMadFault {
  const header = decodeMadHeader(view, offset, length);
  if (header === null) return "LENGTH";
  if (header.baseVersion !== MAD_BASE_VERSION) return "BASE_VERSION";
  if (header.managementClass !== MAD_CLASS_CM) return "MANAGEMENT_CLASS";
  if (header.classVersion !== MAD_CLASS_VERSION_CM) return "CLASS_VERSION";
  if (header.method !== MAD_METHOD_SEND) return "METHOD";
  const message = decodeCmMessage(header.attributeId, view, offset + MAD_HEADER_BYTES);
  if (message === null) return "ATTRIBUTE";
  const { transactionHigh, transactionLow, attributeModifier } = header;
  return { transactionHigh, transactionLow, attributeModifier, message };
}

function decodeCmMessage(attributeId: number, view: DataView, offset: number): CmMessage | null {
  switch (attributeId) {
    case CM_ATTRIBUTE.REQ:
      return decodeReq(view, offset);
    case CM_ATTRIBUTE.MRA:
      return decodeMra(view, offset);
    case CM_ATTRIBUTE.REJ:
      return decodeRej(view, offset);
    case CM_ATTRIBUTE.REP:
      return decodeRep(view, offset);
    case CM_ATTRIBUTE.RTU:
      return decodeRtu(view, offset);
    case CM_ATTRIBUTE.DREQ:
      return decodeDreq(view, offset);
    case CM_ATTRIBUTE.DREP:
      return decodeDrep(view, offset);
    case CM_ATTRIBUTE.SIDR_REQ:
      return decodeSidrReq(view, offset);
    case CM_ATTRIBUTE.SIDR_REP:
      return decodeSidrRep(view, offset);
    default:
      return null;
  }
}

/**
 * Writes all 256 bytes of a MAD; status and class specific bits are 0.
 * Preconditions: each field fits its bits; 256 bytes of room at `offset`.
 */
export function encodeCmMad(view: DataView, offset: number, mad: Readonly<CmMad>): void {
  assert(offset >= 0 && offset + MAD_BYTES <= view.byteLength, "there is room for a MAD");
  encodeMadHeader(view, offset, {
    baseVersion: MAD_BASE_VERSION,
    managementClass: MAD_CLASS_CM,
    classVersion: MAD_CLASS_VERSION_CM,
    method: MAD_METHOD_SEND,
    status: 0,
    classSpecific: 0,
    transactionHigh: mad.transactionHigh,
    transactionLow: mad.transactionLow,
    attributeId: CM_ATTRIBUTE[mad.message.kind],
    attributeModifier: mad.attributeModifier,
  });
  encodeCmMessage(view, offset + MAD_HEADER_BYTES, mad.message);
}

function encodeCmMessage(view: DataView, offset: number, message: Readonly<CmMessage>): void {
  switch (message.kind) {
    case "REQ":
      encodeReq(view, offset, message);
      break;
    case "MRA":
      encodeMra(view, offset, message);
      break;
    case "REJ":
      encodeRej(view, offset, message);
      break;
    case "REP":
      encodeRep(view, offset, message);
      break;
    case "RTU":
      encodeRtu(view, offset, message);
      break;
    case "DREQ":
      encodeDreq(view, offset, message);
      break;
    case "DREP":
      encodeDrep(view, offset, message);
      break;
    case "SIDR_REQ":
      encodeSidrReq(view, offset, message);
      break;
    case "SIDR_REP":
      encodeSidrRep(view, offset, message);
      break;
    default:
      unreachable(message);
  }
}
