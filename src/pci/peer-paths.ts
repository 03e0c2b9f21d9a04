// SPDX-License-Identifier: MIT
// The verdicts of this room for who maps memory of one device for another: it knows devices by its
// own objects, and asks once for each pair (`PeerPaths` of `mm/` has this shape).

import { UNKNOWN } from "./fact.js";
import { p2pPath } from "./path.js";
import type { Address, Topology } from "./topology.js";
import type { P2pOptions, P2pPath } from "./verdict.js";

/** Whether one device reaches another's memory, and one clause of why (not). */
export interface PeerVerdict {
  readonly isAllowed: boolean;
  readonly why: string;
}

/** See the head of the file. */
export class TopologyPaths<Device> {
  private readonly topology: Topology;
  private readonly options: P2pOptions;
  private readonly placeOf: (device: Device) => Address | null;

  /** @param placeOf where a device is in the topology; null: it is none of that machine's. */
  constructor(
    topology: Topology,
    placeOf: (device: Device) => Address | null,
    options: P2pOptions = {},
  ) {
    this.topology = topology;
    this.placeOf = placeOf;
    this.options = options;
  }

  /**
   * Whether `client` reaches memory of `provider`. Where the facts don't tell it is refused: what
   * is not known to arrive may be lost, or go astray.
   * @throws FarpageError as `p2pPath` does.
   */
  pathBetween(client: Device, provider: Device): PeerVerdict {
    const from = this.placeOf(client);
    const to = this.placeOf(provider);
    if (from === null || to === null) {
      return { isAllowed: false, why: "nobody knows where in the machine it is" };
    }
    const path = p2pPath(this.topology, from, to, this.options);
    return { isAllowed: path.isAllowed === true, why: whyOf(path) };
  }
}

function whyOf(path: P2pPath): string {
  const { isAllowed, missing, redirectPorts, route } = path;
  if (isAllowed === UNKNOWN) {
    const deciding = missing.find((fact) => fact.isDeciding);
    const what = deciding === undefined ? "the machine's facts" : deciding.message;
    return `whether it may isn't known: ${what}`;
  }
  if (isAllowed) return ROUTE_REASONS[route] ?? "the path allows it";
  const turned =
    redirectPorts.length > 0 ? `ACS of ${redirectPorts.join(", ")} sends it up, and ` : "";
  return `${turned}Linux ${path.kernel} lets nothing pass the host bridge there`;
}

const ROUTE_REASONS: Readonly<Record<string, string>> = {
  self: "it is the device's own",
  switch: "it turns at a switch or bridge above both",
  "host-bridge": "the host bridge lets it pass",
  iommu: "the host bridge lets it pass, translated",
};
