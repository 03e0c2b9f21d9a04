// SPDX-License-Identifier: MIT
// A packet as packets.tsv writes it, produced by farpage's own decoders.

import {
  aethMsn,
  aethSyndrome,
  atomicAckEthOriginalHigh,
  atomicAckEthOriginalLow,
  atomicEthAddressHigh,
  atomicEthAddressLow,
  atomicEthCompareHigh,
  atomicEthCompareLow,
  atomicEthKey,
  atomicEthSwapAddHigh,
  atomicEthSwapAddLow,
  bthCongestion,
  bthDestinationQpn,
  bthOpcode,
  CM_ATTRIBUTE,
  decodeMadHeader,
  decodeRej,
  dethQkey,
  dethSourceQpn,
  iethKey,
  immediateOf,
  MAD_BYTES,
  MAD_CLASS_CM,
  MAD_HEADER_BYTES,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  QPN_GSI,
  rethAddressHigh,
  rethAddressLow,
  rethKey,
  rethLength,
  syndromeKind,
  syndromeValue,
} from "../../src/wire/index.js";

export function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** A 64-bit number without leading zeroes. */
function hex64(high: number, low: number): string {
  return high === 0 ? low.toString(16) : `${high.toString(16)}${hex(low, 8)}`;
}

const NAK_NAMES = ["PSN_SEQ", "INV_REQ", "REM_ACC", "REM_OP"];

function aethText(view: DataView, offset: number): string {
  const syndrome = aethSyndrome(view, offset);
  const value = syndromeValue(syndrome);
  const kinds = [`ACK cr=${value}`, `RNR t=${value}`, "reserved", `NAK ${NAK_NAMES[value]}`];
  return `${kinds[syndromeKind(syndrome)]} syn=${hex(syndrome, 2)} msn=${aethMsn(view, offset)}`;
}

const ATTRIBUTE_NAMES = new Map<number, string>(
  Object.entries(CM_ATTRIBUTE).map(([name, attribute]) => [attribute, name]),
);

function madText(view: DataView, offset: number): string {
  const mad = decodeMadHeader(view, offset, MAD_BYTES);
  if (mad === null) return "MAD ?";
  const at = offset + MAD_HEADER_BYTES;
  const message = ATTRIBUTE_NAMES.get(mad.attributeId) ?? "?";
  const words = [
    `MAD cls=${hex(mad.managementClass, 2)}.${mad.classVersion} m=${hex(mad.method, 2)}`,
    `st=${hex(mad.status, 4)} tid=${hex(mad.transactionHigh, 8)}${hex(mad.transactionLow, 8)}`,
    message,
  ];
  if (mad.managementClass === MAD_CLASS_CM) {
    words.push(`lcid=${hex(view.getUint32(at), 8)} rcid=${hex(view.getUint32(at + 4), 8)}`);
  }
  const rej = message === "REJ" ? decodeRej(view, at) : null;
  if (rej !== null) {
    words.push(`rejected=${rej.rejected} infolen=${rej.informationLength} reason=${rej.reason}`);
  }
  return words.join(" ");
}

/** The `ext` column: extended headers and, on the GSI, the MAD of the packet at `offset`. */
export function extendedText(view: DataView, offset: number): string {
  const flags = OPCODE_FLAGS[bthOpcode(view, offset)] as number;
  const words: string[] = [];
  let at = offset + 12;
  let isMad = false;
  if ((flags & OPCODE_FLAG.HAS_DETH) !== 0) {
    words.push(`qkey=${hex(dethQkey(view, at), 8)} sqp=${hex(dethSourceQpn(view, at), 6)}`);
    isMad = bthDestinationQpn(view, offset) === QPN_GSI;
    at += 8;
  }
  if ((flags & OPCODE_FLAG.HAS_RETH) !== 0) {
    const address = hex64(rethAddressHigh(view, at), rethAddressLow(view, at));
    words.push(`va=${address} rkey=${hex(rethKey(view, at), 8)} len=${rethLength(view, at)}`);
    at += 16;
  }
  if ((flags & OPCODE_FLAG.HAS_ATOMIC) !== 0) {
    const address = hex64(atomicEthAddressHigh(view, at), atomicEthAddressLow(view, at));
    const swap = hex64(atomicEthSwapAddHigh(view, at), atomicEthSwapAddLow(view, at));
    const compare = hex64(atomicEthCompareHigh(view, at), atomicEthCompareLow(view, at));
    const key = hex(atomicEthKey(view, at), 8);
    words.push(`va=${address} rkey=${key} swap/add=${swap} cmp=${compare}`);
    at += 28;
  }
  if ((flags & OPCODE_FLAG.HAS_AETH) !== 0) {
    words.push(aethText(view, at));
    at += 4;
  }
  if ((flags & OPCODE_FLAG.HAS_ATOMIC_ACK) !== 0) {
    const original = hex64(atomicAckEthOriginalHigh(view, at), atomicAckEthOriginalLow(view, at));
    words.push(`orig=${original}`);
    at += 8;
  }
  if ((flags & OPCODE_FLAG.HAS_IMM) !== 0) {
    words.push(`imm=${hex(immediateOf(view, at), 8)}`);
    at += 4;
  }
  if ((flags & OPCODE_FLAG.HAS_IETH) !== 0) words.push(`inv=${hex(iethKey(view, at), 8)}`);
  if (isMad) words.push(madText(view, at));
  const congestion = bthCongestion(view, offset);
  if (congestion !== 0) words.push(`r6=${hex(congestion, 2)}`);
  return words.length === 0 ? "-" : words.join(" ");
}
