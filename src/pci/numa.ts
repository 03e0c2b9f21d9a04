// SPDX-License-Identifier: MIT
// NUMA nodes of functions for which a dump tells none. Linux takes a function's node from its bus,
// and a bus' from the one above (`pcibus_to_node`): all below one root bus are on its node.

import { type Fact, UNKNOWN } from "./fact.js";
import type { PciFunction, RootBusName, Topology } from "./topology.js";

/** Nodes of one topology's functions. */
export class NumaNodes {
  readonly #topology: Topology;
  #roots: ReadonlyMap<RootBusName, Fact<number | null>> | null = null;

  constructor(topology: Topology) {
    this.#topology = topology;
  }

  /** Its own, or that of all below its root bus of which one is told, where they agree. */
  of(one: PciFunction): Fact<number | null> {
    if (one.numaNode !== UNKNOWN || one.rootBus === UNKNOWN) return one.numaNode;
    this.#roots ??= nodesOfRoots(this.#topology);
    return this.#roots.get(one.rootBus) ?? UNKNOWN;
  }

  /** Null (no node told by the firmware) is a node like another only where both have none. */
  areOne(a: PciFunction, b: PciFunction): Fact<boolean> {
    const [nodeOfA, nodeOfB] = [this.of(a), this.of(b)];
    if (nodeOfA === nodeOfB) return nodeOfA === UNKNOWN ? UNKNOWN : true;
    const isTold = (node: Fact<number | null>) => node !== UNKNOWN && node !== null;
    return isTold(nodeOfA) && isTold(nodeOfB) ? false : UNKNOWN;
  }
}

function nodesOfRoots(topology: Topology): ReadonlyMap<RootBusName, Fact<number | null>> {
  const nodes = new Map<RootBusName, Fact<number | null>>();
  for (const { rootBus, numaNode } of topology.functions.values()) {
    if (rootBus === UNKNOWN || numaNode === UNKNOWN) continue;
    const before = nodes.get(rootBus);
    nodes.set(rootBus, before === undefined || before === numaNode ? numaNode : UNKNOWN);
  }
  return nodes;
}
