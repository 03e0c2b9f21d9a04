// SPDX-License-Identifier: MIT
// Where the connection manager's messages come from and go to: QP1 in earnest (gsi.ts), anything
// else in a test.

import type { IpAddress } from "../base/index.js";

/** Bytes of every MAD, header included (IBTA vol1 §13.4.2). */
export const MAD_BYTES = 256;

/** One MAD as it arrived: borrowed for the call. */
export interface ReceivedMad {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** First byte of the MAD; `MAD_BYTES` follow. */
  readonly offset: number;
  /** The local port (address index) that it came to. */
  readonly devicePort: number;
  /** Who sent the packet, and to which of our addresses. */
  readonly source: IpAddress;
  readonly destination: IpAddress;
}

export interface MadPort {
  /** Local addresses by port index. */
  readonly addresses: readonly IpAddress[];
  /** The next MAD that has arrived, or null. It is valid until the next call. */
  receive(): ReceivedMad | null;
  /**
   * Sends `MAD_BYTES` bytes to QP1 of `destination`; copies them.
   * @returns false when no buffer is free; nothing was sent.
   */
  send(devicePort: number, destination: IpAddress, trafficClass: number, mad: Uint8Array): boolean;
  /** Gives QP1 and its buffers back. */
  close(): void;
}
