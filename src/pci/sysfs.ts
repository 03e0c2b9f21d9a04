// SPDX-License-Identifier: MIT
// A folder that is (or holds) a sysfs tree, as files and links by path. Read first: Linux
// Documentation/ABI/testing/sysfs-bus-pci. Paths and links say who hangs on whom; `config` says
// the rest, as far as it was readable.

import { busName, formatAddress, parseAddress } from "./address.js";
import { decodeConfig, linkText } from "./config.js";
import {
  type FunctionDraft,
  type MachineDraft,
  type Place,
  printable,
  type Value,
} from "./draft.js";
import type { FolderEntry } from "./source.js";

const ROOT_PART = /^pci([0-9a-f]{4,8}):([0-9a-f]{2})$/;
const GROUP_PATH =
  /(?:^|\/)kernel\/iommu_groups\/([0-9]{1,6})\/(type|devices\/([0-9a-f:.]{7,16}))$/;
const GROUPS_FOLDER = /(?:^|\/)kernel\/iommu_groups$/;
/** Folders whose children are the kernel's names. */
const NAME_FOLDERS = new Set(["nvme", "net", "infiniband", "drm", "block", "ata", "misc", "dax"]);
/** Levels between a function and a folder of names: a SCSI disk has four, one behind USB seven. */
const NAME_DEPTH_MAX = 12;
const TEXT_BYTES_MAX = 4096;

/** Whether paths of `entries` are those of a sysfs. */
export function isSysfs(entries: ReadonlyMap<string, FolderEntry>): boolean {
  for (const path of entries.keys()) {
    if (path.includes("bus/pci/devices/") || path.includes("devices/pci")) return true;
  }
  return false;
}

/**
 * Tells everything that the tree says. Linear in its entries.
 * @param isWhole what isn't in `entries` isn't in the sysfs: see `FolderSource`.
 */
export function readSysfs(
  machine: MachineDraft,
  source: string,
  entries: ReadonlyMap<string, FolderEntry>,
  isWhole: boolean,
): void {
  const reader = new SysfsReader(machine, source, isWhole);
  for (const [path, entry] of entries) reader.entry(path, entry);
  reader.end();
}

/** Where a path says that a function is. */
interface Located {
  readonly draft: FunctionDraft;
  /** Path components after the function's. */
  readonly rest: readonly string[];
}

class SysfsReader {
  private readonly machine: MachineDraft;
  private readonly place: Place;
  private readonly isWhole: boolean;
  private hasGroups = false;
  private hasGroupsFolder = false;
  /** Functions that have an `iommu_group` or are in one. */
  private readonly grouped = new Set<FunctionDraft>();
  private readonly paths = new Map<string, FunctionDraft>();
  /** Functions of whose folder a file is here. */
  private readonly withFiles = new Set<FunctionDraft>();
  /**
   * Functions whose links were packed: the kernel gives each a `subsystem`. Only of these a link
   * that isn't here (`physfn`, `iommu_group`) says something.
   */
  private readonly withLinks = new Set<FunctionDraft>();
  private readonly virtual = new Set<FunctionDraft>();
  private readonly withMemory = new Set<FunctionDraft>();

  constructor(machine: MachineDraft, source: string, isWhole: boolean) {
    this.machine = machine;
    this.place = { source, line: null };
    this.isWhole = isWhole;
  }

  entry(path: string, entry: FolderEntry): void {
    if (GROUPS_FOLDER.test(path)) this.hasGroupsFolder = true;
    const group = GROUP_PATH.exec(path);
    if (group !== null) {
      this.group(Number(group[1]), group[3], entry);
      return;
    }
    const located = this.locate(path.split("/"));
    if (located === null) return;
    const { draft, rest } = located;
    const [name, child] = rest;
    if (name === undefined) {
      if (entry.kind === "link") this.locate(entry.target.split("/"));
      return;
    }
    if (child === undefined) this.attribute(draft, name, entry);
    else if (name === "p2pmem") this.memory(draft, child, entry);
    else this.kernelName(draft, rest);
  }

  end(): void {
    const hasAny = this.hasGroups || this.grouped.size > 0;
    const isGrouping = hasAny || this.hasGroupsFolder || this.isWhole;
    if (isGrouping) this.machine.hasIommuGroups = hasAny;
    for (const draft of this.isWhole ? this.withFiles : this.withLinks) {
      if (!this.virtual.has(draft)) this.tell(draft, "pf", null);
      if (isGrouping && !this.grouped.has(draft)) this.tell(draft, "group", null);
    }
    // Who packed the folders of some packed them of all.
    if (!this.isWhole && this.withMemory.size === 0) return;
    for (const draft of this.withFiles) {
      if (!this.withMemory.has(draft)) this.tell(draft, "p2pmem", false);
    }
  }

  /** Finds the last function that a path goes through, and tells where all on the way hang. */
  private locate(parts: readonly string[]): Located | null {
    let last = parts.length - 1;
    while (last >= 0 && parseFull(parts[last] as string) === null) last--;
    if (last < 0) return null;
    const draft = this.at(parts, last);
    return draft === null ? null : { draft, rest: parts.slice(last + 1) };
  }

