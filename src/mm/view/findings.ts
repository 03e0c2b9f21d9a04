// SPDX-License-Identifier: MIT
// What stands between a machine and its huge pages, and what a person could do about it: commands
// as they are typed by root, each with what it costs. Read first: Linux
// `Documentation/admin-guide/sysctl/vm.rst`, `Documentation/admin-guide/mm/transhuge.rst`.

import { orderViews, sumCounts } from "./fragmentation.js";
import type { MachineMemory } from "./machine.js";
import { bytesText, shareText } from "./words.js";

export interface Remedy {
  /** For a root shell. */
  readonly command: string;
  readonly cost: string;
}

export interface Finding {
  /** For programs; `docs/memory.md` lists them. */
  readonly id: string;
  readonly text: string;
  /** Best first; none where nothing need be done. */
  readonly remedies: readonly Remedy[];
}

/** Share of free memory that huge pages can't use, from which on it is worth a word. */
const UNUSABLE_MIN = 0.2;
/** Share of all memory below which the want is memory, not order. */
const FREE_MIN = 0.05;
/** Cache is worth dropping from this share of memory on. */
const CACHE_MIN = 0.1;
const FALLBACK_MIN = 0.05;
const KIB = 1024;

/** Orders from which on a block holds a huge page. */
export function hugeOrder(machine: MachineMemory): number {
  return Math.round(Math.log2(machine.hugePageBytes / machine.pageBytes));
}

/** @returns what there is to say, the most useful first. */
export function findingsOf(machine: MachineMemory): Finding[] {
  return [
    shortOfMemory(machine),
    fragmented(machine),
    scattered(machine),
    elsewhere(machine),
    transparentOff(machine),
    fallbacks(machine),
    noPool(machine),
    noBackground(machine),
    unevictable(machine),
    unreadable(machine),
  ].filter((finding) => finding !== null);
}

/** Share of free memory that lies in blocks of a huge page and above; null: not known. */
export function usableShare(machine: MachineMemory): number | null {
  if (machine.zones.length === 0) return null;
  const order = hugeOrder(machine);
  const counts = sumCounts(machine.zones.map((zone) => zone.counts));
  return orderViews(counts, Math.max(order, counts.length - 1))[order]?.usableShare ?? null;
}

function freeShare({ meminfo }: MachineMemory): number | null {
  const total = meminfo.get("MemTotal");
  const free = meminfo.get("MemFree");
  return total === undefined || free === undefined || total === 0 ? null : free / total;
}

/** Cached file contents and what of the slabs can be emptied. */
function cacheBytes({ meminfo }: MachineMemory): number {
  const cached = (meminfo.get("Cached") ?? 0) + (meminfo.get("Buffers") ?? 0);
  return Math.max(0, cached - (meminfo.get("Shmem") ?? 0)) + (meminfo.get("SReclaimable") ?? 0);
}

function dropCaches(machine: MachineMemory): Remedy[] {
  const total = machine.meminfo.get("MemTotal") ?? 0;
  const cache = cacheBytes(machine);
  if (cache < total * CACHE_MIN) return [];
  return [
    {
      command: "sync; echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory",
      cost:
        `frees up to ${bytesText(cache)} of cached files, which are read from disk again as ` +
        "they are wanted; then as compact_memory",
    },
  ];
}

function shortOfMemory(machine: MachineMemory): Finding | null {
  const share = freeShare(machine);
  if (share === null || share >= FREE_MIN) return null;
  const cache = dropCaches(machine);
  return {
    id: "short",
    text:
      `only ${shareText(share)} of memory is free: a request that fails may want memory, not ` +
      "order",
    remedies: [
      ...cache,
      ...(cache.length > 0
        ? []
        : [{ command: "ps -eo pid,rss,comm --sort=-rss | head", cost: "nothing: it shows who" }]),
    ],
  };
}

function fragmented(machine: MachineMemory): Finding | null {
  const usable = usableShare(machine);
  if (usable === null || 1 - usable < UNUSABLE_MIN) return null;
  const amount = ` (${bytesText(machine.listedBytes * (1 - usable))})`;
  const size = bytesText(machine.hugePageBytes);
  return {
    id: "fragmented",
    text: `${shareText(1 - usable)} of the free memory${amount} lies in pieces below ${size}`,
    remedies: [
      {
        command: "echo 1 >/proc/sys/vm/compact_memory",
        cost:
          "moves movable pages together, at some GiB/s of one processor per node; processes wait " +
          "for a page that is on its way",
      },
      ...dropCaches(machine),
    ],
  };
}

/** Few unmovable pages in many page blocks: that only foresight prevents. */
function scattered(machine: MachineMemory): Finding | null {
  const share = unmovableBlockShare(machine);
  if (share === null || share < 0.1) return null;
  return {
    id: "scattered",
    text:
      `${shareText(share)} of the page blocks are set apart for what can't move: compaction ` +
      "makes no huge page of these",
    remedies: [
      {
        command: "echo 2 >/proc/sys/vm/drop_caches",
        cost: "empties caches of inodes and directory entries: names are looked up on disk again",
      },
      {
        command: "# kernel command line, at the next boot: hugepages=N, or movablecore=SIZE",
        cost: "a reboot; what is set apart is lost to the kernel's own allocations",
      },
    ],
  };
}

