// SPDX-License-Identifier: MIT
// `farpage p2p`: may these two PCI devices talk, by which way, and if not, why. Here the words of
// the command line meet the pure code that answers (pci/); reading is runtime's.

import { writeFile } from "node:fs/promises";
import {
  type Address,
  type Answer,
  answerOf,
  deviceJson,
  explainText,
  headline,
  Inventory,
  isKnown,
  isNewerThanKnown,
  type Judge,
  KERNEL_RELEASES,
  linkText,
  makeMatrix,
  makeTree,
  matrixJson,
  matrixText,
  NEWEST_KERNEL,
  P2P_SCHEMA,
  type P2pOptions,
  type P2pPath,
  PAIRS_MAX,
  p2pPath,
  p2pVerdicts,
  pairJson,
  pathJson,
  pathText,
  select,
  selectDefault,
  selectOne,
  selectPairs,
  sizeText,
  tableText,
  treeJson,
  treeSvg,
  treeText,
} from "../pci/index.js";
import { FarpageError, type PciMachine, readPciMachine } from "../runtime/index.js";
import { checkOptions } from "./options.js";
import { P2P_OPTIONS, P2P_TREE_OPTIONS, type P2pCommandOptions } from "./p2p-options.js";
import type { Reporter } from "./reporter.js";

/** A machine that was read, and how its pairs are judged. */
class Session {
  readonly machine: PciMachine;
  readonly inventory: Inventory;
  /** The release by whose rules it is judged. */
  readonly kernel: string;
  readonly #options: P2pOptions;

