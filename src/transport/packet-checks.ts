// SPDX-License-Identifier: MIT
// Two of the checks that a received packet goes through before its queue pair sees it.

import { PACKET_FAULT } from "../wire/index.js";
import { DROP_REASON, type DropReason } from "./counters.js";
import type { RxBurst } from "./link.js";
import type { QpCore } from "./queue-pair.js";

/** Whether a burst is exactly from the peer of a connected queue pair, to its port. */
export function isFromPeer(qp: QpCore, burst: RxBurst): boolean {
  const { flow } = qp;
  if (flow === null || flow.port !== burst.port) return false;
  const peer = flow.destination;
  return (
    peer.word3 === burst.source3 &&
    peer.word2 === burst.source2 &&
    peer.word1 === burst.source1 &&
    peer.word0 === burst.source0
  );
}

/** The drop reason for what `checkPacket` found. */
export function reasonOfFault(fault: number): DropReason {
  switch (fault) {
    case PACKET_FAULT.SHORT:
      return DROP_REASON.TOO_SHORT;
    case PACKET_FAULT.VERSION:
      return DROP_REASON.TRANSPORT_VERSION;
    case PACKET_FAULT.OPCODE:
      return DROP_REASON.OPCODE;
    default:
      return DROP_REASON.LENGTH;
  }
}
