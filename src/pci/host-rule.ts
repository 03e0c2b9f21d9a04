// SPDX-License-Identifier: MIT
// May traffic cross the host bridge? The kernel says yes for some CPUs, and for root buses whose
// first function is on its list (Linux drivers/pci/p2pdma.c, host_bridge_whitelist).

import { devfnOf } from "./address.js";
import { type Fact, type Tri, triAnd, triNot, triOr, UNKNOWN } from "./fact.js";
import {
  intelDeviceOfName,
  isUnlistedIntelName,
  LISTED_HOST_BRIDGES,
  type ListedHostBridge,
} from "./host-bridges.js";
import type { RuleSet } from "./rules.js";
import type { PciFunction, RootBus, RootBusName, Topology } from "./topology.js";
import { vendorOfText } from "./vendor-names.js";
import type { HostBridgeVerdict, NameResolver, RootVerdict } from "./verdict.js";

const INTEL = 0x8086;

/** What is known of a function's ids: a pair, several of one name, or only a vendor. */
interface Identity {
  readonly vendor: Fact<number>;
  readonly device: Fact<number>;
  /** Several devices have this name, and one of them is it. */
  readonly candidates: readonly { readonly vendor: number; readonly device: number }[];
  /** It is certain that no list has it. */
  readonly isUnlisted: boolean;
}

/** The rule for all pairs of one topology under one release; each root bus is judged once. */
export class HostRule {
  readonly #topology: Topology;
  readonly #rules: RuleSet;
  readonly #names: NameResolver | undefined;
  readonly #roots = new Map<RootBusName, RootVerdict>();
  readonly #cpuRule: Tri;
  readonly #cpuReason: string;

  constructor(topology: Topology, rules: RuleSet, names: NameResolver | undefined) {
    this.#topology = topology;
    this.#rules = rules;
    this.#names = names;
    this.#cpuRule = rules.hasCpuRule ? topology.cpu.isAmdZen : false;
    this.#cpuReason = cpuReason(topology, rules);
  }

