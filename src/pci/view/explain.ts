// SPDX-License-Identifier: MIT
// One path in sentences: the answer, the walk hop by hop, the rule that decided, what would change
// it and what would not. `pathText` is the short form of the same.

import { UNKNOWN } from "../fact.js";
import { ACS } from "../topology.js";
import type { Hop, P2pPath, P2pVerdict, RootVerdict } from "../verdict.js";
import { hex, type Inventory } from "./inventory.js";
import {
  acsBits,
  answerOf,
  count,
  linkText,
  PORT_TEXTS,
  PROXIMITY_TEXTS,
  rateText,
} from "./words.js";

/** The answer and what it rests on, a line each. */
export function pathText(inventory: Inventory, path: P2pPath): string[] {
  const lines = [headline(inventory, path), `  ${whereText(path)}`];
  if (path.redirectPorts.length > 0) {
    lines.push(`  ACS redirects at ${path.redirectPorts.join(", ")}`);
  }
  if (path.maybeRedirectPorts.length > 0) {
    lines.push(`  ACS unknown at ${path.maybeRedirectPorts.join(", ")}`);
  }
  if (isHostBridgeAsked(path)) lines.push(...hostBridgeSummary(path));
  const link = linkLine(path);
  if (link !== null) lines.push(`  ${link}`);
  for (const line of path.kernelLog) lines.push(`  the kernel would log: ${line}`);
  for (const { message, isDeciding } of path.missing) {
    if (isDeciding) lines.push(`  unknown: ${message}`);
  }
  for (const assumption of path.assumptions) lines.push(`  assumed: ${assumption}`);
  // A larger BAR shows more memory, and leads nowhere else.
  const remedy = path.remedies.find(({ kind }) => kind !== "resize-bar");
  if (remedy !== undefined && answerOf(path) !== "direct") {
    const aim = path.isAllowed === true ? "for a way below the host bridge" : "to change it";
    lines.push(`  ${aim}: ${remedy.command ?? remedy.action}`);
  }
  return lines;
}

/** The whole story, as paragraphs: a title line, then indented lines, a blank line between. */
export function explainText(inventory: Inventory, path: P2pPath): string[] {
  const sections: (readonly [title: string, lines: readonly string[]])[] = [
    [headline(inventory, path), [whereText(path)]],
    ["The way:", wayLines(inventory, path)],
    [`What decides, by the rules of kernel ${path.kernel}:`, decisionLines(inventory, path)],
    ["What the kernel would log:", path.kernelLog],
    ["Not known here:", path.missing.map(missingLine)],
    ["Taken for true without the dump saying so:", path.assumptions],
    ["What would change it:", path.remedies.flatMap(remedyLines)],
    ["What would not help:", path.futile.map(({ what, why }) => `${what}: ${why}`)],
    ["Also:", path.notes],
  ];
  const lines: string[] = [];
  for (const [title, body] of sections) {
    if (body.length === 0) continue;
    if (lines.length > 0) lines.push("");
    lines.push(title, ...body.map((line) => `  ${line}`));
  }
  return lines;
}

/** The answer in one sentence. */
export function headline(inventory: Inventory, path: P2pVerdict): string {
  const client = inventory.title(path.client);
  const provider = inventory.title(path.provider);
  const pair = `${client} to the memory of ${provider}`;
  switch (answerOf(path)) {
    case "direct":
      return path.client === path.provider
        ? `${pair}: works, it is its own (BUS_ADDR).`
        : `${pair}: works, straight through a switch or bridge (BUS_ADDR).`;
    case "host-bridge":
      return `${pair}: works, through the host bridge (THRU_HOST_BRIDGE).`;
    case "allowed":
      return `${pair}: works, but by which way is unknown (${path.possible.join(" or ")}).`;
    case "refused":
      return `${pair}: refused (NOT_SUPPORTED).`;
    case "unknown":
      return `${pair}: unknown (${path.possible.join(" or ")}).`;
  }
}

function whereText(path: P2pPath): string {
  const distance = path.distance === UNKNOWN ? "distance unknown" : `distance ${path.distance}`;
  const proximity =
    path.proximity === UNKNOWN
      ? "how near they are is unknown"
      : `${path.proximity}: ${PROXIMITY_TEXTS[path.proximity]}`;
  const routes = {
    self: "the device itself",
    switch: "turns below the root complex",
    "host-bridge": "up to the host bridge and down again",
    iommu: "up through the IOMMU and down again",
    none: "no route",
    [UNKNOWN]: "route unknown",
  } as const;
  const isOnlyIommuUnknown = path.route === UNKNOWN && path.mapType === "THRU_HOST_BRIDGE";
  const route = isOnlyIommuUnknown
    ? "up to the host bridge and down again, whether through an IOMMU is unknown"
    : routes[path.route];
  return `${route}; ${distance}; ${proximity}`;
}

