// SPDX-License-Identifier: MIT
// The memory of the machine that farpage runs on, as Linux tells it: from the bytes of its files,
// however cut off or odd they are, to numbers.

import { FarpageError } from "../../base/index.js";
import {
  type PageTypes,
  parseBuddyinfo,
  parsePagetypeinfo,
  type ZoneFree,
} from "./free-lists-text.js";
import {
  asciiOf,
  chosenOf,
  linesOf,
  Notices,
  numberOf,
  singleValue,
  type TextNotice,
} from "./machine-text.js";

/** Why a file could not be read: an errno name. */
export interface UnreadFile {
  readonly code: string;
}

/** Files by their path from the root, without the first slash: bytes, or why there are none. */
export type MachineFiles = ReadonlyMap<string, Uint8Array | UnreadFile>;

/** Persistent huge pages of one size (`/sys/kernel/mm/hugepages`). null: not told. */
export interface HugePagePool {
  readonly pageBytes: number;
  readonly total: number | null;
  readonly free: number | null;
  readonly reserved: number | null;
  readonly surplus: number | null;
  readonly overcommit: number | null;
}

export interface MachineMemory {
  /** Bytes of a page, and how that is known: where nothing tells, 4096 is assumed. */
  readonly pageBytes: number;
  readonly isPageBytesKnown: boolean;
  /** Bytes of a huge page as the page tables know them. */
  readonly hugePageBytes: number;
  readonly zones: readonly ZoneFree[];
  /** Bytes in the free lists of all zones. */
  readonly listedBytes: number;
  /** null where `/proc/pagetypeinfo` could not be read. */
  readonly pageTypes: PageTypes | null;
  /** Of `/proc/meminfo` what is in kB, in bytes. */
  readonly meminfo: ReadonlyMap<string, number>;
  readonly hugePools: readonly HugePagePool[];
  /** Files of `/sys/kernel/mm/transparent_hugepage` that offer a choice: what is chosen. */
  readonly transparent: ReadonlyMap<string, string>;
  /** Counters of `/proc/vmstat`. */
  readonly vmstat: ReadonlyMap<string, number>;
  /** Numbers of `/proc/sys/vm`. */
  readonly settings: ReadonlyMap<string, number>;
  /** Files that could not be read. */
  readonly unread: ReadonlyMap<string, string>;
  readonly notices: readonly TextNotice[];
  readonly noticesDropped: number;
}

const KIB = 1024;
const PAGE_SIZES: readonly number[] = [4 * KIB, 16 * KIB, 64 * KIB];
const HUGE_POOL = /^sys\/kernel\/mm\/hugepages\/hugepages-(\d{1,12})kB\/([a-z_]+)$/;
const TRANSPARENT = /^sys\/kernel\/mm\/transparent_hugepage\/([a-z_/]+)$/;
const SETTING = /^proc\/sys\/vm\/([a-z_]+)$/;

/**
 * Understands what was read.
 * @throws FarpageError ENODATA when neither free blocks nor totals are in it.
 */
export function parseMachineMemory(files: MachineFiles): MachineMemory {
  const notices = new Notices();
  const buddyinfo = bytesAt(files, "proc/buddyinfo");
  const pagetypeinfo = bytesAt(files, "proc/pagetypeinfo");
  const types = pagetypeinfo === null ? null : parsePagetypeinfo(pagetypeinfo, notices);
  const zones = buddyinfo === null ? [] : parseBuddyinfo(buddyinfo, notices);
  const meminfo = parseMeminfo(bytesAt(files, "proc/meminfo"), notices);
  if (zones.length === 0 && meminfo.size === 0) {
    throw new FarpageError(
      "ENODATA",
      "neither proc/buddyinfo nor proc/meminfo says anything: is this a copy of a Linux machine?",
    );
  }
  const pageBytes = pageBytesOf(
    bytesAt(files, "proc/self/smaps"),
    meminfo.get("Hugepagesize"),
    types?.pageBlockOrder ?? null,
    { zones, bytes: meminfo.get("MemFree") },
  );
  return {
    pageBytes: pageBytes ?? (PAGE_SIZES[0] as number),
    isPageBytesKnown: pageBytes !== null,
    hugePageBytes: hugePageBytesOf(meminfo.get("Hugepagesize")),
    zones,
    listedBytes: pagesIn(zones) * (pageBytes ?? (PAGE_SIZES[0] as number)),
    pageTypes: types === null || types.free.length + types.blocks.length === 0 ? null : types,
    meminfo,
    hugePools: hugePoolsOf(files),
    transparent: chosen(files),
    vmstat: parseVmstat(bytesAt(files, "proc/vmstat"), notices),
    settings: settingsOf(files),
    unread: unreadOf(files),
    notices: notices.kept,
    noticesDropped: notices.dropped,
  };
}