  constructor(machine: PciMachine, options: P2pCommandOptions) {
    this.machine = machine;
    this.inventory = new Inventory(machine.topology, machine.ids);
    this.kernel = chooseKernel(options.kernel, machine.kernelRelease);
    this.#options = {
      kernel: this.kernel,
      names: machine.ids,
      ...(options.assumeAcs === undefined ? {} : { assume: { acsControl: options.assumeAcs } }),
    };
  }

  static async open(options: P2pCommandOptions, reporter: Reporter): Promise<Session> {
    const machine = await readPciMachine(options.from);
    for (const notice of machine.notices) reporter.warn(notice);
    tellNotices(machine, options, reporter);
    const session = new Session(machine, options);
    const untested = tooNewText(session.kernel);
    if (untested !== null) reporter.warn(untested);
    return session;
  }

  path(client: Address, provider: Address): P2pPath {
    return p2pPath(this.machine.topology, client, provider, this.#options);
  }

  /** For many pairs: what `path` says, without its reasons. */
  verdicts(): Judge {
    return p2pVerdicts(this.machine.topology, this.#options);
  }

  /** Fields of every JSON object. */
  get head(): Readonly<Record<string, unknown>> {
    return { schema: P2P_SCHEMA, source: this.machine.name };
  }
}

/** What could not be read for want of rights always; other odd places on request, else counted. */
function tellNotices(machine: PciMachine, options: P2pCommandOptions, reporter: Reporter): void {
  const { notices, noticesDropped } = machine.topology.report;
  const told = new Set<string>();
  let untold = noticesDropped;
  let conflicts = 0;
  for (const { code, source, line, message } of notices) {
    // One is enough of a source; of this machine the reader has told it already.
    const isNews = code === "NO_PRIVILEGE" && options.from.length > 0 && !told.has(source);
    if (code === "NO_PRIVILEGE") told.add(source);
    else if (code === "CONFLICT") conflicts++;
    else untold++;
    if (options.verbose || isNews) {
      reporter.warn(`${source}${line === null ? "" : `:${line}`}: ${message}`);
    }
  }
  if (conflicts > 0) {
    reporter.warn(
      `${conflicts} fact${conflicts === 1 ? "" : "s"} told in two ways, so unknown: is ` +
        `all this of one machine and one boot?${options.verbose ? "" : " (--verbose)"}`,
    );
  }
  if (options.verbose || untold === 0) return;
  reporter.warn(`${untold} odd place${untold === 1 ? "" : "s"} in what was read (--verbose)`);
}

/** @returns what to say of a release that nobody has looked at yet; null when it is known. */
function tooNewText(kernel: string): string | null {
  if (!isNewerThanKnown(kernel)) return null;
  return `Linux ${kernel} is newer than what is known: the rules of ${NEWEST_KERNEL} are taken`;
}

/** @returns the release that `--kernel` means. */
function chooseKernel(asked: string | undefined, running: string | null): string {
  if (asked === undefined) return NEWEST_KERNEL;
  if (asked !== "running") return asked;
  const release = running === null ? null : /^\d+\.\d+/.exec(running);
  if (release === null) {
    throw new FarpageError(
      "EINVAL",
      "--kernel running: a dump doesn't tell which kernel runs; name a release, such as " +
        KERNEL_RELEASES.slice(-3).join(", "),
    );
  }
  return release[0];
}

export async function runP2pList(raw: unknown, what: readonly string[], reporter: Reporter) {
  const session = await Session.open(checkOptions(P2P_OPTIONS, raw), reporter);
  const { inventory } = session;
  const addresses = what.length === 0 ? selectDefault(inventory) : selectAll(inventory, what);
  const items = addresses.map((address) => inventory.get(address));
  const rows = items.map((item) => {
    const { pci } = item;
    const link = isKnown(pci.pcie) && pci.pcie !== null ? pci.pcie.link : "unknown";
    return [
      item.label ?? item.kind,
      item.address,
      pci.names.kernel.join(" ") || "-",
      isKnown(pci.numaNode) && pci.numaNode !== null ? `${pci.numaNode}` : "-",
      isKnown(link) && link !== null ? linkText(link) : "-",
      barText(item.address, inventory),
      item.name ?? item.shortName,
    ];
  });
  const title = ["device", "address", "kernel", "node", "link", "memory BAR", "name"];
  const all = inventory.items.size;
  const rootBuses = session.machine.topology.rootBuses.size;
  const text = [
    ...(rows.length === 0 ? [] : tableText([title, ...rows])),
    `${items.length} of ${all} functions on ${rootBuses} root bus${rootBuses === 1 ? "" : "es"}` +
      (what.length === 0 ? '; "farpage p2p list all" shows the others' : ""),
  ].join("\n");
  reporter.event("devices", { ...session.head, devices: items.map(deviceJson) }, text);
}

/** The largest memory that a device could offer, and what of it is registered for peers. */
function barText(address: Address, inventory: Inventory): string {
  const { bars, p2pMemory } = inventory.get(address).pci;
  if (!isKnown(bars)) return "-";
  const sizes = bars.flatMap(({ kind, size, index }) =>
    kind === "memory" && index < 6 && isKnown(size) ? [size] : [],
  );
  const largest = sizes.reduce((most, size) => (size > most ? size : most), 0n);
  const isOffered = isKnown(p2pMemory) && p2pMemory !== null && isKnown(p2pMemory.size);
  const offered = isOffered ? ` (${sizeText(p2pMemory.size as bigint)} for peers)` : "";
  return sizes.length === 0 ? "-" : `${sizeText(largest)}${offered}`;
}

/** `path` and `explain`: the same answer, short and whole. */
export async function runP2pPath(
  devices: { readonly client: string; readonly provider: string },
  raw: unknown,
  isWhole: boolean,
  reporter: Reporter,
): Promise<void> {
  const session = await Session.open(checkOptions(P2P_OPTIONS, raw), reporter);
  const { inventory } = session;
  const client = selectOne(inventory, devices.client);
  const provider = selectOne(inventory, devices.provider);
  const path = session.path(client, provider);
  const lines = isWhole ? explainText(inventory, path) : pathText(inventory, path);
  const fields = { ...session.head, path: pathJson(path), ...(isWhole ? { text: lines } : {}) };
  reporter.event("path", fields, lines.join("\n"));
}

export async function runP2pMatrix(
  what: readonly string[],
  raw: unknown,
  reporter: Reporter,
): Promise<void> {
  const options = checkOptions(P2P_OPTIONS, raw);
  const session = await Session.open(options, reporter);
  const { inventory } = session;
  const rows = what.length === 0 ? selectDefault(inventory) : selectAll(inventory, what);
  const columns = options.to.length === 0 ? rows : selectAll(inventory, options.to);
  if (rows.length === 0) {
    throw new FarpageError(
      "ENODEV",
      "no GPU, NIC or NVMe drive among the functions: name what to compare (p2p list all)",
    );
  }
  if (rows.length * columns.length > PAIRS_MAX) {
    throw new FarpageError(
      "E2BIG",
      `${rows.length} x ${columns.length} pairs are more than ${PAIRS_MAX}: name fewer rows, ` +
        "or columns with --to",
    );
  }
  const matrix = makeMatrix(rows, columns, session.kernel, session.verdicts());
  const shown = [...new Set([...rows, ...columns])].map((address) => inventory.get(address));
  const fields = { ...session.head, devices: shown.map(deviceJson), ...matrixJson(matrix) };
  reporter.event("matrix", fields, matrixText(inventory, matrix).join("\n"));
}

function selectAll(inventory: Inventory, names: readonly string[]): readonly Address[] {
  return [...new Set(names.flatMap((name) => select(inventory, name)))];
}

/** Exit statuses of `check`. */
export const CHECK_STATUS = { works: 0, fails: 1, error: 2, unknown: 3 } as const;

/**
 * Judges pairs for scripts.
 *
 * Sets the exit status: 0 when all work, 1 when one is refused, 3 when none is refused but one is
 * unknown, 2 when the question could not be asked (no such device, no such file).
 */
export async function runP2pCheck(
  pairs: readonly string[],
  raw: unknown,
  reporter: Reporter,
): Promise<void> {
  try {
    const session = await Session.open(checkOptions(P2P_OPTIONS, raw), reporter);
    const { inventory } = session;
    const judge = session.verdicts();
    const paths = pairs
      .flatMap((pair) => selectPairs(inventory, pair))
      .map(({ client, provider }) => judge(client, provider));
    const status = checkStatus(paths.map(answerOf));
    const lines = paths.map((path) => headline(inventory, path));
    const fields = { ...session.head, kernel: session.kernel, status, pairs: paths.map(pairJson) };
    reporter.event("check", fields, lines.join("\n"));
    process.exitCode = CHECK_STATUS[status];
  } catch (error) {
    reporter.fail(error);
    process.exitCode = CHECK_STATUS.error;
  }
}

/** What many answers come to: the worst counts, and refused is worse than unknown. */
export function checkStatus(answers: readonly Answer[]): "works" | "fails" | "unknown" {
  if (answers.includes("refused")) return "fails";
  return answers.includes("unknown") ? "unknown" : "works";
}

export async function runP2pTree(raw: unknown, reporter: Reporter): Promise<void> {
  const options = checkOptions(P2P_TREE_OPTIONS, raw);
  const session = await Session.open(options, reporter);
  const { inventory } = session;
  const path = options.path === undefined ? null : judgePair(session, options.path);
  const tree = makeTree(inventory, { isWhole: options.all, path });
  const title = path === null ? `PCI tree of ${session.machine.name}` : headline(inventory, path);
  if (options.svg !== undefined) {
    const svg = treeSvg(tree, title);
    if (options.svg === "-") {
      process.stdout.write(svg);
      return;
    }
    await writeNamed(options.svg, svg);
  }
  const written = options.svg === undefined ? {} : { file: options.svg };
  const text = [
    ...(path === null ? [] : [title]),
    ...(options.svg === undefined ? treeText(tree) : [`the tree is in ${options.svg}`]),
  ].join("\n");
  reporter.event("tree", { ...session.head, ...written, ...treeJson(tree) }, text);
}

function judgePair(session: Session, text: string): P2pPath {
  const pairs = selectPairs(session.inventory, text);
  const [first] = pairs;
  if (first === undefined || pairs.length > 1) {
    throw new FarpageError("EINVAL", `--path: "${text}" means ${pairs.length} pairs, not one`);
  }
  return session.path(first.client, first.provider);
}

async function writeNamed(file: string, content: string): Promise<void> {
  try {
    await writeFile(file, content);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "EIO";
    throw new FarpageError(code, `could not write ${file} (${code})`, { cause: error });
  }
}
