// SPDX-License-Identifier: MIT
// Where hardware is known to do otherwise than the rule says, and what else decides how well it
// goes. Facts from the kernel's quirks and from measurements that the documentation names.

import { UNKNOWN } from "./fact.js";
import { hasWideAcs } from "./host-bridges.js";
import { KERNEL_LIST_MAX } from "./kernel-log.js";
import type { Judgement } from "./path.js";
import { ACS, type PciFunction } from "./topology.js";
import type { RootVerdict } from "./verdict.js";

/** A BAR of this size is what GPUs show without resizable BARs. */
const SMALL_WINDOW = 256n << 20n;
/** First functions of the root buses of Skylake-SP and Cascade Lake-SP. */
const SKYLAKE_ROOTS: ReadonlySet<number> = new Set([0x2020, 0x2030, 0x2031, 0x2032, 0x2033]);

export function notesOf(judged: Judgement): readonly string[] {
  const notes: string[] = [];
  portNotes(judged, notes);
  if (isIdleRedirection(judged)) {
    notes.push(
      "where the ways part none of these bits acts on this pair (PCIe §6.12): hardware may route " +
        "it directly although the kernel doesn't count on it; rules under review do " +
        "(--kernel next)",
    );
  }
  if (judged.mapType === "THRU_HOST_BRIDGE") hostRouteNotes(judged, notes);
  providerNotes(judged.provider, notes);
  const { walk, rules } = judged;
  if (walk.common !== null && rules.logsHostBridge && walk.redirecting.length > KERNEL_LIST_MAX) {
    notes.push("the kernel's own list of ports ends after nine: its line has 128 bytes");
  }
  if (judged.hostBridge.cpuReason.includes("HygonGenuine")) notes.push(judged.hostBridge.cpuReason);
  if (involvesNvidia(judged)) {
    notes.push(
      "NVIDIA's proprietary driver doesn't ask the kernel about pairs of its own GPUs: " +
        "it has its own list of chipsets",
    );
  }
  return notes;
}

/** Ports redirect, but not this pair: only where its ways part a request could turn to its peer. */
function isIdleRedirection({ walk, mapType, rules, under }: Judgement): boolean {
  if (walk.redirecting.length === 0 || mapType === "BUS_ADDR" || rules.isJudgedAtParting)
    return false;
  return under("next").mapType === "BUS_ADDR";
}

function portNotes(judged: Judgement, notes: string[]): void {
  const { walk, topology, client } = judged;
  const hasTranslation = client.ats !== UNKNOWN && client.ats?.isEnabled === true;
  for (const { address, acsControl } of walk.hops) {
    const one = topology.functions.get(address);
    if (one === undefined) continue;
    if (one.vendorId !== UNKNOWN && one.deviceId !== UNKNOWN) {
      if (hasWideAcs(one.vendorId, one.deviceId)) {
        notes.push(
          `${address} is a PCH port that keeps its ACS words in another form: lspci and ` +
            "the kernel's check read it as all off, whatever it does",
        );
      }
    }
    if (acsControl === UNKNOWN || acsControl === null) continue;
    const isEgressAlone = (acsControl & ACS.REDIRECT_MASK) === ACS.EGRESS_CONTROL;
    if (isEgressAlone && !judged.rules.isJudgedAtParting) {
      notes.push(
        `${address} has only egress control on: its vector may let the pair pass, but ` +
          "the kernel takes it for redirection",
      );
    }
    if (hasTranslation) translationNotes(address, acsControl, notes);
  }
}

function translationNotes(address: string, control: number, notes: string[]): void {
  const isRedirecting = (control & ACS.REDIRECT_MASK) !== 0;
  if (isRedirecting && (control & ACS.DIRECT_TRANSLATED) !== 0) {
    notes.push(
      `${address} lets translated requests pass directly, and the client has ATS on: it ` +
        "may go direct although the verdict doesn't count on it",
    );
  }
  if ((control & ACS.TRANSLATION_BLOCKING) !== 0) {
    notes.push(`${address} blocks translated requests, and the client has ATS on`);
  }
}

function hostRouteNotes(judged: Judgement, notes: string[]): void {
  notes.push(
    "over a host bridge reads are much slower than writes; let the writer push, with " +
      "relaxed ordering on",
  );
  const { common } = judged.walk;
  // Above a root port there is no link.
  if (common !== null && common !== UNKNOWN && common.parent !== null) {
    notes.push("redirected bytes cross the links above the common port twice, up and down");
  }
  const { roots, isSameRootBus } = judged.hostBridge;
  const isSkylake = ({ vendorId, deviceId }: RootVerdict) =>
    vendorId === 0x8086 && typeof deviceId === "number" && SKYLAKE_ROOTS.has(deviceId);
  // Older ones are listed for pairs of one root bus only.
  const isOneNode = judged.nodes.areOne(judged.client, judged.provider);
  if (isSameRootBus === false && roots.some(isSkylake) && isOneNode !== true) {
    notes.push("between sockets of older Xeons throughput is known to be far below the links'");
  }
}

function providerNotes(provider: PciFunction, notes: string[]): void {
  if (provider.bars === UNKNOWN) return;
  const memory = provider.bars.filter((bar) => bar.kind === "memory" && bar.cpuAddress !== null);
  if (memory.length === 0) {
    notes.push(`${provider.address} has no memory BAR: it has nothing to offer to others`);
    return;
  }
  const isDisplay = provider.class !== UNKNOWN && provider.class >> 8 === 0x03;
  const big = memory.filter((bar) => bar.isPrefetchable === true && bar.size !== UNKNOWN);
  const most = big.reduce((best, bar) => {
    const size = bar.size === UNKNOWN ? 0n : bar.size;
    return size > best ? size : best;
  }, 0n);
  if (isDisplay && most === SMALL_WINDOW) {
    notes.push(
      `${provider.address} shows 256 MiB of its memory: a resizable BAR that is off hides the rest`,
    );
  }
}

function involvesNvidia(judged: Judgement): boolean {
  const isGpu = (one: PciFunction) =>
    one.vendorId === 0x10de && one.class !== UNKNOWN && one.class >> 8 === 0x03;
  return isGpu(judged.client) && isGpu(judged.provider) && judged.client !== judged.provider;
}
