// SPDX-License-Identifier: MIT
// Small topologies made by hand, for tests of what is shown: facts are given where a test needs
// them and unknown otherwise.

import { UNKNOWN } from "../fact.js";
import type { Address, PciFunction, RootBus, Topology } from "../topology.js";
import type { Hop, P2pPath } from "../verdict.js";

export interface FunctionSpec {
  readonly address: Address;
  /** Bridge above, or null on a root bus. */
  readonly parent?: Address | null;
  readonly class?: number;
  /** The bus behind it: makes it a bridge. */
  readonly secondary?: number;
  readonly id?: readonly [vendor: number, device: number];
  readonly name?: string;
  readonly kernel?: readonly string[];
  readonly driver?: string;
  /** ACS control word. */
  readonly acs?: number | null;
  readonly physicalFunction?: Address;
  readonly numaNode?: number;
}

export function makeFunction(spec: FunctionSpec): PciFunction {
  const [domain, bus, slot] = spec.address.split(":") as [string, string, string];
  const [device, number] = slot.split(".") as [string, string];
  const isBridge = spec.secondary !== undefined;
  const { secondary } = spec;
  return {
    address: spec.address,
    domain: Number.parseInt(domain, 16),
    bus: Number.parseInt(bus, 16),
    device: Number.parseInt(device, 16),
    function: Number(number),
    vendorId: spec.id?.[0] ?? UNKNOWN,
    deviceId: spec.id?.[1] ?? UNKNOWN,
    revision: UNKNOWN,
    subsystemVendorId: UNKNOWN,
    subsystemDeviceId: UNKNOWN,
    classCode: UNKNOWN,
    class: isBridge ? 0x0604 : (spec.class ?? UNKNOWN),
    headerType: isBridge ? 1 : 0,
    isMultifunction: UNKNOWN,
    bridge:
      secondary === undefined
        ? null
        : { primary: UNKNOWN, secondary, subordinate: secondary, windows: [] },
    bars: UNKNOWN,
    pcie: UNKNOWN,
    acs:
      spec.acs === undefined
        ? UNKNOWN
        : spec.acs === null
          ? null
          : { offset: UNKNOWN, capability: UNKNOWN, control: spec.acs },
    ats: UNKNOWN,
    sriov: UNKNOWN,
    resizableBars: UNKNOWN,
    vfResizableBars: UNKNOWN,
    physicalFunction: spec.physicalFunction ?? null,
    parent: spec.parent ?? null,
    rootBus: spec.parent === undefined || spec.parent === null ? `${domain}:${bus}` : UNKNOWN,
    numaNode: spec.numaNode ?? UNKNOWN,
    iommuGroup: UNKNOWN,
    p2pMemory: UNKNOWN,
    names: {
      class: null,
      device: spec.name ?? null,
      subsystem: null,
      kernel: spec.kernel ?? [],
      driver: spec.driver ?? null,
      slot: null,
    },
    configBytes: 0,
    seenIn: [],
  };
}

export function makeTopology(specs: readonly FunctionSpec[]): Topology {
  const functions = new Map(specs.map((spec) => [spec.address, makeFunction(spec)]));
  const rootBuses = new Map<string, RootBus>();
  for (const { parent, rootBus, domain, bus, address } of functions.values()) {
    if (parent !== null || rootBus === UNKNOWN || rootBuses.has(rootBus)) continue;
    rootBuses.set(rootBus, {
      name: rootBus,
      domain,
      bus,
      representative: address,
      evidence: "stated",
      windows: [],
    });
  }
  return {
    functions,
    rootBuses,
    cpu: {
      vendor: UNKNOWN,
      family: UNKNOWN,
      model: UNKNOWN,
      architecture: UNKNOWN,
      isAmdZen: UNKNOWN,
      evidence: null,
    },
    iommu: { isEnabled: UNKNOWN, isTranslating: UNKNOWN },
    kernelCommandLine: null,
    report: { sources: [], notices: [], noticesDropped: 0 },
  };
}

/** A hop whose ACS is off, unless told. */
export function makeHop(address: Address, side: Hop["side"], acsControl: number | null = 0): Hop {
  return {
    address,
    side,
    portType: UNKNOWN,
    acsControl,
    isRedirecting: acsControl !== null && (acsControl & 0x2c) !== 0,
    linkBytesPerSecond: UNKNOWN,
  };
}

/** A path of which only some facts matter to a test. */
export function makePath(facts: Partial<P2pPath> & Pick<P2pPath, "client" | "provider">): P2pPath {
  const mapType = facts.mapType ?? "BUS_ADDR";
  return {
    kernel: "7.1",
    mapType,
    possible: mapType === UNKNOWN ? ["BUS_ADDR", "NOT_SUPPORTED"] : [mapType],
    isAllowed: mapType === UNKNOWN ? UNKNOWN : mapType !== "NOT_SUPPORTED",
    route: mapType === "BUS_ADDR" ? "switch" : mapType === UNKNOWN ? UNKNOWN : "none",
    distance: 4,
    common: null,
    hops: [],
    redirectPorts: [],
    maybeRedirectPorts: [],
    hostBridge: {
      isSameRootBus: UNKNOWN,
      cpuRule: false,
      cpuReason: "an Intel processor: no rule for it.",
      roots: [],
      listRule: false,
      isStoppedByIommu: false,
      refusesRedirected: false,
      isAllowed: false,
    },
    proximity: "PIX",
    narrowestLink: null,
    kernelLog: [],
    remedies: [],
    futile: [],
    missing: [],
    assumptions: [],
    notes: [],
    ...facts,
  };
}
