// SPDX-License-Identifier: MIT
// Writes what crosses the simulated wire as a capture file (libpcap's savefile format, link type
// "raw IP"), for tshark and its like.

import { closeSync, openSync, writeSync } from "node:fs";
import type { IpAddress } from "../../src/base/index.js";
import type { PacketObserver, SimClock } from "../../src/sim/index.js";
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  UDP_HEADER_BYTES,
  writeIpv4Header,
  writeIpv6Header,
  writeUdpHeader,
} from "../../src/wire/index.js";

/** Nanosecond timestamps. */
const MAGIC_NANOSECONDS = 0xa1b23c4d;
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const LINKTYPE_RAW = 101;
const SNAP_BYTES = 65_535;

/** One capture file; `observe` goes among the observers of a network. */
export class PcapWriter {
  private readonly file: number;
  private readonly clock: SimClock;

  constructor(path: string, clock: SimClock) {
    this.file = openSync(path, "w");
    this.clock = clock;
    const header = new DataView(new ArrayBuffer(FILE_HEADER_BYTES));
    header.setUint32(0, MAGIC_NANOSECONDS, true);
    header.setUint16(4, 2, true);
    header.setUint16(6, 4, true);
    header.setUint32(16, SNAP_BYTES, true);
    header.setUint32(20, LINKTYPE_RAW, true);
    writeSync(this.file, header);
  }

  readonly observe: PacketObserver = (link, flow, bytes, offset, length, segmentIndex) => {
    const source = link.addresses[flow.port] as IpAddress;
    const { destination, trafficClass, destinationPort } = flow;
    const isV4 = source.family === 4;
    const ipBytes = isV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    const packetBytes = ipBytes + UDP_HEADER_BYTES + length;
    const record = new Uint8Array(RECORD_HEADER_BYTES + packetBytes);
    const view = new DataView(record.buffer);
    const nowNs = this.clock.nowNs;
    view.setUint32(0, Math.floor(nowNs / 1e9), true);
    view.setUint32(4, nowNs % 1e9, true);
    view.setUint32(8, packetBytes, true);
    view.setUint32(12, packetBytes, true);
    const at = RECORD_HEADER_BYTES;
    const udpBytes = UDP_HEADER_BYTES + length;
    const { word0, word1, word2, word3 } = source;
    if (isV4) {
      writeIpv4Header(view, at, word3, destination.word3, trafficClass, udpBytes, segmentIndex);
    } else {
      writeIpv6Header(view, at, word0, word1, word2, word3, destination, trafficClass, udpBytes);
    }
    writeUdpHeader(view, at + ipBytes, link.sourcePort, destinationPort, length);
    record.set(bytes.subarray(offset, offset + length), at + ipBytes + UDP_HEADER_BYTES);
    writeSync(this.file, record);
  };

  close(): void {
    closeSync(this.file);
  }
}
