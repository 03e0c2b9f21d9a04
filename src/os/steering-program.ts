// SPDX-License-Identifier: MIT
// The program by which the kernel chooses one of the sockets that share a port (SO_REUSEPORT), in
// the instructions of classic BPF (bpf(4) of the BSDs, Documentation/networking/filter.rst). It
// sees a datagram from its UDP payload on, whatever IP it came by, and returns the index of a
// socket in the order in which they were bound. A load beyond the datagram's end returns 0.
//
// It says what `laneOf` of `wire/` says, which `steering-program.test.ts` demands of every kind of
// packet; a REJ for every lane goes where its comm id leads.

import { assert } from "../base/index.js";
import { QPN_GSI, STEERING_AT, STEERING_ATTRIBUTE, type Steering } from "../wire/index.js";

// Opcodes: class | size or operation | mode or source. A is the accumulator, k the constant.
export const BPF = {
  /** A = the 32 bits at k, big-endian. */
  LOAD_32: 0x20,
  /** A = the 16 bits at k. */
  LOAD_16: 0x28,
  AND: 0x54,
  MOD: 0x94,
  /** On by `jt` instructions if A is k, else by `jf`; counted from the next one. */
  JUMP_EQUAL: 0x15,
  /** On by k instructions. */
  JUMP: 0x05,
  RETURN: 0x06,
  RETURN_A: 0x16,
} as const;

export interface BpfInstruction {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

/** struct sock_filter. */
export const BPF_INSTRUCTION_BYTES = 8;

function step(code: number, k: number, jt = 0, jf = 0): BpfInstruction {
  return { code, jt, jf, k };
}

/** The program for `steering`. */
export function steeringProgram(steering: Steering): readonly BpfInstruction[] {
  const { laneCount, pinnedPort } = steering;
  const { REQ, SIDR_REQ, SIDR_REP } = STEERING_ATTRIBUTE;
  // Places that are jumped to; a jump counts from the instruction behind it.
  const sidrRep = 9;
  const req = 11;
  const choose = 14;
  const zero = 16;
  const program = [
    /* 0 */ step(BPF.LOAD_32, STEERING_AT.QPN),
    /* 1 */ step(BPF.AND, 0xff_ffff),
    /* 2 */ step(BPF.JUMP_EQUAL, QPN_GSI, 0, choose - 3),
    /* 3 */ step(BPF.LOAD_16, STEERING_AT.ATTRIBUTE),
    /* 4 */ step(BPF.JUMP_EQUAL, REQ, req - 5, 0),
    /* 5 */ step(BPF.JUMP_EQUAL, SIDR_REQ, zero - 6, 0),
    /* 6 */ step(BPF.JUMP_EQUAL, SIDR_REP, sidrRep - 7, 0),
    /* 7 */ step(BPF.LOAD_32, STEERING_AT.REMOTE_COMM_ID),
    /* 8 */ step(BPF.JUMP, choose - 9),
    /* 9: sidrRep */ step(BPF.LOAD_32, STEERING_AT.SIDR_REP_REQUEST),
    /* 10 */ step(BPF.JUMP, choose - 11),
    /* 11: req */ step(BPF.LOAD_16, STEERING_AT.REQ_PORT),
    /* 12 */ step(BPF.JUMP_EQUAL, pinnedPort, zero - 13, 0),
    /* 13 */ step(BPF.LOAD_32, STEERING_AT.REQ_SESSION),
    /* 14: choose */ step(BPF.MOD, laneCount),
    /* 15 */ step(BPF.RETURN_A, 0),
    /* 16: zero */ step(BPF.RETURN, 0),
  ];
  assert(program[zero]?.code === BPF.RETURN, "the jumps lead where they should");
  return program;
}
