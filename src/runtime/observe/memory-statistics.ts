// SPDX-License-Identifier: MIT
// A running host's own memory, as plain data: for `farpage mem INSTANCE`.

import { z } from "zod";
import { arenaView, type PhysicalMemory } from "../../mm/index.js";
import type { OsMemorySource } from "../../os/index.js";

const amount = z.number().nonnegative();
const share = z.number().min(0).max(1);

const ZONE_STATISTICS = z.object({
  name: z.string(),
  kind: z.string(),
  bytes: amount,
  freeBytes: amount,
  granuleBytes: amount,
  metadataBytes: amount,
  orders: z
    .array(
      z.object({
        order: amount,
        freeBlocks: amount,
        usableShare: share,
        fragmentationIndex: z.number().min(-1).max(1),
      }),
    )
    .max(64),
  types: z.array(z.object({ type: z.string(), freeBytes: amount, blocks: amount })).max(64),
  blocks: amount,
  blocksStuck: amount,
  bytesStuck: amount,
});

/** The arena, and what pages the system gave for it; null where it doesn't tell. */
export const MEMORY_STATISTICS = z.object({
  policy: z.string(),
  /** Lanes that have answered: what follows is theirs together. */
  laneCount: amount,
  zones: z.array(ZONE_STATISTICS),
  pins: z.array(z.object({ owner: z.string(), bytes: amount, pins: amount })),
  pinsLeftOut: amount,
  counters: z.record(z.string(), z.number()),
  system: z
    .object({
      mappedBytes: amount,
      residentBytes: amount,
      transparentHugeBytes: amount,
      hugetlbBytes: amount,
    })
    .nullable(),
});
export type MemoryStatistics = z.infer<typeof MEMORY_STATISTICS>;

/**
 * Walks the frames once; costs nothing until it is asked for.
 * @param lane which of a host's several lanes it is, whose zones say so; null: there is one.
 * @param processes the memory of the host's processes, which is cut from a buffer of the arena.
 */
export function memoryStatisticsOf(
  source: OsMemorySource,
  lane: number | null,
  processes: PhysicalMemory | null = null,
): MemoryStatistics {
  const prefix = lane === null ? "" : `lane ${lane}, `;
  const arena = statisticsOf(source.memory, prefix, source.systemPages());
  if (processes === null) return arena;
  return { ...mergeMemory([arena, statisticsOf(processes, prefix, null)]), laneCount: 1 };
}

function statisticsOf(
  memory: PhysicalMemory,
  prefix: string,
  system: MemoryStatistics["system"],
): MemoryStatistics {
  const { counters, pins, pinsLeftOut, policy, zones } = arenaView(memory);
  return {
    policy,
    laneCount: 1,
    zones: zones.map((zone) => ({
      ...zone,
      name: `${prefix}${zone.name}`,
      orders: [...zone.orders],
      types: [...zone.types],
    })),
    pins: [...pins],
    pinsLeftOut,
    counters: { ...counters },
    system,
  };
}

/** The memory of all lanes: their zones one after the other, pins and counters added up. */
export function mergeMemory(lanes: readonly MemoryStatistics[]): MemoryStatistics {
  const pins = new Map<string, { owner: string; bytes: number; pins: number }>();
  const counters: Record<string, number> = {};
  let system = null as MemoryStatistics["system"];
  for (const lane of lanes) {
    for (const { owner, bytes, pins: count } of lane.pins) {
      const sum = pins.get(owner) ?? { owner, bytes: 0, pins: 0 };
      pins.set(owner, { owner, bytes: sum.bytes + bytes, pins: sum.pins + count });
    }
    for (const [name, count] of Object.entries(lane.counters)) {
      counters[name] = (counters[name] ?? 0) + count;
    }
    if (lane.system === null) continue;
    const { hugetlbBytes, mappedBytes, residentBytes, transparentHugeBytes } = lane.system;
    system = {
      mappedBytes: mappedBytes + (system?.mappedBytes ?? 0),
      residentBytes: residentBytes + (system?.residentBytes ?? 0),
      transparentHugeBytes: transparentHugeBytes + (system?.transparentHugeBytes ?? 0),
      hugetlbBytes: hugetlbBytes + (system?.hugetlbBytes ?? 0),
    };
  }
  return {
    policy: lanes[0]?.policy ?? "",
    laneCount: lanes.length,
    zones: lanes.flatMap(({ zones }) => zones),
    pins: [...pins.values()].sort((a, b) => b.bytes - a.bytes || (a.owner < b.owner ? -1 : 1)),
    pinsLeftOut: lanes.reduce((sum, lane) => sum + lane.pinsLeftOut, 0),
    counters,
    system,
  };
}
