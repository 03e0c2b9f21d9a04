// SPDX-License-Identifier: MIT
// Work requests and completions in the vocabulary of ibverbs (ibv_post_send(3), ibv_poll_cq(3)).

import type { TxFlow } from "./link.js";

/** What a send work request does. Values are farpage's own; they never travel. */
export const WR_OPCODE = {
  SEND: 0,
  SEND_WITH_IMM: 1,
  SEND_WITH_INV: 2,
  RDMA_WRITE: 3,
  RDMA_WRITE_WITH_IMM: 4,
  RDMA_READ: 5,
  ATOMIC_CMP_AND_SWP: 6,
  ATOMIC_FETCH_AND_ADD: 7,
  LOCAL_INV: 8,
  REG_MR: 9,
} as const;
export type WrOpcode = (typeof WR_OPCODE)[keyof typeof WR_OPCODE];

/** Whether a request is answered with data, and so completes by its own response only. */
export function isReadOrAtomic(opcode: number): boolean {
  return opcode >= WR_OPCODE.RDMA_READ && opcode <= WR_OPCODE.ATOMIC_FETCH_AND_ADD;
}

/** Bits of `SendWorkRequest.sendFlags`, as in ibv_send_flags. */
export const SEND_FLAG = {
  FENCE: 1,
  SIGNALED: 2,
  SOLICITED: 4,
  INLINE: 8,
} as const;

/** Bits of access rights, as in ibv_access_flags. */
export const ACCESS = {
  LOCAL_WRITE: 1,
  REMOTE_WRITE: 2,
  REMOTE_READ: 4,
  REMOTE_ATOMIC: 8,
} as const;

/** A range of local memory: `length` bytes from local virtual address `address`, under `lkey`. */
export interface ScatterGatherEntry {
  address: number;
  length: number;
  lkey: number;
}

/** Where a datagram goes: what an address handle holds. */
export interface Destination {
  readonly flow: TxFlow;
}

/** Most scatter/gather entries of one request. */
export const SGE_COUNT_MAX = 4;

/**
 * A request for a send queue. Meant to be kept and reused: `postSend` copies what it needs and
 * keeps no reference (but for `INLINE`, whose bytes it copies too, the memory that the entries name
 * belongs to the device until the request has completed).
 */
export class SendWorkRequest {
  /** Comes back in the completion; an integer, or anything a double holds. */
  wrId = 0;
  opcode: WrOpcode = WR_OPCODE.SEND;
  /** `SEND_FLAG` bits. */
  sendFlags = 0;
  /** Entries in use are `sges[0 .. sgeCount - 1]`. */
  readonly sges: ScatterGatherEntry[];
  sgeCount = 0;
  /** SEND_WITH_IMM, RDMA_WRITE_WITH_IMM: 32 bits, as a number (big-endian on the wire). */
  immediate = 0;
  /** SEND_WITH_INV: the peer's rkey; LOCAL_INV: the own key to invalidate. */
  invalidateKey = 0;
  /** RDMA and atomics: the peer's virtual address in two halves, and its key. */
  remoteAddressHigh = 0;
  remoteAddressLow = 0;
  rkey = 0;
  /** Atomics: compare value (CMP_AND_SWP) or addend (FETCH_AND_ADD). */
  compareAddHigh = 0;
  compareAddLow = 0;
  /** CMP_AND_SWP: the new value. */
  swapHigh = 0;
  swapLow = 0;
  /** UD: where to, which queue pair, which Q_Key. */
  destination: Destination | null = null;
  remoteQpn = 0;
  remoteQkey = 0;
  /**
   * REG_MR: the fast-register region (`MemoryRegion.regionIndex`), its new key (from `freshKey`),
   * its rights, and the range of local addresses that it opens, which lies inside the ordinary
   * region of `registerLkey` in the same protection domain. Peers address the region by the same
   * addresses.
   */
  regionIndex = -1;
  registerKey = 0;
  registerAccess = 0;
  registerLkey = 0;
  registerAddress = 0;
  registerLength = 0;

  constructor() {
    this.sges = Array.from({ length: SGE_COUNT_MAX }, () => ({ address: 0, length: 0, lkey: 0 }));
  }
}

/** A request for a receive queue or shared receive queue; reusable like `SendWorkRequest`. */
export class RecvWorkRequest {
  wrId = 0;
  readonly sges: ScatterGatherEntry[];
  sgeCount = 0;

  constructor() {
    this.sges = Array.from({ length: SGE_COUNT_MAX }, () => ({ address: 0, length: 0, lkey: 0 }));
  }
}

/** Completion statuses with the values of ibv_wc_status. */
export const WC_STATUS = {
  SUCCESS: 0,
  LOC_LEN_ERR: 1,
  LOC_QP_OP_ERR: 2,
  LOC_EEC_OP_ERR: 3,
  LOC_PROT_ERR: 4,
  WR_FLUSH_ERR: 5,
  MW_BIND_ERR: 6,
  BAD_RESP_ERR: 7,
  LOC_ACCESS_ERR: 8,
  REM_INV_REQ_ERR: 9,
  REM_ACCESS_ERR: 10,
  REM_OP_ERR: 11,
  RETRY_EXC_ERR: 12,
  RNR_RETRY_EXC_ERR: 13,
  REM_ABORT_ERR: 16,
  FATAL_ERR: 19,
  RESP_TIMEOUT_ERR: 20,
  GENERAL_ERR: 21,
} as const;
export type WcStatus = (typeof WC_STATUS)[keyof typeof WC_STATUS];

/** Completion opcodes, as in ibv_wc_opcode (values are farpage's own). */
export const WC_OPCODE = {
  SEND: 0,
  RDMA_WRITE: 1,
  RDMA_READ: 2,
  COMP_SWAP: 3,
  FETCH_ADD: 4,
  LOCAL_INV: 6,
  REG_MR: 7,
  RECV: 128,
  RECV_RDMA_WITH_IMM: 129,
} as const;
export type WcOpcode = (typeof WC_OPCODE)[keyof typeof WC_OPCODE];

/** Bits of `WorkCompletion.flags`. */
export const WC_FLAG = {
  GRH: 1,
  WITH_IMM: 2,
  WITH_INV: 4,
} as const;

/** One completion; `pollCq` fills objects that the caller keeps and reuses. */
export class WorkCompletion {
  wrId = 0;
  status: WcStatus = WC_STATUS.SUCCESS;
  /** Defined only when `status` is SUCCESS, but for telling receives (>= 128) from sends. */
  opcode: WcOpcode = WC_OPCODE.SEND;
  /** Receives and RDMA_READ: bytes of the message (UD: 40 bytes of GRH included). */
  byteLength = 0;
  /** With WITH_IMM: the immediate. */
  immediate = 0;
  /** With WITH_INV: the own key that the peer invalidated. */
  invalidatedKey = 0;
  /** `WC_FLAG` bits. */
  flags = 0;
  /** The local queue pair. */
  qpn = 0;
  /** UD receives: the sender's queue pair. */
  sourceQpn = 0;
  /**
   * What the vendor syndrome is elsewhere: the AETH syndrome or drop reason behind an error, 0 if
   * none.
   */
  vendorError = 0;
}
