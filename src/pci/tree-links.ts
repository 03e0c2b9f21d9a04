// SPDX-License-Identifier: MIT
// Who hangs on whom: the bridge above each function and the root bus at the top, from what the
// sources state or from bus numbers. What can't be known stays unknown: a bus that no bridge of the
// dump leads to may be a root bus or hang on a bridge that the dump doesn't show.

import { type AddressParts, busName, compareAddresses, devfnOf, formatAddress } from "./address.js";
import type { FunctionDraft, MachineDraft } from "./draft.js";
import { type Fact, UNKNOWN } from "./fact.js";
import type { Address, RootBus, RootBusName, Window } from "./topology.js";

/** VFs that are looked for, of all PFs together. */
const VIRTUAL_LOOKUPS_MAX = 1 << 18;
const HERE = { source: "all sources", line: null } as const;

export interface Links {
  readonly parents: ReadonlyMap<FunctionDraft, Fact<Address | null>>;
  readonly roots: ReadonlyMap<FunctionDraft, Fact<RootBusName>>;
  readonly physical: ReadonlyMap<FunctionDraft, Fact<Address | null>>;
  readonly rootBuses: ReadonlyMap<RootBusName, RootBus>;
}

/** Resolves all functions. Linear in their number. */
export function linkFunctions(machine: MachineDraft): Links {
  return new Linker(machine).link();
}

class Linker {
  private readonly machine: MachineDraft;
  private readonly physical = new Map<FunctionDraft, Fact<Address | null>>();
  private readonly parents = new Map<FunctionDraft, Fact<Address | null>>();
  private readonly roots = new Map<FunctionDraft, Fact<RootBusName>>();
  /** Bus to the bridges that say it is theirs. */
  private readonly above = new Map<RootBusName, FunctionDraft[]>();
  /** Buses with a function that can only be on a root bus. */
  private readonly rootLike = new Set<RootBusName>();
  /** By domain: bus numbers that lie below some bridge. */
  private readonly covered = new Map<number, Uint8Array>();

  constructor(machine: MachineDraft) {
    this.machine = machine;
  }

  link(): Links {
    this.findVirtual();
    for (const draft of this.machine.functions.values()) this.look(draft);
    for (const draft of this.machine.functions.values()) this.parentOf(draft);
    this.cutLoops();
    for (const draft of this.machine.functions.values()) this.rootOf(draft);
    return {
      parents: this.parents,
      roots: this.roots,
      physical: this.physical,
      rootBuses: this.rootBuses(),
    };
  }

  /** PFs say where their VFs are (PCIe §9.3.3.8). */
  private findVirtual(): void {
    let budget = VIRTUAL_LOOKUPS_MAX;
    const found = new Map<Address, Address>();
    for (const draft of this.machine.functions.values()) {
      const count = draft.number("sriov.enabled");
      const offset = draft.number("sriov.offset");
      const stride = draft.number("sriov.stride");
      if (count === UNKNOWN || offset === UNKNOWN || stride === UNKNOWN) continue;
      const { domain, bus } = draft.parts;
      for (let vf = 0; vf < count && budget > 0; vf++, budget--) {
        const id = bus * 256 + devfnOf(draft.parts) + offset + vf * stride;
        if (id > 0xffff || stride === 0) break;
        const address = formatAddress(partsOf(domain, id));
        if (this.machine.functions.has(address)) found.set(address, draft.address);
      }
    }
    if (budget === 0) this.machine.notice("LIMIT", HERE, "more VFs than are looked for");
    for (const draft of this.machine.functions.values()) {
      this.physical.set(draft, this.physicalOf(draft, found.get(draft.address)));
    }
  }

  private physicalOf(draft: FunctionDraft, found: Address | undefined): Fact<Address | null> {
    if (draft.isNull("pf")) return null;
    const told = draft.text("pf");
    if (told !== UNKNOWN) return told;
    if (draft.flag("is-not-virtual") === true || draft.flag("sriov") === true) return null;
    return found ?? (draft.number("header") === 1 ? null : UNKNOWN);
  }

  private look(draft: FunctionDraft): void {
    const { domain, bus } = draft.parts;
    const type = draft.text("pcie.type");
    const isHostBridge = draft.number("class") === 0x0600 && draft.number("header") === 0;
    if (
      type === "root-port" ||
      type === "rc-endpoint" ||
      type === "rc-event-collector" ||
      isHostBridge
    ) {
      this.rootLike.add(busName(domain, bus));
    }
    const secondary = draft.number("bridge.secondary");
    // Bus numbers rise from bridge to bridge; 0 is a bridge that nobody has set up.
    if (secondary === UNKNOWN || secondary <= bus) return;
    const name = busName(domain, secondary);
    const bridges = this.above.get(name);
    if (bridges === undefined) this.above.set(name, [draft]);
    else if (bridges.length < 4) bridges.push(draft);
    const subordinate = draft.number("bridge.subordinate");
    this.cover(domain, secondary, subordinate === UNKNOWN ? secondary : subordinate);
  }

  private cover(domain: number, first: number, last: number): void {
    let covered = this.covered.get(domain);
    if (covered === undefined) {
      covered = new Uint8Array(256);
      this.covered.set(domain, covered);
    }
    covered.fill(1, first, Math.min(last, 255) + 1);
  }

  private parentOf(draft: FunctionDraft): Fact<Address | null> {
    const known = this.parents.get(draft);
    if (known !== undefined) return known;
    // Until it is known: a PF that is its own VF, by way of others, finds this.
    this.parents.set(draft, UNKNOWN);
    const parent = this.findParent(draft);
    this.parents.set(draft, parent);
    return parent;
  }

