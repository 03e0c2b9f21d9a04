// SPDX-License-Identifier: MIT
// Which network interface a local address is on, and what that means for packets.

import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { IpAddress } from "../base/index.js";

/** What a link needs to know of the interface behind an address. */
export interface InterfaceFacts {
  /** Null when no interface lists the address (it may be local all the same). */
  readonly name: string | null;
  /** Largest IP packet, bytes. */
  readonly mtu: number;
  /** Index for link-local IPv6 addresses, else 0. */
  readonly scopeId: number;
}

/** The largest packet of an interface that we can't ask: Ethernet's. */
const MTU_DEFAULT = 1500;

/** Local addresses of this machine that an interface lists, for messages. */
export function localAddresses(): string[] {
  const found: string[] = [];
  for (const [name, entries] of Object.entries(networkInterfaces())) {
    for (const entry of entries ?? []) found.push(`${entry.address} (${name})`);
  }
  return found;
}

/**
 * The interface that holds `address`, or whose network contains it (all of 127.0.0.0/8 is
 * loopback).
 */
export function interfaceOf(address: IpAddress): InterfaceFacts {
  let nearest: InterfaceFacts | null = null;
  for (const [label, entries] of Object.entries(networkInterfaces())) {
    // An address can have a label of its own: "eth0:1".
    const name = label.split(":")[0] as string;
    for (const entry of entries ?? []) {
      const scopeId = "scopeid" in entry ? (entry.scopeid ?? 0) : 0;
      if (IpAddress.parse(entry.address).equals(address)) {
        return { name, mtu: mtuOf(name), scopeId: isLinkLocal(address) ? scopeId : 0 };
      }
      if (entry.internal && entry.cidr !== null && contains(entry.cidr, address)) {
        nearest = { name, mtu: mtuOf(name), scopeId: 0 };
      }
    }
  }
  return nearest ?? { name: null, mtu: MTU_DEFAULT, scopeId: 0 };
}

/**
 * Whether an IPv6 address is in fe80::/10, and so means something only together with an interface.
 */
export function isLinkLocal(address: IpAddress): boolean {
  return address.family === 6 && address.word0 >>> 22 === 0xfe80 >>> 6;
}

function mtuOf(name: string): number {
  try {
    const mtu = Number(readFileSync(`/sys/class/net/${name}/mtu`, "utf8"));
    return Number.isInteger(mtu) && mtu >= 68 ? mtu : MTU_DEFAULT;
  } catch {
    return MTU_DEFAULT;
  }
}

function contains(cidr: string, address: IpAddress): boolean {
  const slash = cidr.lastIndexOf("/");
  const network = IpAddress.parse(cidr.slice(0, slash));
  if (network.family !== 4 || address.family !== 4) return false;
  const prefixLength = Number(cidr.slice(slash + 1));
  const mask = prefixLength === 0 ? 0 : (0xffff_ffff << (32 - prefixLength)) >>> 0;
  return ((network.word3 ^ address.word3) & mask) === 0;
}
