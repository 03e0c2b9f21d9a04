// SPDX-License-Identifier: MIT
// Writes what crosses the simulated wire as a capture file (pcapng, by the writer of `src/trace`),
// for tshark and its like: one interface per port of each host, as its sender saw the packet.

import { closeSync, openSync, writeSync } from "node:fs";
import type { IpAddress } from "../../src/base/index.js";
import type { PacketObserver, SimClock, SimLink } from "../../src/sim/index.js";
import {
  headerBytesOf,
  INTERFACE_BYTES_MAX,
  PACKET_FLAG,
  PACKET_OVERHEAD_BYTES_MAX,
  packetDataAt,
  Timestamp,
  writeInterface,
  writePacket,
  writeSectionHeader,
  writeSentHeaders,
} from "../../src/trace/index.js";

const SNAP_BYTES = 65_535;

/** One capture file; `observe` goes among the observers of a network. */
export class PcapWriter {
  private readonly file: number;
  private readonly clock: SimClock;
  private readonly bytes = new Uint8Array(
    INTERFACE_BYTES_MAX + PACKET_OVERHEAD_BYTES_MAX + SNAP_BYTES,
  );
  private readonly view = new DataView(this.bytes.buffer);
  /** Virtual time begins in 1970. */
  private readonly time = new Timestamp(0);
  private readonly firstInterfaces = new Map<SimLink, number>();
  private interfaceCount = 0;

  constructor(path: string, clock: SimClock) {
    this.file = openSync(path, "w");
    this.clock = clock;
    this.write(writeSectionHeader(this.view, 0, "farpage simulation"));
  }

  readonly observe: PacketObserver = (link, flow, bytes, offset, length, segmentIndex) => {
    const source = link.addresses[flow.port] as IpAddress;
    const interfaceNumber = this.firstInterfaceOf(link) + flow.port;
    const { view } = this;
    const data = packetDataAt(0);
    const at = writeSentHeaders(view, data, source, link.sourcePort, flow, segmentIndex, length);
    this.bytes.set(bytes.subarray(offset, offset + length), at);
    this.time.set(this.clock.nowNs);
    const total = headerBytesOf(source) + length;
    const flags = PACKET_FLAG.OUTBOUND;
    this.write(writePacket(view, 0, interfaceNumber, this.time, total, total, flags, 0));
  };

  close(): void {
    closeSync(this.file);
  }

  private firstInterfaceOf(link: SimLink): number {
    const known = this.firstInterfaces.get(link);
    if (known !== undefined) return known;
    const first = this.interfaceCount;
    this.firstInterfaces.set(link, first);
    for (const address of link.addresses) {
      const name = `${link.name} ${address}`;
      this.write(writeInterface(this.view, 0, name, address, SNAP_BYTES));
      this.interfaceCount++;
    }
    return first;
  }

  private write(length: number): void {
    writeSync(this.file, this.bytes, 0, length);
  }
}