/** Amounts in bytes. Counts without a unit, such as `HugePages_Total`, are left to sysfs. */
function parseMeminfo(bytes: Uint8Array | null, notices: Notices): Map<string, number> {
  const values = new Map<string, number>();
  if (bytes === null) return values;
  for (const { number, text } of linesOf(bytes, "proc/meminfo", notices)) {
    const match = /^([A-Za-z0-9_()]{1,64}):\s+(\d{1,12})( kB)?\s*$/.exec(text);
    if (match === null) {
      notices.add("proc/meminfo", number, "not a name and an amount: left out");
    } else if (match[3] !== undefined && !values.has(match[1] as string)) {
      values.set(match[1] as string, Number(match[2]) * KIB);
    }
  }
  return values;
}

function parseVmstat(bytes: Uint8Array | null, notices: Notices): Map<string, number> {
  const values = new Map<string, number>();
  if (bytes === null) return values;
  for (const { number, text } of linesOf(bytes, "proc/vmstat", notices)) {
    const [name = "", word, ...more] = text.trim().split(/\s+/);
    const value = numberOf(word);
    if (value === null || more.length > 0 || !/^[a-z0-9_]{1,64}$/.test(name)) {
      // Some counters go below zero for a moment, and one that wraps has twenty digits.
      notices.add("proc/vmstat", number, "not a name and a count: left out");
    } else if (!values.has(name)) {
      values.set(name, value);
    }
  }
  return values;
}

/**
 * Bytes of a page: as a process's map says, else from the size of a page block, which is that of a
 * huge page wherever there are such; else what makes the free lists come next to the free memory.
 */
function pageBytesOf(
  smaps: Uint8Array | null,
  hugeBytes: number | undefined,
  pageBlockOrder: number | null,
  free: { readonly zones: readonly ZoneFree[]; readonly bytes: number | undefined },
): number | null {
  const told = smaps === null ? null : /^KernelPageSize: +(\d{1,6}) kB$/m.exec(asciiOf(smaps));
  const fromMap = told === null ? Number.NaN : Number(told[1]) * KIB;
  if (PAGE_SIZES.includes(fromMap)) return fromMap;
  const fromBlock = (hugeBytes ?? Number.NaN) / 2 ** (pageBlockOrder ?? Number.NaN);
  if (PAGE_SIZES.includes(fromBlock)) return fromBlock;
  const pages = pagesIn(free.zones);
  if (pages === 0 || free.bytes === undefined || free.bytes === 0) return null;
  const distance = (size: number) => Math.abs(Math.log((pages * size) / (free.bytes as number)));
  const best = PAGE_SIZES.reduce((a, b) => (distance(b) < distance(a) ? b : a));
  return distance(best) < Math.log(2) ? best : null;
}

function pagesIn(zones: readonly ZoneFree[]): number {
  let pages = 0;
  for (const { counts } of zones) {
    for (let order = 0; order < counts.length; order++) {
      pages += (counts[order] as number) * 2 ** order;
    }
  }
  return pages;
}

const HUGE_PAGE_BYTES = 2 * KIB * KIB;

function hugePageBytesOf(told: number | undefined): number {
  const isPower = told !== undefined && told >= 64 * KIB && Number.isInteger(Math.log2(told));
  return isPower ? (told as number) : HUGE_PAGE_BYTES;
}

function hugePoolsOf(files: MachineFiles): HugePagePool[] {
  const pools = new Map<number, Map<string, number>>();
  for (const [path, file] of files) {
    const match = HUGE_POOL.exec(path);
    const value = file instanceof Uint8Array ? numberOf(singleValue(file) ?? "") : null;
    if (match === null || value === null) continue;
    const pageBytes = Number(match[1]) * KIB;
    const values = pools.get(pageBytes) ?? new Map<string, number>();
    pools.set(pageBytes, values.set(match[2] as string, value));
  }
  return [...pools]
    .sort(([a], [b]) => a - b)
    .map(([pageBytes, values]) => ({
      pageBytes,
      total: values.get("nr_hugepages") ?? null,
      free: values.get("free_hugepages") ?? null,
      reserved: values.get("resv_hugepages") ?? null,
      surplus: values.get("surplus_hugepages") ?? null,
      overcommit: values.get("nr_overcommit_hugepages") ?? null,
    }));
}

function chosen(files: MachineFiles): Map<string, string> {
  const values = new Map<string, string>();
  for (const [path, file] of files) {
    const match = TRANSPARENT.exec(path);
    const value = file instanceof Uint8Array ? singleValue(file) : null;
    const choice = chosenOf(value) ?? (value !== null && /^\d{1,9}$/.test(value) ? value : null);
    if (match !== null && choice !== null) values.set(match[1] as string, choice);
  }
  return values;
}

function settingsOf(files: MachineFiles): Map<string, number> {
  const values = new Map<string, number>();
  for (const [path, file] of files) {
    const match = SETTING.exec(path);
    const value = file instanceof Uint8Array ? numberOf(singleValue(file) ?? "") : null;
    if (match !== null && value !== null) values.set(match[1] as string, value);
  }
  return values;
}

function unreadOf(files: MachineFiles): Map<string, string> {
  const unread = new Map<string, string>();
  for (const [path, file] of files) if (!(file instanceof Uint8Array)) unread.set(path, file.code);
  return unread;
}

function bytesAt(files: MachineFiles, path: string): Uint8Array | null {
  const file = files.get(path);
  return file instanceof Uint8Array ? file : null;
}
