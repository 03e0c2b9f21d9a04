// SPDX-License-Identifier: MIT
// BTH opcodes (IBTA vol1 §9.2.1; RoCEv2 facts §4) and everything that follows from an
// opcode alone, in two 256-entry tables: nobody else switches over opcodes to learn a header's
// shape. What is done with a packet is the transport's business.

/** Reliable connection: transport bits 000. */
export const RC = {
  SEND_FIRST: 0x00,
  SEND_MIDDLE: 0x01,
  SEND_LAST: 0x02,
  SEND_LAST_IMM: 0x03,
  SEND_ONLY: 0x04,
  SEND_ONLY_IMM: 0x05,
  WRITE_FIRST: 0x06,
  WRITE_MIDDLE: 0x07,
  WRITE_LAST: 0x08,
  WRITE_LAST_IMM: 0x09,
  WRITE_ONLY: 0x0a,
  WRITE_ONLY_IMM: 0x0b,
  READ_REQUEST: 0x0c,
  READ_RESPONSE_FIRST: 0x0d,
  READ_RESPONSE_MIDDLE: 0x0e,
  READ_RESPONSE_LAST: 0x0f,
  READ_RESPONSE_ONLY: 0x10,
  ACKNOWLEDGE: 0x11,
  ATOMIC_ACKNOWLEDGE: 0x12,
  COMPARE_SWAP: 0x13,
  FETCH_ADD: 0x14,
  SEND_LAST_INV: 0x16,
  SEND_ONLY_INV: 0x17,
} as const;
export type RcOpcode = (typeof RC)[keyof typeof RC];

/** Unreliable connection: transport bits 001. Known so that it can be told from garbage. */
export const UC = {
  SEND_FIRST: 0x20,
  SEND_MIDDLE: 0x21,
  SEND_LAST: 0x22,
  SEND_LAST_IMM: 0x23,
  SEND_ONLY: 0x24,
  SEND_ONLY_IMM: 0x25,
  WRITE_FIRST: 0x26,
  WRITE_MIDDLE: 0x27,
  WRITE_LAST: 0x28,
  WRITE_LAST_IMM: 0x29,
  WRITE_ONLY: 0x2a,
  WRITE_ONLY_IMM: 0x2b,
} as const;
export type UcOpcode = (typeof UC)[keyof typeof UC];

/** Unreliable datagram: transport bits 011. */
export const UD = {
  SEND_ONLY: 0x64,
  SEND_ONLY_IMM: 0x65,
} as const;
export type UdOpcode = (typeof UD)[keyof typeof UD];

/** Congestion notification packet of hardware NICs (annex A17): BTH, then 16 reserved bytes. */
export const CNP_OPCODE = 0x81;

/** Transport services as the top three bits of an opcode say them. */
export const TRANSPORT = { RC: 0, UC: 1, RD: 2, UD: 3, CNP: 4, XRC: 5 } as const;

/** The transport of an opcode: a value of `TRANSPORT`, or 6 or 7, which nobody has assigned. */
export function opcodeTransport(opcode: number): number {
  return opcode >>> 5;
}

/** Bits of an `OPCODE_FLAGS` entry. Not to be mixed with opcodes: every opcode is below 256. */
export const OPCODE_FLAG = {
  /** Set for every opcode listed above; an unlisted one has entry 0. */
  KNOWN: 0x1,
  /** Position in the message; exactly one of the four for SEND, WRITE and READ responses. */
  FIRST: 0x2,
  MIDDLE: 0x4,
  LAST: 0x8,
  ONLY: 0x10,
  /** The operation; exactly one of the six, none for CNP. */
  SEND: 0x20,
  WRITE: 0x40,
  READ_REQUEST: 0x80,
  READ_RESPONSE: 0x100,
  ATOMIC: 0x200,
  ACK: 0x400,
  /** Extended headers, in the order in which they stand behind the BTH. */
  HAS_DETH: 0x800,
  HAS_RETH: 0x1000,
  HAS_ATOMIC: 0x2000,
  HAS_AETH: 0x4000,
  HAS_ATOMIC_ACK: 0x8000,
  HAS_IMM: 0x1_0000,
  HAS_IETH: 0x2_0000,
  /** Direction: from requester to responder, or back. ACK covers atomic acknowledges too. */
  REQUEST: 0x4_0000,
  RESPONSE: 0x8_0000,
  /**
   * The responder must take a receive WQE: at SEND FIRST/ONLY, at WRITE LAST/ONLY with immediate.
   */
  NEEDS_RECV: 0x10_0000,
  /** FIRST or ONLY: legal only outside a message. */
  STARTS_MESSAGE: 0x20_0000,
  /** LAST or ONLY, a READ request, an atomic: the MSN moves after it. */
  ENDS_MESSAGE: 0x40_0000,
  /** Payload may follow the headers (0 bytes only in ONLY packets). */
  HAS_PAYLOAD: 0x80_0000,
} as const;

/** `OPCODE_FLAG` bits by opcode; 0 for an unknown one. */
export const OPCODE_FLAGS: Int32Array = new Int32Array(256);

/**
 * Bytes from the start of the BTH to the payload by opcode, 12 .. 40, all multiples of four; 0 for
 * an unknown opcode.
 */
export const OPCODE_HEADER_BYTES: Uint8Array = new Uint8Array(256);

const BTH_PART_BYTES = 12;
const CNP_RESERVED_BYTES = 16;

