// SPDX-License-Identifier: MIT
// What a function is to somebody who looks for peers: a GPU, a network card, a drive, or scenery.

import { UNKNOWN } from "../fact.js";
import type { PciFunction } from "../topology.js";

export const KINDS = [
  "gpu",
  "accelerator",
  "nic",
  "nvme",
  "storage",
  "memory",
  "bridge",
  "other",
] as const;
export type Kind = (typeof KINDS)[number];

/** Kinds that are compared by default: what people move data between. */
export const PEER_KINDS: readonly Kind[] = ["gpu", "accelerator", "nic", "nvme"];

/** A name for a function of each kind, with a number behind it, as `nvidia-smi topo` has them. */
export const LABELS: Readonly<Record<Kind, string>> = {
  gpu: "GPU",
  accelerator: "ACC",
  nic: "NIC",
  nvme: "SSD",
  storage: "STO",
  memory: "MEM",
  bridge: "BR",
  other: "DEV",
};

/** Display controllers of service processors: no GPU that anybody moves data to. */
const SERVICE_DISPLAY_VENDORS: readonly number[] = [0x102b, 0x1a03];
const SERVICE_DISPLAY_NAME = /^(?:Matrox|ASPEED)\b/;

/** A bridge is one by its header; where that is unknown, by its class. */
export function isBridge(candidate: PciFunction): boolean {
  if (candidate.bridge !== UNKNOWN) return candidate.bridge !== null;
  return candidate.class !== UNKNOWN && candidate.class === 0x0604;
}

/** What a function is, by its class code; by its name only where a dump has no class. */
export function kindOf(candidate: PciFunction): Kind {
  if (isBridge(candidate)) return "bridge";
  if (candidate.class === UNKNOWN) return kindByName(candidate);
  const base = candidate.class >> 8;
  if (candidate.class === 0x0108) return "nvme";
  if (base === 0x01) return "storage";
  if (base === 0x02 || candidate.class === 0x0c06) return "nic";
  if (base === 0x03) return isServiceDisplay(candidate) ? "other" : "gpu";
  if (base === 0x12) return "accelerator";
  if (candidate.class === 0x0500 || candidate.class === 0x0502) return "memory";
  return "other";
}

function isServiceDisplay(candidate: PciFunction): boolean {
  const { vendorId, names } = candidate;
  if (vendorId !== UNKNOWN) return SERVICE_DISPLAY_VENDORS.includes(vendorId);
  return SERVICE_DISPLAY_NAME.test(names.device ?? "");
}

/** Trees (`lspci -tv`) have names and no classes. */
function kindByName(candidate: PciFunction): Kind {
  const name = candidate.names.device ?? "";
  if (/\bNVMe\b|Non-Volatile|\bNVM Express\b/i.test(name)) return "nvme";
  if (/\bEthernet\b|\bConnectX|\bInfiniBand\b|Network Connection/i.test(name)) return "nic";
  if (/\bNVIDIA\b.*\[|\bInstinct\b|\bRadeon\b/i.test(name) && !/\bAudio\b/i.test(name)) {
    return "gpu";
  }
  return "other";
}
