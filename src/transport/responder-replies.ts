// SPDX-License-Identifier: MIT
// The sending half of an RC responder: READ responses, atomic results, ACKs and NAKs (IBTA vol1
// §9.7.5; facts page, section 10). Responses leave in request order: first the queued READs and
// atomics, then one ACK for the newest request executed, which is newer than all of them, then a
// NAK.

import { offsetFrom, psnAdd, psnDiff } from "../base/index.js";
import {
  AETH_BYTES,
  atomicEthKey,
  BTH_BYTES,
  OPCODE_FLAG,
  OPCODE_HEADER_BYTES,
  RC,
  rethAddressHigh,
  rethAddressLow,
  rethKey,
  rethLength,
  SYNDROME,
  writeAeth,
  writeAtomicAckEth,
} from "../wire/index.js";
import { DROP_REASON, type DropReason } from "./counters.js";
import { DEVICE_EVENT } from "./device-event.js";
import type { Flow } from "./flow.js";
import type { TxBatch } from "./link.js";
import {
  beginPacket,
  finishPacket,
  packetBytes,
  type RxPacket,
  TURN,
  TURN_BYTES,
  type Turn,
} from "./packet-io.js";
import { PAGES } from "./region-pages.js";
import type { Responder } from "./responder.js";
import { RESOURCE_KIND } from "./responder-resources.js";
import { ACCESS } from "./work-request.js";

const FULL = -1;
/** The pages of the next READ response are not there: nothing behind it may leave before it. */
const WAITING = -2;
const NO_REGION = -1;

/** Sends what is due, READ responses at most about `TURN_BYTES`. */
export function transmitReplies(responder: Responder, tx: TxBatch): Turn {
  const { resources } = responder;
  for (let budget = TURN_BYTES; resources.replyHead >= 0; ) {
    if (budget <= 0) return TURN.MORE;
    const sent = sendReply(responder, resources.replyHead, tx);
    if (sent === FULL) return TURN.FULL;
    if (sent === WAITING) return TURN.IDLE;
    budget -= sent;
  }
  if (responder.isAckDue) {
    const psn = psnAdd(responder.expectedPsn, -1);
    if (!sendAck(responder, SYNDROME.ACK_UNLIMITED, psn, tx)) return TURN.FULL;
    responder.isAckDue = false;
    responder.device.counters.acksSent++;
    responder.qp.counters.acksSent++;
  }
  if (responder.nakSyndrome !== 0 && !sendNak(responder, tx)) return TURN.FULL;
  return TURN.IDLE;
}

function sendNak(responder: Responder, tx: TxBatch): boolean {
  const syndrome = responder.nakSyndrome;
  const isSequence = syndrome === SYNDROME.NAK_PSN_SEQUENCE;
  // The gap may have moved on since it was noticed.
  const psn = isSequence ? responder.expectedPsn : responder.nakPsn;
  if (!sendAck(responder, syndrome, psn, tx)) return false;
  responder.nakSyndrome = 0;
  const { device, qp } = responder;
  const { counters } = device;
  if (isSequence) {
    counters.sequenceNaksSent++;
    qp.counters.sequenceNaksSent++;
  } else if (syndrome < SYNDROME.NAK_PSN_SEQUENCE) {
    counters.rnrNaksSent++;
    qp.counters.rnrNaksSent++;
  } else {
    if (syndrome === SYNDROME.NAK_INVALID_REQUEST) {
      counters.invalidRequestNaksSent++;
      qp.counters.invalidRequestNaksSent++;
      device.raiseQpEvent(qp, DEVICE_EVENT.QP_REQ_ERR);
    } else if (syndrome === SYNDROME.NAK_REMOTE_ACCESS) {
      counters.accessNaksSent++;
      qp.counters.accessNaksSent++;
      device.raiseQpEvent(qp, DEVICE_EVENT.QP_ACCESS_ERR);
    } else {
      counters.operationalNaksSent++;
      qp.counters.operationalNaksSent++;
      device.raiseQpEvent(qp, DEVICE_EVENT.QP_FATAL);
    }
    qp.enterError();
  }
  return true;
}

