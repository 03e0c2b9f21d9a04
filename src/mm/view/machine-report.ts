// SPDX-License-Identifier: MIT
// A machine's memory as text, and as one object for programs (`docs/memory.md`).

import {
  findingsOf,
  hugeOrder,
  minFreeBytes,
  unmovableBlockShare,
  usableShare,
} from "./findings.js";
import { type OrderView, orderViews, sumCounts } from "./fragmentation.js";
import type { TypeFree } from "./free-lists-text.js";
import type { MachineMemory } from "./machine.js";
import { bytesText, columnsText, shareText } from "./words.js";

const TOTALS: readonly (readonly [field: string, text: string])[] = [
  ["MemTotal", "total"],
  ["MemFree", "free"],
  ["MemAvailable", "available"],
  ["Cached", "cached"],
  ["AnonPages", "anonymous"],
  ["Slab", "slab"],
  ["SUnreclaim", "slab that stays"],
  ["PageTables", "page tables"],
  ["Mlocked", "locked"],
];
/** Counters that tell of compaction and of huge pages asked for. */
const COUNTER =
  /^(?:compact_|thp_fault_|thp_collapse_|thp_migration_|pgmigrate_|htlb_)[a-z_0-9]{1,48}$/;
/** Signs of a bar that stands for 0 to 100 %. */
const BAR_WIDTH = 20;

/** The report, a line each. */
export function machineText(machine: MachineMemory, name: string): string[] {
  return [
    `memory of ${name}`,
    ...totalsText(machine),
    ...zonesText(machine),
    ...typesText(machine),
    ...hugeText(machine),
    ...workText(machine),
    ...findingsText(machine),
  ];
}

/** Everything that was read, and what it comes to. Shares are 0 .. 1, amounts bytes. */
export function machineJson(machine: MachineMemory): Record<string, unknown> {
  const counts = sumCounts(machine.zones.map((zone) => zone.counts));
  return {
    pageBytes: machine.pageBytes,
    isPageBytesKnown: machine.isPageBytesKnown,
    hugePageBytes: machine.hugePageBytes,
    meminfo: Object.fromEntries(machine.meminfo),
    zones: machine.zones.map(({ node, zone, counts: free }) => ({
      node,
      zone,
      orders: orderViews(free),
    })),
    orders: orderViews(counts),
    hugePageShareOfFree: usableShare(machine),
    unmovableShareOfBlocks: unmovableBlockShare(machine),
    pageTypes:
      machine.pageTypes === null
        ? null
        : {
            pageBlockOrder: machine.pageTypes.pageBlockOrder,
            free: machine.pageTypes.free,
            blocks: machine.pageTypes.blocks.map(({ node, zone, blocks }) => ({
              node,
              zone,
              ...Object.fromEntries(blocks),
            })),
          },
    hugePools: machine.hugePools,
    transparent: Object.fromEntries(machine.transparent),
    settings: Object.fromEntries(machine.settings),
    counters: countersOf(machine),
    findings: findingsOf(machine),
    unread: Object.fromEntries(machine.unread),
    notices: machine.notices,
  };
}

function countersOf({ vmstat }: MachineMemory): Record<string, number> {
  return Object.fromEntries([...vmstat].filter(([name]) => COUNTER.test(name)));
}

function totalsText({ meminfo }: MachineMemory): string[] {
  const parts = TOTALS.filter(([field]) => meminfo.has(field)).map(
    ([field, text]) => `${text} ${bytesText(meminfo.get(field) as number)}`,
  );
  return parts.length === 0 ? [] : [`  ${parts.join(", ")}`];
}

function zonesText(machine: MachineMemory): string[] {
  if (machine.zones.length === 0) return [];
  const huge = hugeOrder(machine);
  const all = sumCounts(machine.zones.map((zone) => zone.counts));
  const views = orderViews(all);
  const zones = machine.zones.map(
    ({ node, zone, counts }) =>
      `node ${node} ${zone} ${bytesText(pagesOf(counts) * machine.pageBytes)}`,
  );
  const rows = views.map((view) => [
    `  ${bytesText(machine.pageBytes * 2 ** view.order)}`,
    `${view.freeBlocks}`,
    shareText(view.usableShare),
    indexText(view),
    `${bar(view.usableShare)}${view.order === huge ? "  <- huge page" : " ".repeat(14)}`,
  ]);
  const assumed = machine.isPageBytesKnown ? "" : "; pages are taken for 4 KiB";
  return [
    "",
    `free memory by size of block (${zones.join(", ")}${assumed})`,
    ...columnsText([["  block", "free", "usable", "index", ""], ...rows]),
    "  usable: share of the free memory that a request of this size could get as it lies;",
    "  index: served at once, else from 0.000 (too little memory) to 1.000 (enough, in pieces)",
  ];
}