  /** The function that `parts[0 .. last]` lead to. */
  private at(parts: readonly string[], last: number): FunctionDraft | null {
    const path = parts.slice(0, last + 1).join("/");
    const known = this.paths.get(path);
    if (known !== undefined) return known;
    const address = parseFull(parts[last] as string);
    const draft = address === null ? null : this.machine.open(address, this.place);
    if (draft === null) return null;
    this.paths.set(path, draft);
    this.hang(draft, parts, last);
    return draft;
  }

  private hang(draft: FunctionDraft, parts: readonly string[], last: number): void {
    const above = last > 0 ? (parts[last - 1] as string) : "";
    const root = ROOT_PART.exec(above);
    if (root !== null) {
      const domain = Number.parseInt(root[1] as string, 16);
      const bus = Number.parseInt(root[2] as string, 16);
      const known = this.machine.root(domain, bus, busName(domain, bus));
      if (known === null) return;
      known.isShown = true;
      this.tell(draft, "parent", null);
      this.tell(draft, "root", busName(domain, bus));
      return;
    }
    const bridge = parseFull(above) === null ? null : this.at(parts, last - 1);
    if (bridge !== null) this.tell(draft, "parent", bridge.address);
  }

  private attribute(draft: FunctionDraft, name: string, entry: FolderEntry): void {
    if (entry.kind === "link") {
      this.link(draft, name, entry.target);
      return;
    }
    if (entry.kind !== "file") return;
    this.withFiles.add(draft);
    if (name === "config") {
      const bytes = entry.bytes.subarray(0, 4096);
      decodeConfig(this.machine, draft, bytes, this.place);
      return;
    }
    const value = textOf(entry.bytes);
    if (value !== null) this.file(draft, name, value);
  }

  private link(draft: FunctionDraft, name: string, target: string): void {
    const last = target.slice(target.lastIndexOf("/") + 1);
    if (name === "driver") draft.driver ??= printable(last);
    if (name === "subsystem") this.withLinks.add(draft);
    if (name === "iommu_group" && /^[0-9]{1,6}$/.test(last)) {
      this.grouped.add(draft);
      this.tell(draft, "group", Number(last));
    }
    const physical = name === "physfn" ? parseFull(last) : null;
    if (physical !== null) {
      this.virtual.add(draft);
      this.tell(draft, "pf", formatAddress(physical));
    }
  }

  private file(draft: FunctionDraft, name: string, value: string): void {
    switch (name) {
      case "vendor":
      case "device":
      case "revision":
        this.hex(draft, name, value);
        break;
      case "subsystem_vendor":
        this.hex(draft, "subvendor", value);
        break;
      case "subsystem_device":
        this.hex(draft, "subdevice", value);
        break;
      case "class":
        this.classCode(draft, value);
        break;
      case "numa_node":
        if (/^-?[0-9]{1,6}$/.test(value)) {
          this.tell(draft, "numa", value.startsWith("-") ? null : Number(value));
        }
        break;
      case "resource":
        this.resources(draft, value);
        break;
      case "current_link_speed":
      case "max_link_speed":
      case "current_link_width":
      case "max_link_width":
        this.rate(draft, name, value);
        break;
    }
  }

  private hex(draft: FunctionDraft, key: string, value: string): void {
    // A bridge without subsystem ids has zeros here; its configuration space has none at all.
    if (!/^0x[0-9a-f]{1,4}$/.test(value)) return;
    const number = Number.parseInt(value.slice(2), 16);
    if (number !== 0 || !key.startsWith("sub")) this.tell(draft, key, number);
  }

  private classCode(draft: FunctionDraft, value: string): void {
    if (!/^0x[0-9a-f]{6}$/.test(value)) return;
    const code = Number.parseInt(value.slice(2), 16);
    this.tell(draft, "class", code >> 8);
    this.tell(draft, "progif", code & 0xff);
  }

  /** `start end flags` of each resource; zeros where there is none. */
  private resources(draft: FunctionDraft, value: string): void {
    const lines = value.split("\n", 20);
    // A kernel without SR-IOV has no lines for VF BARs.
    const windowsAt = lines.length >= 17 ? 13 : lines.length === 11 ? 7 : null;
    for (const [index, line] of lines.entries()) {
      const match = /^0x([0-9a-f]{16}) 0x([0-9a-f]{16}) 0x([0-9a-f]{16})$/.exec(line);
      if (match === null) continue;
      const [start, end, flags] = [1, 2, 3].map((part) => BigInt(`0x${match[part]}`)) as [
        bigint,
        bigint,
        bigint,
      ];
      if (index < 6) this.bar(draft, `bar${index}`, start, end, flags);
      else if (windowsAt !== null && index >= windowsAt && index < windowsAt + 3) {
        this.window(draft, index - windowsAt, start, end, flags);
      } else if (windowsAt !== 7 && index >= 7 && index < 13 && flags !== 0n) {
        this.tell(draft, `vfbar${index - 7}.kind`, "memory");
        this.tell(draft, `vfbar${index - 7}.range`, end - start + 1n);
        this.tell(draft, `vfbar${index - 7}.cpu`, start === 0n ? null : start);
      }
    }
    if (lines.length >= 7) this.tell(draft, "bars", true);
  }

