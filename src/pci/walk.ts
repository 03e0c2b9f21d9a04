// SPDX-License-Identifier: MIT
// The walk of a verdict: from both functions upward, to the first that is on both ways, and what
// ACS does on the way. Read first: Linux drivers/pci/p2pdma.c, calc_map_type_and_dist. Facts may
// be missing: what is not sure to be on the way, or not known to redirect, is kept apart.

import { type Fact, type Tri, UNKNOWN } from "./fact.js";
import { rateOfFunction } from "./links.js";
import type { RuleSet } from "./rules.js";
import { ACS, type Address, type PciFunction, type Topology } from "./topology.js";
import type { Hop } from "./verdict.js";

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
  /** A port may have an egress vector that decides, which may block the pair altogether. */
  readonly mayBeBlocked: boolean;
  /** Hops whose ACS word was assumed. */
  readonly assumed: readonly Address[];
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

/** @param assumedControl the ACS word of ports whose own isn't known; null: none is assumed. */
export function walkBetween(
  providerUp: WayUp,
  clientUp: WayUp,
  rules: RuleSet,
  assumedControl: number | null,
): Walk {
  const meet = providerUp.functions.findIndex((one) => clientUp.functions.includes(one));
  const met = meet < 0 ? null : (providerUp.functions[meet] as PciFunction);
  const turn = met === null ? clientUp.functions.length : clientUp.functions.indexOf(met);
  const providerSide = providerUp.functions.slice(0, met === null ? undefined : meet + 1);
  const clientSide = clientUp.functions.slice(0, turn);
  const isWhole = met !== null || (providerUp.isWhole && clientUp.isWhole);
  const common = met ?? noCommon(providerUp, clientUp);
  const assumed: Address[] = [];
  const counted = countedBits(rules, met === null ? null : meet, turn);
  const hop = (one: PciFunction, side: Hop["side"], steps: number) =>
    hopOf(one, side, counted(side, steps), assumedControl, assumed);
  const up = providerSide.map((one, at) => hop(one, one === met ? "common" : "provider", at));
  const down = clientSide.map((one, at) => hop(one, "client", at));
  // Where the two ways don't meet no port decides anything; the kernel names none either. Else its
  // order is: the provider's side upward, then the client's.
  const deciding = common === null ? [] : [...up, ...down];
  const isSure = (one: Hop) =>
    met !== null || (!rules.isJudgedAtParting && isOnAnyWay(one, providerUp, clientUp));
  const isOpen = ({ side, isRedirecting: fact }: Hop) => side === "client" && fact === UNKNOWN;
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
    mayBeBlocked:
      rules.isJudgedAtParting && (common === UNKNOWN || deciding.some((one) => isOpen(one))),
    assumed,
  };
}

/** Two ways that are known to the top don't meet; nor do those of two domains. */
function noCommon(providerUp: WayUp, clientUp: WayUp): Fact<null> {
  const isWhole = providerUp.isWhole && clientUp.isWhole;
  const domains = [providerUp, clientUp].map(({ functions }) => functions[0]?.domain);
  return isWhole || domains[0] !== domains[1] ? null : UNKNOWN;
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

/** Bits that send the pair up, and bits with which that hangs on what isn't read. */
interface CountedBits {
  readonly redirecting: number;
  readonly open: number;
}

const EVERY: CountedBits = { redirecting: ACS.REDIRECT_MASK, open: 0 };
const NONE: CountedBits = { redirecting: 0, open: 0 };
/** At the port from which a request may turn to its peer. With egress control a vector decides. */
const REQUESTS: CountedBits = { redirecting: ACS.REQUEST_REDIRECT, open: ACS.EGRESS_CONTROL };
/** At the port from which the completion may. */
const COMPLETIONS: CountedBits = { redirecting: ACS.COMPLETION_REDIRECT, open: 0 };

/**
 * Which bits count at a hop, by its side and its steps from the bottom. Where it isn't known where
 * the ways part, each port may be the one.
 */
function countedBits(
  rules: RuleSet,
  providerTurn: number | null,
  clientTurn: number,
): (side: Hop["side"], steps: number) => CountedBits {
  if (!rules.isJudgedAtParting) return () => EVERY;
  return (side, steps) => {
    if (side === "common") return NONE;
    const bits = side === "client" ? REQUESTS : COMPLETIONS;
    if (providerTurn === null) return bits;
    // One of the two is above the other: nothing parts.
    if (providerTurn === 0 || clientTurn === 0) return NONE;
    return steps === (side === "client" ? clientTurn : providerTurn) - 1 ? bits : NONE;
  };
}

function hopOf(
  one: PciFunction,
  side: Hop["side"],
  counted: CountedBits,
  assumedControl: number | null,
  assumed: Address[],
): Hop {
  let control: Fact<number | null> =
    one.acs === UNKNOWN || one.acs === null ? one.acs : one.acs.control;
  if (control === UNKNOWN && assumedControl !== null) {
    control = assumedControl;
    assumed.push(one.address);
  }
  return {
    address: one.address,
    side,
    portType: one.pcie === UNKNOWN || one.pcie === null ? one.pcie : one.pcie.portType,
    acsControl: control,
    isRedirecting: isRedirecting(control, counted),
    linkBytesPerSecond: rateOfFunction(one),
  };
}

function isRedirecting(control: Fact<number | null>, { redirecting, open }: CountedBits): Tri {
  if ((redirecting | open) === 0 || control === null) return false;
  if (control === UNKNOWN || (control & open) !== 0) return UNKNOWN;
  return (control & redirecting) !== 0;
}
