// SPDX-License-Identifier: MIT
// `p2pPath`: the kernel's verdict for a client and a provider, with three-valued facts. Read first:
// Linux drivers/pci/p2pdma.c, calc_map_type_and_dist and the functions around it.
//
// With facts missing there are several verdicts that the machine could give. All of them are kept:
// the verdict is known where they agree.

import { FarpageError } from "../base/index.js";
import { type Fact, type Tri, UNKNOWN } from "./fact.js";
import { HostRule } from "./host-rule.js";
import { kernelLogOf } from "./kernel-log.js";
import { narrowestLink } from "./links.js";
import { missingFacts } from "./missing.js";
import { notesOf } from "./notes.js";
import { NumaNodes } from "./numa.js";
import { remediesOf } from "./remedies.js";
import { NEWEST_KERNEL, type PathErrorCode, type RuleSet, ruleSet } from "./rules.js";
import { ACS, type Address, type PciFunction, type Topology } from "./topology.js";
import type {
  HostBridgeVerdict,
  MapType,
  P2pOptions,
  P2pPath,
  P2pVerdict,
  Proximity,
  Route,
} from "./verdict.js";
import { type Walk, type WayUp, walkBetween, wayUp } from "./walk.js";

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
  readonly nodes: NumaNodes;
  /** The same pair by the rules of another release. */
  readonly under: (kernel: string) => Judgement;
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
  const judged = new Judge(topology, options).judge(client, provider);
  return {
    ...verdictOf(judged),
    route: routeOf(judged),
    common: judged.walk.common === UNKNOWN ? UNKNOWN : (judged.walk.common?.address ?? null),
    hops: judged.walk.hops,
    hostBridge: judged.hostBridge,
    narrowestLink: narrowestLink(judged),
    kernelLog: kernelLogOf(judged),
    ...remediesOf(judged),
    missing: missingFacts(judged),
    assumptions: assumptionsOf(judged),
    notes: notesOf(judged),
  };
}

/**
 * For many pairs of one topology: whether and how, without the walk, the remedies and the reasons.
 *
 * @returns what `p2pPath` says of a pair under these names, in a fraction of the time.
 * @throws FarpageError `PCI_UNKNOWN_KERNEL`; the function that it returns, `PCI_NO_SUCH_FUNCTION`.
 */
export function p2pVerdicts(
  topology: Topology,
  options: P2pOptions = {},
): (client: Address, provider: Address) => P2pVerdict {
  const judge = new Judge(topology, options);
  return (client, provider) => verdictOf(judge.judge(client, provider));
}

function verdictOf(judged: Judgement): P2pVerdict {
  const { client, provider, rules, walk, mapType, possible } = judged;
  return {
    client: client.address,
    provider: provider.address,
    kernel: rules.release,
    mapType,
    possible,
    isAllowed: isAllowed(possible),
    distance: walk.distance,
    proximity: proximityOf(judged),
    redirectPorts: walk.redirecting,
    maybeRedirectPorts: walk.maybe,
  };
}

/** The rules of one release on one topology, without any explanation. */
export class Judge {
  readonly #topology: Topology;
  readonly #options: P2pOptions;
  readonly #rules: RuleSet;
  readonly #hostRule: HostRule;
  readonly #nodes: NumaNodes;
  readonly #ways = new Map<Address, WayUp>();

  constructor(topology: Topology, options: P2pOptions) {
    this.#topology = topology;
    this.#options = options;
    this.#rules = ruleSet(options.kernel ?? NEWEST_KERNEL);
    this.#hostRule = new HostRule(topology, this.#rules, options.names);
    this.#nodes = new NumaNodes(topology);
  }

  judge(clientAddress: Address, providerAddress: Address): Judgement {
    const topology = this.#topology;
    const options = this.#options;
    const rules = this.#rules;
    const client = functionAt(topology, clientAddress);
    const provider = functionAt(topology, providerAddress);
    const assumed = options.assume?.acsControl ?? null;
    const walk = walkBetween(this.#wayUp(provider), this.#wayUp(client), rules, assumed);
    const hostBridge = this.#hostRule.judge(provider, client);
    const possible = possibleTypes(walk, hostBridge);
    const mapType = possible.length === 1 ? (possible[0] as MapType) : UNKNOWN;
    const under = (kernel: string) =>
      new Judge(topology, { ...options, kernel }).judge(clientAddress, providerAddress);
    const about = { topology, client, provider, rules, options, nodes: this.#nodes };
    return { ...about, walk, hostBridge, possible, mapType, under };
  }

  #wayUp(start: PciFunction): WayUp {
    let way = this.#ways.get(start.address);
    if (way === undefined) {
      way = wayUp(this.#topology, start);
      this.#ways.set(start.address, way);
    }
    return way;
  }
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
  walk: Pick<Walk, "common" | "redirecting" | "maybe" | "mayBeBlocked">,
  hostBridge: HostBridgeVerdict,
): readonly MapType[] {
  // Where the ways aren't known to their ends, ports that nobody shows may redirect.
  const isOpen = walk.maybe.length > 0 || walk.common === UNKNOWN;
  const isRedirecting: Tri = walk.redirecting.length > 0 ? true : isOpen ? UNKNOWN : false;
  const hasCommon: Tri = walk.common === UNKNOWN ? UNKNOWN : walk.common !== null;
  // What the host bridge would do in each case in which it is asked.
  const answers: Tri[] = [];
  if (hasCommon !== true) answers.push(hostBridge.isAllowed);
  if (hasCommon !== false && isRedirecting !== false) {
    answers.push(hostBridge.refusesRedirected ? false : hostBridge.isAllowed);
    // An egress vector may as well block (PCIe §6.12.3).
    if (walk.mayBeBlocked) answers.push(false);
  }
  const possible: MapType[] = [];
  if (hasCommon !== false && isRedirecting !== true) possible.push("BUS_ADDR");
  if (answers.some((answer) => answer !== false)) possible.push("THRU_HOST_BRIDGE");
  if (answers.some((answer) => answer !== true)) possible.push("NOT_SUPPORTED");
  return possible;
}

export function isAllowed(possible: readonly MapType[]): Tri {
  if (!possible.includes("NOT_SUPPORTED")) return true;
  return possible.length === 1 ? false : UNKNOWN;
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
  const isOneNode = judged.nodes.areOne(client, provider);
  if (isOneNode === UNKNOWN) return UNKNOWN;
  return isOneNode ? "NODE" : "SYS";
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
