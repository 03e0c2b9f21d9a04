// SPDX-License-Identifier: MIT
// `p2pPath`: the kernel's verdict for a client and a provider, with three-valued facts. Read first:
// Linux drivers/pci/p2pdma.c, calc_map_type_and_dist and the functions around it.
//
// With facts missing there are several verdicts that the machine could give. All of them are kept:
// the verdict is known where they agree.

import { FarpageError } from "../base/index.js";
import { type Fact, type Tri, triOr, UNKNOWN } from "./fact.js";
import { judgeHostBridge } from "./host-rule.js";
import { kernelLogOf } from "./kernel-log.js";
import { narrowestLink, rateOfFunction } from "./links.js";
import { missingFacts } from "./missing.js";
import { notesOf } from "./notes.js";
import { remediesOf } from "./remedies.js";
import { NEWEST_KERNEL, type PathErrorCode, type RuleSet, ruleSet } from "./rules.js";
import { ACS, type Address, type PciFunction, type Topology } from "./topology.js";
import type {
  Hop,
  HostBridgeVerdict,
  MapType,
  P2pOptions,
  P2pPath,
  Proximity,
  Route,
} from "./verdict.js";

/** The way up from a function: itself first. */
export interface WayUp {
  readonly functions: readonly PciFunction[];
  /** Its last function sits on a root bus; else the bridge above that one isn't known. */
  readonly isWhole: boolean;
}

/** What the walk found, before any rule. */
export interface Walk {
  readonly providerUp: WayUp;
  readonly clientUp: WayUp;
  readonly common: Fact<PciFunction | null>;
  readonly hops: readonly Hop[];
  /** Steps to the common function, or to the top. */
  readonly distance: Fact<number>;
  readonly redirecting: readonly Address[];
  readonly maybe: readonly Address[];
  /** Hops whose ACS word was assumed. */
  readonly assumed: readonly Address[];
}

/** Everything that the explaining parts look at. */
export interface Judgement {
  readonly topology: Topology;
  readonly client: PciFunction;
  readonly provider: PciFunction;
  readonly rules: RuleSet;
  readonly options: P2pOptions;
  readonly walk: Walk;
  readonly hostBridge: HostBridgeVerdict;
  readonly possible: readonly MapType[];
  readonly mapType: Fact<MapType>;
}

/**
 * May `client` reach `provider`'s memory, by which way, and if not, why.
 *
 * @param client the function that reads or writes. @param provider the function whose BAR it is.
 * @throws FarpageError `PCI_NO_SUCH_FUNCTION` where the topology has no such address,
 * `PCI_UNKNOWN_KERNEL` for a release that isn't one.
 */
export function p2pPath(
  topology: Topology,
  client: Address,
  provider: Address,
  options: P2pOptions = {},
): P2pPath {
  const judged = judge(topology, client, provider, options);
  const { walk, hostBridge, mapType, possible } = judged;
  return {
    client,
    provider,
    kernel: judged.rules.release,
    mapType,
    possible,
    isAllowed: isAllowed(possible),
    route: routeOf(judged),
    distance: walk.distance,
    common: walk.common === UNKNOWN ? UNKNOWN : (walk.common?.address ?? null),
    hops: walk.hops,
    redirectPorts: walk.redirecting,
    maybeRedirectPorts: walk.maybe,
    hostBridge,
    proximity: proximityOf(judged),
    narrowestLink: narrowestLink(judged),
    kernelLog: kernelLogOf(judged),
    ...remediesOf(judged),
    missing: missingFacts(judged),
    assumptions: assumptionsOf(judged),
    notes: notesOf(judged),
  };
}

/** Only whether and how, for many pairs at once: what `p2pPath` says under these names. */
export function p2pVerdict(
  topology: Topology,
  client: Address,
  provider: Address,
  options: P2pOptions = {},
): Pick<P2pPath, "mapType" | "possible" | "isAllowed" | "distance" | "proximity"> {
  const judged = judge(topology, client, provider, options);
  return {
    mapType: judged.mapType,
    possible: judged.possible,
    isAllowed: isAllowed(judged.possible),
    distance: judged.walk.distance,
    proximity: proximityOf(judged),
  };
}

