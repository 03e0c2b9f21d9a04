// SPDX-License-Identifier: MIT
// The machines of test/data/topologies: their dumps and the verdicts that are known of them.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { type FileSource, readTopology, type Topology } from "../../src/pci/index.js";

export const TOPOLOGIES = new URL("../data/topologies", import.meta.url).pathname;

export const MACHINES: readonly string[] = readdirSync(TOPOLOGIES, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name)
  .sort();

/** Files that a reader takes; the others of a folder are measurements and verdicts. */
const DUMP = /^(?:lspci-.*|sysfs\.tar\.gz|cpuinfo\.txt|lscpu\.txt|cmdline\.txt|dmesg-pci\.txt)$/;

export function gunzip(bytes: Uint8Array, bytesMax: number): Uint8Array {
  return gunzipSync(bytes, { maxOutputLength: bytesMax });
}

export function dumpsOf(machine: string): readonly string[] {
  return readdirSync(join(TOPOLOGIES, machine))
    .filter((name) => DUMP.test(name))
    .sort();
}

export function sourceOf(machine: string, name: string): FileSource {
  return { name, bytes: readFileSync(join(TOPOLOGIES, machine, name)) };
}

/** The machine read from those of its dumps that `isWanted`, by default from all. */
export function machineOf(
  machine: string,
  isWanted: (name: string) => boolean = () => true,
): Topology {
  const names = dumpsOf(machine).filter((name) => isWanted(name));
  return readTopology(
    names.map((name) => sourceOf(machine, name)).filter(({ bytes }) => bytes.length > 1),
    { gunzip },
  );
}

/** One row of a table of verdicts. */
export interface VerdictRow {
  readonly provider: string;
  readonly client: string;
  readonly mapType: string;
  readonly distance: number;
  /** Null: the table doesn't say. */
  readonly redirectPorts: readonly string[] | null;
  /** An id, or the kernel's words; null: the table doesn't say; "" says none. */
  readonly message: string | null;
  /** The release whose rules it is for. */
  readonly kernel: string;
}

/** Rows of `kernel-verdicts.tsv` or `expected-verdicts.tsv`; none where the machine has neither. */
export function verdictsOf(machine: string, table: string): readonly VerdictRow[] {
  let text: string;
  try {
    text = readFileSync(join(TOPOLOGIES, machine, table), "utf8");
  } catch {
    return [];
  }
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const names = (lines.shift() as string).split("\t");
  return lines.map((line) => {
    const cells = new Map(line.split("\t").map((cell, index) => [names[index] as string, cell]));
    const cell = (name: string) => cells.get(name) ?? null;
    const ports = cell("acs_redirect_ports");
    const message = cell("unlisted_host_bridge") ?? cell("kernel_message");
    return {
      provider: cell("provider") as string,
      client: cell("client") as string,
      mapType: cell("map_type") as string,
      distance: Number(cell("distance")),
      redirectPorts: ports === null ? null : ports === "-" ? [] : ports.split(/[;, ]+/),
      message: message === "-" ? "" : message,
      kernel: cell("rules")?.startsWith("5.14") ? "5.14" : "6.1",
    };
  });
}
