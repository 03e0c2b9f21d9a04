// SPDX-License-Identifier: MIT
// What `p2pPath` answers. The words are the kernel's: the provider owns the memory (BAR), the
// client is the device that reads or writes it. Read first: Linux
// Documentation/driver-api/pci/p2pdma.rst.

import type { Fact, Tri } from "./fact.js";
import type { Address, PortType, RootBusName } from "./topology.js";

/** How the kernel would map the provider's memory for the client. */
export type MapType =
  /** Bus address, never through an IOMMU: switches route it. */
  | "BUS_ADDR"
  /** Like ordinary memory, up to the root complex and down again, through the IOMMU if it is on. */
  | "THRU_HOST_BRIDGE"
  /** The mapping fails (EREMOTEIO); upper layers copy through RAM, or fail. */
  | "NOT_SUPPORTED";

export type Route =
  /** Client and provider are one function. */
  | "self"
  /** Turns at a switch, a bridge or the port above both. */
  | "switch"
  | "host-bridge"
  /** Through the host bridge, translated. */
  | "iommu"
  | "none";

/** The field's legend (`nvidia-smi topo -m`). It knows no ACS. */
export type Proximity = "X" | "PIX" | "PXB" | "PHB" | "NODE" | "SYS";

/** One function on the way. */
export interface Hop {
  readonly address: Address;
  readonly side: "provider" | "client" | "common";
  readonly portType: Fact<PortType | null>;
  /** ACS control word; null: no ACS capability. */
  readonly acsControl: Fact<number | null>;
  /**
   * It sends this pair up, by the release's rules: up to 7.2 where its control word has a bit of
   * `ACS.REDIRECT_MASK`.
   */
  readonly isRedirecting: Tri;
  /** The link above it (endpoints, upstream ports) as negotiated, payload bytes per second. */
  readonly linkBytesPerSecond: Fact<number | null>;
}

/** A root bus as the host-bridge rule sees it. */
export interface RootVerdict {
  readonly rootBus: RootBusName;
  readonly representative: Fact<Address | null>;
  readonly vendorId: Fact<number>;
  readonly deviceId: Fact<number>;
  /** The representative may count: device 00.0, or a root port where the release takes those. */
  readonly isEligible: Tri;
  readonly isListed: Tri;
  /** Listed for pairs of the same root bus only. */
  readonly isSameBusOnly: Tri;
  /** What the list calls it; null where not listed. */
  readonly listedAs: string | null;
  /** Release since which it is listed (also if later than the one asked for); null: in none. */
  readonly listedSince: string | null;
  /** The representative rests on the assumption that the listing is whole. */
  readonly isAssumed: boolean;
}

/** Whether traffic may cross the host bridge: CPU rule or list rule. */
export interface HostBridgeVerdict {
  /** `"unknown"` where a root bus is unknown. */
  readonly isSameRootBus: Tri;
  /** The CPU rule (AMD Zen or later); false in releases without it. */
  readonly cpuRule: Tri;
  /** Why, in one sentence. */
  readonly cpuReason: string;
  /** Provider's root bus, then the client's if it is another one; without those unknown. */
  readonly roots: readonly RootVerdict[];
  readonly listRule: Tri;
  /** Linux before 5.4 lets nothing pass while an IOMMU driver runs; false in later ones. */
  readonly isStoppedByIommu: Tri;
  /** Linux before 5.4 doesn't let pass what ACS redirects; false in later ones. */
  readonly refusesRedirected: boolean;
  readonly isAllowed: Tri;
}

export interface NarrowestLink {
  /** The function below the link. */
  readonly address: Address;
  /** Payload, one direction. */
  readonly bytesPerSecond: number;
  readonly gigatransfers: number;
  readonly lanes: number;
  /** The link could do more than was negotiated. */
  readonly isDegraded: Tri;
  /** Links of the way whose rate isn't known: one of those may be narrower. */
  readonly unknownLinks: readonly Address[];
}

export type RemedyKind =
  | "disable-acs-redir"
  | "config-acs"
  | "setpci"
  | "newer-kernel"
  | "same-switch"
  | "same-socket"
  | "firmware"
  | "resize-bar";

