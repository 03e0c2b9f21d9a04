// SPDX-License-Identifier: MIT
// What a capture proves about a peer.

import { run } from "./processes.js";

/** BTH opcodes of SENDs and RDMA WRITEs on reliable connections: 0 to this. */
const REQUEST_OPCODE_MAX = 0x0b;
const RC_ACKNOWLEDGE = 0x11;
const NAK_INVALID_REQUEST = 0x61;

const OPCODES = [
  ...["SEND First", "SEND Middle", "SEND Last", "SEND Last with immediate"],
  ...["SEND Only", "SEND Only with immediate", "RDMA WRITE First", "RDMA WRITE Middle"],
  ...["RDMA WRITE Last", "RDMA WRITE Last with immediate", "RDMA WRITE Only"],
  "RDMA WRITE Only with immediate",
];

/** One packet of a request, as it was first seen. */
interface Seen {
  readonly frame: string;
  readonly opcode: number;
  readonly udpBytes: string;
}

/**
 * Looks for a PSN that `peer` used for two different packets of one queue pair, which it never may
 * (IBTA 9.4.1.1: what is sent again is the same packet), and which was answered as invalid later.
 * For captures of fewer than 2^24 packets.
 * @returns both packets in words; null when there are none.
 */
export async function contradictionIn(pcap: string, peer: string): Promise<string | null> {
  const fields = ["frame.number", "ip.src", "ipv6.src", "infiniband.bth.destqp"].concat([
    "infiniband.bth.psn",
    "infiniband.bth.opcode",
    "udp.length",
    "infiniband.aeth.syndrome",
  ]);
  const columns = fields.flatMap((field) => ["-e", field]);
  const text = await run(["tshark", "-n", "-r", pcap, "-T", "fields", ...columns]);
  const first = new Map<string, Seen>();
  let contradiction: string | null = null;
  for (const line of text.split("\n")) {
    const [frame = "", v4, v6, qpn, psn, opcodeText, udpBytes = "", syndrome] = line.split("\t");
    const opcode = Number(opcodeText || -1);
    const isPeers = (v4 || v6) === peer;
    if (!isPeers && opcode === RC_ACKNOWLEDGE && Number(syndrome) === NAK_INVALID_REQUEST) {
      if (contradiction !== null) return contradiction;
    }
    if (!isPeers || opcode < 0 || opcode > REQUEST_OPCODE_MAX) continue;
    const key = `${qpn} ${psn}`;
    const before = first.get(key);
    if (before === undefined) first.set(key, { frame, opcode, udpBytes });
    else if (before.opcode !== opcode || before.udpBytes !== udpBytes) {
      const was = `${OPCODES[before.opcode]} of ${before.udpBytes} bytes (frame ${before.frame})`;
      const is = `${OPCODES[opcode]} of ${udpBytes} bytes (frame ${frame})`;
      contradiction ??= `PSN ${psn} of queue pair ${qpn} was ${was}, then ${is}`;
    }
  }
  return null;
}