/** Client and provider have no switch in common, or something redirects: the host bridge counts. */
function isHostBridgeAsked(path: P2pPath): boolean {
  if (path.mapType === "BUS_ADDR") return false;
  return path.possible.some((mapType) => mapType !== "BUS_ADDR");
}

function wayLines(inventory: Inventory, path: P2pPath): string[] {
  const lines: string[] = [];
  let previous: Hop | null = null;
  for (const [index, hop] of path.hops.entries()) {
    if (previous?.side === "provider" && hop.side === "client") {
      lines.push(`   -  ${crossingText(path)}`);
    }
    lines.push(`${`${index + 1}.`.padStart(4)} ${hopText(inventory, path, hop)}`);
    previous = hop;
  }
  const link = linkLine(path);
  if (link !== null) lines.push(link);
  return lines;
}

/** Between the two roots. */
function crossingText(path: P2pPath): string {
  const [first, second] = path.hostBridge.roots;
  if (first === undefined) return "the root complex: which root bus it is isn't known";
  if (second === undefined) {
    return `root bus ${first.rootBus}: both ways end here, no bridge is above both`;
  }
  return `root buses ${first.rootBus} and ${second.rootBus}: no bridge is above both`;
}

function hopText(inventory: Inventory, path: P2pPath, hop: Hop): string {
  const item = inventory.get(hop.address);
  const port = hop.portType === UNKNOWN || hop.portType === null ? null : PORT_TEXTS[hop.portType];
  const role =
    hop.address === path.provider
      ? "whose memory it is"
      : hop.address === path.client
        ? "that reads and writes"
        : hop.side === "common"
          ? "where the two ways meet"
          : null;
  const what = [item.shortName, port, role].filter((text) => text !== null).join(", ");
  const link =
    hop.linkBytesPerSecond === UNKNOWN || hop.linkBytesPerSecond === null
      ? ""
      : `; its link carries ${rateText(hop.linkBytesPerSecond)}`;
  return `${inventory.title(hop.address)} ${what}: ${acsText(hop)}${link}`;
}

function acsText(hop: Hop): string {
  if (hop.acsControl === null) return "no ACS, it redirects nothing";
  if (hop.acsControl === UNKNOWN) return "whether its ACS redirects is unknown";
  const bits = acsBits(hop.acsControl);
  if (hop.isRedirecting === UNKNOWN) return `ACS ${bits}: its egress vector decides`;
  if (hop.isRedirecting) return `ACS REDIRECTS (${bits}): what peers send is sent up`;
  if (bits === "") return "ACS is all off";
  const isOn = (hop.acsControl & ACS.REDIRECT_MASK) !== 0;
  return `ACS ${bits}: redirects nothing${isOn ? " of this pair" : ""}`;
}

function decisionLines(inventory: Inventory, path: P2pPath): string[] {
  if (path.client === path.provider && path.mapType === "BUS_ADDR") {
    return ["It is one function, and its own ACS redirects nothing."];
  }
  const lines: string[] = [];
  if (path.common === null) {
    lines.push("No bridge is above both: only the host bridge could join the two ways.");
  } else if (path.common === UNKNOWN) {
    lines.push("Whether a bridge is above both is unknown.");
  } else {
    lines.push(`The ways meet at ${inventory.title(path.common)}.`);
    lines.push(...redirectLines(path));
  }
  if (isHostBridgeAsked(path)) lines.push(...hostBridgeLines(path));
  return lines;
}

function redirectLines(path: P2pPath): string[] {
  const lines: string[] = [];
  const { redirectPorts, maybeRedirectPorts } = path;
  if (redirectPorts.length > 0) {
    lines.push(
      `ACS redirects at ${count(redirectPorts.length, "function")} of the way ` +
        `(${redirectPorts.join(", ")}): what peers send is sent up to the host bridge.`,
    );
  }
  if (maybeRedirectPorts.length > 0) {
    lines.push(`Whether ACS redirects is unknown at ${maybeRedirectPorts.join(", ")}.`);
  }
  if (lines.length === 0) lines.push("No function of the way redirects: switches route it.");
  return lines;
}

function hostBridgeLines(path: P2pPath): string[] {
  const { hostBridge } = path;
  return [
    `Processor: ${hostBridge.cpuReason}`,
    ...hostBridge.roots.map((root) => `${rootText(root, path.kernel)}.`),
    ...sameBusLines(path),
    ...olderRuleLines(path),
    `So the host bridge ${hostBridgeAnswer(path)}.`,
  ];
}

function sameBusLines(path: P2pPath): string[] {
  const { isSameRootBus, roots } = path.hostBridge;
  if (isSameRootBus !== false || !roots.some(({ isSameBusOnly }) => isSameBusOnly === true)) {
    return [];
  }
  return ["Two root buses: an entry for pairs on the same root bus only does not count."];
}

