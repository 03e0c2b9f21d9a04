// SPDX-License-Identifier: MIT
// Fuzz of the readers of PCI dumps: pieces of real and random dumps, cut, spliced, interleaved and
// spoiled. Whatever comes, it is read or refused with a code; and no verdict says "allowed" without
// the facts that the kernel's rule wants.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FarpageError, SeededRandom } from "../../src/base/index.js";
import {
  type FolderEntry,
  type P2pPath,
  p2pPath,
  readTopology,
  type Source,
  type Topology,
  UNKNOWN,
} from "../../src/pci/index.js";
import {
  FULL,
  printCpu,
  printHex,
  printSysfs,
  printTree,
  printWords,
} from "../support/machine-printer.js";
import { randomMachine } from "../support/random-machine.js";
import { packTar } from "../support/tar-writer.js";
import { TOPOLOGIES } from "../support/topologies.js";
import { Mutator } from "./mutate.js";

export interface PciFuzzReport {
  mutated: number;
  refused: number;
  /** Verdicts asked for, by what came. */
  readonly verdicts: Record<string, number>;
  readonly notices: Record<string, number>;
}

/** Small pieces make many tries. */
const PIECE_LENGTH_MAX = 6_000;
const PAIRS = 4;
const encoder = new TextEncoder();

/** Blocks of the real dumps, a few kilobytes each. */
let realPieces: readonly string[] | null = null;

function pieces(): readonly string[] {
  if (realPieces !== null) return realPieces;
  const found: string[] = [];
  for (const machine of readdirSync(TOPOLOGIES)) {
    if (machine.endsWith(".md")) continue;
    for (const name of readdirSync(join(TOPOLOGIES, machine))) {
      if (!/\.txt$/.test(name)) continue;
      const text = readFileSync(join(TOPOLOGIES, machine, name), "latin1");
      for (let at = 0; at < text.length; at += PIECE_LENGTH_MAX) {
        found.push(text.slice(at, at + PIECE_LENGTH_MAX));
      }
    }
  }
  realPieces = found;
  return found;
}

export class PciFuzzer {
  private readonly mutator: Mutator;
  private readonly report: PciFuzzReport = { mutated: 0, refused: 0, verdicts: {}, notices: {} };
  private texts: string[] = [];

  constructor(seed: number) {
    this.mutator = new Mutator(new SeededRandom(seed).fork("pci"));
  }

  run(count: number): PciFuzzReport {
    for (let done = 0; done < count; done++) {
      if (done % 50 === 0) this.renew();
      this.one();
      this.report.mutated++;
    }
    return this.report;
  }

  /** Another machine, in all its forms, and some real pieces beside it. */
  private renew(): void {
    const machine = randomMachine(this.mutator.random);
    const some = { ...machine, functions: machine.functions.slice(0, 12) };
    const real = pieces();
    this.texts = [
      printWords(some, FULL),
      printWords(some, { ...FULL, ids: "n", hasDomain: false }),
      printWords(some, { ...FULL, level: "v", isDenied: (one) => one.bus % 2 === 1 }),
      printHex({ ...some, functions: some.functions.slice(0, 4) }, () => 512),
      printTree(machine),
      printCpu(machine),
      this.mutator.pick(real),
      this.mutator.pick(real),
    ];
    this.entries = printSysfs(some, () => 512);
  }

  private entries = new Map<string, FolderEntry>();

  private one(): void {
    const sources: Source[] = [];
    for (let index = 0; index <= this.mutator.below(2); index++) sources.push(this.source(index));
    let topology: Topology;
    try {
      topology = readTopology(sources, { gunzip: (bytes) => bytes.subarray(3) });
    } catch (error) {
      if (error instanceof FarpageError && error.code.startsWith("PCI_")) {
        this.report.refused++;
        return;
      }
      throw error;
    }
    for (const { code } of topology.report.notices) {
      this.report.notices[code] = (this.report.notices[code] ?? 0) + 1;
    }
    this.ask(topology);
  }

  private source(index: number): Source {
    const name = `source ${index}`;
    const kind = this.mutator.below(8);
    if (kind === 0) return { name, entries: this.spoiledFolder() };
    if (kind === 1) {
      const tar = packTar(this.entries, this.mutator.oneIn(2));
      return { name, bytes: this.spoiledBytes(tar) };
    }
    return { name, bytes: this.spoiledBytes(encoder.encode(this.spoiledText())) };
  }

  private spoiledText(): string {
    const { mutator } = this;
    let text = mutator.pick(this.texts);
    for (let times = mutator.below(4); times >= 0; times--) text = this.spoil(text);
    return text;
  }

  private spoil(text: string): string {
    const { mutator } = this;
    const other = mutator.pick(this.texts);
    const at = mutator.below(text.length + 1);
    switch (mutator.below(10)) {
      case 0:
        return text.slice(0, at);
      case 1:
        return text.slice(at);
      case 2:
        return text.slice(0, at) + other.slice(mutator.below(other.length + 1));
      case 3:
        return this.lines(text, (lines) => lines.filter(() => !mutator.oneIn(8)));
      case 4:
        return this.lines(text, (lines) => this.interleave(lines, other.split("\n")));
      case 5:
        return this.lines(text, (lines) =>
          lines.map((line) => (mutator.oneIn(6) ? wrap(line) : line)),
        );
      case 6:
        return text.replaceAll("\n", mutator.pick(["\r\n", "\n\n", "\n> ", "\n        ", "\r"]));
      case 7:
        return text.replaceAll("\t", mutator.pick(["        ", " ", "", "\t\t"]));
      case 8:
        return text + mutator.pick(["me@host:~$ lspci -t\n", "...\n", "--\n", "\0", "ü\n"]) + other;
      default:
        return this.lines(text, (lines) => lines.map((line) => this.renumber(line)));
    }
  }

