// SPDX-License-Identifier: MIT
// Prints a random machine as lspci and sysfs would.

import type { FolderEntry } from "../../src/pci/index.js";
import {
  acsControl,
  hex,
  type RandomFunction,
  type RandomMachine,
  word,
} from "./random-machine.js";

const TYPES: Readonly<Record<number, string>> = {
  0: "Endpoint",
  4: "Root Port (Slot-)",
  5: "Upstream Port",
  6: "Downstream Port (Slot-)",
  7: "PCI-Express to PCI/PCI-X Bridge",
  9: "Root Complex Integrated Endpoint",
};
const SPEEDS = ["", "2.5", "5", "8", "16", "32"];
const ACS_WORDS = "SrcValid TransBlk ReqRedir CmpltRedir UpstreamFwd EgressCtrl DirectTrans";

export interface WordsStyle {
  /** `-v` shows ACS without its words. */
  readonly level: "v" | "vvv";
  /** Numbers alone, beside names, or names where lspci has no numbers for us. */
  readonly ids: "n" | "nn";
  readonly hasDomain: boolean;
  /** Functions whose capabilities a user without privilege doesn't see. */
  readonly isDenied: (one: RandomFunction) => boolean;
}

export const FULL: WordsStyle = {
  level: "vvv",
  ids: "nn",
  hasDomain: true,
  isDenied: () => false,
};

export function printWords(machine: RandomMachine, style: WordsStyle): string {
  return machine.functions.map((one) => printBlock(one, style)).join("");
}

function shortAddress(one: RandomFunction, style: WordsStyle): string {
  return style.hasDomain || one.domain !== 0 ? one.address : one.address.slice(5);
}

export function printHeader(one: RandomFunction, style: WordsStyle): string {
  const kind = word(one, 0x0a);
  const ids = `${hex(word(one, 0), 4)}:${hex(word(one, 2), 4)}`;
  const name =
    kind === 0x0604 ? "PCI bridge" : kind === 0x0600 ? "Host bridge" : "Ethernet controller";
  const numbers = kind === 0x0106 ? "SATA controller" : name;
  const what =
    style.ids === "n"
      ? `${hex(kind, 4)}: ${ids}`
      : `${numbers} [${hex(kind, 4)}]: Some Thing [${ids}]`;
  return `${shortAddress(one, style)} ${what} (rev 01)\n`;
}

export function printBlock(one: RandomFunction, style: WordsStyle): string {
  const lines = [printHeader(one, style)];
  const line = (text: string) => lines.push(`\t${text}\n`);
  if (style.level === "v") line("Flags: bus master, fast devsel, latency 0");
  else {
    line("Control: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop-");
    line(`Status: Cap${word(one, 6) === 0 ? "-" : "+"} 66MHz- UDF- FastB2B- ParErr-`);
  }
  const bar = new DataView(one.config.buffer).getUint32(0x10, true);
  if (!one.isBridge && bar !== 0) {
    const at = `Memory at ${hex(bar, 8)} (32-bit, non-prefetchable) [size=64K]`;
    line(style.level === "v" ? at : `Region 0: ${at}`);
  }
  if (one.isBridge) {
    const [primary, secondary, subordinate] = [...one.config.slice(0x18, 0x1b)].map((n) =>
      hex(n, 2),
    );
    line(
      `Bus: primary=${primary}, secondary=${secondary}, subordinate=${subordinate}, sec-latency=0`,
    );
    line("I/O behind bridge: 0000f000-00000fff [disabled]");
    line("Memory behind bridge: fff00000-000fffff [disabled]");
    line("Prefetchable memory behind bridge: 00000000fff00000-00000000000fffff [disabled]");
  }
  if (one.type !== null) {
    if (style.isDenied(one)) line("Capabilities: <access denied>");
    else lines.push(...printCapabilities(one, style));
  }
  return `${lines.join("")}\n`;
}

function printCapabilities(one: RandomFunction, style: WordsStyle): string[] {
  const version = style.level === "vvv" ? " (v2)" : "";
  const lines = [`\tCapabilities: [40] Express${version} ${TYPES[one.type as number]}, MSI 00\n`];
  if (style.level === "vvv" && one.type !== 9) {
    const now = word(one, 0x52);
    lines.push(
      "\t\tLnkCap:\tPort #0, Speed 16GT/s, Width x16, ASPM not supported\n",
      `\t\tLnkSta:\tSpeed ${SPEEDS[now & 0xf]}GT/s, Width x${(now >> 4) & 0x3f}\n`,
    );
  }
  if (word(one, 0x100) === 1) lines.push("\tCapabilities: [100 v1] Advanced Error Reporting\n");
  if (one.acsAt === null) return lines;
  lines.push(`\tCapabilities: [${hex(one.acsAt, 3)} v1] Access Control Services\n`);
  if (style.level === "v") return lines;
  const names = ACS_WORDS.split(" ");
  const bits = (value: number) =>
    names.map((name, bit) => `${name}${(value >> bit) & 1 ? "+" : "-"}`).join(" ");
  lines.push(`\t\tACSCap:\t${bits(word(one, one.acsAt + 4))}\n`);
  lines.push(`\t\tACSCtl:\t${bits(acsControl(one))}\n`);
  return lines;
}

