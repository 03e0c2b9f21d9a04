// SPDX-License-Identifier: MIT
// Lines that tell of the machine and not of one function: `/proc/cpuinfo`, `lscpu`, the kernel's
// command line, and what the boot log says of root buses and ids.

import { busName, formatAddress, parseAddress } from "./address.js";
import { FUNCTIONS_MAX, type MachineDraft, printable } from "./draft.js";
import type { SourceKind } from "./report.js";
import type { Architecture } from "./topology.js";

const ARCHITECTURES: readonly (readonly [RegExp, Architecture])[] = [
  [/^(?:x86_64|i[3-6]86|amd64)$/, "x86"],
  [/^(?:aarch64|arm)/, "arm"],
  [/^ppc/, "power"],
  [/^riscv/, "riscv"],
  [/^loongarch/, "loongarch"],
  [/^s390/, "s390"],
];

const COMMAND_LINE = /^(?:Kernel command line: |Command line: )(.*)$/;
const COMMAND_LINE_BARE = /^(?:BOOT_IMAGE=|root=|ro |quiet |console=|pci=|intel_iommu=|amd_iommu=)/;

/** @returns what the line belongs to, or null where it told nothing. */
export function machineLine(
  machine: MachineDraft,
  source: string,
  line: string,
): SourceKind | null {
  // lspci's and a boot log's own lines begin otherwise; all of these have one of the two.
  if (!line.includes(":") && !line.includes("=")) return null;
  const cpu = cpuLine(machine, source, line);
  if (cpu !== null) return cpu;
  const text = withoutStamp(line);
  if (text !== null) return bootLine(machine, source, text);
  const command = COMMAND_LINE.exec(line);
  if (command !== null) return commandLine(machine, command[1] as string);
  return COMMAND_LINE_BARE.test(line) ? commandLine(machine, line) : null;
}

/** The whole of a file named so, as `cat /proc/cmdline` gives it: any one line. */
export function commandLine(machine: MachineDraft, text: string): SourceKind {
  machine.commandLine ??= text.slice(0, 4096);
  return "command-line";
}

function cpuLine(machine: MachineDraft, source: string, line: string): SourceKind | null {
  const match = /^ {0,8}([A-Za-z_ ]{2,16}?)[ \t]*:[ \t]*(\S.*)$/.exec(line);
  if (match === null) return null;
  const value = match[2] as string;
  const told = (kind: SourceKind) => {
    machine.cpuSource ??= source;
    return kind;
  };
  switch (match[1]) {
    case "vendor_id":
    case "Vendor ID":
      if (!/^[A-Za-z0-9-]{2,16}$/.test(value)) return null;
      machine.cpuVendor ??= value;
      if (/^(?:GenuineIntel|AuthenticAMD|HygonGenuine|CentaurHauls|Shanghai)$/.test(value)) {
        machine.architecture ??= "x86";
      }
      return told(match[1] === "vendor_id" ? "cpuinfo" : "lscpu");
    case "cpu family":
    case "CPU family":
      if (!/^[0-9]{1,4}$/.test(value)) return null;
      machine.cpuFamily ??= Number(value);
      return told(match[1] === "cpu family" ? "cpuinfo" : "lscpu");
    case "model name":
    case "Model name":
      machine.cpuModel ??= printable(value);
      return told(match[1] === "model name" ? "cpuinfo" : "lscpu");
    case "Architecture":
      return architectureLine(machine, value) ? told("lscpu") : null;
    case "CPU implementer":
      machine.architecture ??= "arm";
      return told("cpuinfo");
    case "cpu":
      if (!value.startsWith("POWER")) return null;
      machine.architecture ??= "power";
      machine.cpuModel ??= printable(value);
      return told("cpuinfo");
    default:
      return null;
  }
}

function architectureLine(machine: MachineDraft, value: string): boolean {
  for (const [pattern, architecture] of ARCHITECTURES) {
    if (!pattern.test(value)) continue;
    machine.architecture ??= architecture;
    return true;
  }
  return false;
}

