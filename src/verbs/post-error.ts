// SPDX-License-Identifier: MIT
// Why a work request was refused. The device says only EINVAL or ENOMEM, since the way there is
// hot; these functions look again, at leisure, for the sentence that the error carries.

import { ERRNO, FarpageError } from "../base/index.js";
import {
  QP_STATE,
  QP_STATE_NAMES,
  type RecvWorkRequest,
  type ScatterGatherEntry,
  SEND_FLAG,
  type SendWorkRequest,
  WR_OPCODE,
} from "../transport/index.js";
import type { QueuePair } from "./queue-pair.js";
import type { VerbsObject } from "./verbs-object.js";

/** Longest message of RoCE (IBTA vol1 §9.7.7): 2^31 bytes. */
export const MESSAGE_BYTES_MAX = 0x8000_0000;

const OPCODE_NAMES = new Map<number, string>(
  Object.entries(WR_OPCODE).map(([name, value]) => [value, name]),
);

const SEND_FLAGS_ALL =
  SEND_FLAG.FENCE | SEND_FLAG.SIGNALED | SEND_FLAG.SOLICITED | SEND_FLAG.INLINE;

/** Throws the error of a refused `postSend`. */
export function throwPostSend(qp: QueuePair, errno: number, wr: SendWorkRequest): never {
  if (errno === ERRNO.ENOMEM) {
    throw new FarpageError(
      "ENOMEM",
      `the send queue of ${qp.name()} holds ${qp.maxSendWr} requests and is full; ` +
        "poll its completions first, or create it with a larger maxSendWr",
    );
  }
  throw new FarpageError("EINVAL", `${qp.name()} refused a send: ${sendFault(qp, wr)}`);
}

/** Throws the error of a refused `postRecv` of a queue pair or shared receive queue. */
export function throwPostRecv(
  queue: VerbsObject,
  errno: number,
  wr: RecvWorkRequest,
  maxSge: number,
  depth: number,
): never {
  if (errno === ERRNO.ENOMEM) {
    throw new FarpageError(
      "ENOMEM",
      `the receive queue of ${queue.name()} holds ${depth} requests and is full`,
    );
  }
  const fault = sgeFault(wr.sges, wr.sgeCount, maxSge) ?? "the request is not valid";
  throw new FarpageError("EINVAL", `${queue.name()} refused a receive: ${fault}`);
}

/** What is wrong with a send request, as the end of a sentence. */
function sendFault(qp: QueuePair, wr: SendWorkRequest): string {
  const state = qp.state;
  if (state === QP_STATE.RESET || state === QP_STATE.INIT || state === QP_STATE.RTR) {
    return `it is in ${QP_STATE_NAMES[state]}, and sends need RTS`;
  }
  const opcode = OPCODE_NAMES.get(wr.opcode);
  if (opcode === undefined) return `there is no opcode ${wr.opcode}`;
  if ((wr.sendFlags & ~SEND_FLAGS_ALL) !== 0) {
    return `sendFlags 0x${wr.sendFlags.toString(16)} has bits that mean nothing`;
  }
  const fault = sgeFault(wr.sges, wr.sgeCount, qp.maxSendSge);
  if (fault !== null) return fault;
  if (qp.type === "UD") return datagramFault(qp, wr, opcode);
  return connectedFault(qp, wr, opcode);
}

function sgeFault(
  sges: readonly ScatterGatherEntry[],
  count: number,
  countMax: number,
): string | null {
  if (!Number.isInteger(count) || count < 0 || count > countMax) {
    return `it has ${count} scatter/gather entries, and the queue takes 0 .. ${countMax}`;
  }
  for (let i = 0; i < count; i++) {
    const sge = sges[i] as ScatterGatherEntry;
    if (!(sge.length >= 0 && sge.length <= MESSAGE_BYTES_MAX)) {
      return `entry ${i} has length ${sge.length}`;
    }
  }
  if (totalLength(sges, count) > MESSAGE_BYTES_MAX) return "the message is longer than 2^31 bytes";
  return null;
}

function datagramFault(qp: QueuePair, wr: SendWorkRequest, opcode: string): string {
  if (wr.opcode !== WR_OPCODE.SEND && wr.opcode !== WR_OPCODE.SEND_WITH_IMM) {
    return `${opcode} needs a connected queue pair; a UD one takes SEND and SEND_WITH_IMM`;
  }
  if (wr.destination === null) return "a datagram needs a destination (an address handle)";
  const length = totalLength(wr.sges, wr.sgeCount);
  const mtu = qp.context.device.activeMtus[wr.destination.flow.port];
  if (wr.destination.flow.port !== qp.queryQp().port) {
    return "its address handle is for another port than the queue pair's";
  }
  if (mtu === undefined) return "its address handle is for a port that this device does not have";
  if (length > mtu) return `a datagram takes one packet of at most ${mtu} bytes, not ${length}`;
  return inlineFault(qp, wr, length) ?? "the request is not valid";
}

function connectedFault(qp: QueuePair, wr: SendWorkRequest, opcode: string): string {
  const length = totalLength(wr.sges, wr.sgeCount);
  switch (wr.opcode) {
    case WR_OPCODE.ATOMIC_CMP_AND_SWP:
    case WR_OPCODE.ATOMIC_FETCH_AND_ADD:
      if (length !== 8 || wr.sgeCount !== 1) {
        return `${opcode} returns 8 bytes into one entry, not ${length} into ${wr.sgeCount}`;
      }
      return depthFault(qp, opcode) ?? "the request is not valid";
    case WR_OPCODE.LOCAL_INV:
      return "LOCAL_INV has no scatter/gather entries; the key stands in invalidateKey";
    case WR_OPCODE.REG_MR:
      return (
        "REG_MR has no scatter/gather entries; the range, the lkey of the ordinary region in " +
        "which it lies and the new key have fields of their own"
      );
    case WR_OPCODE.RDMA_READ:
      return depthFault(qp, opcode) ?? inlineFault(qp, wr, length) ?? "the request is not valid";
    default:
      return inlineFault(qp, wr, length) ?? "the request is not valid";
  }
}

/** The peer's willingness to serve is agreed on when the connection is made. */
function depthFault(qp: QueuePair, opcode: string): string | null {
  if (qp.queryQp().maxRdAtomic > 0) return null;
  return `${opcode} needs an initiator depth (maxRdAtomic) above 0, and it is 0 here`;
}

function inlineFault(qp: QueuePair, wr: SendWorkRequest, length: number): string | null {
  if ((wr.sendFlags & SEND_FLAG.INLINE) === 0) return null;
  if (wr.opcode === WR_OPCODE.RDMA_READ) return "a READ has no data to send inline";
  if (length <= qp.maxInlineData) return null;
  return `INLINE data may have ${qp.maxInlineData} bytes here, not ${length}`;
}

function totalLength(sges: readonly ScatterGatherEntry[], count: number): number {
  let length = 0;
  for (let i = 0; i < count; i++) length += (sges[i] as ScatterGatherEntry).length;
  return length;
}
