// SPDX-License-Identifier: MIT
// `farpage stat`: the counters of a running instance.

import { z } from "zod";
import {
  ControlClient,
  FarpageError,
  type HostStatistics,
  type Instance,
  STATISTICS,
} from "../runtime/index.js";
import { findInstance } from "./instances.js";
import { checkOptions, STAT_OPTIONS } from "./options.js";
import type { Reporter } from "./reporter.js";

const REPLY = z.object({ statistics: STATISTICS });

export async function runStat(
  target: string | undefined,
  raw: unknown,
  reporter: Reporter,
): Promise<void> {
  const options = checkOptions(STAT_OPTIONS, raw);
  const instance = await findInstance(target, options.data);
  const statistics = await statisticsOfInstance(instance);
  const { pid, name } = instance;
  const text = [
    `${name} (process ${pid}) on ${instance.addresses.join(", ")}`,
    ...statisticsText(statistics),
  ].join("\n");
  reporter.event("statistics", { pid, name, ...statistics }, text);
}

/** @throws FarpageError as `ControlClient`; EPROTO for an answer that is none. */
export async function statisticsOfInstance({ path }: Instance): Promise<HostStatistics> {
  const client = await ControlClient.connect(path);
  try {
    const reply = REPLY.safeParse(await client.ask({ request: "stat" }));
    if (!reply.success) throw new FarpageError("EPROTO", "the instance's answer is no statistics");
    return reply.data.statistics;
  } finally {
    client.close();
  }
}

/** One line a queue pair with what it is and carries, then what went wrong, if anything did. */
function statisticsText(statistics: HostStatistics): string[] {
  const lines = [`  all packets: ${countsText(statistics.device.counters)}`];
  const lanes = statistics.lanes.length > 1 ? statistics.lanes : [];
  for (const { lane, queuePairs, device, link } of lanes) {
    const { packetsReceived = 0, packetsSent = 0 } = device.counters;
    const { handedOn = 0, handedOnLost = 0 } = link;
    lines.push(
      `  lane ${lane}: ${queuePairs} queue pairs, ${packetsReceived} packets received, ` +
        `${packetsSent} sent, ${handedOn} bursts handed on to other lanes, ${handedOnLost} lost`,
    );
  }
  const laneText = (lane: number) => (lanes.length === 0 ? "" : `, lane ${lane}`);
  const drops = countsText(statistics.device.drops);
  if (drops !== "") lines.push(`    dropped: ${drops}`);
  for (const { address, mtu, icrcErrors } of statistics.ports) {
    lines.push(`  port ${address}: MTU ${mtu}, ${icrcErrors} ICRC errors`);
  }
  for (const qp of statistics.queuePairs) {
    const peer = qp.peer === null ? "" : ` to ${qp.peer} QPN ${hex(qp.peerQpn ?? 0)}`;
    lines.push(
      `  ${qp.type} QPN ${hex(qp.qpn)} on ${qp.address}${peer}${laneText(qp.lane)}: ${qp.state}, ` +
        `${qp.sends} sends and ${qp.receives} receives posted`,
    );
    const counters = countsText(qp.counters);
    if (counters !== "") lines.push(`    ${counters}`);
    const dropped = countsText(qp.drops);
    if (dropped !== "") lines.push(`    dropped: ${dropped}`);
  }
  return lines;
}

/** Counts that are not 0, by their names in `docs/transport.md`. */
function countsText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .filter(([, count]) => count !== 0)
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");
}

function hex(qpn: number): string {
  return `0x${qpn.toString(16).padStart(6, "0")}`;
}