/** `lspci -x`, `-xxx` or `-xxxx`: so many bytes at most. */
export function printHex(machine: RandomMachine, bytesOf: (one: RandomFunction) => number): string {
  const blocks = machine.functions.map((one) => {
    const bytes = Math.min(bytesOf(one), one.config.length);
    const lines = [printHeader(one, FULL)];
    for (let at = 0; at < bytes; at += 16) {
      const row = [...one.config.subarray(at, at + 16)].map((byte) => hex(byte, 2));
      lines.push(`${hex(at, 2)}: ${row.join(" ")}\n`);
    }
    return `${lines.join("")}\n`;
  });
  return blocks.join("");
}

/** `lspci -t`. */
export function printTree(machine: RandomMachine): string {
  const roots = [...new Set(machine.functions.map((one) => one.rootBus))].sort();
  const lines: string[] = [];
  const isOnly = roots.length === 1;
  for (const [index, root] of roots.entries()) {
    const isLast = index === roots.length - 1;
    const lead = isOnly ? "-" : index === 0 ? "-+-" : isLast ? " \\-" : " +-";
    const rest = isOnly ? " " : isLast ? "   " : " | ";
    const members = machine.functions.filter((one) => one.rootBus === root && one.parent === null);
    drawBus(machine, members, `${lead}[${root}]-`, rest + " ".repeat(root.length + 3), lines);
  }
  return `${lines.join("\n")}\n`;
}

function drawBus(
  machine: RandomMachine,
  members: readonly RandomFunction[],
  lead: string,
  rest: string,
  lines: string[],
): void {
  if (members.length === 0) lines.push(lead);
  for (const [index, one] of members.entries()) {
    const isLast = index === members.length - 1;
    const mark = members.length === 1 ? "--" : isLast && index > 0 ? "\\-" : "+-";
    const label = `${hex(one.device, 2)}.${one.function}`;
    const before = (index === 0 ? lead : rest) + mark;
    const after = rest + (isLast ? "  " : "| ");
    if (!one.isBridge) {
      lines.push(before + label);
      continue;
    }
    const secondary = hex(one.config[0x19] as number, 2);
    const last = hex(one.subordinate, 2);
    const range = secondary === last ? `[${secondary}]` : `[${secondary}-${last}]`;
    const children = machine.functions.filter((child) => child.parent === one);
    const link = `${label}-${range}--`;
    drawBus(machine, children, before + link, after + " ".repeat(link.length), lines);
  }
}

/** A sysfs with so many bytes of each `config`. */
export function printSysfs(
  machine: RandomMachine,
  bytesOf: (one: RandomFunction) => number,
): Map<string, FolderEntry> {
  const entries = new Map<string, FolderEntry>();
  const text = (value: string): FolderEntry => ({
    kind: "file",
    bytes: new TextEncoder().encode(`${value}\n`),
  });
  for (const one of machine.functions) {
    const path = pathOf(one);
    entries.set(`bus/pci/devices/${one.address}`, { kind: "link", target: `../../../${path}` });
    entries.set(`${path}/vendor`, text(`0x${hex(word(one, 0), 4)}`));
    entries.set(`${path}/device`, text(`0x${hex(word(one, 2), 4)}`));
    entries.set(
      `${path}/class`,
      text(`0x${hex(word(one, 0x0a), 4)}${hex(one.config[9] as number, 2)}`),
    );
    const bytes = one.config.subarray(0, bytesOf(one));
    entries.set(`${path}/config`, { kind: "file", bytes });
  }
  return entries;
}

function pathOf(one: RandomFunction): string {
  const above = one.parent === null ? `devices/pci${one.rootBus}` : pathOf(one.parent);
  return `${above}/${one.address}`;
}

export function printCpu(machine: RandomMachine): string {
  const family = machine.cpu === "AuthenticAMD" ? 25 : 6;
  return `vendor_id\t: ${machine.cpu}\ncpu family\t: ${family}\nmodel name\t: Some CPU\n\n`;
}
