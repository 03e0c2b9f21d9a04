// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import {
  CNP_OPCODE,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  OPCODE_HEADER_BYTES,
  opcodeTransport,
  RC,
  TRANSPORT,
  UC,
  UD,
} from "./opcode.js";

const F = OPCODE_FLAG;
const EXTENDED = [
  ["DETH", F.HAS_DETH],
  ["RETH", F.HAS_RETH],
  ["AtomicETH", F.HAS_ATOMIC],
  ["AETH", F.HAS_AETH],
  ["AtomicAckETH", F.HAS_ATOMIC_ACK],
  ["ImmDt", F.HAS_IMM],
  ["IETH", F.HAS_IETH],
] as const;

/** The RC table of the facts page, section 4: opcode, headers, bytes, payload, takes a receive. */
const RC_TABLE: readonly (readonly [
  number,
  string,
  number,
  "MTU" | "1.." | "0.." | "0",
  boolean,
])[] = [
  [0x00, "", 12, "MTU", true],
  [0x01, "", 12, "MTU", false],
  [0x02, "", 12, "1..", false],
  [0x03, "ImmDt", 16, "1..", false],
  [0x04, "", 12, "0..", true],
  [0x05, "ImmDt", 16, "0..", true],
  [0x06, "RETH", 28, "MTU", false],
  [0x07, "", 12, "MTU", false],
  [0x08, "", 12, "1..", false],
  [0x09, "ImmDt", 16, "1..", true],
  [0x0a, "RETH", 28, "0..", false],
  [0x0b, "RETH ImmDt", 32, "0..", true],
  [0x0c, "RETH", 28, "0", false],
  [0x0d, "AETH", 16, "MTU", false],
  [0x0e, "", 12, "MTU", false],
  [0x0f, "AETH", 16, "1..", false],
  [0x10, "AETH", 16, "0..", false],
  [0x11, "AETH", 16, "0", false],
  [0x12, "AETH AtomicAckETH", 24, "0", false],
  [0x13, "AtomicETH", 40, "0", false],
  [0x14, "AtomicETH", 40, "0", false],
  [0x16, "IETH", 16, "1..", false],
  [0x17, "IETH", 16, "0..", true],
];

function flagsOf(opcode: number): number {
  return OPCODE_FLAGS[opcode] as number;
}

function headersOf(opcode: number): string {
  const names = EXTENDED.filter(([, flag]) => (flagsOf(opcode) & flag) !== 0);
  return names.map(([name]) => name).join(" ");
}

function bitCount(value: number): number {
  return value.toString(2).replaceAll("0", "").length;
}

describe("opcode tables", () => {
  it.each(RC_TABLE)(
    "RC opcode %i: headers [%s], %i bytes, payload %s",
    (opcode, headers, bytes, load, recv) => {
      expect(headersOf(opcode)).toBe(headers);
      expect(OPCODE_HEADER_BYTES[opcode]).toBe(bytes);
      const flags = flagsOf(opcode);
      expect((flags & F.HAS_PAYLOAD) !== 0).toBe(load !== "0");
      if (load === "MTU") expect(flags & (F.FIRST | F.MIDDLE)).not.toBe(0);
      if (load === "1..") expect(flags & F.LAST).not.toBe(0);
      if (load === "0..") expect(flags & F.ONLY).not.toBe(0);
      expect((flags & F.NEEDS_RECV) !== 0).toBe(recv);
    },
  );

  it("UC has RC's twelve sends and writes, laid out alike; UD has two sends", () => {
    for (let i = 0; i < 12; i++) {
      expect(flagsOf(UC.SEND_FIRST + i)).toBe(flagsOf(RC.SEND_FIRST + i));
      expect(OPCODE_HEADER_BYTES[UC.SEND_FIRST + i]).toBe(OPCODE_HEADER_BYTES[i]);
    }
    expect(headersOf(UD.SEND_ONLY)).toBe("DETH");
    expect(OPCODE_HEADER_BYTES[UD.SEND_ONLY]).toBe(20);
    expect(headersOf(UD.SEND_ONLY_IMM)).toBe("DETH ImmDt");
    expect(OPCODE_HEADER_BYTES[UD.SEND_ONLY_IMM]).toBe(24);
  });

  it("nothing else is known", () => {
    const listed = [...Object.values(RC), ...Object.values(UC), ...Object.values(UD), CNP_OPCODE];
    const known = Array.from({ length: 256 }, (_, opcode) => opcode).filter(
      (opcode) => (flagsOf(opcode) & F.KNOWN) !== 0,
    );
    expect(known).toEqual(listed.sort((a, b) => a - b));
    for (let opcode = 0; opcode < 256; opcode++) {
      expect(OPCODE_HEADER_BYTES[opcode] === 0).toBe(!known.includes(opcode as never));
      if (!known.includes(opcode as never)) expect(flagsOf(opcode)).toBe(0);
    }
  });

  it("each has one operation, one direction, at most one position, and flags that agree", () => {
    const operations = F.SEND | F.WRITE | F.READ_REQUEST | F.READ_RESPONSE | F.ATOMIC | F.ACK;
    const positions = F.FIRST | F.MIDDLE | F.LAST | F.ONLY;
    for (let opcode = 0; opcode < 256; opcode++) {
      const flags = flagsOf(opcode);
      if (flags === 0 || opcode === CNP_OPCODE) continue;
      expect(bitCount(flags & operations)).toBe(1);
      expect(bitCount(flags & (F.REQUEST | F.RESPONSE))).toBe(1);
      expect((flags & F.RESPONSE) !== 0).toBe((flags & (F.READ_RESPONSE | F.ACK)) !== 0);
      expect(bitCount(flags & positions)).toBe((flags & F.HAS_PAYLOAD) !== 0 ? 1 : 0);
      const starts = (flags & (F.FIRST | F.ONLY)) !== 0;
      expect((flags & F.STARTS_MESSAGE) !== 0).toBe(starts);
      const ends = (flags & (F.LAST | F.ONLY | F.READ_REQUEST | F.ATOMIC)) !== 0;
      expect((flags & F.ENDS_MESSAGE) !== 0).toBe(ends);
    }
  });

  it("opcodeTransport: the top three bits", () => {
    expect(opcodeTransport(RC.SEND_ONLY_INV)).toBe(TRANSPORT.RC);
    expect(opcodeTransport(UC.WRITE_ONLY_IMM)).toBe(TRANSPORT.UC);
    expect(opcodeTransport(UD.SEND_ONLY)).toBe(TRANSPORT.UD);
    expect(opcodeTransport(CNP_OPCODE)).toBe(TRANSPORT.CNP);
  });
});
