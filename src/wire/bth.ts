// SPDX-License-Identifier: MIT
// Base transport header (IBTA vol1 §9.2; RoCEv2 facts §2), big-endian, first in every UDP payload:
//
//    0                   1                   2                   3
//    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//   +---------------+-+-+---+-------+-------------------------------+
//   |    opcode     |S|M|pad|version|             P_Key             |
//   +---------------+-+-+---+-------+-------------------------------+
//   |F|B| reserved  |                destination QPN                |
//   +-+-+-----------+-----------------------------------------------+
//   |A|  reserved   |                      PSN                      |
//   +-+-------------+-----------------------------------------------+
//
// Accessors take the view and the offset of the BTH. Precondition of all: 12 bytes are there
// (`checkPacket` says so); none checks anything else, none can fail.

export const BTH_BYTES = 12;

/** The only P_Key on Ethernet: default partition, full member. */
export const PKEY_DEFAULT = 0xffff;
/** QPN of the general services interface. */
export const QPN_GSI = 1;
/** Destination QPN of a multicast datagram. */
export const QPN_MULTICAST = 0xffffff;

/** 0 .. 255; see opcode.ts. */
export function bthOpcode(view: DataView, offset: number): number {
  return view.getUint8(offset);
}

/** SE: the receiver should raise a solicited completion event. */
export function bthSolicited(view: DataView, offset: number): boolean {
  return (view.getUint8(offset + 1) & 0x80) !== 0;
}

/** M: path migration state, 0 or 1; rxe sends 0, hardware 1; never to be checked. */
export function bthMigration(view: DataView, offset: number): number {
  return (view.getUint8(offset + 1) >>> 6) & 1;
}

/** Bytes of padding between payload and ICRC, 0 .. 3. */
export function bthPadCount(view: DataView, offset: number): number {
  return (view.getUint8(offset + 1) >>> 4) & 3;
}

/** Transport header version, 0 .. 15; anything but 0 is to be dropped. */
export function bthVersion(view: DataView, offset: number): number {
  return view.getUint8(offset + 1) & 15;
}

export function bthPkey(view: DataView, offset: number): number {
  return view.getUint16(offset + 2);
}

/**
 * FECN (0x80), BECN (0x40) and six reserved bits. Not covered by the ICRC: switches may set them.
 */
export function bthCongestion(view: DataView, offset: number): number {
  return view.getUint8(offset + 4);
}

/** 24 bits. */
export function bthDestinationQpn(view: DataView, offset: number): number {
  return view.getUint32(offset + 4) & 0xffffff;
}

/** A: the responder shall acknowledge this packet. */
export function bthAckRequest(view: DataView, offset: number): boolean {
  return view.getUint8(offset + 8) >= 0x80;
}

/** 24 bits. */
export function bthPsn(view: DataView, offset: number): number {
  return view.getUint32(offset + 8) & 0xffffff;
}

/**
 * Whether `pkey` of a packet matches the default partition: the low 15 bits agree, membership is
 * ours (rxe accepts 0x7FFF as well; facts §2).
 */
export function pkeyMatches(pkey: number): boolean {
  return (pkey & 0x7fff) === (PKEY_DEFAULT & 0x7fff);
}

/**
 * Writes all 12 bytes; migration, version, congestion and reserved bits become 0.
 * Preconditions: opcode 0 .. 255, padCount 0 .. 3, pkey 16 bits, qpn and psn 24 bits.
 */
export function writeBth(
  view: DataView,
  offset: number,
  opcode: number,
  solicited: boolean,
  padCount: number,
  pkey: number,
  destinationQpn: number,
  ackRequest: boolean,
  psn: number,
): void {
  const flags = (solicited ? 0x80 : 0) | (padCount << 4);
  view.setInt32(offset, (opcode << 24) | (flags << 16) | pkey);
  view.setInt32(offset + 4, destinationQpn);
  view.setInt32(offset + 8, (ackRequest ? 0x8000_0000 : 0) | psn);
}

/** Sets or clears M of a BTH already written. The ICRC covers it. */
export function setBthMigration(view: DataView, offset: number, migration: number): void {
  const rest = view.getUint8(offset + 1) & ~0x40;
  view.setUint8(offset + 1, rest | ((migration & 1) << 6));
}

/** Sets the version nibble of a BTH already written: for tests and fault injection. */
export function setBthVersion(view: DataView, offset: number, version: number): void {
  const rest = view.getUint8(offset + 1) & 0xf0;
  view.setUint8(offset + 1, rest | (version & 15));
}

/**
 * Sets FECN, BECN and the six bits beside them, as a switch or a test would; not under the ICRC.
 */
export function setBthCongestion(view: DataView, offset: number, congestion: number): void {
  view.setUint8(offset + 4, congestion);
}