function indexText({ fragmentationIndex }: OrderView): string {
  return fragmentationIndex < 0 ? "served" : fragmentationIndex.toFixed(3);
}

function bar(share: number): string {
  const filled = Math.round(share * BAR_WIDTH);
  return `|${"#".repeat(filled)}${" ".repeat(BAR_WIDTH - filled)}|`;
}

function pagesOf(counts: readonly number[]): number {
  return counts.reduce((sum, count, order) => sum + count * 2 ** order, 0);
}

function typesText(machine: MachineMemory): string[] {
  const { pageTypes } = machine;
  if (pageTypes === null) return [];
  const free = new Map<string, TypeFree[]>();
  for (const row of pageTypes.free) free.set(row.type, [...(free.get(row.type) ?? []), row]);
  const blocks = new Map<string, number>();
  for (const zone of pageTypes.blocks) {
    for (const [type, count] of zone.blocks) blocks.set(type, (blocks.get(type) ?? 0) + count);
  }
  const blockCount = [...blocks.values()].reduce((sum, count) => sum + count, 0);
  const rows = [...new Set([...free.keys(), ...blocks.keys()])].flatMap((type) => {
    const lists = free.get(type) ?? [];
    const bytes = pagesOf(sumCounts(lists.map(({ counts }) => counts))) * machine.pageBytes;
    const count = blocks.get(type) ?? 0;
    if (bytes === 0 && count === 0) return [];
    const least = lists.some(({ isAtLeast }) => isAtLeast) ? ">= " : "";
    const share = blockCount === 0 ? "-" : shareText(count / blockCount);
    return [[`  ${type}`, `${least}${bytesText(bytes)}`, `${count}`, share]];
  });
  return [
    "",
    ...columnsText([["by what it is set apart for", "free", "blocks", "share"], ...rows]),
  ];
}

function hugeText(machine: MachineMemory): string[] {
  const lines = machine.hugePools.map(({ pageBytes, total, free, reserved, surplus }) => {
    const more = `${reserved ?? "?"} reserved, ${surplus ?? "?"} surplus`;
    return `  set aside of ${bytesText(pageBytes)}: ${total ?? "?"}, ${free ?? "?"} free, ${more}`;
  });
  const { transparent, meminfo } = machine;
  const modes = ["enabled", "defrag", "shmem_enabled"]
    .filter((name) => transparent.has(name))
    .map((name) => `${name} ${transparent.get(name)}`);
  if (modes.length > 0) lines.push(`  transparent: ${modes.join(", ")}`);
  const used = ["AnonHugePages", "ShmemHugePages", "FileHugePages"]
    .filter((name) => meminfo.has(name))
    .map((name) => `${name} ${bytesText(meminfo.get(name) as number)}`);
  if (used.length > 0) lines.push(`  in use: ${used.join(", ")}`);
  return lines.length === 0 ? [] : ["", "huge pages", ...lines];
}

function workText(machine: MachineMemory): string[] {
  const { vmstat } = machine;
  const names = [
    ["compact_stall", "requests that waited for it"],
    ["compact_success", "served"],
    ["compact_fail", "in vain"],
    ["compact_daemon_wake", "turns of the background"],
    ["pgmigrate_success", "pages moved"],
    ["pgmigrate_fail", "pages that didn't move"],
  ].filter(([name]) => vmstat.has(name as string));
  if (names.length === 0) return [];
  const parts = names.map(([name, text]) => `${text} ${vmstat.get(name as string)}`);
  const min = minFreeBytes(machine);
  return [
    "",
    "compaction since boot",
    `  ${parts.join(", ")}`,
    ...(min === null ? [] : [`  kept free for the kernel: ${bytesText(min)}`]),
  ];
}

function findingsText(machine: MachineMemory): string[] {
  const findings = findingsOf(machine);
  if (findings.length === 0) return ["", "nothing stands in the way of huge pages"];
  return [
    "",
    "what could be done",
    ...findings.flatMap(({ text, remedies }) => [
      `  - ${text}`,
      ...remedies.flatMap(({ command, cost }) => [`      ${command}`, `        costs: ${cost}`]),
    ]),
  ];
}
