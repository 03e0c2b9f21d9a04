// SPDX-License-Identifier: MIT
// What the sources tell, before it is a topology: a table of facts for each function, filled by
// several tellers. A fact that is told twice and differently becomes unknown and is noticed.

import { type AddressParts, formatAddress } from "./address.js";
import { type Fact, UNKNOWN } from "./fact.js";
import { NOTICES_MAX, type Notice, type NoticeCode, type SourceKind } from "./report.js";
import type { Address, Architecture, RootBusName } from "./topology.js";

export type Value = number | bigint | string | boolean | null;

/** Functions of one machine. The biggest servers with all their VFs have some ten thousand. */
export const FUNCTIONS_MAX = 65_536;
const ROOT_BUSES_MAX = 4_096;
/** Characters of a name that are kept. */
const NAME_LENGTH_MAX = 256;
const KERNEL_NAMES_MAX = 16;
const SEEN_IN_MAX = 16;

/** Where something was read. */
export interface Place {
  readonly source: string;
  readonly line: number | null;
}

/** Values of one kind that two tellers gave differently. */
const CONFLICT = Symbol("conflict");

/**
 * Facts of one function by key. Keys are those of `config.ts`, whose decoder tells nearly all of
 * them; the other tellers use the same.
 */
export class FunctionDraft {
  readonly parts: AddressParts;
  readonly address: Address;
  readonly seenIn: Place[] = [];
  className: string | null = null;
  subsystemName: string | null = null;
  driver: string | null = null;
  slot: string | null = null;
  readonly kernelNames: string[] = [];
  configBytes = 0;
  /** Seen in a listing that began at a first bus and had no gap so far. */
  isInWholeListing = false;
  private readonly facts = new Map<string, Value | typeof CONFLICT>();
  private name: string | null = null;
  private hasTwoNames = false;

  constructor(parts: AddressParts) {
    this.parts = parts;
    this.address = formatAddress(parts);
  }

  /** @returns false where an earlier teller said otherwise: the fact is unknown from now on. */
  tell(key: string, value: Value): boolean {
    const before = this.facts.get(key);
    if (before === undefined) {
      this.facts.set(key, value);
      return true;
    }
    if (before === value) return true;
    if (before === CONFLICT) return true;
    this.facts.set(key, CONFLICT);
    return false;
  }

  /** Vendor and device as lspci calls them; null also where two listings call it differently. */
  get deviceName(): string | null {
    return this.hasTwoNames ? null : this.name;
  }

  /**
   * What a listing calls the device. A name that is the beginning of the other is a cut one.
   * @returns false where an earlier one called it otherwise: it has no name from now on.
   */
  tellName(name: string): boolean {
    const before = this.name;
    this.name ??= printable(name);
    if (before === null || before.startsWith(name) || name.startsWith(before)) return true;
    const isNews = !this.hasTwoNames;
    this.hasTwoNames = true;
    return !isNews;
  }

  has(key: string): boolean {
    return this.facts.has(key);
  }

  number(key: string): Fact<number> {
    const value = this.facts.get(key);
    return typeof value === "number" ? value : UNKNOWN;
  }

  big(key: string): Fact<bigint> {
    const value = this.facts.get(key);
    return typeof value === "bigint" ? value : UNKNOWN;
  }

  flag(key: string): Fact<boolean> {
    const value = this.facts.get(key);
    return typeof value === "boolean" ? value : UNKNOWN;
  }

  text(key: string): Fact<string> {
    const value = this.facts.get(key);
    return typeof value === "string" ? value : UNKNOWN;
  }

  isNull(key: string): boolean {
    return this.facts.get(key) === null;
  }

  addKernelName(name: string): void {
    if (this.kernelNames.length >= KERNEL_NAMES_MAX || this.kernelNames.includes(name)) return;
    this.kernelNames.push(printable(name));
  }

  see(place: Place): void {
    if (this.seenIn.length >= SEEN_IN_MAX) return;
    if (this.seenIn.some((seen) => seen.source === place.source)) return;
    this.seenIn.push(place);
  }
}

/** Control and format characters: they steer a terminal, or turn the direction of writing. */
const STEERING = /[\p{Cc}\p{Cf}]/gu;

/** A name as it may be shown: bounded, and what could steer a terminal as question marks. */
export function printable(name: string): string {
  const clipped = name.length > NAME_LENGTH_MAX ? name.slice(0, NAME_LENGTH_MAX) : name;
  return clipped.replace(STEERING, "?");
}

