// SPDX-License-Identifier: MIT
// Flows of a device: where packets go, with what a sender needs at hand for each of them (the
// ICRC's header part, the window towards that host).

import { FarpageError, type IpAddress } from "../base/index.js";
import { IcrcFlow, ROCE_PORT } from "../wire/index.js";
import { ByteWindow, type WaitLinks } from "./byte-window.js";
import type { TxFlow } from "./link.js";

/** A `TxFlow` made by `FlowTable`; the only kind that a device accepts. */
export class Flow implements TxFlow {
  readonly port: number;
  readonly destination: IpAddress;
  readonly destinationPort = ROCE_PORT;
  readonly trafficClass: number;
  readonly icrc: IcrcFlow;
  /** Shared by all flows to the same host from the same port, whatever their traffic class. */
  readonly window: ByteWindow;

  constructor(
    port: number,
    source: IpAddress,
    destination: IpAddress,
    trafficClass: number,
    window: ByteWindow,
  ) {
    this.port = port;
    this.destination = destination;
    this.trafficClass = trafficClass;
    this.icrc = IcrcFlow.between(source, ROCE_PORT, destination, ROCE_PORT);
    this.window = window;
  }
}

/**
 * Flows by their key. Bounded: a host that answers whoever writes to it would otherwise collect a
 * flow per forged address. When full the one that was asked for least recently is forgotten; it
 * stays valid for who holds it, only a later request for the same key makes another object, and the
 * two don't share GSO sends. A window is kept as long as queue pairs use it: two windows to one
 * host would fill its buffer twice.
 */
export class FlowTable {
  private readonly addresses: readonly IpAddress[];
  private readonly windowBytes: number;
  private readonly countMax: number;
  private readonly links: WaitLinks;
  private readonly flows = new Map<string, Flow>();
  private readonly windows = new Map<string, ByteWindow>();

  constructor(
    addresses: readonly IpAddress[],
    windowBytes: number,
    countMax: number,
    links: WaitLinks,
  ) {
    this.addresses = addresses;
    this.windowBytes = windowBytes;
    this.countMax = countMax;
    this.links = links;
  }

  /**
   * The flow from a port to an address.
   * @throws FarpageError EINVAL when there is no such port or the address is of another family.
   */
  flow(port: number, destination: IpAddress, trafficClass: number): Flow {
    const source = this.addresses[port];
    if (source === undefined) throw new FarpageError("EINVAL", `the device has no port ${port}`);
    if (source.family !== destination.family) {
      throw new FarpageError("EINVAL", `${source} can't send to ${destination}: other IP version`);
    }
    const host = `${port}>${destination}`;
    const key = `${host}/${trafficClass}`;
    const known = this.flows.get(key);
    if (known !== undefined) {
      renew(this.flows, key, known);
      renew(this.windows, host, known.window);
      return known;
    }
    const window = this.windows.get(host) ?? new ByteWindow(this.windowBytes, this.links);
    renew(this.windows, host, window);
    const flow = new Flow(port, source, destination, trafficClass, window);
    this.flows.set(key, flow);
    forgetOldest(this.flows, this.countMax, () => true);
    forgetOldest(this.windows, this.countMax, (other) => other.userCount === 0 && other !== window);
    return flow;
  }
}

/** Makes an entry the newest of its map, which keeps them in the order of their insertion. */
function renew<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
}

/** Forgets the oldest of those that may be forgotten; the others become the newest. */
function forgetOldest<T>(map: Map<string, T>, countMax: number, may: (value: T) => boolean): void {
  let left = map.size;
  for (const [key, value] of map) {
    if (map.size <= countMax || left-- === 0) return;
    map.delete(key);
    if (!may(value)) map.set(key, value);
  }
}
