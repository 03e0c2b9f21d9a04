// SPDX-License-Identifier: MIT
// Bandwidth of the links on the way: payload per direction at the negotiated rate.

import { type Fact, type Tri, UNKNOWN } from "./fact.js";
import type { Judgement } from "./path.js";
import type { Address, LinkRate, PciFunction } from "./topology.js";
import type { NarrowestLink } from "./verdict.js";

/** Payload bytes per second and lane, after line coding and packet headers' share of it. */
const PER_LANE: Readonly<Record<number, number>> = {
  2.5: 250e6,
  5: 500e6,
  8: 985e6,
  16: 1_970e6,
  32: 3_940e6,
  64: 7_560e6,
};

/** Null: a link that is down. */
export function bytesPerSecond(rate: LinkRate): number | null {
  const lane = PER_LANE[rate.gigatransfers];
  return lane === undefined || rate.lanes === 0 ? null : lane * rate.lanes;
}

/** Functions that have a link above them (a downstream port's own link is the one below it). */
function hasLinkAbove(one: PciFunction): Tri {
  if (one.pcie === UNKNOWN) return one.parent === null ? false : UNKNOWN;
  if (one.pcie === null) return false;
  const { portType } = one.pcie;
  // Below a bridge, and none itself: an endpoint.
  if (portType === UNKNOWN) return one.headerType === 0 && one.parent !== null ? true : UNKNOWN;
  if (portType === "endpoint" || portType === "legacy-endpoint") return one.parent !== null;
  return portType === "switch-upstream" || portType === "pcie-to-pci";
}

/** Rate of the link above a function. Null: there is none. */
export function rateOfFunction(one: PciFunction): Fact<number | null> {
  const has = hasLinkAbove(one);
  if (has === false) return null;
  if (has === UNKNOWN || one.pcie === UNKNOWN || one.pcie === null) return UNKNOWN;
  if (one.pcie.link === UNKNOWN) return UNKNOWN;
  if (one.pcie.link === null) return null;
  // A VF shows zeros: its PF has the link.
  return bytesPerSecond(one.pcie.link) ?? UNKNOWN;
}

/** Links that the bytes of this pair cross; null: none. */
export function narrowestLink(judged: Judgement): Fact<NarrowestLink | null> {
  const { possible, client, provider } = judged;
  if (client === provider) return null;
  // Redirected and host-bridge traffic goes up to the root; direct traffic turns below.
  const isDirect = possible.includes("BUS_ADDR");
  const turning = isDirect ? narrowestOf(judged, linksBelowTurn(judged), true) : null;
  if (isDirect && possible.length === 1) return turning;
  const whole = narrowestOf(judged, linksToTop(judged), false);
  if (!isDirect || turning === null || turning === UNKNOWN) return whole;
  // By either way the same one, or nobody knows.
  return whole !== null && whole !== UNKNOWN && whole.address === turning.address ? whole : UNKNOWN;
}

function linksToTop({ walk }: Judgement): readonly PciFunction[] {
  return [...new Set([...walk.providerUp.functions, ...walk.clientUp.functions])];
}

function linksBelowTurn(judged: Judgement): readonly PciFunction[] {
  const { walk } = judged;
  if (walk.common === UNKNOWN || walk.common === null) return linksToTop(judged);
  const below = new Set(
    walk.hops.filter(({ side }) => side !== "common").map((hop) => hop.address),
  );
  return linksToTop(judged).filter(({ address }) => below.has(address));
}

/** @param isTurning the way ends where the two meet, if that is known. */
function narrowestOf(
  judged: Judgement,
  links: readonly PciFunction[],
  isTurning: boolean,
): Fact<NarrowestLink | null> {
  const { walk } = judged;
  let best: PciFunction | null = null;
  let bestRate = Number.POSITIVE_INFINITY;
  const unknownLinks: Address[] = [];
  for (const one of links) {
    const shown = physicalOf(judged, one);
    const rate = rateOfFunction(shown);
    if (rate === null) continue;
    if (rate === UNKNOWN) unknownLinks.push(one.address);
    else if (rate < bestRate) [best, bestRate] = [shown, rate];
  }
  const isMeeting = walk.common !== UNKNOWN && walk.common !== null;
  if (!isTurning || !isMeeting) {
    for (const way of [walk.providerUp, walk.clientUp]) {
      const top = way.functions.at(-1) as PciFunction;
      if (!way.isWhole && !unknownLinks.includes(top.address)) unknownLinks.push(top.address);
    }
  }
  if (best === null) return unknownLinks.length > 0 ? UNKNOWN : null;
  return describe(best, bestRate, unknownLinks);
}

function physicalOf(judged: Judgement, one: PciFunction): PciFunction {
  const { physicalFunction } = one;
  if (physicalFunction === UNKNOWN || physicalFunction === null) return one;
  return judged.topology.functions.get(physicalFunction) ?? one;
}

function describe(
  one: PciFunction,
  rate: number,
  unknownLinks: readonly Address[],
): NarrowestLink | Fact<null> {
  if (one.pcie === UNKNOWN || one.pcie === null) return UNKNOWN;
  const { link, linkMax } = one.pcie;
  if (link === UNKNOWN || link === null) return UNKNOWN;
  const most = linkMax === UNKNOWN || linkMax === null ? null : bytesPerSecond(linkMax);
  return {
    address: one.address,
    bytesPerSecond: rate,
    gigatransfers: link.gigatransfers,
    lanes: link.lanes,
    isDegraded: most === null ? UNKNOWN : rate < most,
    unknownLinks,
  };
}