export interface Remedy {
  readonly kind: RemedyKind;
  /** The exact kernel parameter or command; null where it is a thing to do by hand. */
  readonly command: string | null;
  /** One sentence: what to do. */
  readonly action: string;
  /** What the verdict would be then. */
  readonly predicted: Fact<MapType>;
  /** What it costs: isolation, support, a reboot. */
  readonly cost: string;
}

/** Something often tried that would not change this verdict. */
export interface Futile {
  readonly what: string;
  readonly why: string;
}

/** A fact that the dump doesn't tell and that this verdict, or a part of it, depends on. */
export interface MissingFact {
  /** The function, root bus (`dddd:bb`), or `"cpu"`. */
  readonly subject: string;
  readonly fact:
    | "acs-control"
    | "parent"
    | "root-bus"
    | "representative"
    | "representative-id"
    | "representative-type"
    | "cpu"
    | "link"
    | "iommu";
  /** The map type or whether it is allowed depends on it. */
  readonly isDeciding: boolean;
  /** One sentence: why it isn't known and where to get it. */
  readonly message: string;
}

export interface P2pPath {
  readonly client: Address;
  readonly provider: Address;
  /** Rule set by which it was judged: a kernel release. */
  readonly kernel: string;
  readonly mapType: Fact<MapType>;
  /** Every map type that the facts leave possible; one where `mapType` is known. */
  readonly possible: readonly MapType[];
  /** Known also where it is unknown which of two allowed map types it is. */
  readonly isAllowed: Tri;
  readonly route: Fact<Route>;
  /** As the kernel counts it, also where refused. The public kernel API says -1 there. */
  readonly distance: Fact<number>;
  /** Where the two ways up meet. Null: nowhere. */
  readonly common: Fact<Address | null>;
  /** From the provider up to the common function (or its root), down to the client. */
  readonly hops: readonly Hop[];
  /**
   * Ports known to redirect this pair, in the kernel's order: provider's side upward, then the
   * client's. Empty where the two ways don't meet: no port matters then (`hops` shows them all).
   */
  readonly redirectPorts: readonly Address[];
  /** Ports of which it isn't known whether they redirect, or whether they are on the way. */
  readonly maybeRedirectPorts: readonly Address[];
  /** Filled in always, also where the rule isn't reached. */
  readonly hostBridge: HostBridgeVerdict;
  readonly proximity: Fact<Proximity>;
  readonly narrowestLink: Fact<NarrowestLink | null>;
  /** What the kernel would log at the first mapping; empty: nothing, or unknown. */
  readonly kernelLog: readonly string[];
  readonly remedies: readonly Remedy[];
  readonly futile: readonly Futile[];
  readonly missing: readonly MissingFact[];
  /** What was taken for true without the dump saying so, in sentences. */
  readonly assumptions: readonly string[];
  /** Where hardware is known to differ from the rule, and what else matters to this pair. */
  readonly notes: readonly string[];
}

/** Of a path, what is asked for of many pairs at once. */
export type P2pVerdict = Pick<
  P2pPath,
  | "client"
  | "provider"
  | "kernel"
  | "mapType"
  | "possible"
  | "isAllowed"
  | "distance"
  | "proximity"
  | "redirectPorts"
  | "maybeRedirectPorts"
>;

/** Numbers for a name that a dump prints without numbers, e.g. from the system's `pci.ids`. */
export interface NameResolver {
  /** @param text vendor and device as lspci prints them. @returns all ids of that name. */
  lookUp(text: string): readonly { readonly vendor: number; readonly device: number }[];
}

export interface P2pOptions {
  /** One of `KERNEL_RELEASES`, or any release between (`"6.8"`). Default: the newest. */
  readonly kernel?: string;
  /** Facts to be taken for true where the dump is silent; each one used is in `assumptions`. */
  readonly assume?: {
    /** ACS control word of ports whose own isn't known. */
    readonly acsControl?: number;
  };
  readonly names?: NameResolver;
}
