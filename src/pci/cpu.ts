// SPDX-License-Identifier: MIT
// The CPU as the sources tell it, or as the root complex on its die betrays it.

import type { FunctionDraft, MachineDraft } from "./draft.js";
import { type Fact, type Tri, UNKNOWN } from "./fact.js";
import { type CpuClue, cpuClue } from "./host-bridges.js";
import type { Architecture, Cpu } from "./topology.js";
import { vendorOfText } from "./vendor-names.js";

/** First AMD family that passes peer-to-peer traffic (Zen), as the kernel's CPU rule has it. */
const ZEN_FAMILY = 0x17;
/** Makers of x86 processors that aren't AMD; the last two are Zhaoxin's. */
const VENDORS: readonly string[] = ["GenuineIntel", "HygonGenuine", "CentaurHauls", "Shanghai"];

/** @param rootFunctions functions that sit on a root bus. */
export function cpuOf(machine: MachineDraft, rootFunctions: Iterable<FunctionDraft>): Cpu {
  if (machine.cpuVendor !== null || machine.architecture !== null) return told(machine);
  const clues = new Map<CpuClue, string>();
  for (const draft of rootFunctions) {
    const clue = clueOf(draft);
    if (clue !== null && !clues.has(clue)) clues.set(clue, draft.address);
  }
  const [first] = clues;
  // Clues that contradict one another are none.
  if (first === undefined || clues.size > 1) return silent();
  return inferred(first[0], first[1]);
}

function told(machine: MachineDraft): Cpu {
  const { cpuVendor: vendor, cpuFamily: family, architecture } = machine;
  let isZen: Tri = UNKNOWN;
  if (vendor === "AuthenticAMD") isZen = family === null ? UNKNOWN : family >= ZEN_FAMILY;
  else if (vendor !== null && VENDORS.includes(vendor)) isZen = false;
  else if (architecture !== null && architecture !== "x86") isZen = false;
  return {
    vendor: vendor ?? UNKNOWN,
    family: family ?? UNKNOWN,
    model: machine.cpuModel ?? UNKNOWN,
    architecture: architecture ?? (isZen === true ? "x86" : UNKNOWN),
    isAmdZen: isZen,
    evidence: `told by ${machine.cpuSource ?? "the sources"}`,
  };
}

function clueOf(draft: FunctionDraft): CpuClue | null {
  const vendor = draft.number("vendor");
  if (vendor === UNKNOWN) return null;
  const device = draft.number("device");
  const kind = draft.number("class");
  const isRootPort = draft.text("pcie.type") === "root-port" || kind === 0x0600 || kind === 0x0604;
  const name = draft.deviceName === null ? null : (vendorOfText(draft.deviceName)?.rest ?? null);
  // A tree gives names alone: the name says what it is.
  const isNamed = kind === UNKNOWN && name !== null && /\b(?:Root|Bridge|DMI)/.test(name);
  return cpuClue(vendor, device === UNKNOWN ? null : device, name, isRootPort || isNamed);
}

function inferred(clue: CpuClue, address: string): Cpu {
  const architectures: Record<CpuClue, Architecture> = {
    "amd-zen": "x86",
    "amd-older": "x86",
    intel: "x86",
    arm: "arm",
    power: "power",
  };
  const vendors: Record<CpuClue, Fact<string>> = {
    "amd-zen": "AuthenticAMD",
    "amd-older": "AuthenticAMD",
    intel: "GenuineIntel",
    arm: UNKNOWN,
    power: UNKNOWN,
  };
  const kinds: Record<CpuClue, string> = {
    "amd-zen": "an AMD processor of family 17h or later",
    "amd-older": "an AMD processor from before family 17h",
    intel: "an Intel processor",
    arm: "an Arm processor",
    power: "a POWER processor",
  };
  return {
    vendor: vendors[clue],
    family: UNKNOWN,
    model: UNKNOWN,
    architecture: architectures[clue],
    isAmdZen: clue === "amd-zen",
    evidence: `${address} belongs to ${kinds[clue]}`,
  };
}

function silent(): Cpu {
  return {
    vendor: UNKNOWN,
    family: UNKNOWN,
    model: UNKNOWN,
    architecture: UNKNOWN,
    isAmdZen: UNKNOWN,
    evidence: null,
  };
}
