// SPDX-License-Identifier: MIT

import type { IpAddress } from "../base/index.js";
import type { Destination, TxFlow } from "../transport/index.js";
import type { ProtectionDomain } from "./protection-domain.js";
import { type HandleTable, VerbsObject } from "./verbs-object.js";

/** Where packets go: ibv_ah_attr, as RoCEv2 needs it. */
export interface AddressHandleOptions {
  /** Local port: index of the local address that packets come from. */
  readonly port: number;
  readonly destination: IpAddress;
  /** IPv4 TOS or IPv6 traffic class, 0 .. 255; default 0. */
  readonly trafficClass?: number;
}

/**
 * An address handle (ibv_create_ah(3)): the `destination` of UD sends, and the `addressVector` of a
 * connected queue pair. The queue pair or request copies it, so it can be destroyed right after
 * use.
 */
export class AddressHandle extends VerbsObject implements Destination {
  readonly pd: ProtectionDomain;
  readonly port: number;
  readonly destination: IpAddress;
  readonly trafficClass: number;
  /** The device's own form of the three. */
  readonly flow: TxFlow;

  /** Internal: use `ProtectionDomain.createAh`. */
  constructor(table: HandleTable, pd: ProtectionDomain, flow: TxFlow) {
    super(table, "address handle", [pd]);
    this.pd = pd;
    this.port = flow.port;
    this.destination = flow.destination;
    this.trafficClass = flow.trafficClass;
    this.flow = flow;
  }

  destroy(): void {
    this.closeHandle();
  }

  protected override release(): void {
    // A flow is the device's, shared by everybody who sends there.
  }
}