/** The rules, without any explanation. */
export function judge(
  topology: Topology,
  clientAddress: Address,
  providerAddress: Address,
  options: P2pOptions,
): Judgement {
  const rules = ruleSet(options.kernel ?? NEWEST_KERNEL);
  const client = functionAt(topology, clientAddress);
  const provider = functionAt(topology, providerAddress);
  const walk = walkBetween(topology, provider, client, options);
  const hostBridge = judgeHostBridge(topology, provider, client, rules, options.names);
  const possible = possibleTypes(walk, hostBridge.isAllowed);
  const mapType = possible.length === 1 ? (possible[0] as MapType) : UNKNOWN;
  return { topology, client, provider, rules, options, walk, hostBridge, possible, mapType };
}

function functionAt(topology: Topology, address: Address): PciFunction {
  const found = topology.functions.get(address);
  if (found !== undefined) return found;
  throw new FarpageError<PathErrorCode>(
    "PCI_NO_SUCH_FUNCTION",
    `there is no function ${address.slice(0, 40)} among the ${topology.functions.size} ` +
      "that are known",
  );
}

/** Every map type that fits what is known. */
export function possibleTypes(
  walk: Pick<Walk, "common" | "redirecting" | "maybe">,
  isHostAllowed: Tri,
): readonly MapType[] {
  const possible: MapType[] = [];
  const isRedirecting: Tri =
    walk.redirecting.length > 0 ? true : walk.maybe.length > 0 ? UNKNOWN : false;
  const hasCommon: Tri = walk.common === UNKNOWN ? UNKNOWN : walk.common !== null;
  if (hasCommon !== false && isRedirecting !== true) possible.push("BUS_ADDR");
  // By the host bridge: without a common function, or with one port that redirects.
  if (hasCommon !== true || isRedirecting !== false) {
    if (isHostAllowed !== false) possible.push("THRU_HOST_BRIDGE");
    if (isHostAllowed !== true) possible.push("NOT_SUPPORTED");
  }
  return possible;
}

export function isAllowed(possible: readonly MapType[]): Tri {
  if (!possible.includes("NOT_SUPPORTED")) return true;
  return possible.length === 1 ? false : UNKNOWN;
}

/** A function and what is above it. */
export function wayUp(topology: Topology, start: PciFunction): WayUp {
  const functions = [start];
  let parent = start.parent;
  while (parent !== UNKNOWN && parent !== null) {
    const next = topology.functions.get(parent);
    if (next === undefined) return { functions, isWhole: false };
    functions.push(next);
    parent = next.parent;
  }
  return { functions, isWhole: parent === null };
}

function walkBetween(
  topology: Topology,
  provider: PciFunction,
  client: PciFunction,
  options: P2pOptions,
): Walk {
  const providerUp = wayUp(topology, provider);
  const clientUp = wayUp(topology, client);
  const meet = providerUp.functions.findIndex((one) => clientUp.functions.includes(one));
  const met = meet < 0 ? null : (providerUp.functions[meet] as PciFunction);
  const turn = met === null ? clientUp.functions.length : clientUp.functions.indexOf(met);
  const providerSide = providerUp.functions.slice(0, met === null ? undefined : meet + 1);
  const clientSide = clientUp.functions.slice(0, turn);
  const assumed: Address[] = [];
  const hop = (one: PciFunction, side: Hop["side"]) => hopOf(one, side, options, assumed);
  const up = providerSide.map((one) => hop(one, one === met ? "common" : "provider"));
  const down = clientSide.map((one) => hop(one, "client"));
  // The kernel's order: the provider's side upward, then the client's.
  const inOrder = [...up, ...down];
  const common = met ?? noCommon(provider, client, providerUp.isWhole && clientUp.isWhole);
  // Where the two ways don't meet no port decides anything; the kernel names none either.
  const deciding = common === null ? [] : inOrder;
  const isSure = (one: Hop) => met !== null || isOnAnyWay(one, providerUp, clientUp);
  const isWhole = met !== null || (providerUp.isWhole && clientUp.isWhole);
  return {
    providerUp,
    clientUp,
    common,
    hops: [...up, ...down.reverse()],
    distance: isWhole ? (met === null ? providerSide.length : meet) + turn : UNKNOWN,
    redirecting: deciding.filter((one) => one.isRedirecting === true && isSure(one)).map(addressOf),
    maybe: deciding
      .filter((one) => one.isRedirecting === UNKNOWN || (one.isRedirecting && !isSure(one)))
      .map(addressOf),
    assumed,
  };
}

/** Two ways that are known to the top don't meet; nor do those of two domains. */
function noCommon(provider: PciFunction, client: PciFunction, isWhole: boolean): Fact<null> {
  return isWhole || provider.domain !== client.domain ? null : UNKNOWN;
}

/**
 * Whether a hop is on the pair's way wherever the two ways meet. Above the bottom that is so only
 * where the other way is known to its top: else that one may join this one lower.
 */