  judge(provider: PciFunction, client: PciFunction): HostBridgeVerdict {
    const isSame: Tri =
      provider.rootBus === UNKNOWN || client.rootBus === UNKNOWN
        ? isOtherDomain(provider, client)
        : provider.rootBus === client.rootBus;
    const roots: RootVerdict[] = [];
    for (const { rootBus } of isSame === true ? [provider] : [provider, client]) {
      const root = rootBus === UNKNOWN ? null : this.#root(rootBus);
      if (root !== null) roots.push(root);
    }
    const rules = this.#rules;
    const listRule = rules.hasHostRoute ? judgeList(roots, isSame) : false;
    const isStopped = rules.isStoppedByIommu ? this.#topology.iommu.isEnabled : false;
    return {
      isSameRootBus: isSame,
      cpuRule: this.#cpuRule,
      cpuReason: this.#cpuReason,
      roots,
      listRule,
      isStoppedByIommu: isStopped,
      refusesRedirected: !rules.takesRedirected,
      isAllowed: triAnd(triOr(this.#cpuRule, listRule), triNot(isStopped)),
    };
  }

  #root(name: RootBusName): RootVerdict | null {
    const known = this.#roots.get(name);
    if (known !== undefined) return known;
    const bus = this.#topology.rootBuses.get(name);
    if (bus === undefined) return null;
    const root = judgeRoot(this.#topology, bus, this.#rules, this.#names);
    this.#roots.set(name, root);
    return root;
  }
}

/** Functions of two domains are never on one root bus. */
function isOtherDomain(a: PciFunction, b: PciFunction): Tri {
  return a.domain === b.domain ? UNKNOWN : false;
}

function judgeList(roots: readonly RootVerdict[], isSame: Tri): Tri {
  if (isSame === true) {
    const [root] = roots;
    return root === undefined ? UNKNOWN : triAnd(root.isEligible, root.isListed);
  }
  // Each of the two must do, and for pairs of two buses the flag must not be set.
  let all: Tri = roots.length === 2 ? true : UNKNOWN;
  for (const root of roots) {
    const isListed = triAnd(root.isEligible, root.isListed);
    all = triAnd(all, isListed);
    if (isSame === false) all = triAnd(all, triNot(root.isSameBusOnly));
    else if (root.isSameBusOnly !== false) all = triAnd(all, UNKNOWN);
  }
  return all;
}

function judgeRoot(
  topology: Topology,
  root: RootBus,
  rules: RuleSet,
  names: NameResolver | undefined,
): RootVerdict {
  const first =
    root.representative === UNKNOWN || root.representative === null
      ? undefined
      : topology.functions.get(root.representative);
  const base = { rootBus: root.name, representative: root.representative };
  if (first === undefined) return withoutFirst(base, root);
  const identity = identify(first, names);
  const { isListed, found } = listState(rules.hostBridges, identity);
  const ever = listState(LISTED_HOST_BRIDGES, identity);
  return {
    ...base,
    vendorId: identity.vendor,
    deviceId: identity.device,
    isEligible: eligibility(first, rules),
    isListed,
    isSameBusOnly:
      isListed === UNKNOWN ? sameBusOnly(rules, identity) : (found?.isSameBusOnly ?? false),
    listedAs: found?.name ?? null,
    listedSince: ever.found?.since ?? null,
    isAssumed: root.evidence === "assumed",
  };
}

/** A bus that is known to be empty stands for nothing; of an unknown one nothing is known. */
function withoutFirst(
  base: Pick<RootVerdict, "rootBus" | "representative">,
  root: RootBus,
): RootVerdict {
  const fact: Tri = root.representative === null ? false : UNKNOWN;
  return {
    ...base,
    vendorId: UNKNOWN,
    deviceId: UNKNOWN,
    isEligible: fact,
    isListed: fact,
    isSameBusOnly: fact,
    listedAs: null,
    listedSince: null,
    isAssumed: false,
  };
}

function eligibility(first: PciFunction, rules: RuleSet): Tri {
  if (devfnOf(first) === 0) return true;
  if (!rules.takesAnyRootPort) return false;
  const portType = first.pcie === UNKNOWN || first.pcie === null ? first.pcie : first.pcie.portType;
  if (portType === UNKNOWN) return first.headerType === 0 ? false : UNKNOWN;
  return portType === "root-port";
}

function identify(first: PciFunction, names: NameResolver | undefined): Identity {
  const { vendorId: vendor, deviceId: device } = first;
  const plain = { vendor, device, candidates: [], isUnlisted: false };
  if (vendor !== UNKNOWN && device !== UNKNOWN) return plain;
  const text = first.names.device;
  if (text === null) return plain;
  const split = vendorOfText(text);
  if (split !== null && split.id === INTEL) {
    const known = intelDeviceOfName(split.rest);
    if (known !== null) return { ...plain, vendor: INTEL, device: known };
    if (isUnlistedIntelName(split.rest)) return { ...plain, vendor: INTEL, isUnlisted: true };
  }
  const candidates = names?.lookUp(text) ?? [];
  const [only] = candidates;
  if (candidates.length === 1 && only !== undefined) {
    return { ...plain, vendor: only.vendor, device: only.device };
  }
  return { ...plain, candidates };
}

function listState(
  list: readonly ListedHostBridge[],
  identity: Identity,
): { isListed: Tri; found: ListedHostBridge | null } {
  const { vendor, device, candidates } = identity;
  if (identity.isUnlisted) return { isListed: false, found: null };
  if (vendor === UNKNOWN && candidates.length === 0) return { isListed: UNKNOWN, found: null };
  if (device === UNKNOWN && candidates.length > 0) return severalState(list, candidates);
  const ofVendor = list.filter((listed) => listed.vendor === vendor);
  if (device === UNKNOWN) {
    const any = ofVendor.find((listed) => listed.device === null) ?? null;
    if (any !== null) return { isListed: true, found: any };
    return { isListed: ofVendor.length === 0 ? false : UNKNOWN, found: null };
  }
  const found = find(list, vendor as number, device);
  return { isListed: found !== null, found };
}

function severalState(
  list: readonly ListedHostBridge[],
  candidates: Identity["candidates"],
): { isListed: Tri; found: ListedHostBridge | null } {
  const found = candidates.map(({ vendor, device }) => find(list, vendor, device));
  if (found.every((listed) => listed === null)) return { isListed: false, found: null };
  const [first] = found;
  const isOne = found.every((listed) => listed?.isSameBusOnly === first?.isSameBusOnly);
  if (first !== null && first !== undefined && isOne) return { isListed: true, found: first };
  return { isListed: UNKNOWN, found: null };
}

function find(
  list: readonly ListedHostBridge[],
  vendor: number,
  device: number,
): ListedHostBridge | null {
  const isIt = (listed: ListedHostBridge) =>
    listed.vendor === vendor && (listed.device === null || listed.device === device);
  return list.find(isIt) ?? null;
}

/** Of a function that may or may not be listed. */
function sameBusOnly(rules: RuleSet, identity: Identity): Tri {
  const could = rules.hostBridges.filter(
    ({ vendor }) => identity.vendor === UNKNOWN || vendor === identity.vendor,
  );
  return could.some(({ isSameBusOnly }) => isSameBusOnly) ? UNKNOWN : false;
}

function cpuReason(topology: Topology, rules: RuleSet): string {
  const { cpu } = topology;
  if (!rules.hasCpuRule) return `Linux ${rules.release} has no rule for CPUs`;
  if (cpu.isAmdZen === UNKNOWN) return "the dump doesn't tell the CPU: add /proc/cpuinfo or lscpu";
  const because = cpu.evidence === null ? "" : ` (${cpu.evidence})`;
  if (cpu.isAmdZen) return `the CPU is an AMD Zen or later${because}`;
  if (cpu.vendor === "HygonGenuine") {
    return `the CPU says HygonGenuine: a Zen, but the rule wants AuthenticAMD${because}`;
  }
  return `the CPU is not an AMD Zen or later${because}`;
}
