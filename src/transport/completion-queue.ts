// SPDX-License-Identifier: MIT
// The completion queue of a device: a bounded ring in typed arrays (IBTA vol1 §11.2.8;
// ibv_poll_cq(3), ibv_req_notify_cq(3)). It knows no queue pairs; the device reacts when it
// overflows.

import { assert } from "../base/index.js";
import {
  WC_OPCODE,
  WC_STATUS,
  type WcOpcode,
  type WcStatus,
  type WorkCompletion,
} from "./work-request.js";

/** What `CqCore` asks of the device that made it. */
export interface CqOwner {
  /** An armed queue got the completion it was armed for; called once per `arm`. */
  cqEvent(cq: CqCore): void;
  /** A completion did not fit: the queue is dead from now on. */
  cqOverflow(cq: CqCore): void;
}

const NOT_ARMED = 0;
const ARMED_SOLICITED = 1;
const ARMED_ANY = 2;

/** Completions of one or more queue pairs, in the order in which they happened. */
export class CqCore {
  /** Completions that fit: what was asked for, rounded up to a power of two. */
  readonly depth: number;
  /** A completion was lost here: the queue takes no more (what it holds can still be polled). */
  hasOverflowed = false;
  /** Queue pairs that use it, once for each side. Idle: 0. */
  userCount = 0;
  isDestroyed = false;

  private readonly owner: CqOwner;
  private readonly mask: number;
  private readonly wrIds: Float64Array;
  private readonly statuses: Uint8Array;
  private readonly opcodes: Uint8Array;
  private readonly flags: Uint8Array;
  private readonly byteLengths: Uint32Array;
  private readonly immediates: Uint32Array;
  private readonly qpns: Uint32Array;
  private readonly sourceQpns: Uint32Array;
  private readonly vendorErrors: Uint8Array;
  /** Completions ever polled and ever pushed, modulo 2^32. Empty: head === tail. */
  private head = 0;
  private tail = 0;
  private armed = NOT_ARMED;
  private listener: (() => void) | null = null;

  /** @param depthMin completions that must fit, 1 .. 2^20. */
  constructor(owner: CqOwner, depthMin: number) {
    assert(depthMin >= 1 && depthMin <= 1 << 20, "completion queue depth in range");
    let depth = 1;
    while (depth < depthMin) depth *= 2;
    this.owner = owner;
    this.depth = depth;
    this.mask = depth - 1;
    this.wrIds = new Float64Array(depth);
    this.statuses = new Uint8Array(depth);
    this.opcodes = new Uint8Array(depth);
    this.flags = new Uint8Array(depth);
    this.byteLengths = new Uint32Array(depth);
    this.immediates = new Uint32Array(depth);
    this.qpns = new Uint32Array(depth);
    this.sourceQpns = new Uint32Array(depth);
    this.vendorErrors = new Uint8Array(depth);
  }

  /** Completions waiting to be polled, 0 .. depth. */
  get count(): number {
    return (this.tail - this.head) >>> 0;
  }

  /** Takes the oldest completion into `into` (every field is set). @returns false when empty. */
  poll(into: WorkCompletion): boolean {
    if (this.head === this.tail) return false;
    const slot = this.head & this.mask;
    this.head = (this.head + 1) | 0;
    const flags = this.flags[slot] as number;
    into.wrId = this.wrIds[slot] as number;
    into.status = this.statuses[slot] as WcStatus;
    into.opcode = this.opcodes[slot] as WcOpcode;
    into.byteLength = this.byteLengths[slot] as number;
    into.flags = flags;
    // One word serves both: a message carries an immediate or an invalidated key, never both.
    into.immediate = (flags & 2) === 0 ? 0 : (this.immediates[slot] as number);
    into.invalidatedKey = (flags & 4) === 0 ? 0 : (this.immediates[slot] as number);
    into.qpn = this.qpns[slot] as number;
    into.sourceQpn = this.sourceQpns[slot] as number;
    into.vendorError = this.vendorErrors[slot] as number;
    return true;
  }

