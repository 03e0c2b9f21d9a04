// SPDX-License-Identifier: MIT
// Reads classic pcap files (the libpcap savefile format: 24 bytes of file header, 16 before each
// frame) and takes Ethernet, IP and UDP apart, for tests. Captures are trusted: anything odd
// throws.

import { readFileSync } from "node:fs";
import { IpAddress } from "../../src/base/index.js";

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const LINKTYPE_ETHERNET = 1;

export interface PcapFrame {
  /** Since the epoch. */
  readonly timestampUs: number;
  readonly bytes: Uint8Array;
}

/** All frames of a little-endian Ethernet capture. @throws Error for any other kind of file. */
export function readPcap(path: string | URL): PcapFrame[] {
  const file = new Uint8Array(readFileSync(path));
  const view = new DataView(file.buffer);
  if (view.getUint32(0, true) !== MAGIC_MICROSECONDS) throw new Error(`${path}: no pcap file`);
  if (view.getUint32(20, true) !== LINKTYPE_ETHERNET) throw new Error(`${path}: not Ethernet`);
  const frames: PcapFrame[] = [];
  let at = FILE_HEADER_BYTES;
  while (at < file.length) {
    const captured = view.getUint32(at + 8, true);
    if (captured !== view.getUint32(at + 12, true)) throw new Error(`${path}: a truncated frame`);
    const bytes = file.slice(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + captured);
    if (bytes.length !== captured) throw new Error(`${path}: ends within a frame`);
    const seconds = view.getUint32(at, true);
    frames.push({ timestampUs: seconds * 1e6 + view.getUint32(at + 4, true), bytes });
    at += RECORD_HEADER_BYTES + captured;
  }
  return frames;
}

/** A UDP datagram in its IP packet. */
export interface UdpDatagram {
  readonly timestampUs: number;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly trafficClass: number;
  readonly hopLimit: number;
  /** IPv4: the identification; IPv6: the flow label. */
  readonly identificationOrFlow: number;
  /** IPv4: the word of flags and fragment offset. */
  readonly fragmentWord: number;
  readonly udpChecksum: number;
  /** IP header, UDP header, payload; Ethernet padding cut off. */
  readonly packet: Uint8Array;
  /** Where in `packet` the UDP payload begins. */
  readonly payloadOffset: number;
}

const ETHERNET_BYTES = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const PROTOCOL_UDP = 17;

/** The datagram in an Ethernet frame; null when it holds something else (IGMP, say). */
export function udpOf(frame: PcapFrame): UdpDatagram | null {
  const all = new DataView(frame.bytes.buffer, frame.bytes.byteOffset, frame.bytes.byteLength);
  const etherType = all.getUint16(12);
  const v4 = etherType === ETHERTYPE_IPV4;
  if (!v4 && etherType !== ETHERTYPE_IPV6) return null;
  if (all.getUint8(ETHERNET_BYTES + (v4 ? 9 : 6)) !== PROTOCOL_UDP) return null;
  const ipBytes = v4 ? 20 : 40;
  const udpLength = all.getUint16(ETHERNET_BYTES + ipBytes + 4);
  const end = ETHERNET_BYTES + ipBytes + udpLength;
  const packet = frame.bytes.slice(ETHERNET_BYTES, end);
  const ip = new DataView(packet.buffer);
  const address = (at: number) => (v4 ? IpAddress.v4(ip.getUint32(at)) : IpAddress.fromGid(ip, at));
  return {
    timestampUs: frame.timestampUs,
    source: address(v4 ? 12 : 8),
    destination: address(v4 ? 16 : 24),
    sourcePort: ip.getUint16(ipBytes),
    destinationPort: ip.getUint16(ipBytes + 2),
    trafficClass: v4 ? ip.getUint8(1) : (ip.getUint16(0) >>> 4) & 255,
    hopLimit: ip.getUint8(v4 ? 8 : 7),
    identificationOrFlow: v4 ? ip.getUint16(4) : ip.getUint32(0) & 0xfffff,
    fragmentWord: v4 ? ip.getUint16(6) : 0,
    udpChecksum: ip.getUint16(ipBytes + 6),
    packet,
    payloadOffset: ipBytes + 8,
  };
}
