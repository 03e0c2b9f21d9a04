// SPDX-License-Identifier: MIT
// What people call a device, and which functions they mean: an address, a label (GPU0), a name of
// the kernel (nvme0, mlx5_0, eth1), a kind (gpu), numbers (10de:2330), or a piece of its name.

import { FarpageError } from "../../base/index.js";
import type { Address } from "../topology.js";
import type { Inventory, InventoryItem } from "./inventory.js";
import { type Kind, PEER_KINDS } from "./kind.js";

const ADDRESS = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([01]?[0-9a-f])(?:\.([0-7]))?$/i;

const KIND_WORDS: Readonly<Record<string, readonly Kind[]>> = {
  gpu: ["gpu"],
  gpus: ["gpu"],
  accelerator: ["accelerator"],
  accelerators: ["accelerator"],
  nic: ["nic"],
  nics: ["nic"],
  nvme: ["nvme"],
  ssd: ["nvme"],
  storage: ["storage"],
  memory: ["memory"],
  bridge: ["bridge"],
  bridges: ["bridge"],
  peers: PEER_KINDS,
  all: ["gpu", "accelerator", "nic", "nvme", "storage", "memory", "other"],
};

/**
 * All functions that a name means, in order of addresses.
 * @throws FarpageError ENODEV when it is a name of nothing here.
 */
export function select(inventory: Inventory, text: string): readonly Address[] {
  const found = find(inventory, text.trim());
  if (found.length > 0) return found;
  throw new FarpageError("ENODEV", `"${text}" is no device here${hint(inventory, text)}`);
}

/**
 * The one function that a name means.
 * @throws FarpageError ENODEV when it means none, EINVAL when it means several, with them.
 */
export function selectOne(inventory: Inventory, text: string): Address {
  const found = select(inventory, text);
  const [first] = found;
  if (found.length === 1 && first !== undefined) return first;
  const some = found.slice(0, 6).map((address) => inventory.title(address));
  const more = found.length > some.length ? `, and ${found.length - some.length} more` : "";
  throw new FarpageError("EINVAL", `"${text}" means several: ${some.join(", ")}${more}`);
}

/** What is compared when nobody says: the peers, VFs left out, and published peer memory. */
export function selectDefault(inventory: Inventory): readonly Address[] {
  const isPeer = ({ kind, isVf, pci }: InventoryItem) =>
    (PEER_KINDS.includes(kind) && !isVf) || (pci.p2pMemory !== null && pci.p2pMemory !== "unknown");
  return matching(inventory, isPeer);
}

/** Pairs that are judged at once: of a server's thousand functions each with each. */
export const PAIRS_MAX = 1 << 20;

/**
 * Pairs of a `check`: `A:B`, where both may hold colons themselves, or `A..B`.
 * @returns client and provider; a name that means several gives every pair of them.
 * @throws FarpageError EINVAL when no colon, or more than one, splits it in two known names;
 *   E2BIG for more than `PAIRS_MAX`.
 */
export function selectPairs(
  inventory: Inventory,
  text: string,
): readonly { readonly client: Address; readonly provider: Address }[] {
  const split = splitPair(inventory, text);
  const clients = select(inventory, split.client);
  const providers = select(inventory, split.provider);
  if (clients.length * providers.length > PAIRS_MAX) {
    throw new FarpageError("E2BIG", `"${text}" means more than ${PAIRS_MAX} pairs`);
  }
  const pairs = clients.flatMap((client) => providers.map((provider) => ({ client, provider })));
  const isGroup = clients.length > 1 || providers.length > 1;
  // A group against itself is about its members with each other.
  const kept = isGroup ? pairs.filter(({ client, provider }) => client !== provider) : pairs;
  if (kept.length === 0) throw new FarpageError("EINVAL", `"${text}" has no pair of two devices`);
  return kept;
}

function splitPair(
  inventory: Inventory,
  text: string,
): { readonly client: string; readonly provider: string } {
  const dots = text.split("..");
  if (dots.length === 2) return { client: dots[0] as string, provider: dots[1] as string };
  const possible: { client: string; provider: string }[] = [];
  for (let i = text.indexOf(":"); i >= 0; i = text.indexOf(":", i + 1)) {
    const client = text.slice(0, i);
    const provider = text.slice(i + 1);
    if (find(inventory, client).length > 0 && find(inventory, provider).length > 0) {
      possible.push({ client, provider });
    }
  }
  const [first] = possible;
  if (possible.length === 1 && first !== undefined) return first;
  const why =
    possible.length === 0
      ? "no colon parts it into two devices that are here"
      : "it can be read in several ways: write A..B";
  throw new FarpageError("EINVAL", `"${text}" is no pair: ${why}`);
}