/** Share of page blocks that are unmovable or reclaimable; null: not known. */
export function unmovableBlockShare({ pageTypes }: MachineMemory): number | null {
  if (pageTypes === null) return null;
  let all = 0;
  let stuck = 0;
  for (const { blocks } of pageTypes.blocks) {
    for (const [type, count] of blocks) {
      all += count;
      if (type === "Unmovable" || type === "Reclaimable") stuck += count;
    }
  }
  return all === 0 ? null : stuck / all;
}

/** Totals that count memory which is on no free list: a balloon's, or what is not online. */
function elsewhere({ meminfo, listedBytes, zones }: MachineMemory): Finding | null {
  const free = meminfo.get("MemFree");
  if (free === undefined || zones.length === 0 || Math.abs(free - listedBytes) < free / 5) {
    return null;
  }
  return {
    id: "totals-differ",
    text:
      `MemFree says ${bytesText(free)} and the free lists have ${bytesText(listedBytes)}: this ` +
      "report goes by the lists (a balloon of a virtual machine is counted in MemFree)",
    remedies: [],
  };
}

function transparentOff({ transparent }: MachineMemory): Finding | null {
  const enabled = transparent.get("enabled");
  if (enabled !== "never") return null;
  return {
    id: "thp-off",
    text: "transparent huge pages are off: farpage asks for them and gets 4 KiB pages",
    remedies: [
      {
        command: "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled",
        cost: "nothing for programs that don't ask",
      },
    ],
  };
}

function fallbacks({ vmstat, transparent }: MachineMemory): Finding | null {
  const failed = vmstat.get("thp_fault_fallback") ?? 0;
  const all = failed + (vmstat.get("thp_fault_alloc") ?? 0);
  if (all === 0 || failed / all < FALLBACK_MIN) return null;
  const remedies: Remedy[] = [];
  if (["never", "defer"].includes(transparent.get("defrag") ?? "")) {
    remedies.push({
      command: "echo defer+madvise >/sys/kernel/mm/transparent_hugepage/defrag",
      cost: "programs that ask for huge pages may wait for compaction at a fault",
    });
  }
  return {
    id: "thp-fallback",
    text: `since boot ${shareText(failed / all)} of the requests for a huge page got small ones`,
    remedies,
  };
}

function noPool(machine: MachineMemory): Finding | null {
  const pool = machine.hugePools.find(({ pageBytes }) => pageBytes === machine.hugePageBytes);
  if (pool === undefined || pool.total === null || pool.total > 0) return null;
  if ((pool.overcommit ?? 0) > 0) return null;
  return {
    id: "no-pool",
    text: `no huge page of ${bytesText(pool.pageBytes)} is set aside`,
    remedies: [
      {
        command: "sysctl vm.nr_hugepages=512",
        cost: `${bytesText(512 * pool.pageBytes)} that only users of hugetlbfs can have; ask early`,
      },
    ],
  };
}

function noBackground({ settings }: MachineMemory): Finding | null {
  if (settings.get("compaction_proactiveness") !== 0) return null;
  return {
    id: "no-background",
    text: "compaction in the background is off: each request for a large block compacts by itself",
    remedies: [
      {
        command: "sysctl vm.compaction_proactiveness=20",
        cost: "a kernel thread per node moves pages now and then; latency of who touches them",
      },
    ],
  };
}

function unevictable({ settings, meminfo }: MachineMemory): Finding | null {
  const locked = meminfo.get("Mlocked") ?? 0;
  const total = meminfo.get("MemTotal") ?? 0;
  if (settings.get("compact_unevictable_allowed") !== 0 || locked < total / 100) return null;
  return {
    id: "locked-stays",
    text: `${bytesText(locked)} are locked by mlock, and compaction may not move them`,
    remedies: [
      {
        command: "sysctl vm.compact_unevictable_allowed=1",
        cost: "processes that lock their memory see a page fault now and then",
      },
    ],
  };
}

function unreadable({ unread }: MachineMemory): Finding | null {
  const code = unread.get("proc/pagetypeinfo");
  if (code === undefined) return null;
  const isDenied = code === "EACCES" || code === "EPERM";
  return {
    id: "no-page-types",
    text: isDenied
      ? "/proc/pagetypeinfo is root's alone: how unmovable pages lie is unknown"
      : `proc/pagetypeinfo could not be read (${code}): how unmovable pages lie is unknown`,
    remedies: isDenied
      ? [{ command: "sudo farpage mem", cost: "nothing: the kernel walks its free lists once" }]
      : [],
  };
}

/** What is worth knowing of a setting besides. */
export function minFreeBytes({ settings }: MachineMemory): number | null {
  const value = settings.get("min_free_kbytes");
  return value === undefined ? null : value * KIB;
}