  private findParent(draft: FunctionDraft): Fact<Address | null> {
    if (draft.isNull("parent")) return null;
    const stated = draft.text("parent");
    if (stated !== UNKNOWN) return this.machine.functions.has(stated) ? stated : UNKNOWN;
    // Told in two ways.
    if (draft.has("parent")) return UNKNOWN;
    const physical = this.machine.functions.get(String(this.physical.get(draft)));
    if (physical !== undefined && this.physical.get(physical) === null) {
      return this.parentOf(physical);
    }
    const { domain, bus } = draft.parts;
    const name = busName(domain, bus);
    const bridges = this.above.get(name);
    if (bridges !== undefined)
      return bridges.length === 1 ? (bridges[0]?.address ?? null) : UNKNOWN;
    if (bus === 0 || this.machine.roots.has(name)) return null;
    const isCovered = this.covered.get(domain)?.[bus] === 1;
    return this.rootLike.has(name) && !isCovered ? null : UNKNOWN;
  }

  /** Sources that contradict one another can make a ring of bridges: nothing in it has a parent. */
  private cutLoops(): void {
    const done = new Set<FunctionDraft>();
    for (const start of this.machine.functions.values()) {
      const path: FunctionDraft[] = [];
      const onPath = new Set<FunctionDraft>();
      let at: FunctionDraft | undefined = start;
      while (at !== undefined && !done.has(at) && !onPath.has(at)) {
        path.push(at);
        onPath.add(at);
        at = this.machine.functions.get(String(this.parents.get(at)));
      }
      if (at !== undefined && onPath.has(at)) {
        for (const draft of path.slice(path.indexOf(at))) this.parents.set(draft, UNKNOWN);
        this.machine.notice("CONFLICT", HERE, `bridges above ${at.address} form a ring`);
      }
      for (const draft of path) done.add(draft);
    }
  }

  private rootOf(draft: FunctionDraft): Fact<RootBusName> {
    const path: FunctionDraft[] = [];
    let at: FunctionDraft = draft;
    let root: Fact<RootBusName> | undefined;
    while (root === undefined) {
      root = this.roots.get(at);
      if (root !== undefined) break;
      path.push(at);
      const parent = factOf(this.parents, at);
      if (parent === null) root = this.ownRoot(at);
      else {
        const next: FunctionDraft | undefined =
          parent === UNKNOWN ? undefined : this.machine.functions.get(parent);
        if (next === undefined) root = UNKNOWN;
        else at = next;
      }
    }
    for (const passed of path) this.roots.set(passed, root);
    return root;
  }

  /** Of a function on a root bus: that bus; of a VF there, the bus of its PF. */
  private ownRoot(draft: FunctionDraft): Fact<RootBusName> {
    const told = draft.text("root");
    if (told !== UNKNOWN) return told;
    const physical = this.machine.functions.get(String(this.physical.get(draft)));
    const { domain, bus } = physical?.parts ?? draft.parts;
    return busName(domain, bus);
  }

  private rootBuses(): ReadonlyMap<RootBusName, RootBus> {
    const members = new Map<RootBusName, FunctionDraft[]>();
    for (const [draft, root] of this.roots) {
      if (root === UNKNOWN || this.parents.get(draft) !== null) continue;
      const list = members.get(root);
      if (list === undefined) members.set(root, [draft]);
      else list.push(draft);
    }
    for (const name of this.machine.roots.keys()) if (!members.has(name)) members.set(name, []);
    const buses = [...members].map(([name, drafts]) => this.rootBus(name, drafts));
    buses.sort((a, b) => a.domain - b.domain || a.bus - b.bus);
    return new Map(buses.map((bus) => [bus.name, bus]));
  }

  private rootBus(name: RootBusName, drafts: readonly FunctionDraft[]): RootBus {
    const stated = this.machine.roots.get(name);
    const [domain, bus] = name.split(":").map((part) => Number.parseInt(part, 16)) as [
      number,
      number,
    ];
    // VFs come later than their PF, and not to this list when their bus is another.
    const own = drafts.filter((draft) => busName(draft.parts.domain, draft.parts.bus) === name);
    const first = own.reduce<FunctionDraft | null>(
      (best, draft) =>
        best === null || compareAddresses(draft.parts, best.parts) < 0 ? draft : best,
      null,
    );
    const windows: Window[] = (stated?.windows ?? []).map(({ kind, cpu, bus: onBus }) => ({
      kind,
      cpu: { base: cpu[0], limit: cpu[1] },
      bus: { base: onBus[0], limit: onBus[1] },
    }));
    const evidence = evidenceOf(first, stated?.isShown ?? false);
    const representative = evidence === "unknown" ? UNKNOWN : first === null ? null : first.address;
    return { name, domain, bus, representative, evidence, windows };
  }
}

function evidenceOf(first: FunctionDraft | null, isShown: boolean): RootBus["evidence"] {
  if (isShown) return "stated";
  if (first === null) return "unknown";
  if (devfnOf(first.parts) === 0) return "stated";
  return first.isInWholeListing ? "assumed" : "unknown";
}

/** Null is a fact, absence isn't. */
export function factOf<T>(
  facts: ReadonlyMap<FunctionDraft, Fact<T | null>>,
  draft: FunctionDraft,
): Fact<T | null> {
  const fact = facts.get(draft);
  return fact === undefined ? UNKNOWN : fact;
}

function partsOf(domain: number, id: number): AddressParts {
  return { domain, bus: id >> 8, device: (id >> 3) & 0x1f, function: id & 7 };
}
