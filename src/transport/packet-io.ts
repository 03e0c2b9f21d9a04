// SPDX-License-Identifier: MIT
// One packet on its way in or out, in the form in which the stages of the device hand it on.

import { bthPadCount, ICRC_BYTES, PKEY_DEFAULT, padCountOf, writeBth } from "../wire/index.js";
import type { Flow } from "./flow.js";
import { RxBurst, type TxBatch } from "./link.js";
import type { QpCore } from "./queue-pair.js";

/**
 * The received packet that the device is looking at: its shape has been checked, its fields are
 * decoded once. One object per device, overwritten by the next packet.
 */
export class RxPacket {
  burst: RxBurst = new RxBurst(new Uint8Array(0));
  /** Bytes of the burst; headers are read through `view`. */
  bytes: Uint8Array = this.burst.bytes;
  view: DataView = this.burst.view;
  /** Position of the BTH. */
  offset = 0;
  /** Bytes of the UDP payload. */
  length = 0;
  opcode = 0;
  /** `OPCODE_FLAG` bits of the opcode. */
  flags = 0;
  psn = 0;
  ackRequest = false;
  solicited = false;
  /** Position of the first extended header. */
  extended = 0;
  payloadOffset = 0;
  /** Without padding. */
  payloadLength = 0;
}

/** Where a stage stands when its turn to send ends. */
export const TURN = {
  /** Nothing more to send until something happens. */
  IDLE: 0,
  /** More is ready; its share of this turn is used up. */
  MORE: 1,
  /** The batch is full. */
  FULL: 2,
} as const;
export type Turn = (typeof TURN)[keyof typeof TURN];

/** Bytes that a queue pair may send in one turn: about one GSO send. */
export const TURN_BYTES = 65_536;

/** UDP payload bytes of a packet. */
export function packetBytes(headerBytes: number, payloadLength: number): number {
  return headerBytes + payloadLength + padCountOf(payloadLength) + ICRC_BYTES;
}

/** Writes the BTH of a packet at `at`; P_Key and pad count follow from the rest. */
export function beginPacket(
  tx: TxBatch,
  at: number,
  opcode: number,
  isSolicited: boolean,
  payloadLength: number,
  destinationQpn: number,
  ackRequest: boolean,
  psn: number,
): void {
  writeBth(
    tx.view,
    at,
    opcode,
    isSolicited,
    padCountOf(payloadLength),
    PKEY_DEFAULT,
    destinationQpn,
    ackRequest,
    psn,
  );
}

/** Pads, seals with the ICRC and commits the packet of `length` bytes reserved last, at `at`. */
export function finishPacket(
  qp: QpCore,
  tx: TxBatch,
  flow: Flow,
  at: number,
  length: number,
): void {
  const end = at + length - ICRC_BYTES;
  for (let i = bthPadCount(tx.view, at); i > 0; i--) tx.bytes[end - i] = 0;
  const { device, counters } = qp;
  device.icrc.write(flow.icrc, tx.bytes, tx.view, at, length, tx.segmentIndex);
  tx.commit();
  device.counters.packetsSent++;
  device.counters.bytesSent += length;
  counters.packetsSent++;
  counters.bytesSent += length;
}