function isOnAnyWay(hop: Hop, providerUp: WayUp, clientUp: WayUp): boolean {
  const [own, other] = hop.side === "client" ? [clientUp, providerUp] : [providerUp, clientUp];
  return own.functions[0]?.address === hop.address || (other.isWhole && !own.isWhole);
}

function addressOf(hop: Hop): Address {
  return hop.address;
}

function hopOf(one: PciFunction, side: Hop["side"], options: P2pOptions, assumed: Address[]): Hop {
  let control: Fact<number | null> =
    one.acs === UNKNOWN || one.acs === null ? one.acs : one.acs.control;
  const assumption = options.assume?.acsControl;
  if (control === UNKNOWN && assumption !== undefined) {
    control = assumption;
    assumed.push(one.address);
  }
  const isRedirecting = control === UNKNOWN ? UNKNOWN : ((control ?? 0) & ACS.REDIRECT_MASK) !== 0;
  return {
    address: one.address,
    side,
    portType: one.pcie === UNKNOWN || one.pcie === null ? one.pcie : one.pcie.portType,
    acsControl: control,
    isRedirecting,
    linkBytesPerSecond: rateOfFunction(one),
  };
}

function routeOf(judged: Judgement): Fact<Route> {
  const { client, provider, mapType, topology } = judged;
  if (mapType === UNKNOWN) return UNKNOWN;
  if (mapType === "NOT_SUPPORTED") return "none";
  if (mapType === "BUS_ADDR") return client === provider ? "self" : "switch";
  const isTranslating = topology.iommu.isTranslating;
  if (isTranslating === UNKNOWN)
    return topology.iommu.isEnabled === false ? "host-bridge" : UNKNOWN;
  return isTranslating ? "iommu" : "host-bridge";
}

/** One switch between, or less, is PIX; the field's tools count no functions. */
const PIX_DISTANCE_MAX = 4;

function proximityOf(judged: Judgement): Fact<Proximity> {
  const { client, provider, walk, hostBridge } = judged;
  if (client === provider) return "X";
  if (walk.common === UNKNOWN) return UNKNOWN;
  if (walk.common !== null) {
    if (walk.distance === UNKNOWN) return UNKNOWN;
    return walk.distance <= PIX_DISTANCE_MAX ? "PIX" : "PXB";
  }
  if (hostBridge.isSameRootBus === true) return "PHB";
  if (hostBridge.isSameRootBus === UNKNOWN) return UNKNOWN;
  const nodes = [nodeOf(client, judged), nodeOf(provider, judged)];
  if (nodes[0] === UNKNOWN || nodes[1] === UNKNOWN) return UNKNOWN;
  return nodes[0] === nodes[1] ? "NODE" : "SYS";
}

/** A machine without NUMA nodes is one node. */
function nodeOf(one: PciFunction, judged: Judgement): Fact<number | null> {
  if (one.numaNode !== UNKNOWN) return one.numaNode;
  const { topology } = judged;
  for (let at = one.parent; at !== UNKNOWN && at !== null; ) {
    const bridge = topology.functions.get(at);
    if (bridge === undefined) break;
    if (bridge.numaNode !== UNKNOWN) return bridge.numaNode;
    at = bridge.parent;
  }
  return UNKNOWN;
}

function assumptionsOf(judged: Judgement): readonly string[] {
  const { walk, hostBridge, rules, mapType } = judged;
  const assumptions: string[] = [];
  if (walk.assumed.length > 0) {
    const control = judged.options.assume?.acsControl ?? 0;
    const isOff = (control & ACS.REDIRECT_MASK) === 0;
    assumptions.push(
      `ACS redirection taken to be ${isOff ? "off" : "on"} (as asked) at ${walk.assumed.join(" ")}`,
    );
  }
  for (const root of hostBridge.roots) {
    if (!root.isAssumed || mapType === "BUS_ADDR" || hostBridge.cpuRule === true) continue;
    assumptions.push(
      `${String(root.representative)} taken to be the first function of root bus ` +
        `${root.rootBus}, as the listing looks whole`,
    );
  }
  if (rules.isExtrapolated) {
    assumptions.push(
      `the rules of Linux ${NEWEST_KERNEL}, the newest known, hold in ${rules.release}`,
    );
  }
  return assumptions;
}

/** Whether a port on the way redirects. */
export function redirection(walk: Walk): Tri {
  return walk.hops.reduce<Tri>((all, hop) => triOr(all, hop.isRedirecting), false);
}
