// SPDX-License-Identifier: MIT
// A running host's own memory, as plain data: for `farpage mem INSTANCE`.

import { z } from "zod";
import { arenaView } from "../../mm/index.js";
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

/** Walks the frames once; costs nothing until it is asked for. */
export function memoryStatisticsOf(source: OsMemorySource): Readonly<Record<string, unknown>> {
  return { ...arenaView(source.memory), system: source.systemPages() };
}
