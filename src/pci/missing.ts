// SPDX-License-Identifier: MIT
// What a verdict would need to know and doesn't, and where to get it.

import { UNKNOWN } from "./fact.js";
import type { Judgement } from "./path.js";
import type { PciFunction } from "./topology.js";
import type { MissingFact, RootVerdict } from "./verdict.js";
import type { WayUp } from "./walk.js";

export function missingFacts(judged: Judgement): readonly MissingFact[] {
  const missing: MissingFact[] = [];
  const isOpen = judged.mapType === UNKNOWN;
  waysUp(judged, isOpen, missing);
  acsWords(judged, isOpen, missing);
  hostFacts(judged, missing);
  links(judged, missing);
  if (judged.mapType === "THRU_HOST_BRIDGE" && judged.topology.iommu.isTranslating === UNKNOWN) {
    missing.push({
      subject: "iommu",
      fact: "iommu",
      isDeciding: false,
      message: "whether an IOMMU translates isn't told: read sysfs, or add /proc/cmdline",
    });
  }
  return missing;
}

function waysUp(judged: Judgement, isOpen: boolean, missing: MissingFact[]): void {
  const { walk } = judged;
  const seen = new Set<string>();
  const add = (way: WayUp) => {
    const top = way.functions.at(-1) as PciFunction;
    if (way.isWhole || seen.has(top.address)) return;
    seen.add(top.address);
    missing.push({
      subject: top.address,
      fact: "parent",
      isDeciding: isOpen,
      message:
        `what ${top.address} hangs on isn't told: add lspci -t, or all functions with ` +
        "lspci -v",
    });
  };
  // Above the common function nothing matters unless the host bridge does.
  const isNeeded = walk.common === UNKNOWN || walk.common === null || judged.mapType !== "BUS_ADDR";
  if (!isNeeded) return;
  add(walk.providerUp);
  add(walk.clientUp);
}

function acsWords(judged: Judgement, isOpen: boolean, missing: MissingFact[]): void {
  const { walk, topology } = judged;
  if (walk.common === null) return;
  // One port that redirects settles it, unless another may block.
  const isDeciding = isOpen && (walk.redirecting.length === 0 || walk.mayBeBlocked);
  for (const address of walk.maybe) {
    const one = topology.functions.get(address);
    const hop = walk.hops.find((each) => each.address === address);
    // Known to redirect, but perhaps not on the way: the way is what is missing.
    if (hop?.isRedirecting !== UNKNOWN) continue;
    const isPresent = one !== undefined && one.acs !== UNKNOWN && one.acs !== null;
    const why =
      hop.acsControl !== UNKNOWN
        ? `${address} has egress control on, and the vector that decides isn't read here`
        : isPresent
          ? `${address} has ACS, but its control word isn't shown: lspci -vvv as root shows it`
          : `whether ${address} has ACS isn't told: lspci -vvv or -xxxx as root tells it`;
    missing.push({ subject: address, fact: "acs-control", isDeciding, message: why });
  }
}

function hostFacts(judged: Judgement, missing: MissingFact[]): void {
  const { hostBridge, mapType } = judged;
  if (hostBridge.isAllowed !== UNKNOWN || mapType === "BUS_ADDR") return;
  // Where the way is by the host bridge or may be, these decide.
  const isDeciding = mapType === UNKNOWN;
  if (hostBridge.cpuRule === UNKNOWN) {
    missing.push({ subject: "cpu", fact: "cpu", isDeciding, message: hostBridge.cpuReason });
  }
  if (hostBridge.isStoppedByIommu === UNKNOWN) {
    missing.push({
      subject: "iommu",
      fact: "iommu",
      isDeciding,
      message: "whether an IOMMU driver runs isn't told: read sysfs, or add /proc/cmdline",
    });
  }
  if (hostBridge.listRule !== UNKNOWN) return;
  for (const root of hostBridge.roots) rootFacts(root, isDeciding, missing);
  for (const one of [judged.provider, judged.client]) {
    if (one.rootBus !== UNKNOWN) continue;
    missing.push({
      subject: one.address,
      fact: "root-bus",
      isDeciding,
      message: `the root bus of ${one.address} isn't told: add lspci -t`,
    });
  }
}

function rootFacts(root: RootVerdict, isDeciding: boolean, missing: MissingFact[]): void {
  const first = String(root.representative);
  if (root.representative === UNKNOWN) {
    missing.push({
      subject: root.rootBus,
      fact: "representative",
      isDeciding,
      message: `the first function of root bus ${root.rootBus} isn't told: add the whole listing`,
    });
    return;
  }
  if (root.isListed === UNKNOWN) {
    missing.push({
      subject: first,
      fact: "representative-id",
      isDeciding,
      message: `the ids of ${first} aren't told: lspci -nn shows them`,
    });
  }
  if (root.isEligible === UNKNOWN) {
    missing.push({
      subject: first,
      fact: "representative-type",
      isDeciding,
      message: `whether ${first} is a root port isn't told: lspci -v as root tells it`,
    });
  }
}

function links(judged: Judgement, missing: MissingFact[]): void {
  for (const hop of judged.walk.hops) {
    if (hop.linkBytesPerSecond !== UNKNOWN || hop.side === "common") continue;
    missing.push({
      subject: hop.address,
      fact: "link",
      isDeciding: false,
      message: `the link of ${hop.address} isn't told: lspci -vv as root shows LnkSta`,
    });
  }
}