/** The first way of reading it that finds some wins; empty when it is a name of nothing. */
function find(inventory: Inventory, text: string): readonly Address[] {
  if (text === "") return [];
  const address = ADDRESS.exec(text);
  if (address !== null) return findByAddress(inventory, address);
  const word = text.toLowerCase();
  const ways: readonly (() => readonly Address[])[] = [
    () => matching(inventory, ({ label }) => label?.toLowerCase() === word),
    () => findByKernelName(inventory, text),
    () => matching(inventory, ({ kind }) => KIND_WORDS[word]?.includes(kind) ?? false),
    () => findByNumbers(inventory, word),
    () => matching(inventory, ({ pci }) => pci.names.driver === text),
    () => findByWords(inventory, word),
  ];
  for (const way of ways) {
    const found = way();
    if (found.length > 0) return found;
  }
  return [];
}

function findByAddress(inventory: Inventory, match: RegExpExecArray): readonly Address[] {
  const part = (index: number) => {
    const digits = match[index];
    return digits === undefined ? null : Number.parseInt(digits, 16);
  };
  const domain = part(1);
  const bus = part(2);
  const device = part(3);
  const number = part(4);
  return matching(
    inventory,
    ({ pci }) =>
      (domain === null || pci.domain === domain) &&
      pci.bus === bus &&
      pci.device === device &&
      (number === null || pci.function === number),
  );
}

/** `nvme0`, and of a namespace or partition of it (`nvme0n1`, `nvme0n1p2`) the same. */
function findByKernelName(inventory: Inventory, text: string): readonly Address[] {
  const short = /^(nvme\d+)(?:c\d+)?n\d+(?:p\d+)?$/.exec(text)?.[1] ?? text;
  return matching(
    inventory,
    ({ pci }) => pci.names.kernel.includes(text) || pci.names.kernel.includes(short),
  );
}

function findByNumbers(inventory: Inventory, word: string): readonly Address[] {
  const match = /^(?:0x)?([0-9a-f]{4})(?::(?:0x)?([0-9a-f]{4}))?$/.exec(word);
  if (match === null) return [];
  const vendor = Number.parseInt(match[1] as string, 16);
  const device = match[2] === undefined ? null : Number.parseInt(match[2], 16);
  return matching(
    inventory,
    ({ pci }) => pci.vendorId === vendor && (device === null || pci.deviceId === device),
  );
}

/**
 * Every word of it begins a word of the function's name; bridges only when nothing else has them.
 * Within a word nothing is looked for: `xx` isn't a `PEX 890xx`, and a typing error finds nothing.
 */
function findByWords(inventory: Inventory, word: string): readonly Address[] {
  const words = word.split(/\s+/).filter((one) => one.length > 1);
  if (words.length === 0) return [];
  const hasAll = ({ name, pci }: InventoryItem) => {
    const text = `${name ?? ""} ${pci.names.subsystem ?? ""}`.toLowerCase();
    return words.every((one) => hasWord(text, one));
  };
  const peers = matching(
    inventory,
    (item) => PEER_KINDS.includes(item.kind) && !item.isVf && hasAll(item),
  );
  if (peers.length > 0) return peers;
  const devices = matching(inventory, (item) => item.kind !== "bridge" && hasAll(item));
  return devices.length > 0 ? devices : matching(inventory, hasAll);
}

function hasWord(text: string, word: string): boolean {
  for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
    if (at === 0 || !/[\p{L}\p{N}]/u.test(text.charAt(at - 1))) return true;
  }
  return false;
}

function matching(
  inventory: Inventory,
  test: (item: InventoryItem) => boolean,
): readonly Address[] {
  const found: Address[] = [];
  for (const item of inventory.items.values()) if (test(item)) found.push(item.address);
  return found;
}

function hint(inventory: Inventory, text: string): string {
  if (ADDRESS.test(text)) return "";
  const isKernelName = /^(?:nvme|mlx\d_|eth|en[opsx]|card|ib)\d/.test(text);
  const hasKernelNames = matching(inventory, ({ pci }) => pci.names.kernel.length > 0).length > 0;
  if (isKernelName && !hasKernelNames) {
    return ": this dump has no names of the kernel's; name it by address or label (p2p list)";
  }
  return " (farpage p2p list shows them)";
}
