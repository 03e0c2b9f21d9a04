// SPDX-License-Identifier: MIT
// The send queue of a queue pair: posted requests in slots of typed arrays, from posting until they
// retire (IBTA vol1 §10.8). A slot is free again when its request has completed, signalled or not.
//
// Requests are numbered by how many were posted before them, modulo 2^32; `slotOf` maps a number to
// its slot. From the oldest on: completed (gone), started (they have PSNs), waiting.
//
//     headIndex <= startedIndex <= tailIndex        idle: all three are equal

import { assert, ERRNO } from "../base/index.js";
import { Flow } from "./flow.js";
import type { RegionTable } from "./regions.js";
import { MESSAGE_BYTES_MAX, SgeTable } from "./sge-table.js";
import { SEND_FLAG, type SendWorkRequest, WR_OPCODE, type WrOpcode } from "./work-request.js";

const SEND_FLAGS_ALL =
  SEND_FLAG.FENCE | SEND_FLAG.SIGNALED | SEND_FLAG.SOLICITED | SEND_FLAG.INLINE;

/** What a queue accepts; fixed for its life but for `mtu`. */
export interface SendQueueLimits {
  readonly depth: number;
  readonly sgeCountMax: number;
  readonly inlineBytesMax: number;
  readonly signalAll: boolean;
}

export class SendQueue {
  readonly depth: number;
  readonly wrIds: Float64Array;
  readonly opcodes: Uint8Array;
  /** `SEND_FLAG` bits; SIGNALED is set where the queue signals all. */
  readonly flags: Uint8Array;
  /** Bytes of the message. */
  readonly lengths: Float64Array;
  readonly immediates: Uint32Array;
  /** rkey; SEND_WITH_INV and LOCAL_INV: the key to invalidate; REG_MR: the new key. */
  readonly keys: Uint32Array;
  /** Remote address; REG_MR: nothing. */
  readonly addressHighs: Uint32Array;
  readonly addressLows: Uint32Array;
  /** Atomics; REG_MR: rights and base key in the compare halves. */
  readonly compareHighs: Uint32Array;
  readonly compareLows: Uint32Array;
  readonly swapHighs: Uint32Array;
  readonly swapLows: Uint32Array;
  /** REG_MR: region, address and length. */
  readonly regionIndexes: Int32Array;
  readonly registerAddresses: Float64Array;
  /** UD. */
  readonly flows: (Flow | null)[];
  readonly remoteQpns: Uint32Array;
  readonly qkeys: Uint32Array;
  /** Local memory. */
  readonly sges: SgeTable;
  /** Given when the request starts: first PSN and number of PSNs (0 for local operations). */
  readonly firstPsns: Int32Array;
  readonly packetCounts: Int32Array;

  headIndex = 0;
  startedIndex = 0;
  tailIndex = 0;

  private readonly limits: SendQueueLimits;
  private readonly mask: number;
  private readonly inlineBytes: Uint8Array;

  constructor(limits: SendQueueLimits) {
    const { depth, inlineBytesMax } = limits;
    assert(depth >= 0 && depth <= 1 << 20, "send queue depth in range");
    let slots = 1;
    while (slots < depth) slots *= 2;
    this.limits = limits;
    this.depth = depth;
    this.mask = slots - 1;
    this.wrIds = new Float64Array(slots);
    this.opcodes = new Uint8Array(slots);
    this.flags = new Uint8Array(slots);
    this.lengths = new Float64Array(slots);
    this.immediates = new Uint32Array(slots);
    this.keys = new Uint32Array(slots);
    this.addressHighs = new Uint32Array(slots);
    this.addressLows = new Uint32Array(slots);
    this.compareHighs = new Uint32Array(slots);
    this.compareLows = new Uint32Array(slots);
    this.swapHighs = new Uint32Array(slots);
    this.swapLows = new Uint32Array(slots);
    this.regionIndexes = new Int32Array(slots);
    this.registerAddresses = new Float64Array(slots);
    this.flows = new Array<Flow | null>(slots).fill(null);
    this.remoteQpns = new Uint32Array(slots);
    this.qkeys = new Uint32Array(slots);
    this.sges = new SgeTable(slots);
    this.firstPsns = new Int32Array(slots);
    this.packetCounts = new Int32Array(slots);
    this.inlineBytes = new Uint8Array(slots * inlineBytesMax);
  }

  /** Requests posted and not retired, 0 .. depth. */
  get count(): number {
    return (this.tailIndex - this.headIndex) >>> 0;
  }

  slotOf(index: number): number {
    return index & this.mask;
  }

  /** Whether a request's data was copied when it was posted. */
  isInline(slot: number): boolean {
    return ((this.flags[slot] as number) & SEND_FLAG.INLINE) !== 0;
  }

