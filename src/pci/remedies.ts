// SPDX-License-Identifier: MIT
// What an administrator could change, each with the verdict that it would give, and what is often
// tried and would change nothing.

import { type Fact, UNKNOWN } from "./fact.js";
import { isAllowed, type Judgement, possibleTypes } from "./path.js";
import { firstLaterRelease, NEWEST_KERNEL } from "./rules.js";
import type { Address, PciFunction } from "./topology.js";
import type { Futile, MapType, Remedy, RootVerdict } from "./verdict.js";

const NVIDIA = 0x10de;
const GROUP_COST =
  "the devices behind these ports share one IOMMU group: no isolation between them";

export function remediesOf(judged: Judgement): {
  readonly remedies: readonly Remedy[];
  readonly futile: readonly Futile[];
} {
  const remedies: Remedy[] = [];
  if (judged.mapType !== "BUS_ADDR") {
    redirectRemedies(judged, remedies);
    if (judged.mapType === "NOT_SUPPORTED") refusalRemedies(judged, remedies);
    else if (isMovable(judged)) remedies.push(sameSwitch());
  }
  resizeRemedy(judged, remedies);
  return { remedies, futile: futileOf(judged) };
}

function hasCommon(judged: Judgement): boolean {
  const { common } = judged.walk;
  return common !== null && common !== UNKNOWN;
}

/** With every port that redirects switched off. */
function withoutRedirection(judged: Judgement): Fact<MapType> {
  const possible = possibleTypes({ ...judged.walk, redirecting: [] }, judged.hostBridge);
  return possible.length === 1 ? (possible[0] as MapType) : UNKNOWN;
}

function redirectRemedies(judged: Judgement, remedies: Remedy[]): void {
  const { walk, rules } = judged;
  if (!hasCommon(judged) || walk.redirecting.length === 0) return;
  const predicted = withoutRedirection(judged);
  const ports = walk.redirecting;
  // GRUB manual, "Shell-like scripting": an unquoted semicolon separates commands.
  const quoted =
    ports.length > 1 ? "; in GRUB's files in single quotes: it ends a command at a bare ;" : "";
  remedies.push({
    kind: "disable-acs-redir",
    command: `pci=disable_acs_redir=${ports.join(";")}`,
    action: "boot with this kernel parameter: it clears the redirect bits of these ports",
    predicted,
    cost: `a reboot; ${GROUP_COST}${quoted}`,
  });
  if (rules.hasConfigAcs) {
    remedies.push({
      kind: "config-acs",
      // From the left: DirectTrans EgressCtrl UpstreamFwd CmpltRedir ReqRedir TransBlk SrcValid.
      command: `pci=config_acs=${ports.map((port) => `x0x00xx@${port}`).join(";")}`,
      action: "or with this one, which says for each bit what it shall be (x: left alone)",
      predicted,
      cost:
        `a reboot; ${GROUP_COST}; ` +
        `entries after the first need a kernel of 2025 or later${quoted}`,
    });
  }
  remedies.push({
    kind: "setpci",
    command: ports
      .map((port) => `setpci -s ${port} ${acsRegister(judged, port)}.w=0:2c`)
      .join("; "),
    action: "for a try, as root, before any driver has asked for this pair",
    predicted,
    cost:
      "until the next boot what is behind these ports reaches each other's memory past the " +
      "IOMMU, while the groups still promise isolation; verdicts already made stay too",
  });
  remedies.push({
    kind: "firmware",
    command: null,
    action: "switch ACS off in the firmware's setup, and the IOMMU off if nothing needs it",
    predicted: UNKNOWN,
    cost:
      "no isolation of passed-through devices; a kernel with an IOMMU driver sets the bits " +
      "again",
  });
}

/** `ECAP_ACS+6`, or the offset itself where it is known: old setpci doesn't know the name. */
function acsRegister(judged: Judgement, port: Address): string {
  const acs = judged.topology.functions.get(port)?.acs;
  if (acs === undefined || acs === UNKNOWN || acs === null || acs.offset === UNKNOWN) {
    return "ECAP_ACS+6";
  }
  return (acs.offset + 6).toString(16);
}

function refusalRemedies(judged: Judgement, remedies: Remedy[]): void {
  const { rules, hostBridge } = judged;
  const later = firstLaterRelease(
    rules,
    ({ release }) => isAllowed(judged.under(release).possible) === true,
  );
  if (later !== null) {
    const then = judged.under(later);
    remedies.push({
      kind: "newer-kernel",
      command: null,
      action: laterText(judged, later, then),
      predicted: then.mapType,
      cost: "a kernel upgrade",
    });
  }
  const isSameOnly = hostBridge.roots.some(
    (root) => root.isListed === true && root.isEligible === true && root.isSameBusOnly === true,
  );
  if (hostBridge.isSameRootBus === false && isSameOnly) {
    remedies.push({
      kind: "same-socket",
      command: null,
      action:
        `put both below root bus ${listedBus(judged)}: its host bridge is listed for ` +
        "itself only",
      predicted: "THRU_HOST_BRIDGE",
      cost: "moving a card",
    });
  }
  if (isMovable(judged)) remedies.push(sameSwitch());
}