  private bar(draft: FunctionDraft, name: string, start: bigint, end: bigint, flags: bigint): void {
    if (flags === 0n || end < start) return;
    const isMemory = (flags & 0x200n) !== 0n;
    if (!isMemory && (flags & 0x100n) === 0n) return;
    this.tell(draft, `${name}.kind`, isMemory ? "memory" : "io");
    if (isMemory) {
      // The kernel's opinion; the register's own bits count where they are known.
      this.tell(draft, `${name}.kernel64`, (flags & 0x100000n) !== 0n);
      this.tell(draft, `${name}.kernelpf`, (flags & 0x2000n) !== 0n);
    }
    const isUnset = (flags & 0x20000000n) !== 0n;
    this.tell(draft, `${name}.cpu`, isUnset ? null : start);
    this.tell(draft, `${name}.size`, end - start + 1n);
  }

  private window(
    draft: FunctionDraft,
    index: number,
    start: bigint,
    end: bigint,
    flags: bigint,
  ): void {
    const kind = ["io", "memory", "prefetchable"][index] as string;
    const isOpen = flags !== 0n && end > start;
    this.tell(draft, `win.${kind}.cpu`, isOpen ? `${start}-${end}` : null);
  }

  /** The kernel shows these files of functions with a PCIe capability alone. */
  private rate(draft: FunctionDraft, name: string, value: string): void {
    this.tell(draft, "pcie", true);
    const match = /^([0-9]{1,3}(?:\.[0-9])?)(?: GT\/s.*)?$/.exec(value);
    if (match !== null) this.tell(draft, `sysfs.${name}`, Number(match[1]));
  }

  /**
   * Names stand right below the function (`nvme/nvme0`) or below what it carries
   * (`virtio0/net/eth0`, `ata1/host0/target0:0:0/0:0:0:0/block/sda`), where a bridge's own
   * functions never are: those are located before.
   */
  private kernelName(draft: FunctionDraft, rest: readonly string[]): void {
    const depth = Math.min(rest.length - 1, NAME_DEPTH_MAX);
    for (let i = 0; i < depth; i++) {
      if (!NAME_FOLDERS.has(rest[i] as string)) continue;
      const name = rest[i + 1] as string;
      // `ata` and `nvme` hold more folders; only the first level names the function.
      if (rest.length - i <= 3 && /^[a-zA-Z][\w.-]{0,63}$/.test(name)) draft.addKernelName(name);
      return;
    }
  }

  private memory(draft: FunctionDraft, name: string, entry: FolderEntry): void {
    this.withMemory.add(draft);
    this.tell(draft, "p2pmem", true);
    const value = entry.kind === "file" ? textOf(entry.bytes) : null;
    if (value === null || !/^[0-9]{1,19}$/.test(value)) return;
    if (name === "size" || name === "available") this.tell(draft, `p2p.${name}`, BigInt(value));
    if (name === "published") this.tell(draft, "p2p.published", value !== "0");
  }

  private group(number: number, member: string | undefined, entry: FolderEntry): void {
    this.hasGroups = true;
    if (member === undefined) {
      const type = entry.kind === "file" ? textOf(entry.bytes) : null;
      if (type !== null && this.machine.iommuGroupTypes.size < 16) {
        this.machine.iommuGroupTypes.add(printable(type));
      }
      return;
    }
    const parts = parseFull(member);
    const draft = parts === null ? null : this.machine.open(parts, this.place);
    if (draft === null) return;
    this.grouped.add(draft);
    this.tell(draft, "group", number);
  }

  private tell(draft: FunctionDraft, key: string, value: Value): void {
    this.machine.tell(draft, key, value, this.place);
  }
}

/** Rates of `current_link_*` and `max_link_*`, once both halves are there. */
export function tellSysfsRates(machine: MachineDraft, draft: FunctionDraft): void {
  const type = draft.text("pcie.type");
  if (type === "rc-endpoint" || type === "rc-event-collector") return;
  for (const [which, key] of [
    ["max", "link.max"],
    ["current", "link.now"],
  ] as const) {
    const speed = draft.number(`sysfs.${which}_link_speed`);
    const lanes = draft.number(`sysfs.${which}_link_width`);
    if (speed === "unknown" || lanes === "unknown" || draft.has(key)) continue;
    machine.tell(draft, key, linkText(speed, lanes), { source: "sysfs", line: null });
  }
}

/** An address with its domain, as sysfs names folders. */
function parseFull(part: string) {
  return part.length >= 12 ? parseAddress(part) : null;
}

/** A small text without the newline at its end. */
function textOf(bytes: Uint8Array): string | null {
  if (bytes.length > TEXT_BYTES_MAX) return null;
  let value = "";
  for (const byte of bytes) {
    if (byte > 0x7e) return null;
    value += String.fromCharCode(byte);
  }
  return value.trim();
}
