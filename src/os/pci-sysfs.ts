// SPDX-License-Identifier: MIT
// What this machine says of its PCI functions: sysfs, and the processor's name from procfs. Only
// files that are named here are read. Beside them lie `resource0` and its like, which are the
// device itself: reading those can make hardware act.

import { closeSync, fstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import { join, posix } from "node:path";
import { FarpageError } from "../base/index.js";
import type { FolderEntry, Source } from "../pci/index.js";

/** Files of a function. `config` is cut to 64 bytes for who has no CAP_SYS_ADMIN. */
const FUNCTION_FILES: readonly string[] = [
  "class",
  "config",
  "current_link_speed",
  "current_link_width",
  "device",
  "max_link_speed",
  "max_link_width",
  "numa_node",
  "resource",
  "revision",
  "subsystem_device",
  "subsystem_vendor",
  "vendor",
  "p2pmem/available",
  "p2pmem/published",
  "p2pmem/size",
];
const FUNCTION_LINKS: readonly string[] = ["driver", "iommu_group", "physfn"];
/** Folders of names that the kernel gave to devices, each a link into `devices/`. */
const NAME_FOLDERS: readonly (readonly [folder: string, name: RegExp])[] = [
  ["class/nvme", /^nvme\d+$/],
  ["class/net", /./],
  ["class/infiniband", /./],
  ["class/drm", /^(?:card|renderD)\d+$/],
  ["block", /./],
];
/** Configuration space has 4096 bytes; the processor's part of cpuinfo is far shorter. */
const FILE_BYTES_MAX = 65_536;
const FUNCTION_COUNT_MAX = 65_536;

export interface PciSysfsOptions {
  /** Where sysfs is mounted; another folder in tests. */
  readonly sys?: string;
  /** Where procfs is mounted. */
  readonly proc?: string;
}

/** What was read of the live system. */
export interface PciSysfs {
  /** sysfs, then of procfs the processor, the command line and the release, where they are. */
  readonly sources: readonly Source[];
  /** `uname -r`; null where procfs doesn't tell. */
  readonly kernelRelease: string | null;
  /** How many functions there are. */
  readonly functionCount: number;
  /** Of these, how many had their configuration space cut to 64 bytes. */
  readonly shortConfigCount: number;
}

/**
 * Reads what the topology needs, and nothing that has a side effect.
 *
 * A file that isn't there or may not be read is left out: its fact is unknown then.
 * @throws FarpageError ENOENT when there is no PCI bus in sysfs, or no sysfs.
 */
export function readPciSysfs(options: PciSysfsOptions = {}): PciSysfs {
  const sys = options.sys ?? "/sys";
  const proc = options.proc ?? "/proc";
  const reader = new Reader(sys);
  const addresses = namesIn(join(sys, "bus/pci/devices")).slice(0, FUNCTION_COUNT_MAX);
  if (addresses.length === 0) {
    throw new FarpageError(
      "ENOENT",
      `${join(sys, "bus/pci/devices")} has no PCI functions: name a dump with --from`,
    );
  }
  for (const address of addresses.sort()) reader.readFunction(address);
  for (const [folder, pattern] of NAME_FOLDERS) reader.readNames(folder, pattern);
  const sources: Source[] = [{ name: sys, entries: reader.entries, isWhole: true }];
  for (const name of ["cpuinfo", "cmdline"]) {
    const bytes = reader.readStart(join(proc, name));
    if (bytes !== null) sources.push({ name, bytes });
  }
  const release = reader.readStart(join(proc, "sys/kernel/osrelease"));
  return {
    sources,
    kernelRelease: release === null ? null : new TextDecoder().decode(release).trim(),
    functionCount: addresses.length,
    shortConfigCount: reader.shortConfigCount,
  };
}

class Reader {
  readonly entries = new Map<string, FolderEntry>();
  shortConfigCount = 0;
  readonly #sys: string;
  readonly #scratch = new Uint8Array(FILE_BYTES_MAX);

  constructor(sys: string) {
    this.#sys = sys;
  }

  readFunction(address: string): void {
    const device = this.#readLink(`bus/pci/devices/${address}`);
    if (device === null) return;
    this.entries.set(device, { kind: "folder" });
    for (const name of FUNCTION_FILES) this.#keep(`${device}/${name}`);
    const config = this.entries.get(`${device}/config`);
    if (config?.kind === "file" && config.bytes.length <= 64) this.shortConfigCount++;
    let group: string | null = null;
    for (const name of FUNCTION_LINKS) {
      const target = this.#readLink(`${device}/${name}`);
      if (name === "iommu_group") group = target;
    }
    if (group !== null && !this.entries.has(`${group}/type`)) this.#keep(`${group}/type`);
  }

  /** Names lead to the folders of the devices that have them. */
  readNames(folder: string, pattern: RegExp): void {
    for (const name of namesIn(join(this.#sys, folder)).sort()) {
      if (!pattern.test(name)) continue;
      const device = this.#readLink(`${folder}/${name}`);
      if (device !== null) this.entries.set(device, { kind: "folder" });
    }
  }

  #keep(path: string): void {
    const bytes = this.readStart(join(this.#sys, path));
    if (bytes !== null) this.entries.set(path, { kind: "file", bytes });
  }

  /** @returns what a link below sysfs' root points to, from there, or null. */
  #readLink(path: string): string | null {
    try {
      const target = readlinkSync(join(this.#sys, path));
      this.entries.set(path, { kind: "link", target });
      const from = posix.join(posix.dirname(path), target);
      return from.startsWith("..") ? null : from;
    } catch {
      return null;
    }
  }

  /**
   * A file's first bytes. Sizes that sysfs and procfs tell are no guide: it reads until there is
   * none.
   * @returns null when it isn't there or can't be read.
   */
  readStart(file: string): Uint8Array | null {
    let descriptor: number;
    try {
      descriptor = openSync(file, "r");
    } catch {
      return null;
    }
    try {
      if (!fstatSync(descriptor).isFile()) return null;
      const { length: bytesMax } = this.#scratch;
      let length = 0;
      for (;;) {
        const read = readSync(descriptor, this.#scratch, length, bytesMax - length, null);
        length += read;
        if (read === 0 || length === bytesMax) return this.#scratch.slice(0, length);
      }
    } catch {
      return null;
    } finally {
      closeSync(descriptor);
    }
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
