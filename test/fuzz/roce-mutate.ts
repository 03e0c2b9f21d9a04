// SPDX-License-Identifier: MIT
// Mutations of RoCEv2 packets that know where the fields are and can make the ICRC right again, so
// that they get past the first check.

import type { IpAddress } from "../../src/base/index.js";
import {
  BTH_BYTES,
  ICRC_BYTES,
  IcrcEngine,
  IcrcFlow,
  MAD_BYTES,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  OPCODE_HEADER_BYTES,
  QPN_GSI,
  ROCE_PORT,
} from "../../src/wire/index.js";
import type { Field, Mutator } from "./mutate.js";

/** Longest mutated packet: an MTU of 4096 and every header, and a little too long. */
export const PACKET_BYTES_MAX = 4200;

const BTH_FIELDS: readonly Field[] = [
  { name: "opcode", offset: 0, bytes: 1 },
  { name: "flags and pad", offset: 1, bytes: 1 },
  { name: "P_Key", offset: 2, bytes: 2 },
  { name: "destination QPN", offset: 5, bytes: 3 },
  { name: "AckReq", offset: 8, bytes: 1 },
  { name: "PSN", offset: 9, bytes: 3 },
];
/** By the opcode flag that says the header is there: its length and fields. */
const EXTENDED: readonly (readonly [flag: number, length: number, fields: readonly Field[]])[] = [
  [
    OPCODE_FLAG.HAS_DETH,
    8,
    [
      { name: "Q_Key", offset: 0, bytes: 4 },
      { name: "source QPN", offset: 5, bytes: 3 },
    ],
  ],
  [
    OPCODE_FLAG.HAS_RETH,
    16,
    [
      { name: "address", offset: 0, bytes: 8 },
      { name: "address, low half", offset: 4, bytes: 4 },
      { name: "rkey", offset: 8, bytes: 4 },
      { name: "DMA length", offset: 12, bytes: 4 },
    ],
  ],
  [
    OPCODE_FLAG.HAS_ATOMIC,
    28,
    [
      { name: "address", offset: 0, bytes: 8 },
      { name: "address, low half", offset: 4, bytes: 4 },
      { name: "rkey", offset: 8, bytes: 4 },
      { name: "swap or add", offset: 12, bytes: 8 },
      { name: "compare", offset: 20, bytes: 8 },
    ],
  ],
  [
    OPCODE_FLAG.HAS_AETH,
    4,
    [
      { name: "syndrome", offset: 0, bytes: 1 },
      { name: "MSN", offset: 1, bytes: 3 },
    ],
  ],
  [OPCODE_FLAG.HAS_ATOMIC_ACK, 8, [{ name: "original", offset: 0, bytes: 8 }]],
  [OPCODE_FLAG.HAS_IMM, 4, [{ name: "immediate", offset: 0, bytes: 4 }]],
  [OPCODE_FLAG.HAS_IETH, 4, [{ name: "key to invalidate", offset: 0, bytes: 4 }]],
];
const MAD_FIELDS: readonly Field[] = [
  { name: "base version", offset: 0, bytes: 1 },
  { name: "class", offset: 1, bytes: 1 },
  { name: "class version", offset: 2, bytes: 1 },
  { name: "method", offset: 3, bytes: 1 },
  { name: "status", offset: 4, bytes: 2 },
  { name: "transaction", offset: 8, bytes: 8 },
  { name: "attribute", offset: 16, bytes: 2 },
  { name: "attribute modifier", offset: 20, bytes: 4 },
  { name: "local communication id", offset: 24, bytes: 4 },
  { name: "remote communication id", offset: 28, bytes: 4 },
];

/** Where the fields of a packet are, as far as its opcode tells. */
export function fieldsOf(packet: Uint8Array): Field[] {
  const flags = OPCODE_FLAGS[packet[0] as number] as number;
  const fields = [...BTH_FIELDS];
  let at = BTH_BYTES;
  for (const [flag, length, inside] of EXTENDED) {
    if ((flags & flag) === 0) continue;
    for (const field of inside) fields.push({ ...field, offset: field.offset + at });
    at += length;
  }
  if (isMad(packet)) {
    const start = OPCODE_HEADER_BYTES[packet[0] as number] as number;
    for (const field of MAD_FIELDS) fields.push({ ...field, offset: field.offset + start });
    // The message behind the header: any aligned word of it.
    for (let i = 0; i < 8; i++) {
      const offset = start + 32 + 4 * ((packet[at + i] as number) % 56);
      fields.push({ name: "message", offset, bytes: 4 });
    }
  }
  return fields;
}

function isMad(packet: Uint8Array): boolean {
  const qpn = ((packet[5] as number) << 16) | ((packet[6] as number) << 8) | (packet[7] as number);
  return qpn === QPN_GSI && packet.length >= BTH_BYTES + MAD_BYTES;
}

/** Makes mutated packets of recorded ones. */
export class PacketMutator {
  private readonly mutator: Mutator;
  private readonly engine = new IcrcEngine();
  private readonly flows = new Map<string, IcrcFlow>();

  constructor(mutator: Mutator) {
    this.mutator = mutator;
  }

  /**
   * A mutated copy of `packet`, nine times in ten with an ICRC that is right for the way from
   * `source` to `destination`.
   * @param other another recorded packet, for splices.
   */
  mutate(
    packet: Uint8Array,
    other: Uint8Array,
    source: IpAddress,
    destination: IpAddress,
  ): Uint8Array {
    const { mutator } = this;
    const kind = mutator.below(10);
    if (kind === 0) return mutator.mutate(packet, other, PACKET_BYTES_MAX);
    let result: Uint8Array;
    if (kind < 7) {
      result = packet.slice();
      const fields = fieldsOf(packet);
      for (let n = 1 + mutator.below(3); n > 0; n--) mutator.editField(result, fields);
    } else if (kind < 9) {
      result = this.mutateBody(packet, other);
    } else {
      // The headers of one on the payload of the other.
      result = mutator.mutate(other, packet, PACKET_BYTES_MAX);
      result.set(packet.subarray(0, Math.min(BTH_BYTES, result.length)));
    }
    return this.sign(result, source, destination);
  }

  /**
   * Writes a right ICRC, on IPv4 for any identification. @returns the packet, padded if need be.
   */
  sign(packet: Uint8Array, source: IpAddress, destination: IpAddress): Uint8Array {
    if (packet.length < BTH_BYTES + ICRC_BYTES) return packet;
    const key = `${source}>${destination}`;
    let flow = this.flows.get(key);
    if (flow === undefined) {
      flow = IcrcFlow.between(source, ROCE_PORT, destination, ROCE_PORT);
      this.flows.set(key, flow);
    }
    const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
    const identification = this.mutator.oneIn(2) ? 0 : this.mutator.below(65_536);
    this.engine.write(flow, packet, view, 0, packet.length, identification);
    return packet;
  }

  /** Changes what is behind the BTH, its length too, most often to a multiple of four. */
  private mutateBody(packet: Uint8Array, other: Uint8Array): Uint8Array {
    const { mutator } = this;
    const body = packet.subarray(BTH_BYTES, packet.length - ICRC_BYTES);
    let changed = mutator.mutate(body, other, PACKET_BYTES_MAX - BTH_BYTES - ICRC_BYTES);
    if (!mutator.oneIn(4)) changed = changed.subarray(0, changed.length & ~3);
    const result = new Uint8Array(BTH_BYTES + changed.length + ICRC_BYTES);
    result.set(packet.subarray(0, BTH_BYTES));
    result.set(changed, BTH_BYTES);
    return result;
  }
}
