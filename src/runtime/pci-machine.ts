// SPDX-License-Identifier: MIT
// The PCI tree of this machine or of dumps: os/ reads, pci/ understands.

import type { Readable } from "node:stream";
import { FarpageError } from "../base/index.js";
import { type PciSysfs, readNamedSource, readPciIds, readPciSysfs } from "../os/index.js";
import { PciIds, readTopology, type Source, type Topology } from "../pci/index.js";

export interface PciMachine {
  readonly topology: Topology;
  /** Names of the system's `pci.ids`; empty where it isn't installed. */
  readonly ids: PciIds;
  /** Where it was found; null: it isn't installed. */
  readonly idsPath: string | null;
  /** What was read: "this machine", or the names of the dumps. */
  readonly name: string;
  /** `uname -r` of the machine, when it is this one; null for dumps. */
  readonly kernelRelease: string | null;
  /** What could not be read, and what to do about that, in sentences. */
  readonly notices: readonly string[];
}

/**
 * Reads dumps, or this machine where none is named.
 * @param from files, folders, archives; `-` is standard input.
 * @throws FarpageError as `readTopology`, `readNamedSource` and `readPciSysfs` do.
 */
export async function readPciMachine(
  from: readonly string[],
  input: Readable = process.stdin,
): Promise<PciMachine> {
  if (from.filter((path) => path === "-").length > 1) {
    throw new FarpageError("EINVAL", "standard input can be read once only");
  }
  const sources: Source[] = [];
  const notices: string[] = [];
  let kernelRelease: string | null = null;
  const addSysfs = (machine: PciSysfs) => {
    sources.push(...machine.sources);
    kernelRelease = machine.kernelRelease;
    const { functionCount, shortConfigCount } = machine;
    if (shortConfigCount === 0) return;
    const count = shortConfigCount === functionCount ? "all" : `${shortConfigCount}`;
    notices.push(
      `without root the kernel shows 64 bytes of configuration space (${count} of ` +
        `${functionCount} functions): ACS, port types and resizable BARs are unknown. Run it as ` +
        "root, or as root write `lspci -vvvxxxx >FILE` and name it with --from",
    );
  };
  if (from.length === 0) addSysfs(readPciSysfs());
  for (const path of from) {
    const found = await readNamedSource(path, input);
    if (found.kind === "sysfs") addSysfs(readPciSysfs({ sys: found.name }));
    else {
      sources.push(found.source);
      notices.push(...found.notices);
    }
  }
  const topology = readTopology(sources);
  const file = readPciIds();
  return {
    topology,
    ids: new PciIds(file?.text ?? ""),
    idsPath: file?.path ?? null,
    name: from.length === 0 ? "this machine" : from.join(", "),
    kernelRelease,
    notices,
  };
}
