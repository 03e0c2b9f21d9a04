// SPDX-License-Identifier: MIT
// Builds a packet anew from the fields of another: every byte of the copy has gone through a
// decoder and an encoder, but for payload, pad and whatever follows an opcode that nobody knows.

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
  bthAckRequest,
  bthCongestion,
  bthDestinationQpn,
  bthMigration,
  bthOpcode,
  bthPadCount,
  bthPkey,
  bthPsn,
  bthSolicited,
  bthVersion,
  decodeCmMad,
  decodeRdmaCmHeader,
  dethQkey,
  dethSourceQpn,
  encodeCmMad,
  encodeRdmaCmHeader,
  ICRC_BYTES,
  iethKey,
  immediateOf,
  MAD_BYTES,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  QPN_GSI,
  rethAddressHigh,
  rethAddressLow,
  rethKey,
  rethLength,
  setBthCongestion,
  setBthMigration,
  setBthVersion,
  writeAeth,
  writeAtomicAckEth,
  writeAtomicEth,
  writeBth,
  writeDeth,
  writeIeth,
  writeImmediate,
  writeReth,
} from "../../src/wire/index.js";

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function copyBth(from: DataView, to: DataView): void {
  writeBth(
    to,
    0,
    bthOpcode(from, 0),
    bthSolicited(from, 0),
    bthPadCount(from, 0),
    bthPkey(from, 0),
    bthDestinationQpn(from, 0),
    bthAckRequest(from, 0),
    bthPsn(from, 0),
  );
  setBthMigration(to, 0, bthMigration(from, 0));
  setBthVersion(to, 0, bthVersion(from, 0));
  setBthCongestion(to, 0, bthCongestion(from, 0));
}

/** Extended headers in wire order: the flag that promises each, its size, and how to copy it. */
const COPIERS: readonly (readonly [
  number,
  number,
  (f: DataView, t: DataView, o: number) => void,
])[] = [
  [OPCODE_FLAG.HAS_DETH, 8, (f, t, o) => writeDeth(t, o, dethQkey(f, o), dethSourceQpn(f, o))],
  [
    OPCODE_FLAG.HAS_RETH,
    16,
    (f, t, o) =>
      writeReth(t, o, rethAddressHigh(f, o), rethAddressLow(f, o), rethKey(f, o), rethLength(f, o)),
  ],
  [
    OPCODE_FLAG.HAS_ATOMIC,
    28,
    (f, t, o) =>
      writeAtomicEth(
        t,
        o,
        atomicEthAddressHigh(f, o),
        atomicEthAddressLow(f, o),
        atomicEthKey(f, o),
        atomicEthSwapAddHigh(f, o),
        atomicEthSwapAddLow(f, o),
        atomicEthCompareHigh(f, o),
        atomicEthCompareLow(f, o),
      ),
  ],
  [OPCODE_FLAG.HAS_AETH, 4, (f, t, o) => writeAeth(t, o, aethSyndrome(f, o), aethMsn(f, o))],
  [
    OPCODE_FLAG.HAS_ATOMIC_ACK,
    8,
    (f, t, o) =>
      writeAtomicAckEth(t, o, atomicAckEthOriginalHigh(f, o), atomicAckEthOriginalLow(f, o)),
  ],
  [OPCODE_FLAG.HAS_IMM, 4, (f, t, o) => writeImmediate(t, o, immediateOf(f, o))],
  [OPCODE_FLAG.HAS_IETH, 4, (f, t, o) => writeIeth(t, o, iethKey(f, o))],
];

/**
 * Sends a CM message through its codec; false when it is none (then the caller copies the bytes).
 */
function copyCmMad(from: DataView, to: DataView, offset: number): boolean {
  const mad = decodeCmMad(from, offset, MAD_BYTES);
  if (typeof mad === "string") return false;
  const { message } = mad;
  if (message.kind === "REQ" || message.kind === "SIDR_REQ") {
    const privateData = viewOf(message.privateData);
    const header = decodeRdmaCmHeader(privateData, 0);
    if (header !== null) {
      message.privateData.fill(0, 0, 36);
      encodeRdmaCmHeader(privateData, 0, header);
    }
  }
  encodeCmMad(to, offset, mad);
  return true;
}

/** A copy of the packet `bytes` (a whole UDP payload), its ICRC left zero. */
export function reEncode(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes.length);
  const from = viewOf(bytes);
  const to = viewOf(copy);
  copyBth(from, to);
  const flags = OPCODE_FLAGS[bthOpcode(from, 0)] as number;
  let at = 12;
  for (const [flag, size, copyHeader] of COPIERS) {
    if ((flags & flag) === 0) continue;
    copyHeader(from, to, at);
    at += size;
  }
  const end = bytes.length - ICRC_BYTES;
  const toGsi = bthDestinationQpn(from, 0) === QPN_GSI && end - at === MAD_BYTES;
  if (!toGsi || !copyCmMad(from, to, at)) copy.set(bytes.subarray(at, end), at);
  return copy;
}
