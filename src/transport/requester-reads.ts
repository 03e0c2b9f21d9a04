// SPDX-License-Identifier: MIT
// The packets that an RC requester asks for data with: READ requests and atomics.

import { carryOf, psnAdd } from "../base/index.js";
import { BTH_BYTES, OPCODE_HEADER_BYTES, RC, writeAtomicEth, writeReth } from "../wire/index.js";
import type { Flow } from "./flow.js";
import type { TxBatch } from "./link.js";
import { beginPacket, finishPacket, packetBytes } from "./packet-io.js";
import type { Requester } from "./requester.js";
import type { SendQueue } from "./send-queue.js";
import { WR_OPCODE } from "./work-request.js";

/**
 * Writes the request for what a READ misses from `packet` to the end of its piece, or an atomic.
 * @returns its bytes, -1 when the batch is full.
 */
export function writeReadRequest(
  requester: Requester,
  slot: number,
  packet: number,
  tx: TxBatch,
): number {
  const { queue, qp } = requester;
  const flow = qp.flow as Flow;
  const opcode = requestOpcodeOf(queue.opcodes[slot] as number);
  const length = packetBytes(OPCODE_HEADER_BYTES[opcode] as number, 0);
  const at = tx.reserve(flow, length);
  if (at < 0) return -1;
  const psn = psnAdd(queue.firstPsns[slot] as number, packet);
  beginPacket(tx, at, opcode, false, 0, qp.destinationQpn, true, psn);
  const key = queue.keys[slot] as number;
  const high = queue.addressHighs[slot] as number;
  const low = queue.addressLows[slot] as number;
  if (opcode === RC.READ_REQUEST) {
    const from = packet * qp.pathMtu;
    const end = requester.readPieceEnd(slot, packet) * qp.pathMtu;
    const bytes = Math.min(end, queue.lengths[slot] as number) - from;
    const fromHigh = (high + carryOf(low, from)) >>> 0;
    writeReth(tx.view, at + BTH_BYTES, fromHigh, (low + from) >>> 0, key, bytes);
  } else {
    writeAtomicHeader(queue, slot, opcode, at + BTH_BYTES, tx);
  }
  finishPacket(qp, tx, flow, at, length);
  return length;
}

function writeAtomicHeader(
  queue: SendQueue,
  slot: number,
  opcode: number,
  at: number,
  tx: TxBatch,
): void {
  const compareHigh = queue.compareHighs[slot] as number;
  const compareLow = queue.compareLows[slot] as number;
  const isSwap = opcode === RC.COMPARE_SWAP;
  writeAtomicEth(
    tx.view,
    at,
    queue.addressHighs[slot] as number,
    queue.addressLows[slot] as number,
    queue.keys[slot] as number,
    isSwap ? (queue.swapHighs[slot] as number) : compareHigh,
    isSwap ? (queue.swapLows[slot] as number) : compareLow,
    isSwap ? compareHigh : 0,
    isSwap ? compareLow : 0,
  );
}

function requestOpcodeOf(wrOpcode: number): number {
  if (wrOpcode === WR_OPCODE.RDMA_READ) return RC.READ_REQUEST;
  return wrOpcode === WR_OPCODE.ATOMIC_CMP_AND_SWP ? RC.COMPARE_SWAP : RC.FETCH_ADD;
}
