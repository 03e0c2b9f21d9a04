// SPDX-License-Identifier: MIT
// IP and UDP headers that nobody has sent us. A UDP socket gives and takes payloads only, but two
// readers want headers: consumers of UD receives, whose first 40 bytes are the GRH area (RoCEv2
// annex A17; facts §14), and capture files. So they are made up from what is known, with
// an IPv4 header checksum that is right, because that is how consumers tell IPv4 from IPv6.

import { IpAddress } from "../base/index.js";

export const IPV4_HEADER_BYTES = 20;
export const IPV6_HEADER_BYTES = 40;
export const UDP_HEADER_BYTES = 8;
/** Room in front of every UD receive: an IPv6 header, or 20 zero bytes and an IPv4 header. */
export const GRH_BYTES = 40;

const IP_PROTOCOL_UDP = 17;
/** TTL or hop limit as rxe sends it. The true one can't be known. */
const HOP_LIMIT = 64;
const DONT_FRAGMENT = 0x4000;

/**
 * The ones' complement checksum (RFC 1071) over an even number of bytes at `offset`: 0 when they
 * include their own right checksum.
 */
export function internetChecksum(view: DataView, offset: number, length: number): number {
  let sum = 0;
  for (let at = offset; at < offset + length; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/**
 * Writes an IPv4 header of 20 bytes for UDP.
 * @param source, destination addresses as 32-bit words.
 * @param payloadLength bytes behind the header.
 * @param dontFragment whether DF is set, as it is in everything that farpage and rxe send.
 */
export function writeIpv4Header(
  view: DataView,
  offset: number,
  source: number,
  destination: number,
  trafficClass: number,
  payloadLength: number,
  identification: number,
  dontFragment = true,
): void {
  view.setUint8(offset, 0x45);
  view.setUint8(offset + 1, trafficClass);
  view.setUint16(offset + 2, IPV4_HEADER_BYTES + payloadLength);
  view.setUint16(offset + 4, identification);
  view.setUint16(offset + 6, dontFragment ? DONT_FRAGMENT : 0);
  view.setUint8(offset + 8, HOP_LIMIT);
  view.setUint8(offset + 9, IP_PROTOCOL_UDP);
  view.setUint16(offset + 10, 0);
  view.setUint32(offset + 12, source);
  view.setUint32(offset + 16, destination);
  view.setUint16(offset + 10, internetChecksum(view, offset, IPV4_HEADER_BYTES));
}

/** Writes an IPv6 header of 40 bytes, flow label 0, for UDP. Addresses in four words each. */
export function writeIpv6Header(
  view: DataView,
  offset: number,
  source0: number,
  source1: number,
  source2: number,
  source3: number,
  destination: IpAddress,
  trafficClass: number,
  payloadLength: number,
): void {
  view.setUint32(offset, 0x6000_0000 | (trafficClass << 20));
  view.setUint16(offset + 4, payloadLength);
  view.setUint8(offset + 6, IP_PROTOCOL_UDP);
  view.setUint8(offset + 7, HOP_LIMIT);
  view.setUint32(offset + 8, source0);
  view.setUint32(offset + 12, source1);
  view.setUint32(offset + 16, source2);
  view.setUint32(offset + 20, source3);
  destination.writeGid(view, offset + 24);
}

/** Writes a UDP header of 8 bytes with checksum 0, as rxe sends it. */
export function writeUdpHeader(
  view: DataView,
  offset: number,
  sourcePort: number,
  destinationPort: number,
  payloadLength: number,
): void {
  view.setUint16(offset, sourcePort);
  view.setUint16(offset + 2, destinationPort);
  view.setUint16(offset + 4, UDP_HEADER_BYTES + payloadLength);
  view.setUint16(offset + 6, 0);
}

/**
 * Fills the GRH area of a UD receive. Allocates nothing.
 * @param source0, source1, source2, source3 the sender's address as a GID.
 * @param destination the local address that was hit; its family decides the form.
 * @param trafficClass TOS or traffic class, 0 where unknown.
 * @param udpPayloadLength of the packet, ICRC included.
 */
export function writeGrh(
  view: DataView,
  offset: number,
  source0: number,
  source1: number,
  source2: number,
  source3: number,
  destination: IpAddress,
  trafficClass: number,
  udpPayloadLength: number,
): void {
  const udpLength = UDP_HEADER_BYTES + udpPayloadLength;
  if (destination.family === 6) {
    writeIpv6Header(
      view,
      offset,
      source0,
      source1,
      source2,
      source3,
      destination,
      trafficClass,
      udpLength,
    );
    return;
  }
  for (let at = offset; at < offset + GRH_BYTES - IPV4_HEADER_BYTES; at += 4) view.setInt32(at, 0);
  const at = offset + GRH_BYTES - IPV4_HEADER_BYTES;
  writeIpv4Header(view, at, source3, destination.word3, trafficClass, udpLength, 0);
}

/** What a GRH area says. */
export interface Grh {
  source: IpAddress;
  destination: IpAddress;
  trafficClass: number;
}

/**
 * Reads the GRH area of a UD receive, made by farpage or by hardware: IPv6 when its first nibble is
 * 6 and no right IPv4 header stands in its second half; null when it is neither, or not all there.
 */
export function decodeGrh(view: DataView, offset: number): Grh | null {
  if (offset < 0 || offset + GRH_BYTES > view.byteLength) return null;
  const v4 = offset + GRH_BYTES - IPV4_HEADER_BYTES;
  if (view.getUint8(v4) === 0x45 && internetChecksum(view, v4, IPV4_HEADER_BYTES) === 0) {
    return {
      source: IpAddress.v4(view.getUint32(v4 + 12)),
      destination: IpAddress.v4(view.getUint32(v4 + 16)),
      trafficClass: view.getUint8(v4 + 1),
    };
  }
  if (view.getUint8(offset) >>> 4 !== 6) return null;
  return {
    source: IpAddress.fromGid(view, offset + 8),
    destination: IpAddress.fromGid(view, offset + 24),
    trafficClass: (view.getUint16(offset) >>> 4) & 255,
  };
}
