// SPDX-License-Identifier: MIT
// What `--json` prints, as values for JSON.stringify: the schema is docs/p2p.schema.json, and a
// change that a reader could stumble over raises `P2P_SCHEMA`. Unknown is the string "unknown",
// known to be absent is null. Addresses and sizes of memory have 64 bits: strings.

import { isKnown, UNKNOWN } from "../fact.js";
import type { Bar, PciFunction } from "../topology.js";
import type { P2pPath, P2pVerdict } from "../verdict.js";
import { hex, type InventoryItem } from "./inventory.js";
import type { Matrix } from "./matrix.js";
import { countAnswers } from "./matrix.js";
import { acsState, type Tree } from "./tree.js";
import { answerOf } from "./words.js";

/** In every object; the number counts incompatible changes. */
export const P2P_SCHEMA = "farpage-p2p-1";

type Json = Readonly<Record<string, unknown>>;

export function deviceJson(item: InventoryItem): Json {
  const { address, pci, kind, label, name, isVf } = item;
  const pcie = isKnown(pci.pcie) ? pci.pcie : null;
  return {
    address,
    label,
    kind,
    name,
    kernelNames: pci.names.kernel,
    driver: pci.names.driver,
    vendorId: idJson(pci.vendorId),
    deviceId: idJson(pci.deviceId),
    class: idJson(pci.class),
    isVf,
    physicalFunction: pci.physicalFunction,
    parent: pci.parent,
    rootBus: pci.rootBus,
    numaNode: pci.numaNode,
    iommuGroup: pci.iommuGroup,
    portType: pci.pcie === UNKNOWN ? UNKNOWN : (pcie?.portType ?? null),
    link: pci.pcie === UNKNOWN ? UNKNOWN : (pcie?.link ?? null),
    linkMax: pci.pcie === UNKNOWN ? UNKNOWN : (pcie?.linkMax ?? null),
    acs: acsState(pci),
    acsControl: acsControlJson(pci),
    bars: isKnown(pci.bars) ? pci.bars.map(barJson) : UNKNOWN,
    p2pMemory: p2pMemoryJson(pci),
  };
}

function idJson(id: PciFunction["vendorId"]): string {
  return isKnown(id) ? hex(id, 4) : UNKNOWN;
}

function acsControlJson(pci: PciFunction): unknown {
  if (pci.acs === null || pci.acs === UNKNOWN) return pci.acs;
  return pci.acs.control;
}

function barJson(bar: Bar): Json {
  return {
    index: bar.index,
    kind: bar.kind,
    is64Bit: bar.is64Bit,
    isPrefetchable: bar.isPrefetchable,
    cpuAddress: addressJson(bar.cpuAddress),
    busAddress: addressJson(bar.busAddress),
    sizeBytes: isKnown(bar.size) ? bar.size.toString() : UNKNOWN,
    isDisabled: bar.isDisabled,
  };
}

function addressJson(address: Bar["cpuAddress"]): string | null {
  return typeof address === "bigint" ? `0x${address.toString(16)}` : address;
}

function p2pMemoryJson(pci: PciFunction): unknown {
  if (pci.p2pMemory === null || pci.p2pMemory === UNKNOWN) return pci.p2pMemory;
  const { size, available, isPublished } = pci.p2pMemory;
  return {
    sizeBytes: isKnown(size) ? size.toString() : UNKNOWN,
    availableBytes: isKnown(available) ? available.toString() : UNKNOWN,
    isPublished,
  };
}

/** A whole path: `P2pPath` as it is, and the answer in one word. */
export function pathJson(path: P2pPath): Json {
  return { answer: answerOf(path), ...path };
}

/** A path among many: what a script asks for, without the walk and the remedies. */
export function pairJson(path: P2pVerdict): Json {
  return {
    client: path.client,
    provider: path.provider,
    answer: answerOf(path),
    mapType: path.mapType,
    isAllowed: path.isAllowed,
    proximity: path.proximity,
    distance: path.distance,
    redirectPorts: path.redirectPorts,
    maybeRedirectPorts: path.maybeRedirectPorts,
  };
}

export function matrixJson(matrix: Matrix): Json {
  return {
    kernel: matrix.kernel,
    rows: matrix.rows,
    columns: matrix.columns,
    counts: countAnswers(matrix),
    pairs: matrix.paths.flat().map(pairJson),
  };
}

/** The nodes of a tree are values for JSON as they are. */
export function treeJson(tree: Tree): Json {
  return { roots: tree.roots, rest: tree.rest, answer: tree.answer };
}
