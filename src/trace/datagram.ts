// SPDX-License-Identifier: MIT
// The IP and UDP headers of a datagram, of which a socket shows the payload only.

import type { IpAddress } from "../base/index.js";
import type { RxBurst, TxFlow } from "../transport/index.js";
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  UDP_HEADER_BYTES,
  writeIpv4Header,
  writeIpv6Header,
  writeUdpHeader,
} from "../wire/index.js";

/** Bytes of IP and UDP header in front of a payload from or to `address`. */
export function headerBytesOf(address: IpAddress): number {
  return (address.family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + UDP_HEADER_BYTES;
}

/**
 * Headers of a datagram that was sent.
 * @param identification IPv4: its place in its GSO send, which the ICRC covers.
 * @returns the offset behind them.
 */
export function writeSentHeaders(
  view: DataView,
  at: number,
  source: IpAddress,
  sourcePort: number,
  flow: TxFlow,
  identification: number,
  length: number,
): number {
  const { destination, destinationPort, trafficClass } = flow;
  const udpBytes = UDP_HEADER_BYTES + length;
  const { word0, word1, word2, word3 } = source;
  let end = at;
  if (source.family === 4) {
    const to = destination.word3;
    writeIpv4Header(view, at, word3, to, trafficClass, udpBytes, identification);
    end += IPV4_HEADER_BYTES;
  } else {
    writeIpv6Header(view, at, word0, word1, word2, word3, destination, trafficClass, udpBytes);
    end += IPV6_HEADER_BYTES;
  }
  writeUdpHeader(view, end, sourcePort, destinationPort, length);
  return end + UDP_HEADER_BYTES;
}

/**
 * Headers of a datagram that was received.
 * @param port the local UDP port.
 * @param identification, dontFragment IPv4: as the ICRC says that they were.
 */
export function writeReceivedHeaders(
  view: DataView,
  at: number,
  burst: RxBurst,
  destination: IpAddress,
  port: number,
  identification: number,
  dontFragment: boolean,
  length: number,
): number {
  const { source0, source1, source2, source3, sourcePort, trafficClass } = burst;
  const udpBytes = UDP_HEADER_BYTES + length;
  let end = at;
  if (destination.family === 4) {
    const to = destination.word3;
    const id = identification;
    writeIpv4Header(view, at, source3, to, trafficClass, udpBytes, id, dontFragment);
    end += IPV4_HEADER_BYTES;
  } else {
    const to = destination;
    writeIpv6Header(view, at, source0, source1, source2, source3, to, trafficClass, udpBytes);
    end += IPV6_HEADER_BYTES;
  }
  writeUdpHeader(view, end, sourcePort, port, length);
  return end + UDP_HEADER_BYTES;
}
