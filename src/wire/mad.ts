// SPDX-License-Identifier: MIT
// Management datagrams (IBTA vol1 §13.4; RoCEv2 facts §17): 256 bytes between the general services
// interfaces, of which 24 are the common header, big-endian:
//
//   0 base version | 1 management class | 2 class version | 3 method
//   4 status (16) | 6 class specific (16)
//   8 transaction id (64)
//   16 attribute id (16) | 18 reserved (16)
//   20 attribute modifier (32)
//
// Control plane: decoding allocates an object. Decoders never throw on any bytes.

/** A MAD is exactly this long, padding included. */
export const MAD_BYTES = 256;
export const MAD_HEADER_BYTES = 24;

export const MAD_BASE_VERSION = 1;
/** Management class of communication management, its version and its only method, Send. */
export const MAD_CLASS_CM = 0x07;
export const MAD_CLASS_VERSION_CM = 2;
export const MAD_METHOD_SEND = 0x03;

export interface MadHeader {
  baseVersion: number;
  managementClass: number;
  classVersion: number;
  method: number;
  status: number;
  classSpecific: number;
  /** Opaque 64 bits in halves; an answer copies those of what it answers. */
  transactionHigh: number;
  transactionLow: number;
  attributeId: number;
  attributeModifier: number;
}

/**
 * The common header of the MAD at `offset`; null when it is not `MAD_BYTES` long or not all there.
 */
export function decodeMadHeader(view: DataView, offset: number, length: number): MadHeader | null {
  if (length !== MAD_BYTES || offset < 0 || offset + length > view.byteLength) return null;
  return {
    baseVersion: view.getUint8(offset),
    managementClass: view.getUint8(offset + 1),
    classVersion: view.getUint8(offset + 2),
    method: view.getUint8(offset + 3),
    status: view.getUint16(offset + 4),
    classSpecific: view.getUint16(offset + 6),
    transactionHigh: view.getUint32(offset + 8),
    transactionLow: view.getUint32(offset + 12),
    attributeId: view.getUint16(offset + 16),
    attributeModifier: view.getUint32(offset + 20),
  };
}

/**
 * Writes all 24 bytes, the reserved ones as 0. Preconditions: each field fits; 24 bytes of room.
 */
export function encodeMadHeader(view: DataView, offset: number, header: Readonly<MadHeader>): void {
  view.setUint8(offset, header.baseVersion);
  view.setUint8(offset + 1, header.managementClass);
  view.setUint8(offset + 2, header.classVersion);
  view.setUint8(offset + 3, header.method);
  view.setUint16(offset + 4, header.status);
  view.setUint16(offset + 6, header.classSpecific);
  view.setUint32(offset + 8, header.transactionHigh);
  view.setUint32(offset + 12, header.transactionLow);
  view.setUint16(offset + 16, header.attributeId);
  view.setUint16(offset + 18, 0);
  view.setUint32(offset + 20, header.attributeModifier);
}
