// SPDX-License-Identifier: MIT
// Which requests are valid on a connection, and which error answers those that are not (proto.md,
// "Request types", "Error values", "Block size constraints").

import { NBD_COMMAND, NBD_COMMAND_FLAG, NBD_ERROR, NBD_TRANSMISSION_FLAG } from "../wire/index.js";
import type { NbdExport } from "./nbd-export.js";
import { REPLY_FORM } from "./nbd-replies.js";
import type { TransmissionTerms } from "./nbd-transmission.js";
import type { RequestSlot } from "./request-pool.js";

/** Commands 0 .. 7 are known. */
const COMMAND_COUNT = 8;
/** A flags word that allows nothing, for commands that the export doesn't have. */
const NOT_OFFERED = -1;

export class RequestChecker {
  /** Longest payload that is skipped rather than taken for an attack. */
  readonly payloadBytesMax = 0xffff_ffff;
  private readonly target: NbdExport;
  private readonly isReadOnly: boolean;
  private readonly isExtended: boolean;
  private readonly blockMask: number;
  private readonly requestBytesMax: number;
  /** Per command the `NBD_COMMAND_FLAG` bits that it may carry, or `NOT_OFFERED`. */
  private readonly flagsAllowed: Int32Array = new Int32Array(COMMAND_COUNT).fill(NOT_OFFERED);

  constructor(terms: TransmissionTerms, requestBytesMax: number) {
    this.target = terms.target;
    this.isReadOnly = terms.target.device.limits.readOnly;
    this.isExtended = terms.form === REPLY_FORM.EXTENDED;
    this.blockMask = terms.target.device.limits.logicalBlockBytes - 1;
    this.requestBytesMax = requestBytesMax;
    this.allowFlags(terms);
  }

  private allowFlags(terms: TransmissionTerms): void {
    const offered = terms.target.transmissionFlags(terms.form !== REPLY_FORM.SIMPLE);
    const has = (flag: number) => (offered & flag) !== 0;
    // FUA is valid on every command where it is offered, even where it means nothing.
    const any = has(NBD_TRANSMISSION_FLAG.SEND_FUA) ? NBD_COMMAND_FLAG.FUA : 0;
    const allowed = this.flagsAllowed;
    allowed[NBD_COMMAND.READ] =
      any | (has(NBD_TRANSMISSION_FLAG.SEND_DF) ? NBD_COMMAND_FLAG.DF : 0);
    allowed[NBD_COMMAND.WRITE] = any | (this.isExtended ? NBD_COMMAND_FLAG.PAYLOAD_LEN : 0);
    allowed[NBD_COMMAND.FLUSH] = any;
    if (has(NBD_TRANSMISSION_FLAG.SEND_TRIM)) allowed[NBD_COMMAND.TRIM] = any;
    allowed[NBD_COMMAND.CACHE] = any;
    if (has(NBD_TRANSMISSION_FLAG.SEND_WRITE_ZEROES)) {
      const zeroFlags = NBD_COMMAND_FLAG.NO_HOLE | NBD_COMMAND_FLAG.FAST_ZERO;
      allowed[NBD_COMMAND.WRITE_ZEROES] = any | zeroFlags;
    }
    if (terms.hasAllocationContext) {
      allowed[NBD_COMMAND.BLOCK_STATUS] = any | NBD_COMMAND_FLAG.REQ_ONE;
    }
  }

  /**
   * Whether `length` bytes follow the request's header. With extended headers a flag says so; a
   * WRITE without it is noncompliant but can't mean anything else.
   */
  hasPayload(slot: RequestSlot): boolean {
    if (slot.command === NBD_COMMAND.WRITE) return true;
    return this.isExtended && (slot.flags & NBD_COMMAND_FLAG.PAYLOAD_LEN) !== 0;
  }

  /** @returns the `NBD_ERROR` that answers the request, 0 when it is valid. */
  check(slot: RequestSlot): number {
    const command = slot.command;
    if (command >= COMMAND_COUNT) return NBD_ERROR.EINVAL;
    const isZeroes = command === NBD_COMMAND.WRITE_ZEROES;
    const isWrite = command === NBD_COMMAND.WRITE || isZeroes;
    if (this.isReadOnly && (isWrite || command === NBD_COMMAND.TRIM)) return NBD_ERROR.EPERM;
    const allowed = this.flagsAllowed[command] as number;
    if (allowed === NOT_OFFERED || (slot.flags & ~allowed) !== 0) return NBD_ERROR.EINVAL;
    if (command === NBD_COMMAND.FLUSH) {
      return slot.offset === 0 && slot.length === 0 ? 0 : NBD_ERROR.EINVAL;
    }
    if (((slot.offsetLow | slot.length) & this.blockMask) !== 0) return NBD_ERROR.EINVAL;
    // Both are whole blocks, so the device's size need not be.
    if (slot.offset + slot.length > this.target.device.limits.sizeBytes) {
      return isWrite ? NBD_ERROR.ENOSPC : NBD_ERROR.EINVAL;
    }
    if (command === NBD_COMMAND.BLOCK_STATUS) return slot.length > 0 ? 0 : NBD_ERROR.EINVAL;
    const movesData = command === NBD_COMMAND.READ || command === NBD_COMMAND.WRITE;
    if (movesData && slot.length > this.requestBytesMax) {
      // Without DF the answer would be no different: the client has been told the maximum.
      return (slot.flags & NBD_COMMAND_FLAG.DF) !== 0 ? NBD_ERROR.EOVERFLOW : NBD_ERROR.EINVAL;
    }
    return 0;
  }
}