function headerBytesOf(flags: number): number {
  let bytes = BTH_PART_BYTES;
  if ((flags & OPCODE_FLAG.HAS_DETH) !== 0) bytes += 8;
  if ((flags & OPCODE_FLAG.HAS_RETH) !== 0) bytes += 16;
  if ((flags & OPCODE_FLAG.HAS_ATOMIC) !== 0) bytes += 28;
  if ((flags & OPCODE_FLAG.HAS_AETH) !== 0) bytes += 4;
  if ((flags & OPCODE_FLAG.HAS_ATOMIC_ACK) !== 0) bytes += 8;
  if ((flags & OPCODE_FLAG.HAS_IMM) !== 0) bytes += 4;
  if ((flags & OPCODE_FLAG.HAS_IETH) !== 0) bytes += 4;
  return bytes;
}

function define(opcode: number, flags: number): void {
  OPCODE_FLAGS[opcode] = flags | OPCODE_FLAG.KNOWN;
  OPCODE_HEADER_BYTES[opcode] = headerBytesOf(flags);
}

/** The twelve SEND and WRITE opcodes that RC and UC lay out alike, from `base` on. */
function defineSendsAndWrites(base: number): void {
  const f = OPCODE_FLAG;
  const all = f.REQUEST | f.HAS_PAYLOAD;
  const first = all | f.FIRST | f.STARTS_MESSAGE;
  const middle = all | f.MIDDLE;
  const last = all | f.LAST | f.ENDS_MESSAGE;
  const only = all | f.ONLY | f.STARTS_MESSAGE | f.ENDS_MESSAGE;
  define(base + RC.SEND_FIRST, f.SEND | first | f.NEEDS_RECV);
  define(base + RC.SEND_MIDDLE, f.SEND | middle);
  define(base + RC.SEND_LAST, f.SEND | last);
  define(base + RC.SEND_LAST_IMM, f.SEND | last | f.HAS_IMM);
  define(base + RC.SEND_ONLY, f.SEND | only | f.NEEDS_RECV);
  define(base + RC.SEND_ONLY_IMM, f.SEND | only | f.NEEDS_RECV | f.HAS_IMM);
  define(base + RC.WRITE_FIRST, f.WRITE | first | f.HAS_RETH);
  define(base + RC.WRITE_MIDDLE, f.WRITE | middle);
  define(base + RC.WRITE_LAST, f.WRITE | last);
  define(base + RC.WRITE_LAST_IMM, f.WRITE | last | f.NEEDS_RECV | f.HAS_IMM);
  define(base + RC.WRITE_ONLY, f.WRITE | only | f.HAS_RETH);
  define(base + RC.WRITE_ONLY_IMM, f.WRITE | only | f.HAS_RETH | f.NEEDS_RECV | f.HAS_IMM);
}

function defineRestOfRc(): void {
  const f = OPCODE_FLAG;
  const read = f.RESPONSE | f.READ_RESPONSE | f.HAS_PAYLOAD;
  const whole = f.REQUEST | f.ENDS_MESSAGE;
  const atomic = whole | f.ATOMIC | f.HAS_ATOMIC;
  define(RC.READ_REQUEST, whole | f.READ_REQUEST | f.HAS_RETH);
  define(RC.READ_RESPONSE_FIRST, read | f.FIRST | f.STARTS_MESSAGE | f.HAS_AETH);
  define(RC.READ_RESPONSE_MIDDLE, read | f.MIDDLE);
  define(RC.READ_RESPONSE_LAST, read | f.LAST | f.ENDS_MESSAGE | f.HAS_AETH);
  define(RC.READ_RESPONSE_ONLY, read | f.ONLY | f.STARTS_MESSAGE | f.ENDS_MESSAGE | f.HAS_AETH);
  define(RC.ACKNOWLEDGE, f.RESPONSE | f.ACK | f.HAS_AETH);
  define(RC.ATOMIC_ACKNOWLEDGE, f.RESPONSE | f.ACK | f.HAS_AETH | f.HAS_ATOMIC_ACK);
  define(RC.COMPARE_SWAP, atomic);
  define(RC.FETCH_ADD, atomic);
  const sendInvalidate = f.REQUEST | f.HAS_PAYLOAD | f.SEND | f.HAS_IETH | f.ENDS_MESSAGE;
  define(RC.SEND_LAST_INV, sendInvalidate | f.LAST);
  define(RC.SEND_ONLY_INV, sendInvalidate | f.ONLY | f.STARTS_MESSAGE | f.NEEDS_RECV);
}

function defineDatagrams(): void {
  const f = OPCODE_FLAG;
  const only =
    f.SEND | f.REQUEST | f.HAS_PAYLOAD | f.ONLY | f.STARTS_MESSAGE | f.ENDS_MESSAGE | f.HAS_DETH;
  define(UD.SEND_ONLY, only | f.NEEDS_RECV);
  define(UD.SEND_ONLY_IMM, only | f.NEEDS_RECV | f.HAS_IMM);
  OPCODE_FLAGS[CNP_OPCODE] = f.KNOWN;
  OPCODE_HEADER_BYTES[CNP_OPCODE] = BTH_PART_BYTES + CNP_RESERVED_BYTES;
}

defineSendsAndWrites(RC.SEND_FIRST);
defineSendsAndWrites(UC.SEND_FIRST);
defineRestOfRc();
defineDatagrams();