/** A boot log's line without its time; null for others. */
function withoutStamp(line: string): string | null {
  const stamp = /^(?:<[0-9]{1,2}>)?\[ *[0-9]{1,9}\.[0-9]{3,9}\] (.*)$/.exec(line);
  if (stamp !== null) return stamp[1] as string;
  const at = line.indexOf(" kernel: ");
  return at < 0 || at > 80 ? null : line.slice(at + 9);
}

const ROOT_BUS = /^PCI host bridge to bus ([0-9a-f]{4,8}):([0-9a-f]{2})$/;
const RESOURCE = new RegExp(
  "^pci_bus ([0-9a-f]{4,8}):([0-9a-f]{2}): root bus resource " +
    "\\[(io|mem) +0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})(?: window)?( pref)?\\]" +
    "(?: \\(bus address \\[0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\\]\\))?",
);
const IDENTITY = new RegExp(
  "^pci ([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]): " +
    "\\[([0-9a-f]{4}):([0-9a-f]{4})\\] type [0-9a-f]{2} class 0x([0-9a-f]{6})",
);
const BOOT_CPU = /CPU0: (.{1,100}) \(family: 0x([0-9a-f]{1,2}),/;

function bootLine(machine: MachineDraft, source: string, text: string): SourceKind | null {
  const command = COMMAND_LINE.exec(text);
  if (command !== null) {
    commandLine(machine, command[1] as string);
    return "boot-log";
  }
  const bus = ROOT_BUS.exec(text);
  if (bus !== null) {
    rootOf(machine, bus[1] as string, bus[2] as string);
    return "boot-log";
  }
  if (resourceLine(machine, text) || identityLine(machine, text)) return "boot-log";
  const cpu = BOOT_CPU.exec(text);
  if (cpu !== null) return bootCpu(machine, source, cpu[1] as string, cpu[2] as string);
  return /^(?:pci|pci_bus|pcieport) [0-9a-f]{4,8}:/.test(text) ? "boot-log" : null;
}

function rootOf(machine: MachineDraft, domainText: string, busText: string) {
  const domain = Number.parseInt(domainText, 16);
  const bus = Number.parseInt(busText, 16);
  return machine.root(domain, bus, busName(domain, bus));
}

function resourceLine(machine: MachineDraft, text: string): boolean {
  const match = RESOURCE.exec(text);
  if (match === null) return false;
  const root = rootOf(machine, match[1] as string, match[2] as string);
  if (root === null) return true;
  const big = (index: number) => BigInt(`0x${match[index]}`);
  const cpu = [big(4), big(5)] as const;
  const kind = match[3] === "io" ? "io" : match[6] === undefined ? "memory" : "prefetchable";
  // Without "(bus address …)" both sides count alike.
  const bus = match[7] === undefined ? cpu : ([big(7), big(8)] as const);
  machine.addWindow(root, { kind, cpu, bus });
  return true;
}

function identityLine(machine: MachineDraft, text: string): boolean {
  const match = IDENTITY.exec(text);
  if (match === null) return false;
  const parts = parseAddress(match[1] as string);
  if (parts === null || machine.bootIds.size >= FUNCTIONS_MAX) return true;
  machine.bootIds.set(formatAddress(parts), {
    vendor: Number.parseInt(match[2] as string, 16),
    device: Number.parseInt(match[3] as string, 16),
    class: Number.parseInt((match[4] as string).slice(0, 4), 16),
  });
  return true;
}

function bootCpu(machine: MachineDraft, source: string, model: string, family: string): SourceKind {
  machine.cpuSource ??= source;
  machine.cpuModel ??= printable(model);
  machine.cpuFamily ??= Number.parseInt(family, 16);
  machine.architecture ??= "x86";
  if (model.startsWith("AMD ")) machine.cpuVendor ??= "AuthenticAMD";
  else if (model.startsWith("Intel")) machine.cpuVendor ??= "GenuineIntel";
  else if (model.startsWith("Hygon")) machine.cpuVendor ??= "HygonGenuine";
  return "boot-log";
}
