// SPDX-License-Identifier: MIT
// What a device is made of, and what follows from its links.

import { type Crc32, FarpageError, type IpAddress, type Random } from "../base/index.js";
import { type LaneNumber, MTU_MAX, MTU_MIN } from "../wire/index.js";

/** What a device is made of. Every bound has a default; memory is taken as objects are created. */
export interface DeviceOptions {
  /**
   * Local addresses and the link MTU of each, by port index (`Link.addresses`, `Link.linkMtus`).
   */
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  /** Keys and QPNs come from here: must be unpredictable to peers. */
  readonly random: Random;
  /** CRC-32 for long payloads; the portable one if absent. */
  readonly crc32?: Crc32;
  /** Bytes in flight towards one peer host: what its receive buffer takes. 1 MiB if absent. */
  readonly windowBytes?: number;
  /** Bytes of READ responses outstanding: `Link.receiveBufferBytes`. `windowBytes` if absent. */
  readonly receiveBufferBytes?: number;
  /** Queue pairs at once, 1024 if absent; memory regions, 8192; requests per queue, 16384. */
  readonly qpCountMax?: number;
  readonly regionCountMax?: number;
  readonly wrCountMax?: number;
  /**
   * Which lane of its host the device is on, of how many: it gives its queue pairs numbers that are
   * `index` mod `count`, by which packets find the lane. The only one if absent.
   */
  readonly lane?: LaneNumber;
  /**
   * Timer code of the RNR NAK for a request that meets a page that is not there yet, 1 .. 31; 6
   * (0.08 ms) if absent. Asking again in vain makes the next one longer.
   */
  readonly faultRnrTimer?: number;
  /** Early repeats of the oldest packet, before the ACK timeout; on if absent. */
  readonly probes?: boolean;
}

/** Link MTU less RoCE MTU, by rxe's rule (facts page, section 5). */
const ROCE_OVERHEAD_BYTES = 80;

/**
 * The RoCE MTU of a port with this link MTU, by the rule of rxe.
 * @throws FarpageError EINVAL when not even the smallest fits.
 */
export function activeMtuOf(linkMtu: number): number {
  let mtu = MTU_MAX;
  while (mtu >= MTU_MIN && mtu > linkMtu - ROCE_OVERHEAD_BYTES) mtu /= 2;
  if (mtu < MTU_MIN)
    throw new FarpageError("EINVAL", `a link MTU of ${linkMtu} holds no RoCE packet`);
  return mtu;
}