/** A root bus that some source states to be one. */
export interface RootDraft {
  readonly domain: number;
  readonly bus: number;
  /** A tree or sysfs shows which of its functions is the first. */
  isShown: boolean;
  /** `base-limit` pairs from the boot log: kind, CPU and bus range. */
  readonly windows: {
    readonly kind: "io" | "memory" | "prefetchable";
    readonly cpu: readonly [bigint, bigint];
    readonly bus: readonly [bigint, bigint];
  }[];
}

const WINDOWS_MAX = 64;

/** Everything that all sources tell of one machine. */
export class MachineDraft {
  readonly functions = new Map<Address, FunctionDraft>();
  readonly roots = new Map<RootBusName, RootDraft>();
  cpuVendor: string | null = null;
  cpuFamily: number | null = null;
  cpuModel: string | null = null;
  architecture: Architecture | null = null;
  /** Source of the CPU facts. */
  cpuSource: string | null = null;
  commandLine: string | null = null;
  /** Ids that the boot log gives; for functions that a dump shows. */
  readonly bootIds = new Map<Address, { vendor: number; device: number; class: number }>();
  /** sysfs: IOMMU groups are there (or their folder is there and empty). */
  hasIommuGroups: boolean | null = null;
  /** Types of the groups: `DMA`, `DMA-FQ`, `identity`. */
  readonly iommuGroupTypes = new Set<string>();
  readonly notices: Notice[] = [];
  noticesDropped = 0;
  readonly sources: { name: string; kinds: Set<SourceKind>; ignoredLines: number }[] = [];
  private isFullNoticed = false;
  private readonly unreadablePlaces = new Map<string, { place: Place; count: number }>();

  /** @returns the draft of a function, new or known; null beyond `FUNCTIONS_MAX`. */
  open(parts: AddressParts, place: Place): FunctionDraft | null {
    const address = formatAddress(parts);
    let draft = this.functions.get(address);
    if (draft === undefined) {
      if (this.functions.size >= FUNCTIONS_MAX) {
        if (!this.isFullNoticed) {
          this.notice("LIMIT", place, `more than ${FUNCTIONS_MAX} functions; the rest is left out`);
        }
        this.isFullNoticed = true;
        return null;
      }
      draft = new FunctionDraft(parts);
      this.functions.set(address, draft);
    }
    draft.see(place);
    return draft;
  }

  tell(draft: FunctionDraft, key: string, value: Value, place: Place): void {
    if (draft.tell(key, value)) return;
    this.notice(
      "CONFLICT",
      place,
      `${draft.address}: ${key} is told in two ways; it counts as unknown`,
    );
  }

  /** What a function's first line calls it. */
  tellName(draft: FunctionDraft, name: string, place: Place): void {
    if (draft.tellName(name)) return;
    this.notice("CONFLICT", place, `${draft.address}: has two names; what it is counts as unknown`);
  }

  root(domain: number, bus: number, name: RootBusName): RootDraft | null {
    let root = this.roots.get(name);
    if (root === undefined) {
      if (this.roots.size >= ROOT_BUSES_MAX) return null;
      root = { domain, bus, isShown: false, windows: [] };
      this.roots.set(name, root);
    }
    return root;
  }

  addWindow(root: RootDraft, window: RootDraft["windows"][number]): void {
    if (root.windows.length < WINDOWS_MAX) root.windows.push(window);
  }

  /** A function whose capabilities could not be read for want of privilege. */
  unreadable(place: Place): void {
    const known = this.unreadablePlaces.get(place.source);
    if (known === undefined) this.unreadablePlaces.set(place.source, { place, count: 1 });
    else known.count++;
  }

  /** One notice for each source that was read without privilege. */
  noticeUnreadable(): void {
    for (const { place, count } of this.unreadablePlaces.values()) {
      this.notice(
        "NO_PRIVILEGE",
        place,
        `capabilities of ${count} functions were not readable; ACS is in them: read as root`,
      );
    }
    this.unreadablePlaces.clear();
  }

  notice(code: NoticeCode, place: Place, message: string): void {
    if (this.notices.length >= NOTICES_MAX) {
      this.noticesDropped++;
      return;
    }
    this.notices.push({ code, source: place.source, line: place.line, message });
  }
}
