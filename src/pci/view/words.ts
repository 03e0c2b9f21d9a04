// SPDX-License-Identifier: MIT
// The words and figures that every view shares.

import { UNKNOWN } from "../fact.js";
import { ACS, type LinkRate, type PortType } from "../topology.js";
import type { P2pVerdict, Proximity } from "../verdict.js";

/** A verdict in one word. */
export const ANSWERS = ["direct", "host-bridge", "allowed", "refused", "unknown"] as const;
export type Answer = (typeof ANSWERS)[number];

/** One character for each, for cells of a matrix. */
export const ANSWER_SIGNS: Readonly<Record<Answer, string>> = {
  direct: "+",
  "host-bridge": "~",
  allowed: "*",
  refused: "-",
  unknown: "?",
};

export const ANSWER_TEXTS: Readonly<Record<Answer, string>> = {
  direct: "works, straight through a switch or bridge (BUS_ADDR)",
  "host-bridge": "works, up through the host bridge and down again (THRU_HOST_BRIDGE)",
  allowed: "works, by which of the two ways is unknown",
  refused: "refused by the kernel (NOT_SUPPORTED)",
  unknown: "depends on facts that are not known here",
};

export function answerOf(path: P2pVerdict): Answer {
  switch (path.mapType) {
    case "BUS_ADDR":
      return "direct";
    case "THRU_HOST_BRIDGE":
      return "host-bridge";
    case "NOT_SUPPORTED":
      return "refused";
    case UNKNOWN:
      return path.isAllowed === true ? "allowed" : "unknown";
  }
}

export const PROXIMITY_TEXTS: Readonly<Record<Proximity, string>> = {
  X: "the device itself",
  PIX: "at most one bridge or switch between them",
  PXB: "several bridges or switches, no host bridge",
  PHB: "one host bridge",
  NODE: "several host bridges of one NUMA node",
  SYS: "the link between NUMA nodes",
};

export const PORT_TEXTS: Readonly<Record<PortType, string>> = {
  endpoint: "endpoint",
  "legacy-endpoint": "legacy endpoint",
  "root-port": "root port",
  "switch-upstream": "switch upstream port",
  "switch-downstream": "switch downstream port",
  "pcie-to-pci": "PCIe-to-PCI bridge",
  "pci-to-pcie": "PCI-to-PCIe bridge",
  "rc-endpoint": "root complex integrated endpoint",
  "rc-event-collector": "root complex event collector",
  reserved: "port of a type that the specification doesn't have",
};

const ACS_NAMES: readonly (readonly [bit: number, name: string])[] = [
  [ACS.SOURCE_VALIDATION, "SrcValid"],
  [ACS.TRANSLATION_BLOCKING, "TransBlk"],
  [ACS.REQUEST_REDIRECT, "ReqRedir"],
  [ACS.COMPLETION_REDIRECT, "CmpltRedir"],
  [ACS.UPSTREAM_FORWARDING, "UpstreamFwd"],
  [ACS.EGRESS_CONTROL, "EgressCtrl"],
  [ACS.DIRECT_TRANSLATED, "DirectTrans"],
];

/** The bits that are set, by lspci's names: "SrcValid+ ReqRedir+"; "" when none is. */
export function acsBits(control: number): string {
  return ACS_NAMES.flatMap(([bit, name]) => ((control & bit) === 0 ? [] : [`${name}+`])).join(" ");
}

/** "63.0 GB/s": units of 10^9 bytes, as links are counted. */
export function rateText(bytesPerSecond: number): string {
  const gigabytes = bytesPerSecond / 1e9;
  return `${gigabytes.toFixed(gigabytes < 10 ? 2 : 1)} GB/s`;
}

/** "16 GT/s x8"; "down" for a link that isn't up. */
export function linkText(link: LinkRate): string {
  return link.lanes === 0 ? "down" : `${link.gigatransfers} GT/s x${link.lanes}`;
}

const SIZE_UNITS: readonly (readonly [unit: bigint, name: string])[] = [
  [1n << 40n, "TiB"],
  [1n << 30n, "GiB"],
  [1n << 20n, "MiB"],
  [1n << 10n, "KiB"],
];

/** "64 MiB"; "4 bytes". Whole multiples stay whole. */
export function sizeText(bytes: bigint): string {
  for (const [unit, name] of SIZE_UNITS) {
    if (bytes < unit) continue;
    if (bytes % unit === 0n) return `${bytes / unit} ${name}`;
    return `${(Number(bytes) / Number(unit)).toFixed(1)} ${name}`;
  }
  return `${bytes} bytes`;
}

/** Rows as columns of text, two spaces between, none behind. */
export function tableText(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, text] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, text.length);
    }
  }
  return rows.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

/** "1 pair", "3 pairs". */
export function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
