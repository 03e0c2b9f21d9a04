// SPDX-License-Identifier: MIT
// The functions of a topology with what people call them: kind, label, name.

import { isKnown, UNKNOWN } from "../fact.js";
import type { PciIds } from "../ids.js";
import type { Address, PciFunction, Topology } from "../topology.js";
import { type Kind, kindOf, LABELS } from "./kind.js";

export interface InventoryItem {
  readonly address: Address;
  readonly pci: PciFunction;
  readonly kind: Kind;
  /** Kind and number in order of addresses: `GPU0`, `NIC3`. VFs and scenery have none. */
  readonly label: string | null;
  /** Vendor and device; numbers where there is no name, null where there is neither. */
  readonly name: string | null;
  /** The same, short: what stands in brackets, or the name without its vendor. */
  readonly shortName: string;
  readonly isVf: boolean;
}

/** Every function of one topology, by address. */
export class Inventory {
  readonly topology: Topology;
  readonly ids: PciIds;
  readonly items: ReadonlyMap<Address, InventoryItem>;

  constructor(topology: Topology, ids: PciIds) {
    this.topology = topology;
    this.ids = ids;
    const counts = new Map<Kind, number>();
    const items = new Map<Address, InventoryItem>();
    for (const [address, pci] of topology.functions) {
      const kind = kindOf(pci);
      const isVf = isKnown(pci.physicalFunction) && pci.physicalFunction !== null;
      const hasLabel = !isVf && kind !== "bridge" && kind !== "other";
      const count = counts.get(kind) ?? 0;
      if (hasLabel) counts.set(kind, count + 1);
      const name = nameOf(pci, ids);
      items.set(address, {
        address,
        pci,
        kind,
        label: hasLabel ? `${LABELS[kind]}${count}` : null,
        name,
        shortName: shorten(name, pci),
        isVf,
      });
    }
    this.items = items;
  }

  /** @param address must be a function of the topology. */
  get(address: Address): InventoryItem {
    const item = this.items.get(address);
    if (item === undefined) throw new RangeError(`${address} is no function of this topology`);
    return item;
  }

  /** What to call a function in a sentence: its label or kernel name with its address. */
  title(address: Address): string {
    const item = this.items.get(address);
    const kernel = item?.pci.names.kernel[0];
    const call = kernel ?? item?.label;
    return call === null || call === undefined ? address : `${call} (${address})`;
  }
}

/** The best name there is: the dump's own, unless it is only a number that pci.ids can name. */
function nameOf(pci: PciFunction, ids: PciIds): string | null {
  const told = pci.names.device;
  const isNumber = told !== null && /\bDevice [0-9a-f]{4}$/i.test(told);
  if (told !== null && !isNumber) return told;
  let { vendorId, deviceId } = pci;
  if ((vendorId === UNKNOWN || deviceId === UNKNOWN) && told !== null) {
    const [found] = ids.lookUp(told);
    if (found !== undefined) {
      vendorId = found.vendor;
      deviceId = found.device;
    }
  }
  if (vendorId === UNKNOWN) return told;
  const vendor = ids.vendorName(vendorId);
  const device = deviceId === UNKNOWN ? null : ids.deviceName(vendorId, deviceId);
  if (vendor !== null && device !== null) return `${vendor} ${device}`;
  if (told !== null) return told;
  return `${vendor ?? hex(vendorId, 4)} ${deviceId === UNKNOWN ? "?" : hex(deviceId, 4)}`;
}

/** A vendor's name, up to the word that says which kind of company it is: little in a column. */
const VENDOR_WORDS = new RegExp(
  "^(?:Broadcom / LSI|" +
    "(?:[\\w&./-]+,? ){1,4}?" +
    "(?:Corporation|Corp\\.|Inc\\.?|Limited|Ltd\\.?|Technologies|Instruments)" +
    "(?: and subsidiaries)?(?: \\[AMD(?:/ATI)?\\])?)\\s+",
);
/** What stands in brackets and is no name to sell by: a mode, an interface, a port's number. */
const NO_NAME = /^AMD|^NVM Express$|DNAND| mode$|^[\dx: ]+$/i;

function shorten(name: string | null, pci: PciFunction): string {
  if (name === null) return pci.names.class ?? "unknown device";
  const bracketed = [...name.matchAll(/\[([^\]]+)\]/g)].at(-1)?.[1];
  return bracketed !== undefined && !NO_NAME.test(bracketed)
    ? bracketed
    : name.replace(VENDOR_WORDS, "");
}

export function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}
