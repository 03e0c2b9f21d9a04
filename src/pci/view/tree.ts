// SPDX-License-Identifier: MIT
// The topology as a tree to look at: root buses, bridges, and the devices that matter. What doesn't
// matter is told in numbers, or a server's hundreds of uncore functions would hide its eight GPUs.

import { isKnown, UNKNOWN } from "../fact.js";
import { ACS, type Address, type PciFunction, type RootBusName } from "../topology.js";
import type { P2pPath } from "../verdict.js";
import { hex, type Inventory, type InventoryItem } from "./inventory.js";
import type { Kind } from "./kind.js";
import { type Answer, acsBits, answerOf, count, linkText, PORT_TEXTS } from "./words.js";

/** What a function's ACS does to traffic between peers. */
export type AcsState = "none" | "passes" | "redirects" | "unknown";

export interface TreeNode {
  readonly type: "root" | "bridge" | "device" | "others";
  /** The function; null for root buses and for what is told in numbers. */
  readonly address: Address | null;
  readonly kind: Kind | null;
  /** A few words: label, kernel name or address. */
  readonly title: string;
  /** The rest of what is to say. */
  readonly detail: string;
  readonly acs: AcsState;
  /** What its ACS control word has switched on, by lspci's names; empty: nothing, or unknown. */
  readonly acsBits: string;
  /** On the marked path. */
  readonly isMarked: boolean;
  readonly children: readonly TreeNode[];
}

export interface Tree {
  readonly roots: readonly TreeNode[];
  /** What is on no root bus that is drawn: "12 root buses with 254 functions". Null: nothing. */
  readonly rest: string | null;
  /** The verdict of the marked path; null without one. */
  readonly answer: Answer | null;
}

export interface TreeOptions {
  /** Every function by itself. */
  readonly isWhole?: boolean;
  /** A path to mark: its functions are shown whatever they are. */
  readonly path?: P2pPath | null;
}

const SHOWN: readonly Kind[] = ["gpu", "accelerator", "nic", "nvme", "memory"];

export function makeTree(inventory: Inventory, options: TreeOptions = {}): Tree {
  const builder = new Builder(inventory, options);
  const roots: TreeNode[] = [];
  let hiddenRoots = 0;
  let hiddenFunctions = 0;
  for (const name of builder.rootNames()) {
    if (builder.isRootShown(name)) roots.push(builder.root(name));
    else {
      hiddenRoots++;
      hiddenFunctions += builder.countBelow(name);
    }
  }
  const rest =
    hiddenRoots === 0
      ? null
      : `${hiddenRoots} more root bus${hiddenRoots === 1 ? "" : "es"} with ` +
        `${count(hiddenFunctions, "function")}, none of which is a GPU, accelerator, NIC, ` +
        "NVMe drive or memory";
  const { path } = options;
  return { roots, rest, answer: path === null || path === undefined ? null : answerOf(path) };
}

/** Where functions go whose root bus, or whose bridge, isn't known. */
const NOWHERE = "unknown";

class Builder {
  readonly #inventory: Inventory;
  readonly #isWhole: boolean;
  readonly #marked: ReadonlySet<Address | RootBusName>;
  readonly #children = new Map<Address | RootBusName, InventoryItem[]>();
  readonly #shown = new Set<Address | RootBusName>();