  private lines(text: string, change: (lines: string[]) => string[]): string {
    return change(text.split("\n")).join("\n");
  }

  private interleave(lines: string[], others: string[]): string[] {
    const mixed: string[] = [];
    for (let index = 0; index < Math.max(lines.length, others.length); index++) {
      if (index < lines.length) mixed.push(lines[index] as string);
      if (index < others.length && this.mutator.oneIn(3)) mixed.push(others[index] as string);
    }
    return mixed;
  }

  /** Other bus numbers: bridges that lead to themselves, to one another, to nothing. */
  private renumber(line: string): string {
    if (!this.mutator.oneIn(4)) return line;
    const digits = this.mutator.below(256).toString(16).padStart(2, "0");
    return line.replace(
      /(secondary=|primary=|subordinate=|\[|:|^)[0-9a-f]{2}(?=[,\]:-])/,
      `$1${digits}`,
    );
  }

  private spoiledBytes(bytes: Uint8Array): Uint8Array {
    const { mutator } = this;
    const copy = bytes.slice();
    for (let times = mutator.below(6); times > 0 && copy.length > 0; times--) {
      copy[mutator.below(copy.length)] = mutator.below(256);
    }
    return mutator.oneIn(4) ? copy.subarray(0, mutator.below(copy.length + 1)) : copy;
  }

  private spoiledFolder(): Map<string, FolderEntry> {
    const { mutator } = this;
    const folder = new Map<string, FolderEntry>();
    const names = [...this.entries.keys()];
    for (const [path, entry] of this.entries) {
      if (mutator.oneIn(10)) continue;
      const where = mutator.oneIn(12) ? this.renumber(mutator.pick(names)) : path;
      if (entry.kind === "file" && mutator.oneIn(5)) {
        folder.set(where, { kind: "file", bytes: this.spoiledBytes(entry.bytes) });
      } else if (entry.kind === "link" && mutator.oneIn(5)) {
        folder.set(where, { kind: "link", target: mutator.pick(names) });
      } else {
        folder.set(where, entry);
      }
    }
    return folder;
  }

  private ask(topology: Topology): void {
    const all = [...topology.functions.keys()];
    if (all.length === 0) throw new Error("a topology without functions");
    for (let pair = 0; pair < PAIRS; pair++) {
      const client = this.mutator.pick(all);
      const provider = this.mutator.pick(all);
      const path = p2pPath(topology, client, provider);
      this.report.verdicts[path.mapType] = (this.report.verdicts[path.mapType] ?? 0) + 1;
      const wrong = unfounded(topology, path);
      if (wrong !== null) throw new Error(`${client} to ${provider}: ${wrong}`);
    }
  }
}

function wrap(line: string): string {
  const at = line.lastIndexOf(" ", 70);
  return at < 20 ? line : `${line.slice(0, at)}\n${line.slice(at + 1)}`;
}

/** What a verdict claims and the topology doesn't give; null: nothing. */
function unfounded(topology: Topology, path: P2pPath): string | null {
  if (path.mapType === UNKNOWN) {
    return path.missing.some(({ isDeciding }) => isDeciding) ? null : "unknown without a reason";
  }
  if (path.possible.join() !== path.mapType) return "several verdicts are possible";
  if (path.mapType === "NOT_SUPPORTED") return path.isAllowed === false ? null : "refused, allowed";
  if (path.isAllowed !== true) return "allowed, but not so";
  return path.mapType === "BUS_ADDR"
    ? unfoundedDirect(topology, path)
    : unfoundedHost(topology, path);
}

function unfoundedDirect(topology: Topology, path: P2pPath): string | null {
  if (path.common === UNKNOWN || path.common === null) return "direct without a common function";
  for (const hop of path.hops) {
    const acs = topology.functions.get(hop.address)?.acs;
    if (acs === undefined || acs === UNKNOWN)
      return `direct past the unknown ACS of ${hop.address}`;
    if (acs !== null && acs.control === UNKNOWN) return `direct past ${hop.address}`;
    if (acs !== null && ((acs.control as number) & 0x2c) !== 0) return "direct past a redirect";
  }
  return null;
}

function unfoundedHost(topology: Topology, path: P2pPath): string | null {
  const { cpuRule, listRule, roots } = path.hostBridge;
  if (cpuRule === true) return topology.cpu.isAmdZen === true ? null : "no such CPU";
  if (listRule !== true) return "neither CPU nor list";
  for (const root of roots) {
    const first = topology.functions.get(String(root.representative));
    if (first === undefined) return "listed without a first function";
    if (first.vendorId === UNKNOWN && first.names.device === null) return "listed without ids";
  }
  return roots.length > 0 ? null : "listed without a root bus";
}