function sendAck(responder: Responder, syndrome: number, psn: number, tx: TxBatch): boolean {
  const { qp } = responder;
  const flow = qp.flow as Flow;
  const length = packetBytes(OPCODE_HEADER_BYTES[RC.ACKNOWLEDGE] as number, 0);
  const at = tx.reserve(flow, length);
  if (at < 0) return false;
  beginPacket(tx, at, RC.ACKNOWLEDGE, false, 0, qp.destinationQpn, false, psn);
  writeAeth(tx.view, at + BTH_BYTES, syndrome, responder.msn);
  finishPacket(qp, tx, flow, at, length);
  return true;
}

/** Sends the next packet of a queued answer. @returns its bytes, 0: refused, FULL or WAITING. */
function sendReply(responder: Responder, slot: number, tx: TxBatch): number {
  const { resources } = responder;
  const sent =
    resources.kinds[slot] === RESOURCE_KIND.ATOMIC
      ? sendAtomicAck(responder, slot, tx)
      : sendReadResponse(responder, slot, tx);
  if (sent <= 0) return sent;
  const count = (resources.replySents[slot] as number) + 1;
  resources.replySents[slot] = count;
  if (count === resources.replyPacketCounts[slot]) {
    resources.removeReply(slot);
    // It has acknowledged all that was executed: no ACK needs to follow.
    const next = psnAdd(resources.replyPsns[slot] as number, count);
    if (next === responder.expectedPsn) responder.isAckDue = false;
  }
  return sent;
}

function sendAtomicAck(responder: Responder, slot: number, tx: TxBatch): number {
  const { qp, resources } = responder;
  const flow = qp.flow as Flow;
  const length = packetBytes(OPCODE_HEADER_BYTES[RC.ATOMIC_ACKNOWLEDGE] as number, 0);
  const at = tx.reserve(flow, length);
  if (at < 0) return FULL;
  const psn = resources.replyPsns[slot] as number;
  beginPacket(tx, at, RC.ATOMIC_ACKNOWLEDGE, false, 0, qp.destinationQpn, false, psn);
  writeAeth(tx.view, at + BTH_BYTES, SYNDROME.ACK_UNLIMITED, responder.msn);
  writeAtomicAckEth(
    tx.view,
    at + BTH_BYTES + AETH_BYTES,
    resources.originalHighs[slot] as number,
    resources.originalLows[slot] as number,
  );
  finishPacket(qp, tx, flow, at, length);
  return length;
}

function readResponseOpcode(index: number, count: number): number {
  if (count === 1) return RC.READ_RESPONSE_ONLY;
  if (index === 0) return RC.READ_RESPONSE_FIRST;
  return index === count - 1 ? RC.READ_RESPONSE_LAST : RC.READ_RESPONSE_MIDDLE;
}

function sendReadResponse(responder: Responder, slot: number, tx: TxBatch): number {
  const { device, qp, resources } = responder;
  const { regions } = device;
  const flow = qp.flow as Flow;
  const index = resources.replySents[slot] as number;
  const position = index * qp.pathMtu;
  const payload = Math.min(qp.pathMtu, (resources.replyLengths[slot] as number) - position);
  const region = resources.replyRegions[slot] as number;
  const psn = psnAdd(resources.replyPsns[slot] as number, index);
  const source = (resources.replyOffsets[slot] as number) + position;
  if (payload > 0) {
    // The key was taken back while the answer was under way.
    if (!regions.isCurrent(region, resources.replyGenerations[slot] as number)) {
      return refuseRead(responder, psn);
    }
    if (regions.isPaged(region)) {
      const left = (resources.replyLengths[slot] as number) - position;
      const result = regions.ready(region, source, payload, left, false);
      if (result === PAGES.REFUSED) return refuseRead(responder, psn);
      if (result === PAGES.WAITING) {
        device.pageWaits.wait(qp);
        return WAITING;
      }
    }
  }
  const opcode = readResponseOpcode(index, resources.replyPacketCounts[slot] as number);
  const headerBytes = OPCODE_HEADER_BYTES[opcode] as number;
  const length = packetBytes(headerBytes, payload);
  const at = tx.reserve(flow, length);
  if (at < 0) return FULL;
  beginPacket(tx, at, opcode, false, payload, qp.destinationQpn, false, psn);
  if (headerBytes > BTH_BYTES) {
    writeAeth(tx.view, at + BTH_BYTES, SYNDROME.ACK_UNLIMITED, responder.msn);
  }
  if (payload > 0) {
    if (regions.isPaged(region)) {
      regions.read(region, source, tx.bytes, at + headerBytes, payload);
    } else {
      regions.viewCache.copy(tx.bytes, at + headerBytes, regions.bytesOf(region), source, payload);
    }
  }
  finishPacket(qp, tx, flow, at, length);
  return length;
}

