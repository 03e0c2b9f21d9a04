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
  if (portType === UNKNOWN) return UNKNOWN;
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
  const { walk, mapType, client, provider } = judged;
  if (client === provider) return null;
  // Redirected and host-bridge traffic goes up to the root; direct traffic turns below.
  const isDirect = mapType === "BUS_ADDR" || mapType === UNKNOWN;
  const { common } = walk;
  const isOnWay = (one: PciFunction) => isBelow(one, common);
  const all = new Set([...walk.providerUp.functions, ...walk.clientUp.functions]);
  const onWay = [...all].filter((one) => !isDirect || isOnWay(one));
  let best: PciFunction | null = null;
  let bestRate = Number.POSITIVE_INFINITY;
  const unknownLinks: Address[] = [];
  for (const one of onWay) {
    const shown = physicalOf(judged, one);
    const rate = rateOfFunction(shown);
    if (rate === null) continue;
    if (rate === UNKNOWN) unknownLinks.push(one.address);
    else if (rate < bestRate) [best, bestRate] = [shown, rate];
  }
  if (!walk.providerUp.isWhole || !walk.clientUp.isWhole) {
    if (common === UNKNOWN || common === null || !isDirect) {
      for (const way of [walk.providerUp, walk.clientUp]) {
        const top = way.functions.at(-1) as PciFunction;
        if (!way.isWhole && !unknownLinks.includes(top.address)) unknownLinks.push(top.address);
      }
    }
  }
  if (best === null) return unknownLinks.length > 0 ? UNKNOWN : null;
  return describe(best, bestRate, unknownLinks);

  function isBelow(one: PciFunction, top: Fact<PciFunction | null>): boolean {
    if (top === UNKNOWN || top === null) return true;
    return walk.hops.some((hop) => hop.address === one.address && hop.side !== "common");
  }
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
