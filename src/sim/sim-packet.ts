// SPDX-License-Identifier: MIT

import type { IpAddress } from "../base/index.js";

/** A packet under way or waiting in a socket buffer. Pooled by its network. */
export class SimPacket {
  bytes = new Uint8Array(0);
  length = 0;
  source: IpAddress | null = null;
  port = 0;
  sourcePort = 0;
  trafficClass = 0;

  fill(bytes: Uint8Array, offset: number, length: number): void {
    if (this.bytes.length < length) this.bytes = new Uint8Array(Math.max(length, 4200));
    this.bytes.set(bytes.subarray(offset, offset + length));
    this.length = length;
  }

  /** Whether receive offload may put this one behind `other`. */
  isSameFlow(other: SimPacket): boolean {
    return (
      this.port === other.port &&
      this.sourcePort === other.sourcePort &&
      this.trafficClass === other.trafficClass &&
      (this.source as IpAddress).equals(other.source as IpAddress)
    );
  }
}