function refuseRead(responder: Responder, psn: number): number {
  responder.resources.clearReplies();
  responder.isAckDue = false;
  responder.refuse(SYNDROME.NAK_REMOTE_ACCESS, psn);
  return 0;
}

/**
 * Answers a repeated READ or atomic from what was saved; in silence when it is gone or differs.
 * IBTA vol1 §9.7.5.1.2, §9.7.5.2.8: never executes an atomic twice; the part of a READ that is
 * asked for again must lie inside the READ.
 */
export function repeatReadOrAtomic(responder: Responder, packet: RxPacket): DropReason {
  const { resources, device, qp } = responder;
  const slot = resources.find(packet.psn);
  if (slot < 0) return DROP_REASON.DUPLICATE_UNSAVED;
  const isAtomic = (packet.flags & OPCODE_FLAG.ATOMIC) !== 0;
  if (isAtomic !== (resources.kinds[slot] === RESOURCE_KIND.ATOMIC)) {
    return DROP_REASON.DUPLICATE_UNSAVED;
  }
  const { view, extended } = packet;
  if (isAtomic) {
    if (atomicEthKey(view, extended) !== resources.keys[slot]) {
      return DROP_REASON.DUPLICATE_UNSAVED;
    }
    if (resources.isStillToSend(slot, packet.psn, 1)) return DROP_REASON.NONE;
    responder.queueRead(slot, packet.psn, 1, 0, NO_REGION, 0, 0, true);
    device.activate(qp);
    return DROP_REASON.NONE;
  }
  const length = rethLength(view, extended);
  const high = rethAddressHigh(view, extended);
  const low = rethAddressLow(view, extended);
  const count = Math.max(1, Math.ceil(length / qp.pathMtu));
  if (!isPartOfRead(responder, slot, packet, count)) return DROP_REASON.DUPLICATE_UNSAVED;
  // Asked for again because we are slow, not because anything was lost: it is on its way.
  if (resources.isStillToSend(slot, packet.psn, count)) return DROP_REASON.NONE;
  let region = NO_REGION;
  if (length > 0) {
    const key = rethKey(view, extended);
    region = device.regions.check(key, qp.pdIndex, ACCESS.REMOTE_READ, high, low, length);
    if (region < 0) return DROP_REASON.DUPLICATE_UNSAVED;
  }
  responder.queueRead(slot, packet.psn, count, length, region, high, low, true);
  device.activate(qp);
  return DROP_REASON.NONE;
}

/** Whether a repeated READ asks for PSNs and bytes of the saved one only, under the same key. */
function isPartOfRead(
  responder: Responder,
  slot: number,
  packet: RxPacket,
  count: number,
): boolean {
  const { resources } = responder;
  const { view, extended } = packet;
  const skipped = psnDiff(packet.psn, resources.psns[slot] as number);
  if (skipped + count > (resources.packetCounts[slot] as number)) return false;
  if (rethKey(view, extended) !== resources.keys[slot]) return false;
  const offset = offsetFrom(
    rethAddressHigh(view, extended),
    rethAddressLow(view, extended),
    resources.addressHighs[slot] as number,
    resources.addressLows[slot] as number,
  );
  return offset >= 0 && offset + rethLength(view, extended) <= (resources.lengths[slot] as number);
}
