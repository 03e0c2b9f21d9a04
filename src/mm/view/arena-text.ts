// SPDX-License-Identifier: MIT
// A host's own memory for people.

import { FRAME_BYTES, PAGE_BLOCK_FRAMES } from "../frames/constants.js";
import type { ArenaView, ArenaZone } from "./arena.js";
import { bytesText, columnsText, shareText } from "./words.js";

const PAGE_BLOCK_BYTES = PAGE_BLOCK_FRAMES * FRAME_BYTES;

/** The report, a line each. */
export function arenaText(view: ArenaView): string[] {
  const { counters } = view;
  return [
    `  policy ${view.policy}`,
    ...view.zones.flatMap(zoneText),
    ...pinsText(view),
    `  moved so far: ${bytesText(counters["bytesMoved"] ?? 0)}; blocks of 2 MiB and above: ` +
      `${counters["hugeAllocations"] ?? 0} given, ${counters["hugeFailures"] ?? 0} refused`,
  ];
}

function zoneText(zone: ArenaZone): string[] {
  const used = zone.bytes - zone.freeBytes;
  const huge = zone.orders.find(({ order }) => zone.granuleBytes * 2 ** order >= PAGE_BLOCK_BYTES);
  const stuck =
    zone.kind === "normal" && zone.blocks > 0
      ? [
          `    what can't move now: ${bytesText(zone.bytesStuck)} ` +
            `(${shareText(zone.bytesStuck / zone.bytes)} of it) in ` +
            `${shareText(zone.blocksStuck / zone.blocks)} of its page blocks`,
        ]
      : [];
  const usable =
    zone.freeBytes > 0 && huge !== undefined
      ? `, ${shareText(huge.usableShare)} of that in blocks of 2 MiB and above`
      : "";
  return [
    `  zone ${zone.name} (${zone.kind}): ${bytesText(zone.bytes)}, ${bytesText(used)} used, ` +
      `${bytesText(zone.freeBytes)} free${usable}; ` +
      `metadata ${bytesText(zone.metadataBytes)} at ${bytesText(zone.granuleBytes)} a record`,
    ...ordersText(zone),
    ...zone.types.map(
      ({ type, freeBytes, blocks }) =>
        `    ${type}: ${bytesText(freeBytes)} free, ${blocks} page blocks`,
    ),
    ...stuck,
  ];
}

function ordersText(zone: ArenaZone): string[] {
  const rows = zone.orders
    .filter(({ freeBlocks }) => freeBlocks > 0)
    .map(({ order, freeBlocks, usableShare, fragmentationIndex }) => [
      `    ${bytesText(zone.granuleBytes * 2 ** order)}`,
      `${freeBlocks}`,
      shareText(usableShare),
      fragmentationIndex < 0 ? "served" : fragmentationIndex.toFixed(3),
    ]);
  return rows.length === 0 ? [] : columnsText([["    block", "free", "usable", "index"], ...rows]);
}

function pinsText({ pins, pinsLeftOut }: ArenaView): string[] {
  if (pins.length === 0) return ["  pinned: nothing"];
  const rows = pins.map(({ owner, bytes, pins: count }) => [
    `    ${owner}`,
    bytesText(bytes),
    `${count} pins`,
  ]);
  const more = pinsLeftOut > 0 ? [`    and ${pinsLeftOut} more owners`] : [];
  return ["  pinned, by who uses it", ...columnsText(rows), ...more];
}
