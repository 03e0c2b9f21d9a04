// SPDX-License-Identifier: MIT
// What a running host has counted, as plain data: for `farpage stat`.

import { z } from "zod";
import type { LinkCounters } from "../../os/index.js";
import {
  counterValues,
  type Device,
  dropsByName,
  QP_STATE_NAMES,
  QP_TYPE,
  type QpCore,
} from "../../transport/index.js";

const counts = z.record(z.string(), z.number());

/** One queue pair. */
const QUEUE_PAIR = z.object({
  lane: z.number().default(0),
  qpn: z.number(),
  type: z.string(),
  state: z.string(),
  /** Local address; peer's address and QPN, null where there is none (UD, not connected yet). */
  address: z.string(),
  peer: z.string().nullable(),
  peerQpn: z.number().nullable(),
  /** Requests posted and not completed; receives posted and not used. */
  sends: z.number(),
  receives: z.number(),
  counters: counts,
  drops: counts,
});

/** A host's counters. `counters` are those of `docs/transport.md`, by name. */
export const STATISTICS = z.object({
  ports: z.array(z.object({ address: z.string(), mtu: z.number(), icrcErrors: z.number() })),
  device: z.object({ counters: counts, drops: counts }),
  link: counts,
  traces: z.number(),
  queuePairs: z.array(QUEUE_PAIR),
  /** Each lane by itself; all that is above is of all of them together. */
  lanes: z
    .array(
      z.object({
        lane: z.number(),
        queuePairs: z.number(),
        device: z.object({ counters: counts, drops: counts }),
        link: counts,
      }),
    )
    .default([]),
});
export type HostStatistics = z.infer<typeof STATISTICS>;

const TYPE_NAMES = new Map<number, string>(
  Object.entries(QP_TYPE).map(([name, value]) => [value, name]),
);

/** Copies everything out; costs nothing until it is asked for. */
export function statisticsOf(
  device: Device,
  link: Readonly<LinkCounters>,
  traces: number,
): HostStatistics {
  const { drops, portIcrcErrors, ...counters } = device.counters;
  const lane = device.lane.index;
  const own = { counters, drops: dropsByName(drops) as Record<string, number> };
  return {
    ports: device.addresses.map((address, port) => ({
      address: String(address),
      mtu: device.activeMtus[port] ?? 0,
      icrcErrors: portIcrcErrors[port] ?? 0,
    })),
    device: own,
    link: { ...link },
    traces,
    queuePairs: device.queuePairs().map((qp) => queuePairOf(device, qp)),
    lanes: [{ lane, queuePairs: device.qpCount, device: own, link: { ...link } }],
  };
}

/** Those of a host whose lanes have these, lane 0 first. */
export function mergeStatistics(
  first: HostStatistics,
  others: readonly HostStatistics[],
): HostStatistics {
  const all = [first, ...others];
  return {
    ports: first.ports.map((port, index) => ({
      ...port,
      icrcErrors: all.reduce((sum, { ports }) => sum + (ports[index]?.icrcErrors ?? 0), 0),
    })),
    device: {
      counters: sumOf(all.map(({ device }) => device.counters)),
      drops: sumOf(all.map(({ device }) => device.drops)),
    },
    link: sumOf(all.map(({ link }) => link)),
    traces: first.traces,
    queuePairs: all.flatMap(({ queuePairs }) => queuePairs),
    lanes: all.flatMap(({ lanes }) => lanes),
  };
}

function sumOf(all: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const counters of all) {
    for (const [name, value] of Object.entries(counters)) sum[name] = (sum[name] ?? 0) + value;
  }
  return sum;
}

function queuePairOf(device: Device, qp: QpCore): HostStatistics["queuePairs"][number] {
  const { drops, ...counters } = counterValues(qp.counters);
  const isConnected = qp.flow !== null && qp.type === QP_TYPE.RC;
  return {
    lane: device.lane.index,
    qpn: qp.qpn,
    type: TYPE_NAMES.get(qp.type) ?? String(qp.type),
    state: QP_STATE_NAMES[qp.state] ?? String(qp.state),
    address: String(device.addresses[qp.port]),
    peer: isConnected ? String(qp.flow?.destination) : null,
    peerQpn: isConnected ? qp.destinationQpn : null,
    sends: qp.sendCount,
    receives: qp.recvCount,
    counters,
    drops: drops as Record<string, number>,
  };
}