  /**
   * Asks for one call of `listener` at the next completion that arrives from now on (completions
   * that are already here do not count: arm, then poll once more). The call comes from the device's
   * `pump`, where posting and polling is allowed but driving the device is not.
   * @param solicitedOnly wait for a receive whose sender set the solicited event bit, or an error.
   *   Arming for any completion while armed for solicited ones widens it; never the reverse.
   */
  arm(solicitedOnly: boolean, listener: () => void): void {
    this.listener = listener;
    if (this.armed !== ARMED_ANY) this.armed = solicitedOnly ? ARMED_SOLICITED : ARMED_ANY;
  }

  /** Forgets a pending `arm`. */
  disarm(): void {
    this.armed = NOT_ARMED;
    this.listener = null;
  }

  /** Device only: calls the listener of the event raised last, if it is still wanted. */
  deliverEvent(): void {
    const listener = this.listener;
    if (listener === null || this.armed !== NOT_ARMED) return;
    this.listener = null;
    listener();
  }

  /**
   * Device only: adds a completion. `immediateOrKey` belongs to the flag WITH_IMM or WITH_INV.
   * @returns false when it did not fit; the owner has been told.
   */
  push(
    wrId: number,
    status: WcStatus,
    opcode: WcOpcode,
    flags: number,
    byteLength: number,
    immediateOrKey: number,
    qpn: number,
    sourceQpn: number,
    vendorError: number,
    isSolicited: boolean,
  ): boolean {
    if (this.hasOverflowed) return false;
    if (this.count === this.depth) {
      this.hasOverflowed = true;
      this.owner.cqOverflow(this);
      return false;
    }
    const slot = this.tail & this.mask;
    this.tail = (this.tail + 1) | 0;
    this.wrIds[slot] = wrId;
    this.statuses[slot] = status;
    this.opcodes[slot] = opcode;
    this.flags[slot] = flags;
    this.byteLengths[slot] = byteLength;
    this.immediates[slot] = immediateOrKey;
    this.qpns[slot] = qpn;
    this.sourceQpns[slot] = sourceQpn;
    this.vendorErrors[slot] = vendorError;
    if (this.armed !== NOT_ARMED) {
      this.raise(isSolicited || status !== WC_STATUS.SUCCESS);
    }
    return true;
  }

  /**
   * Device only: drops every waiting completion of a queue pair that ceases to exist, as
   * ibv_destroy_qp(3) and a move to RESET do, keeping the order of the others.
   */
  removeCompletionsOf(qpn: number): void {
    let kept = this.head;
    for (let from = this.head; from !== this.tail; from = (from + 1) | 0) {
      const source = from & this.mask;
      if (this.qpns[source] === qpn) continue;
      if (kept !== from) this.move(source, kept & this.mask);
      kept = (kept + 1) | 0;
    }
    this.tail = kept;
  }

  checkInvariants(): void {
    assert(this.count <= this.depth, "a completion queue holds no more than its depth");
    assert(this.armed === NOT_ARMED || this.listener !== null, "an armed queue has a listener");
  }

  private raise(isSolicited: boolean): void {
    if (this.armed === ARMED_SOLICITED && !isSolicited) return;
    this.armed = NOT_ARMED;
    this.owner.cqEvent(this);
  }

  private move(source: number, target: number): void {
    this.wrIds[target] = this.wrIds[source] as number;
    this.statuses[target] = this.statuses[source] as number;
    this.opcodes[target] = this.opcodes[source] as number;
    this.flags[target] = this.flags[source] as number;
    this.byteLengths[target] = this.byteLengths[source] as number;
    this.immediates[target] = this.immediates[source] as number;
    this.qpns[target] = this.qpns[source] as number;
    this.sourceQpns[target] = this.sourceQpns[source] as number;
    this.vendorErrors[target] = this.vendorErrors[source] as number;
  }
}

/** True for completions of the receive side; meaningful whatever the status. */
export function isReceiveOpcode(opcode: WcOpcode): boolean {
  return opcode >= WC_OPCODE.RECV;
}
