// SPDX-License-Identifier: MIT
// Addresses of functions and buses as text: `dddd:bb:dd.f` and `dddd:bb`.

import type { Address, RootBusName } from "./topology.js";

export interface AddressParts {
  /** 16 bits; up to 32 behind VMD and on Hyper-V. */
  readonly domain: number;
  readonly bus: number;
  readonly device: number;
  readonly function: number;
}

const ADDRESS = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i;

/** @returns null for anything that isn't an address; a missing domain is 0. */
export function parseAddress(text: string): AddressParts | null {
  if (text.length > 16) return null;
  const match = ADDRESS.exec(text);
  if (match === null) return null;
  return {
    domain: Number.parseInt(match[1] ?? "0", 16),
    bus: Number.parseInt(match[2] as string, 16),
    device: Number.parseInt(match[3] as string, 16),
    function: Number.parseInt(match[4] as string, 16),
  };
}

export function formatAddress(parts: AddressParts): Address {
  const bus = busName(parts.domain, parts.bus);
  return `${bus}:${hex(parts.device, 2)}.${parts.function.toString(16)}`;
}

export function busName(domain: number, bus: number): RootBusName {
  return `${hex(domain, 4)}:${hex(bus, 2)}`;
}

/** Lower-case hexadecimal of at least `digits` digits. */
export function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** `vvvv:dddd`. */
export function idText(vendor: number, device: number): string {
  return `${hex(vendor, 4)}:${hex(device, 4)}`;
}

/** Order of domain, bus, device, function: the order of lspci. */
export function compareAddresses(a: AddressParts, b: AddressParts): number {
  return a.domain - b.domain || a.bus - b.bus || devfnOf(a) - devfnOf(b);
}

/** Device and function in one number, the order in which a bus is scanned. */
export function devfnOf(parts: AddressParts): number {
  return parts.device * 8 + parts.function;
}