/** What Linux before 5.4 refuses whatever its list says. */
function olderRuleLines({ hostBridge, redirectPorts, kernel }: P2pPath): string[] {
  const lines: string[] = [];
  if (hostBridge.refusesRedirected && redirectPorts.length > 0) {
    lines.push(`Linux ${kernel} lets nothing pass that ACS sends up.`);
  }
  if (hostBridge.isStoppedByIommu !== false) {
    const runs = hostBridge.isStoppedByIommu === true ? "one runs" : "whether one runs is unknown";
    lines.push(`Linux ${kernel} lets nothing pass while an IOMMU driver runs: ${runs}.`);
  }
  return lines;
}

function hostBridgeAnswer(path: P2pPath): string {
  const { cpuRule, refusesRedirected } = path.hostBridge;
  const isRefused = refusesRedirected && path.redirectPorts.length > 0;
  const isAllowed = isRefused ? false : path.hostBridge.isAllowed;
  if (isAllowed === UNKNOWN) return "may or may not pass it on: that is unknown";
  if (!isAllowed) return "is not trusted to pass it on";
  return cpuRule === true
    ? "passes it on, by the rule for this processor"
    : "passes it on, by the kernel's list";
}

function hostBridgeSummary(path: P2pPath): string[] {
  const { hostBridge } = path;
  if (hostBridge.cpuRule === true) return [`  host bridge: ${hostBridge.cpuReason}`];
  return hostBridge.roots.map((root) => `  host bridge: ${rootText(root, path.kernel)}`);
}

/** A root bus as the list rule sees it. */
export function rootText(root: RootVerdict, kernel: string): string {
  const { rootBus, representative, vendorId, deviceId } = root;
  if (representative === null) return `root bus ${rootBus} has no device that could stand for it`;
  if (representative === UNKNOWN) return `what stands first on root bus ${rootBus} is unknown`;
  const id =
    vendorId === UNKNOWN || deviceId === UNKNOWN
      ? "(numbers not told)"
      : `${hex(vendorId, 4)}:${hex(deviceId, 4)}`;
  return `for root bus ${rootBus} stands ${representative} ${id}, ${listText(root, kernel)}`;
}

function listText(root: RootVerdict, kernel: string): string {
  if (root.isEligible === false) {
    return "which can't stand for it: it is neither device 00.0 nor a root port";
  }
  if (root.isListed === UNKNOWN) return "and whether the kernel lists that is unknown";
  if (!root.isListed) {
    const since = root.listedSince;
    const isLater = since !== null && isNewer(since, kernel);
    return `which the kernel does not list${isLater ? ` (kernel ${since} and later do)` : ""}`;
  }
  const doubt = root.isEligible === UNKNOWN ? ", if it may stand for it" : "";
  const name = root.listedAs === null ? "" : ` as ${root.listedAs}`;
  const only = root.isSameBusOnly === true ? ", for pairs of the same root bus only" : "";
  return `which the kernel lists${name}${only}${doubt}`;
}

/** Whether a release is newer than another: `5.15` than `5.9`; what is under review than all. */
function isNewer(release: string, than: string): boolean {
  const parse = (text: string) => text.split(".").map(Number);
  const [major = Number.NaN, minor = 0] = parse(release);
  const [thanMajor = Number.NaN, thanMinor = 0] = parse(than);
  if (Number.isNaN(thanMajor)) return false;
  if (Number.isNaN(major)) return true;
  return major > thanMajor || (major === thanMajor && minor > thanMinor);
}

function linkLine(path: P2pPath): string | null {
  const link = path.narrowestLink;
  if (link === null || path.client === path.provider) return null;
  if (link === UNKNOWN) return "the narrowest link of the way is unknown";
  const rate = linkText(link);
  const degraded = link.isDegraded === true ? ", below what it could do" : "";
  const unknown =
    link.unknownLinks.length === 0
      ? ""
      : `; ${count(link.unknownLinks.length, "link")} of the way not known may be narrower`;
  const where = `above ${link.address}, ${rate}${degraded}`;
  return `narrowest link: ${rateText(link.bytesPerSecond)} (${where})${unknown}`;
}

function missingLine(missing: P2pPath["missing"][number]): string {
  return missing.isDeciding ? `DECIDES: ${missing.message}` : missing.message;
}

function remedyLines(remedy: P2pPath["remedies"][number]): string[] {
  const predicted =
    remedy.predicted === UNKNOWN ? "what comes of it is unknown" : `then ${remedy.predicted}`;
  const lines = [`* ${remedy.action} (${predicted})`];
  if (remedy.command !== null) lines.push(`    ${remedy.command}`);
  if (remedy.cost !== "") lines.push(`    cost: ${remedy.cost}`);
  return lines;
}
