// SPDX-License-Identifier: MIT
// The ICRC's header part for each sender that is heard: computing it costs some 100 ns, and packets
// come in runs from few senders. Direct-mapped and bounded: a flood of forged sources only makes it
// slower.

import type { IpAddress } from "../base/index.js";
import { IcrcFlow, ROCE_PORT } from "../wire/index.js";
import type { RxBurst } from "./link.js";

const SLOT_BITS = 6;

export class SourceTable {
  private readonly addresses: readonly IpAddress[];
  /** 2^SLOT_BITS per port. */
  private readonly flows: IcrcFlow[];

  constructor(addresses: readonly IpAddress[]) {
    this.addresses = addresses;
    this.flows = Array.from({ length: addresses.length << SLOT_BITS }, () => new IcrcFlow());
  }

  /** The flow from a burst's sender to the port that it came to. */
  flow(burst: RxBurst): IcrcFlow {
    const { source0, source1, source2, source3, sourcePort, port } = burst;
    const hash = Math.imul(source3 ^ source2 ^ sourcePort, 0x9e3779b1) >>> (32 - SLOT_BITS);
    const flow = this.flows[(port << SLOT_BITS) + hash] as IcrcFlow;
    if (!flow.matches(source0, source1, source2, source3, sourcePort)) {
      const destination = this.addresses[port] as IpAddress;
      flow.assign(source0, source1, source2, source3, sourcePort, destination, ROCE_PORT);
    }
    return flow;
  }
}