  /**
   * Copies a request to the end of the queue. The caller has checked what depends on the queue
   * pair.
   * @param lengthMax bytes of the longest message.
   * @returns 0; EINVAL for a request that can't be valid; EFAULT for inline data that isn't mapped;
   *   ENOMEM when full.
   */
  post(wr: SendWorkRequest, lengthMax: number, regions: RegionTable, pdIndex: number): number {
    if (this.count >= this.depth) return ERRNO.ENOMEM;
    if (!(wr.opcode >= WR_OPCODE.SEND && wr.opcode <= WR_OPCODE.REG_MR)) return ERRNO.EINVAL;
    if ((wr.sendFlags & ~SEND_FLAGS_ALL) !== 0) return ERRNO.EINVAL;
    if (!(wr.sgeCount >= 0 && wr.sgeCount <= this.limits.sgeCountMax)) return ERRNO.EINVAL;
    const slot = this.tailIndex & this.mask;
    if (!this.sges.store(slot, wr.sges, wr.sgeCount)) return ERRNO.EINVAL;
    const length = this.sges.totals[slot] as number;
    if (length > lengthMax || !isLengthLegal(wr.opcode, wr.sgeCount, length)) return ERRNO.EINVAL;
    this.wrIds[slot] = wr.wrId;
    this.opcodes[slot] = wr.opcode;
    this.flags[slot] = wr.sendFlags | (this.limits.signalAll ? SEND_FLAG.SIGNALED : 0);
    this.lengths[slot] = length;
    if ((wr.sendFlags & SEND_FLAG.INLINE) !== 0) {
      const errno = this.copyInline(slot, wr.opcode, length, regions, pdIndex);
      if (errno !== 0) return errno;
    }
    this.copyOperands(slot, wr);
    this.packetCounts[slot] = 0;
    this.tailIndex = (this.tailIndex + 1) | 0;
    return 0;
  }

  /** Copies `length` bytes of an inline message from `position` on to `target`. */
  copyInlineTo(
    slot: number,
    position: number,
    length: number,
    target: Uint8Array,
    offset: number,
  ): void {
    const from = slot * this.limits.inlineBytesMax + position;
    for (let i = 0; i < length; i++) target[offset + i] = this.inlineBytes[from + i] as number;
  }

  /** Retires the oldest request. */
  retireHead(): void {
    assert(this.headIndex !== this.tailIndex, "a request is in the queue");
    if (this.headIndex === this.startedIndex) this.startedIndex = (this.startedIndex + 1) | 0;
    this.flows[this.headIndex & this.mask] = null;
    this.headIndex = (this.headIndex + 1) | 0;
  }

  /** Forgets every request. */
  clear(): void {
    this.headIndex = this.tailIndex;
    this.startedIndex = this.tailIndex;
    this.flows.fill(null);
  }

  checkInvariants(): void {
    const started = (this.startedIndex - this.headIndex) >>> 0;
    assert(this.count <= this.depth, "a send queue holds no more than its depth");
    assert(started <= this.count, "started requests are in the queue");
  }

  private copyOperands(slot: number, wr: SendWorkRequest): void {
    this.immediates[slot] = wr.immediate;
    switch (wr.opcode) {
      case WR_OPCODE.SEND_WITH_INV:
      case WR_OPCODE.LOCAL_INV:
        this.keys[slot] = wr.invalidateKey;
        return;
      case WR_OPCODE.REG_MR:
        this.keys[slot] = wr.registerKey;
        this.compareHighs[slot] = wr.registerAccess;
        this.compareLows[slot] = wr.registerLkey;
        this.regionIndexes[slot] = wr.regionIndex;
        this.registerAddresses[slot] = wr.registerAddress;
        this.lengths[slot] = wr.registerLength;
        return;
      default:
    }
    this.keys[slot] = wr.rkey;
    this.addressHighs[slot] = wr.remoteAddressHigh;
    this.addressLows[slot] = wr.remoteAddressLow;
    this.compareHighs[slot] = wr.compareAddHigh;
    this.compareLows[slot] = wr.compareAddLow;
    this.swapHighs[slot] = wr.swapHigh;
    this.swapLows[slot] = wr.swapLow;
    const flow = wr.destination?.flow;
    this.flows[slot] = flow instanceof Flow ? flow : null;
    this.remoteQpns[slot] = wr.remoteQpn;
    this.qkeys[slot] = wr.remoteQkey;
  }

  private copyInline(
    slot: number,
    opcode: WrOpcode,
    length: number,
    regions: RegionTable,
    pdIndex: number,
  ): number {
    // Only what carries data to the peer can carry it inline.
    if (opcode > WR_OPCODE.RDMA_WRITE_WITH_IMM) return ERRNO.EINVAL;
    if (length > this.limits.inlineBytesMax) return ERRNO.EINVAL;
    // The bytes are read now, so their memory must be valid now.
    if (!this.sges.resolve(slot, regions, pdIndex, 0)) return ERRNO.EINVAL;
    if (this.sges.isPaged(slot) && !this.sges.touch(slot, regions)) return ERRNO.EFAULT;
    const target = slot * this.limits.inlineBytesMax;
    return this.sges.gather(slot, regions, 0, length, this.inlineBytes, target) ? 0 : ERRNO.EINVAL;
  }
}

function isLengthLegal(opcode: WrOpcode, sgeCount: number, length: number): boolean {
  switch (opcode) {
    case WR_OPCODE.ATOMIC_CMP_AND_SWP:
    case WR_OPCODE.ATOMIC_FETCH_AND_ADD:
      return sgeCount === 1 && length === 8;
    case WR_OPCODE.LOCAL_INV:
    case WR_OPCODE.REG_MR:
      return sgeCount === 0;
    default:
      return length <= MESSAGE_BYTES_MAX;
  }
}
