// SPDX-License-Identifier: MIT
// Unreliable datagrams and the GSI (IBTA vol1 §9.8.3, §13; facts page, sections 14 and 17): one
// packet per message, sent and forgotten; received into the next receive behind 40 bytes of GRH.
//
// No multicast: no queue pair can be attached to a group.

import { psnAdd } from "../base/index.js";
import {
  BTH_BYTES,
  DETH_BYTES,
  dethQkey,
  dethSourceQpn,
  GRH_BYTES,
  immediateOf,
  OPCODE_FLAG,
  OPCODE_HEADER_BYTES,
  UD,
  writeDeth,
  writeGrh,
  writeImmediate,
} from "../wire/index.js";
import { DROP_REASON, type DropReason } from "./counters.js";
import type { Device } from "./device.js";
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
import { QP_STATE, QP_TYPE } from "./qp-state.js";
import type { QpCore } from "./queue-pair.js";
import { PAGES } from "./region-pages.js";
import { SgeTable } from "./sge-table.js";
import { ACCESS, SEND_FLAG, WC_FLAG, WC_OPCODE, WC_STATUS, WR_OPCODE } from "./work-request.js";

/** A Q_Key with this bit in a work request stands for the queue pair's own (IBTA vol1 §10.2.5). */
const QKEY_PRIVILEGED = 0x8000_0000;
/** Payload of every MAD, and so of every packet of the GSI. */
export const MAD_BYTES = 256;

/** Both directions of one UD queue pair. */
export class Datagrams {
  /** PSN of the next datagram; receivers don't care. */
  psn = 0;
  private readonly device: Device;
  private readonly qp: QpCore;
  private readonly receiveSges = new SgeTable(1);

  constructor(device: Device, qp: QpCore) {
    this.device = device;
    this.qp = qp;
  }

  /** Sends what is posted, at most about `TURN_BYTES`. */
  transmit(tx: TxBatch): Turn {
    const { qp } = this;
    const queue = qp.sendQueue;
    for (let budget = TURN_BYTES; queue.headIndex !== queue.tailIndex; ) {
      if (qp.state !== QP_STATE.RTS) return TURN.IDLE;
      if (budget <= 0) return TURN.MORE;
      const slot = queue.slotOf(queue.headIndex);
      const { sges } = queue;
      if (!queue.isInline(slot) && !sges.resolve(slot, this.device.regions, qp.pdIndex, 0)) {
        qp.failDatagram(WC_STATUS.LOC_PROT_ERR);
        return TURN.IDLE;
      }
      if (!queue.isInline(slot) && sges.isPaged(slot)) {
        const bytes = queue.lengths[slot] as number;
        const pages = sges.ready(slot, this.device.regions, 0, bytes, false);
        if (pages !== PAGES.READY) {
          if (pages === PAGES.WAITING) this.device.pageWaits.wait(qp);
          else qp.failDatagram(WC_STATUS.LOC_PROT_ERR);
          return TURN.IDLE;
        }
      }
      const sent = this.send(slot, tx);
      if (sent === 0) return TURN.FULL;
      budget -= sent;
      qp.completeHead(WC_STATUS.SUCCESS, 0);
    }
    return TURN.IDLE;
  }

