// SPDX-License-Identifier: MIT
// The software RDMA device: what a NIC is to its host.

import { type Crc32, type IpAddress, type Random, SeededRandom } from "../base/index.js";
import { CqCore } from "./completion-queue.js";
import { DeviceCounters } from "./counters.js";
import type { DeviceEvent } from "./device-event.js";
import type { RxBurst, TxBatch, TxFlow } from "./link.js";
import { QpCore, type QpInit } from "./queue-pair.js";
import { SrqCore } from "./receive-queue.js";
import { RegionTable } from "./regions.js";

/** What a device is made of. Every bound has a default; memory is taken as objects are created. */
export interface DeviceOptions {
  /** Local addresses and the link MTU of each, by port index (`Link.addresses`, `Link.linkMtus`). */
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  /** Keys, QPNs and the like come from here: must be unpredictable to peers. */
  readonly random: Random;
  /** CRC-32 for long payloads; the portable one if absent. */
  readonly crc32?: Crc32;
  /** Bytes in flight towards one peer: what its receive buffer takes. */
  readonly windowBytes?: number;
  /** Bytes of READ responses outstanding towards this device: `Link.receiveBufferBytes`. */
  readonly receiveBufferBytes?: number;
  readonly qpCountMax?: number;
  readonly regionCountMax?: number;
  readonly wrCountMax?: number;
  /** Early repeats of the oldest packet, before the ACK timeout; on if absent. */
  readonly probes?: boolean;
}

export class Device {
  readonly addresses: readonly IpAddress[];
  /** RoCE MTU of each port, from its link MTU by the rule of rxe (facts page, section 5). */
  readonly activeMtus: readonly number[];
  readonly regions: RegionTable;
  readonly counters: DeviceCounters;

  constructor(options: DeviceOptions) {
    this.addresses = options.addresses;
    this.activeMtus = options.linkMtus;
    this.regions = new RegionTable(options.regionCountMax ?? 4096, new SeededRandom(0));
    this.counters = new DeviceCounters();
  }

  /** The flow from a port to an address; the same arguments give the same object. */
  flow(port: number, destination: IpAddress, trafficClass = 0): TxFlow {
    return { port, destination, destinationPort: 4791, trafficClass };
  }

  /** A number for a protection domain, used by no other until `freePd`. */
  allocatePd(): number {
    return 0;
  }

  freePd(_pdIndex: number): void {}

  /** @throws FarpageError EINVAL, ENOMEM. */
  createCq(depth: number): CqCore {
    return new CqCore({ cqEvent: () => {}, cqOverflow: () => {} }, depth);
  }

  /** @throws FarpageError EBUSY while a queue pair uses it. */
  destroyCq(_cq: CqCore): void {}

  /** @throws FarpageError EINVAL, ENOMEM. */
  createQp(init: QpInit): QpCore {
    return new QpCore(this, 2, init);
  }

  /** Ends a queue pair: nothing of it completes any more, its waiting completions are gone. */
  destroyQp(_qp: QpCore): void {}

  /** @throws FarpageError EINVAL, ENOMEM. */
  createSrq(pdIndex: number, depth: number, sgeCountMax = 1): SrqCore {
    return new SrqCore({ srqLimitReached: () => {} }, pdIndex, depth, sgeCountMax);
  }

  /** @throws FarpageError EBUSY while a queue pair uses it. */
  destroySrq(_srq: SrqCore): void {}

  /** Takes the oldest asynchronous event. @returns false when there is none. */
  pollEvent(_into: DeviceEvent): boolean {
    return false;
  }

  /** One received datagram: bytes `offset .. offset + length - 1` of the burst. */
  onPacket(_nowNs: number, _burst: RxBurst, _offset: number, _length: number): void {}

  /** Fires timers, calls armed listeners, fills `tx`. @returns whether more is ready than fitted. */
  pump(_nowNs: number, _tx: TxBatch): boolean {
    return false;
  }

  /** When `pump` must be called though no packet came: 0 for at once, Infinity for never. */
  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {}
}
