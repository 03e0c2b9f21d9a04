// SPDX-License-Identifier: MIT
// What RDMA CM (IP addressing over the IB CM; IBTA annex A11, RoCEv2 facts §18) adds to a REQ and a
// SIDR_REQ: a service id that holds the port, and 36 bytes in front of the private data:
//
//   0        version, major and minor nibble: 0
//   1        IP version in the high nibble, low nibble 0
//   2        source port (16)
//   4        source IP (128)
//   20       destination IP (128)
//
// An IPv4 address stands in the last four of its sixteen bytes, behind zeroes (not as a GID).

import { assert, IpAddress } from "../base/index.js";

export const RDMA_CM_HEADER_BYTES = 36;
/** Private data that a REQ and a SIDR_REQ leave to the consumer behind the header. */
export const RDMA_CM_REQ_PRIVATE_BYTES = 56;
export const RDMA_CM_SIDR_REQ_PRIVATE_BYTES = 180;

/** Port spaces: the upper half of a service id's low word. */
export const PORT_SPACE = { IPOIB: 0x0002, TCP: 0x0106, UDP: 0x0111, IB: 0x013f } as const;
export type PortSpace = (typeof PORT_SPACE)[keyof typeof PORT_SPACE];

/** The high word of every RDMA CM service id: bytes 00 00 00 00 (the low word holds all). */
export const SERVICE_ID_HIGH = 0;

/** The low word of a port's service id. */
export function serviceIdLowOf(portSpace: PortSpace, port: number): number {
  return ((portSpace << 16) | port) >>> 0;
}

export interface RdmaCmHeader {
  sourcePort: number;
  source: IpAddress;
  destination: IpAddress;
}

/**
 * The header at `offset`; null when it is not all there, has another version or an unknown IP
 * version. What it says is only informative: packets may come from elsewhere (facts §20).
 */
export function decodeRdmaCmHeader(view: DataView, offset: number): RdmaCmHeader | null {
  if (offset < 0 || offset + RDMA_CM_HEADER_BYTES > view.byteLength) return null;
  if (view.getUint8(offset) !== 0) return null;
  const ipVersion = view.getUint8(offset + 1) >>> 4;
  if (ipVersion !== 4 && ipVersion !== 6) return null;
  return {
    sourcePort: view.getUint16(offset + 2),
    source: readAddress(view, offset + 4, ipVersion),
    destination: readAddress(view, offset + 20, ipVersion),
  };
}

function readAddress(view: DataView, offset: number, ipVersion: 4 | 6): IpAddress {
  if (ipVersion === 4) return IpAddress.v4(view.getUint32(offset + 12));
  return IpAddress.fromGid(view, offset);
}

/** Writes all 36 bytes. Precondition: source and destination are of one family. */
export function encodeRdmaCmHeader(
  view: DataView,
  offset: number,
  header: Readonly<RdmaCmHeader>,
): void {
  const { source, destination } = header;
  assert(source.family === destination.family, "both addresses are of one family");
  view.setUint8(offset, 0);
  view.setUint8(offset + 1, source.family << 4);
  view.setUint16(offset + 2, header.sourcePort);
  writeAddress(view, offset + 4, source);
  writeAddress(view, offset + 20, destination);
}

function writeAddress(view: DataView, offset: number, address: IpAddress): void {
  address.writeGid(view, offset);
  // The ::ffff: of an IPv4 GID is not written here.
  if (address.family === 4) view.setUint32(offset + 8, 0);
}
