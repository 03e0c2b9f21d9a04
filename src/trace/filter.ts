// SPDX-License-Identifier: MIT
// Which packets a trace wants.

import type { IpAddress } from "../base/index.js";
import type { RxBurst, TxFlow } from "../transport/index.js";

/** What a packet must match: one of the addresses, and one of the QPNs, where there are any. */
export class PacketFilter {
  /** Addresses of peers. Empty: any. */
  readonly peers: readonly IpAddress[];
  /** Destination QPNs. Empty: any. */
  readonly qpns: readonly number[];

  constructor(options: {
    readonly peers?: readonly IpAddress[];
    readonly qpns?: readonly number[];
  }) {
    this.peers = options.peers ?? [];
    this.qpns = options.qpns ?? [];
  }

  wantsSent(flow: TxFlow, bytes: Uint8Array, offset: number, length: number): boolean {
    const { word0, word1, word2, word3 } = flow.destination;
    return this.wants(word0, word1, word2, word3, bytes, offset, length);
  }

  wantsReceived(burst: RxBurst, offset: number, length: number): boolean {
    const { source0, source1, source2, source3, bytes } = burst;
    return this.wants(source0, source1, source2, source3, bytes, offset, length);
  }

  private wants(
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): boolean {
    const { peers, qpns } = this;
    if (qpns.length > 0) {
      // The BTH's second word: a reserved byte, and the QPN.
      if (length < 8 || !qpns.includes(qpnAt(bytes, offset + 5))) return false;
    }
    if (peers.length === 0) return true;
    for (let i = 0; i < peers.length; i++) {
      const peer = peers[i] as IpAddress;
      if (
        peer.word3 === word3 &&
        peer.word2 === word2 &&
        peer.word1 === word1 &&
        peer.word0 === word0
      ) {
        return true;
      }
    }
    return false;
  }
}

function qpnAt(bytes: Uint8Array, at: number): number {
  const high = bytes[at] as number;
  const middle = bytes[at + 1] as number;
  return (high << 16) | (middle << 8) | (bytes[at + 2] as number);
}