/**
 * Known to have no bridge in common, and below a bridge each: what sits on a root bus itself is a
 * part of the processor or chipset.
 */
function isMovable(judged: Judgement): boolean {
  return judged.walk.common === null && fixedOf(judged).length === 0;
}

function fixedOf({ client, provider }: Judgement): readonly PciFunction[] {
  return [client, provider].filter(({ parent }) => parent === null);
}

/** What a later release does that this one doesn't: a list, a rule, or what the list is held to. */
function laterText(judged: Judgement, later: string, then: Judgement): string {
  if (later === "next") {
    return `a kernel newer than ${NEWEST_KERNEL}: what allows it is in a development tree`;
  }
  const since = `Linux ${later} or later`;
  const { hostBridge } = judged;
  if (then.hostBridge.cpuRule === true) return `${since} has a rule for this processor`;
  if (hostBridge.listRule === true) {
    return hostBridge.isStoppedByIommu === false
      ? `${since} lets what ACS redirects pass the host bridge`
      : `${since} lets peers pass the host bridge with an IOMMU on`;
  }
  const isListed = (root: RootVerdict) => root.isListed === true;
  if (hostBridge.roots.every(isListed)) {
    return `${since} lets a root port at any device number stand for its root bus`;
  }
  return `${since} lists this host bridge`;
}

function listedBus(judged: Judgement): string {
  const root = judged.hostBridge.roots.find(
    (one) => one.isListed === true && one.isEligible === true,
  );
  return root?.rootBus ?? "";
}

function sameSwitch(): Remedy {
  return {
    kind: "same-switch",
    command: null,
    action: "put both cards under one PCIe switch whose ports don't redirect",
    predicted: "BUS_ADDR",
    cost: "moving a card, or a switch",
  };
}

function resizeRemedy(judged: Judgement, remedies: Remedy[]): void {
  const { provider, mapType } = judged;
  if (provider.resizableBars === UNKNOWN) return;
  for (const bar of provider.resizableBars) {
    if (bar.size === UNKNOWN || bar.sizes === UNKNOWN) continue;
    const most = bar.sizes.reduce((best, size) => (size > best ? size : best), 0n);
    // The reader takes what the register says; more than that isn't worth a line.
    if (most <= bar.size) continue;
    remedies.push({
      kind: "resize-bar",
      command:
        `echo ${Math.log2(Number(most >> 20n))} > ` +
        `/sys/bus/pci/devices/${provider.address}/resource${bar.index}_resize`,
      action:
        `BAR ${bar.index} offers ${mebibytes(bar.size)} of up to ${mebibytes(most)}; ` +
        "Above 4G decoding and resizable BAR in the firmware's setup do it at boot",
      predicted: mapType,
      cost: "address space; the driver must be unbound while it is done by hand",
    });
  }
}

function mebibytes(bytes: bigint): string {
  return `${bytes >> 20n} MiB`;
}

function involvesNvidia({ client, provider }: Judgement): boolean {
  return client.vendorId === NVIDIA || provider.vendorId === NVIDIA;
}

function futileOf(judged: Judgement): readonly Futile[] {
  const { walk, mapType } = judged;
  if (mapType === "BUS_ADDR" || mapType === UNKNOWN) return [];
  const futile: Futile[] = [];
  const isRedirected = hasCommon(judged) && walk.redirecting.length > 0;
  if (isRedirected) {
    futile.push(
      {
        what: "pcie_acs_override=",
        why:
          "an out-of-tree patch that only pretends isolation when groups are made; the " +
          "ports redirect as before, and the groups are a lie",
      },
      {
        what: "iommu=pt",
        why:
          "passthrough changes the addresses, not the ACS bits: the kernel sets those all " +
          "the same",
      },
      {
        what: "setpci after the drivers have started",
        why: "the kernel keeps the verdict of a pair that it has been asked for",
      },
    );
  } else if (walk.common === null) {
    futile.push({
      what: "any change of ACS (pci=disable_acs_redir=, config_acs=, setpci, pcie_acs_override=)",
      why:
        "the two have no bridge in common: the way is over the host bridge whatever the " +
        "ports do",
    });
  }
  const [fixed] = fixedOf(judged);
  if (walk.common === null && fixed !== undefined) {
    futile.push({
      what: "moving a card",
      why: `${fixed.address} sits on the root bus itself: no switch can be put above it`,
    });
  }
  if (mapType === "NOT_SUPPORTED" && involvesNvidia(judged)) {
    futile.push({
      what: "nvidia-smi topo -p2p says OK",
      why: "NVIDIA's own driver has a list of chipsets of its own and doesn't ask this one",
    });
  }
  return futile;
}
