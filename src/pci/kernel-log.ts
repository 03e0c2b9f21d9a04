// SPDX-License-Identifier: MIT
// What the kernel prints about a pair, in its own words (Linux drivers/pci/p2pdma.c), without time
// and with the driver's name where it is known.

import { idText } from "./address.js";
import { UNKNOWN } from "./fact.js";
import type { Judgement } from "./path.js";
import type { PciFunction } from "./topology.js";

/** From 5.14 on the list has 128 bytes; addresses of a usual length fit nine times. */
export const KERNEL_LIST_MAX = 9;

/** @returns no line where nothing is printed or where it isn't known what is. */
export function kernelLogOf(judged: Judgement): readonly string[] {
  const { mapType, walk, client, provider, rules } = judged;
  if (mapType === UNKNOWN || mapType === "BUS_ADDR") return [];
  const lines: string[] = [];
  const who = prefix(client);
  // Before 5.4 each kind of refusal has its own line, and the second has no list of host bridges.
  const isOld = !rules.takesRedirected;
  const isRedirected = walk.common !== null && walk.common !== UNKNOWN;
  if (isRedirected) lines.push(...redirectLines(judged, who, isOld));
  if (isRedirected && rules.logsHostBridge && judged.hostBridge.cpuRule === false) {
    const unlisted = unlistedRoot(judged);
    if (unlisted !== null) {
      const root = judged.topology.functions.get(unlisted.address);
      lines.push(
        `${root === undefined ? "pci" : prefix(root)}: ` +
          `Host bridge not in P2PDMA whitelist: ${unlisted.id}`,
      );
    }
  }
  if (mapType === "NOT_SUPPORTED" && !(isOld && isRedirected)) {
    lines.push(
      `${who}: cannot be used for peer-to-peer DMA as the client and provider ` +
        `(${provider.address}) do not share an upstream bridge` +
        `${isOld ? "" : " or whitelisted host bridge"}`,
    );
  }
  return lines;
}

/** The list only where it is known to be whole. */
function redirectLines(judged: Judgement, who: string, isOld: boolean): string[] {
  const { walk, provider, rules } = judged;
  const cannot = isOld ? "cannot be used for peer-to-peer DMA as " : "";
  const lines = [
    `${who}: ${cannot}ACS redirect is set between the client and provider (${provider.address})`,
  ];
  if (walk.maybe.length === 0) {
    const shown = walk.redirecting.slice(0, rules.logsHostBridge ? KERNEL_LIST_MAX : undefined);
    lines.push(
      `${who}: to disable ACS redirect for this path, add the kernel parameter: ` +
        `pci=disable_acs_redir=${shown.join(";")}`,
    );
  }
  return lines;
}

function prefix(one: PciFunction): string {
  return `${one.names.driver ?? "pci"} ${one.address}`;
}

/** The first representative that may stand for its bus and isn't listed: the kernel names it. */
function unlistedRoot(judged: Judgement): { address: string; id: string } | null {
  const { roots } = judged.hostBridge;
  for (const root of roots) {
    if (root.isEligible !== true || root.isListed === UNKNOWN) return null;
    if (root.isListed) {
      // A listed one for the same bus only ends the search without a word.
      if (roots.length === 2 && root.isSameBusOnly === true) return null;
      continue;
    }
    if (root.vendorId === UNKNOWN || root.deviceId === UNKNOWN) return null;
    if (root.representative === UNKNOWN || root.representative === null) return null;
    return { address: root.representative, id: idText(root.vendorId, root.deviceId) };
  }
  return null;
}
