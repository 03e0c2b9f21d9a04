// SPDX-License-Identifier: MIT
// A topology as a flat table of its known facts, so that two readings can be compared.

import type { Bar, Fact, PciFunction, Topology, Window } from "../../src/pci/index.js";
import { UNKNOWN } from "../../src/pci/index.js";

/** Fact by name, only what is known, as text. */
export type Facts = ReadonlyMap<string, string>;

export function factsOf(topology: Topology): Facts {
  const facts = new Map<string, string>();
  for (const one of topology.functions.values()) {
    for (const [name, value] of functionFacts(one)) facts.set(`${one.address} ${name}`, value);
  }
  for (const root of topology.rootBuses.values()) {
    if (root.representative !== UNKNOWN) {
      facts.set(`root ${root.name} first`, String(root.representative));
    }
  }
  return facts;
}

/** Facts that both tell, and tell differently. */
export function contradictions(a: Facts, b: Facts): readonly string[] {
  const found: string[] = [];
  for (const [name, value] of a) {
    const other = b.get(name);
    if (other !== undefined && other !== value) found.push(`${name}: ${value} or ${other}`);
  }
  return found;
}

/** Facts that `part` tells and `whole` doesn't tell, or tells differently. */
export function inventions(part: Facts, whole: Facts): readonly string[] {
  const found: string[] = [];
  for (const [name, value] of part) {
    const told = whole.get(name);
    if (told !== value) found.push(`${name}: ${value}, not ${told}`);
  }
  return found;
}

function* functionFacts(one: PciFunction): Generator<readonly [string, string]> {
  yield* known("vendor", one.vendorId);
  yield* known("device", one.deviceId);
  yield* known("revision", one.revision);
  yield* known("subvendor", one.subsystemVendorId);
  yield* known("subdevice", one.subsystemDeviceId);
  yield* known("class", one.class);
  yield* known("class code", one.classCode);
  yield* known("header", one.headerType);
  yield* known("multifunction", one.isMultifunction);
  yield* known("physical function", one.physicalFunction);
  yield* known("parent", one.parent);
  yield* known("root", one.rootBus);
  yield* known("numa", one.numaNode);
  yield* known("group", one.iommuGroup);
  yield* bridgeFacts(one);
  if (one.bars !== UNKNOWN) for (const bar of one.bars) yield* barFacts(`bar${bar.index}`, bar);
  yield* capabilityFacts(one);
}

function* bridgeFacts(one: PciFunction): Generator<readonly [string, string]> {
  const { bridge } = one;
  if (bridge === UNKNOWN) return;
  yield ["bridge", String(bridge !== null)];
  if (bridge === null) return;
  yield* known("primary", bridge.primary);
  yield* known("secondary", bridge.secondary);
  yield* known("subordinate", bridge.subordinate);
  for (const window of bridge.windows) yield* windowFacts(window);
}

function* windowFacts(window: Window): Generator<readonly [string, string]> {
  for (const side of ["cpu", "bus"] as const) {
    const range = window[side];
    if (range === UNKNOWN) continue;
    yield [`${window.kind} ${side}`, range === null ? "closed" : `${range.base}-${range.limit}`];
  }
}

function* barFacts(name: string, bar: Bar): Generator<readonly [string, string]> {
  yield [`${name} kind`, bar.kind];
  yield* known(`${name} 64`, bar.is64Bit);
  yield* known(`${name} prefetchable`, bar.isPrefetchable);
  yield* known(`${name} cpu`, bar.cpuAddress);
  yield* known(`${name} bus`, bar.busAddress);
  yield* known(`${name} size`, bar.size);
}

function* capabilityFacts(one: PciFunction): Generator<readonly [string, string]> {
  const { pcie, acs, ats, sriov, resizableBars } = one;
  yield* presence("pcie", pcie);
  if (pcie !== UNKNOWN && pcie !== null) {
    yield* known("port type", pcie.portType);
    yield* known("slot", pcie.slot);
    yield* known("link", pcie.link);
    yield* known("link max", pcie.linkMax);
  }
  yield* presence("acs", acs);
  if (acs !== UNKNOWN && acs !== null) {
    yield* known("acs offset", acs.offset);
    yield* known("acs capability", acs.capability);
    yield* known("acs control", acs.control);
  }
  yield* presence("ats", ats);
  if (ats !== UNKNOWN && ats !== null) yield* known("ats on", ats.isEnabled);
  yield* presence("sriov", sriov);
  if (sriov !== UNKNOWN && sriov !== null) {
    yield* known("vfs", sriov.enabledVfs);
    yield* known("vf total", sriov.totalVfs);
    yield* known("vf offset", sriov.firstOffset);
    for (const bar of sriov.vfBars) yield* barFacts(`vfbar${bar.index}`, bar);
  }
  if (resizableBars === UNKNOWN) return;
  for (const { index, size, sizes } of resizableBars) {
    yield* known(`rebar${index}`, size);
    yield* known(`rebar${index} sizes`, sizes);
  }
}

function* presence(name: string, fact: Fact<object | null>): Generator<readonly [string, string]> {
  if (fact !== UNKNOWN) yield [`has ${name}`, String(fact !== null)];
}

function* known(name: string, fact: unknown): Generator<readonly [string, string]> {
  if (fact === UNKNOWN) return;
  const text = JSON.stringify(fact, (_key, value) =>
    typeof value === "bigint" ? value.toString(16) : value,
  );
  yield [name, text];
}