  constructor(inventory: Inventory, options: TreeOptions) {
    this.#inventory = inventory;
    this.#isWhole = options.isWhole ?? false;
    const path = options.path ?? null;
    this.#marked = markedBy(inventory, path);
    for (const item of inventory.items.values()) {
      const key = placeOf(item.pci);
      const list = this.#children.get(key);
      if (list === undefined) this.#children.set(key, [item]);
      else list.push(item);
    }
    for (const item of inventory.items.values()) if (this.#isWorthShowing(item)) this.#show(item);
  }

  rootNames(): readonly RootBusName[] {
    const known = [...this.#inventory.topology.rootBuses.keys()];
    const others = [...this.#children.keys()].filter(
      (key) => !this.#inventory.items.has(key) && !known.includes(key),
    );
    return [...known, ...others].filter((name) => this.#children.has(name));
  }

  isRootShown(name: RootBusName): boolean {
    return this.#isWhole || this.#shown.has(name);
  }

  countBelow(key: Address | RootBusName): number {
    let sum = 0;
    for (const { address } of this.#children.get(key) ?? []) sum += 1 + this.countBelow(address);
    return sum;
  }

  root(name: RootBusName): TreeNode {
    const children = this.#nodesBelow(name);
    return {
      type: "root",
      address: null,
      kind: null,
      title: name === NOWHERE ? "place unknown" : `root bus ${name}`,
      detail: this.#rootDetail(name),
      acs: "none",
      acsBits: "",
      isMarked: this.#marked.has(name),
      children,
    };
  }

  #rootDetail(name: RootBusName): string {
    const root = this.#inventory.topology.rootBuses.get(name);
    const parts: string[] = [];
    const nodes = new Set(
      (this.#children.get(name) ?? []).map(({ pci }) => pci.numaNode).filter(isKnown),
    );
    nodes.delete(null);
    if (nodes.size === 1) parts.push(`node ${[...nodes][0]}`);
    if (root !== undefined && isKnown(root.representative) && root.representative !== null) {
      const { vendorId, deviceId } = this.#inventory.get(root.representative).pci;
      const id =
        vendorId === UNKNOWN || deviceId === UNKNOWN
          ? ""
          : ` ${hex(vendorId, 4)}:${hex(deviceId, 4)}`;
      parts.push(`first ${root.representative.slice(name.length + 1)}${id}`);
    }
    return parts.join(", ");
  }

  #isWorthShowing(item: InventoryItem): boolean {
    if (this.#isWhole || this.#marked.has(item.address)) return true;
    if (item.kind === "bridge") return acsState(item.pci) === "redirects";
    return SHOWN.includes(item.kind) && !item.isVf;
  }

  /** Marks a function and everything above it as shown. */
  #show(item: InventoryItem): void {
    let key: Address | RootBusName = item.address;
    while (!this.#shown.has(key)) {
      this.#shown.add(key);
      const above = this.#inventory.items.get(key);
      if (above === undefined) return;
      key = placeOf(above.pci);
    }
  }

  #nodesBelow(key: Address | RootBusName): TreeNode[] {
    const nodes: TreeNode[] = [];
    const others: InventoryItem[] = [];
    for (const item of this.#children.get(key) ?? []) {
      if (this.#shown.has(item.address)) nodes.push(this.#node(item));
      else others.push(item);
    }
    const [only] = others;
    const isAlone = others.length === 1 && only !== undefined && !this.#children.has(only.address);
    // One function by itself takes no more room than its number would.
    if (isAlone) nodes.push(this.#node(only));
    else if (others.length > 0) nodes.push(this.#others(others));
    return nodes;
  }

  #node(item: InventoryItem): TreeNode {
    const { address, kind, label, pci } = item;
    const isBridge = kind === "bridge";
    const kernel = pci.names.kernel.join(" ");
    const call = [label, kernel].filter((text) => text !== null && text !== "").join(" ");
    return {
      type: isBridge ? "bridge" : "device",
      address,
      kind,
      title: call === "" ? address : `${call}  ${address}`,
      detail: isBridge ? bridgeDetail(pci) : deviceDetail(item),
      acs: acsState(pci),
      acsBits: acsBitsOf(pci),
      isMarked: this.#marked.has(address),
      children: this.#nodesBelow(address),
    };
  }

  /** What isn't shown by itself: how many of which class. */
  #others(items: readonly InventoryItem[]): TreeNode {
    const counts = new Map<string, number>();
    let number = 0;
    const add = (item: InventoryItem) => {
      number++;
      const what = item.isVf ? "virtual function" : (item.pci.names.class ?? item.shortName);
      counts.set(what, (counts.get(what) ?? 0) + 1);
      for (const below of this.#children.get(item.address) ?? []) add(below);
    };
    for (const item of items) add(item);
    const most = [...counts].sort(([, a], [, b]) => b - a).slice(0, 3);
    const more = counts.size > most.length ? ", ..." : "";
    return {
      type: "others",
      address: null,
      kind: null,
      title: `${number} more`,
      detail: `${most.map(([what, count]) => `${count} ${what}`).join(", ")}${more}`,
      acs: "none",
      acsBits: "",
      isMarked: false,
      children: [],
    };
  }
}

/** What a path goes over; up to the root bus too, unless it turns before. */
function markedBy(inventory: Inventory, path: P2pPath | null): ReadonlySet<Address | RootBusName> {
  const marked = new Set<Address | RootBusName>();
  if (path === null) return marked;
  for (const { address } of path.hops) marked.add(address);
  const turnsBelow = path.common !== null && path.mapType !== "THRU_HOST_BRIDGE";
  if (turnsBelow && path.mapType !== "NOT_SUPPORTED") return marked;
  for (const address of [path.provider, path.client]) {
    let key: Address | RootBusName = address;
    // A chain of parents has no loop in a topology, but this drawing need not rely on that.
    for (let depth = 0; depth < 64 && key !== NOWHERE; depth++) {
      marked.add(key);
      const item = inventory.items.get(key);
      if (item === undefined) break;
      key = placeOf(item.pci);
    }
  }
  return marked;
}

/** The key under which a function hangs. */
function placeOf(pci: PciFunction): Address | RootBusName {
  if (isKnown(pci.parent) && pci.parent !== null) return pci.parent;
  return pci.parent === null && isKnown(pci.rootBus) ? pci.rootBus : NOWHERE;
}

export function acsState(pci: PciFunction): AcsState {
  if (pci.acs === null) return "none";
  if (pci.acs === UNKNOWN || pci.acs.control === UNKNOWN) return "unknown";
  return (pci.acs.control & ACS.REDIRECT_MASK) === 0 ? "passes" : "redirects";
}

function acsBitsOf(pci: PciFunction): string {
  if (pci.acs === null || !isKnown(pci.acs) || !isKnown(pci.acs.control)) return "";
  return acsBits(pci.acs.control);
}

function bridgeDetail(pci: PciFunction): string {
  const parts: string[] = [];
  const port = portOf(pci);
  if (port !== null) parts.push(port);
  if (isKnown(pci.bridge) && pci.bridge !== null) {
    const { secondary, subordinate } = pci.bridge;
    if (isKnown(secondary) && isKnown(subordinate)) {
      parts.push(
        secondary === subordinate
          ? `[${hex(secondary, 2)}]`
          : `[${hex(secondary, 2)}-${hex(subordinate, 2)}]`,
      );
    }
  }
  return parts.join(" ");
}

function portOf(pci: PciFunction): string | null {
  if (!isKnown(pci.pcie) || pci.pcie === null || !isKnown(pci.pcie.portType)) return null;
  return PORT_TEXTS[pci.pcie.portType].replace("switch ", "");
}

function deviceDetail({ pci, shortName }: InventoryItem): string {
  const parts = [shortName];
  if (isKnown(pci.pcie) && pci.pcie !== null) {
    const { link } = pci.pcie;
    if (isKnown(link) && link !== null) parts.push(linkText(link));
  }
  return parts.join(", ");
}

const ACS_WORDS: Readonly<Record<AcsState, string>> = {
  none: "",
  passes: "",
  redirects: "  REDIRECTS",
  unknown: "  ACS unknown",
};

/** The tree as lines of text. */
export function treeText(tree: Tree): string[] {
  const lines: string[] = [];
  const visit = (node: TreeNode, first: string, rest: string) => {
    const mark = node.isMarked ? "  <--" : "";
    const acs = node.acsBits === "" ? "" : `  ACS ${node.acsBits}`;
    const text = `${node.title}  ${node.detail}`.trimEnd() + acs;
    // A device's own ACS is seldom there; only a bridge's is missed.
    const isDoubtful = node.acs === "unknown" && node.type !== "bridge";
    lines.push(`${first}${text}${isDoubtful ? "" : ACS_WORDS[node.acs]}${mark}`);
    for (const [index, child] of node.children.entries()) {
      const isLast = index === node.children.length - 1;
      visit(child, `${rest}${isLast ? "└─ " : "├─ "}`, `${rest}${isLast ? "   " : "│  "}`);
    }
  };
  for (const root of tree.roots) visit(root, "", "");
  if (tree.rest !== null) lines.push(tree.rest);
  return lines;
}
