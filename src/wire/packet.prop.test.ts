// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { aethMsn, aethSyndrome } from "./aeth.js";
import { atomicAckEthOriginalLow } from "./atomic-ack-eth.js";
import { atomicEthCompareLow } from "./atomic-eth.js";
import { setBthVersion, writeBth } from "./bth.js";
import { dethSourceQpn } from "./deth.js";
import { iethKey } from "./ieth.js";
import { immediateOf } from "./imm-dt.js";
import { OPCODE_FLAG, OPCODE_FLAGS, OPCODE_HEADER_BYTES, RC } from "./opcode.js";
import { checkPacket, PACKET_FAULT, padCountOf, payloadLength, payloadOffset } from "./packet.js";
import { rethLength } from "./reth.js";

const F = OPCODE_FLAG;
const KNOWN = Array.from({ length: 256 }, (_, opcode) => opcode).filter(
  (opcode) => OPCODE_HEADER_BYTES[opcode] !== 0,
);
const opcode = fc.constantFrom(...KNOWN);

/** A packet of the right shape; `payload` bytes only where the opcode may carry some. */
function packetOf(code: number, payload: number): Uint8Array {
  const carries = ((OPCODE_FLAGS[code] as number) & F.HAS_PAYLOAD) !== 0;
  const bytes = carries ? payload : 0;
  const pad = padCountOf(bytes);
  const packet = new Uint8Array((OPCODE_HEADER_BYTES[code] as number) + bytes + pad + 4);
  writeBth(new DataView(packet.buffer), 0, code, false, pad, 0xffff, 17, true, 1);
  return packet;
}

/** Reads the last bytes of every header that the opcode promises. */
function readAllHeaders(view: DataView): void {
  const flags = OPCODE_FLAGS[view.getUint8(0)] as number;
  let at = 12;
  if ((flags & F.HAS_DETH) !== 0) {
    dethSourceQpn(view, at);
    at += 8;
  }
  if ((flags & F.HAS_RETH) !== 0) {
    rethLength(view, at);
    at += 16;
  }
  if ((flags & F.HAS_ATOMIC) !== 0) {
    atomicEthCompareLow(view, at);
    at += 28;
  }
  if ((flags & F.HAS_AETH) !== 0) {
    aethSyndrome(view, at);
    aethMsn(view, at);
    at += 4;
  }
  if ((flags & F.HAS_ATOMIC_ACK) !== 0) {
    atomicAckEthOriginalLow(view, at);
    at += 8;
  }
  if ((flags & F.HAS_IMM) !== 0) {
    immediateOf(view, at);
    at += 4;
  }
  if ((flags & F.HAS_IETH) !== 0) iethKey(view, at);
}

describe("checkPacket: laws", () => {
  it("a packet of the right shape → no fault, and its payload is where it was put", () => {
    fc.assert(
      fc.property(opcode, fc.nat({ max: 300 }), (code, length) => {
        const packet = packetOf(code, length);
        const view = new DataView(packet.buffer);
        expect(checkPacket(view, 0, packet.length)).toBe(PACKET_FAULT.NONE);
        const carries = ((OPCODE_FLAGS[code] as number) & F.HAS_PAYLOAD) !== 0;
        expect(payloadLength(view, 0, packet.length)).toBe(carries ? length : 0);
        expect(payloadOffset(view, 0)).toBe(OPCODE_HEADER_BYTES[code]);
      }),
    );
  });

  it("any bytes without a fault → no getter reads outside, the payload is not negative", () => {
    const bytes = fc
      .tuple(fc.oneof(opcode, fc.nat({ max: 255 })), fc.uint8Array({ maxLength: 80, size: "max" }))
      .map(([code, rest]) => Uint8Array.from([code, ...rest]));
    let passed = 0;
    fc.assert(
      fc.property(bytes, (packet) => {
        // A view that ends with the packet: reading outside throws.
        const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
        if (packet.length > 1) setBthVersion(view, 0, (packet[1] as number) & 1);
        if (checkPacket(view, 0, packet.length) !== PACKET_FAULT.NONE) return;
        passed++;
        readAllHeaders(view);
        expect(payloadLength(view, 0, packet.length)).toBeGreaterThanOrEqual(0);
      }),
      { numRuns: 3000, seed: 7 },
    );
    expect(passed).toBeGreaterThan(50);
  });

  it("truncated inside the headers → a fault; inside the payload → one at odd sizes", () => {
    fc.assert(
      fc.property(opcode, fc.nat({ max: 60 }), (code, length) => {
        const packet = packetOf(code, length);
        const headers = OPCODE_HEADER_BYTES[code] as number;
        for (let end = 0; end < packet.length; end++) {
          const cut = packet.slice(0, end);
          const fault = checkPacket(new DataView(cut.buffer), 0, end);
          if (end < headers + 4 || end % 4 !== 0) expect(fault).not.toBe(PACKET_FAULT.NONE);
        }
      }),
    );
  });

  it.each([
    ["15 bytes", PACKET_FAULT.SHORT, packetOf(RC.SEND_ONLY, 0).slice(0, 15)],
    ["an unknown opcode", PACKET_FAULT.OPCODE, packetOf(RC.SEND_ONLY, 0).fill(0x15, 0, 1)],
    ["version 1", PACKET_FAULT.VERSION, packetOf(RC.SEND_ONLY, 0).fill(1, 1, 2)],
    ["a WRITE without room for its RETH", PACKET_FAULT.LENGTH, packetOf(0, 12).fill(0x0a, 0, 1)],
    ["more pad than bytes", PACKET_FAULT.LENGTH, packetOf(RC.SEND_ONLY, 0).fill(0x10, 1, 2)],
    ["an odd size", PACKET_FAULT.PAYLOAD, Uint8Array.from([...packetOf(RC.SEND_ONLY, 4), 0])],
    [
      "an ACK with payload",
      PACKET_FAULT.PAYLOAD,
      Uint8Array.from([...packetOf(RC.ACKNOWLEDGE, 0), 0, 0, 0, 0]),
    ],
  ])("%s → fault %i", (_what, fault, packet) => {
    expect(checkPacket(new DataView(packet.buffer), 0, packet.length)).toBe(fault);
  });
});
