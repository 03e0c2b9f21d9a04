// SPDX-License-Identifier: MIT
// What a capture, or a guest's kernel itself, proves about a peer.

import type { Guest } from "./guest.js";
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

/**
 * The kernel says so when its software RoCE goes back in a send queue (its timer, or a NAK) and
 * runs a registration again that has been done: nothing more is sent on that queue pair, for good.
 */
const REGISTERED_TWICE = /^.*rxe_reg_fast_mr: .* not free.*$/m;

/** What may make software RoCE send again, as far as the kernel counts it: of both devices. */
export interface Repetitions {
  /** Times that it went back in a send queue, for any reason. */
  readonly all: number;
  /** NAKs that said that a packet is missing. */
  readonly naks: number;
}

export async function repetitionsOf(guest: Guest): Promise<Repetitions> {
  const [all = Number.NaN, naks = Number.NaN] = await rxeCounters(guest, [
    "completer_retry_err",
    "rcvd_seq_err",
  ]);
  return { all, naks };
}

/** Counters of software RoCE by their names, each the sum of both devices. */
export async function rxeCounters(guest: Guest, names: readonly string[]): Promise<number[]> {
  const files = (name: string) => `/sys/class/infiniband/rxe?/ports/1/hw_counters/${name}`;
  const sums = names.map((name) => `cat ${files(name)} | awk '{ n += $1 } END { print n }'`);
  const text = await guest.run(sums.join("; "), 60_000);
  return text.trim().split(/\s+/).map(Number);
}

/** @returns the line in which a kernel's log says that it ran a registration twice; or null. */
export function registeredTwiceIn(log: string): string | null {
  return REGISTERED_TWICE.exec(log)?.[0].trim() ?? null;
}

/**
 * Whether that was the kernel's own doing: nobody has told it that a packet was missing.
 * @param before counters at the beginning of the case.
 * @returns why it was, in words; null when it was not.
 */
export function ownDoing(line: string, before: Repetitions, after: Repetitions): string | null {
  if (after.naks !== before.naks) return null;
  const times = after.all - before.all;
  return (
    `the kernel sent again though no packet was missing (${times} times, 0 NAKs), ` +
    `and ran a registration twice: ${line}`
  );
}