  /** Takes a datagram. Its shape, ICRC, port and P_Key have been checked; nothing else has. */
  onDatagram(packet: RxPacket): DropReason {
    const { qp } = this;
    const { view, extended, payloadLength } = packet;
    if (dethQkey(view, extended) !== qp.qkey) return DROP_REASON.QKEY;
    if (qp.type === QP_TYPE.GSI && payloadLength !== MAD_BYTES) return DROP_REASON.LENGTH;
    if (!qp.hasReceive) return DROP_REASON.NO_RECEIVE;
    const bytes = GRH_BYTES + payloadLength;
    // DEVIATION: rxe consumes the receive and goes to ERR; by the specification the datagram is
    // dropped. See the test of the same words.
    if (qp.nextReceiveBytes < bytes) return DROP_REASON.RECEIVE_TOO_SMALL;
    const { device, receiveSges: sges } = this;
    qp.peekReceive(sges);
    let isThere = sges.resolve(0, device.regions, qp.pdIndex, ACCESS.LOCAL_WRITE);
    if (isThere && sges.isPaged(0)) {
      const pages = sges.ready(0, device.regions, 0, bytes, true);
      if (pages === PAGES.WAITING) return DROP_REASON.PAGE_ABSENT;
      isThere = pages === PAGES.READY;
    }
    const wrId = qp.takeReceive(null);
    const hasImmediate = (packet.flags & OPCODE_FLAG.HAS_IMM) !== 0;
    const sourceQpn = dethSourceQpn(view, extended);
    const isPlaced = isThere && this.place(packet);
    qp.recvCq.push(
      wrId,
      isPlaced ? WC_STATUS.SUCCESS : WC_STATUS.LOC_PROT_ERR,
      WC_OPCODE.RECV,
      hasImmediate ? WC_FLAG.GRH | WC_FLAG.WITH_IMM : WC_FLAG.GRH,
      bytes,
      hasImmediate ? immediateOf(view, extended + DETH_BYTES) : 0,
      qp.qpn,
      sourceQpn,
      0,
      packet.solicited,
    );
    if (isPlaced) return DROP_REASON.NONE;
    qp.enterError();
    return DROP_REASON.RECEIVE_TOO_SMALL;
  }

  /** Writes the GRH and the payload into the receive just taken. */
  private place(packet: RxPacket): boolean {
    const { regions, scratch, addresses } = this.device;
    const sges = this.receiveSges;
    const { burst, bytes, payloadOffset, payloadLength } = packet;
    const destination = addresses[burst.port];
    if (destination === undefined) return false;
    writeGrh(
      scratch.view,
      0,
      burst.source0,
      burst.source1,
      burst.source2,
      burst.source3,
      destination,
      burst.trafficClass,
      packet.length,
    );
    return (
      sges.scatter(0, regions, 0, GRH_BYTES, scratch.bytes, 0) &&
      sges.scatter(0, regions, GRH_BYTES, payloadLength, bytes, payloadOffset)
    );
  }

  /** Writes one datagram. @returns its bytes, 0 when the batch is full. */
  private send(slot: number, tx: TxBatch): number {
    const { qp } = this;
    const queue = qp.sendQueue;
    const flow = queue.flows[slot] as Flow;
    const hasImmediate = queue.opcodes[slot] === WR_OPCODE.SEND_WITH_IMM;
    const opcode = hasImmediate ? UD.SEND_ONLY_IMM : UD.SEND_ONLY;
    const payload = queue.lengths[slot] as number;
    const headerBytes = OPCODE_HEADER_BYTES[opcode] as number;
    const length = packetBytes(headerBytes, payload);
    const at = tx.reserve(flow, length);
    if (at < 0) return 0;
    const isSolicited = ((queue.flags[slot] as number) & SEND_FLAG.SOLICITED) !== 0;
    const remoteQpn = queue.remoteQpns[slot] as number;
    beginPacket(tx, at, opcode, isSolicited, payload, remoteQpn, false, this.psn);
    const qkey = queue.qkeys[slot] as number;
    const wireQkey = qkey >= QKEY_PRIVILEGED ? qp.qkey : qkey;
    writeDeth(tx.view, at + BTH_BYTES, wireQkey, qp.qpn);
    if (hasImmediate) {
      writeImmediate(tx.view, at + BTH_BYTES + DETH_BYTES, queue.immediates[slot] as number);
    }
    if (queue.isInline(slot)) {
      queue.copyInlineTo(slot, 0, payload, tx.bytes, at + headerBytes);
    } else {
      // Resolved just now, so no region can have changed.
      queue.sges.gather(slot, this.device.regions, 0, payload, tx.bytes, at + headerBytes);
    }
    finishPacket(qp, tx, flow, at, length);
    this.psn = psnAdd(this.psn, 1);
    return length;
  }
}
