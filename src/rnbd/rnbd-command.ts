// SPDX-License-Identifier: MIT
// One IO message of a client: a part of a block request that fits one RTRS request.

import { assert, highOf, type Memory } from "../base/index.js";
import type { BlockRequest } from "../block/index.js";
import type { ClientRequest } from "../rtrs/index.js";
import {
  RNBD_FLAG,
  RNBD_IO_BYTES,
  RNBD_OP,
  RNBD_SECTOR_BYTES,
  writeRnbdIo,
} from "../wire/index.js";
import type { GuardedChange } from "./change-guard.js";

/** What `RnbdCommand` says to the device that it came from. */
export interface CommandOwner {
  readonly deviceId: number;
}

export class RnbdCommand implements GuardedChange {
  owner: CommandOwner | null = null;
  /** The request that this is a part of. */
  request: BlockRequest | null = null;
  /** An `RNBD_OP` with `RNBD_FLAG` bits. */
  operation = 0;
  offset = 0;
  length = 0;
  /** Where the part's data is; null for operations without any. */
  memory: Memory | null = null;
  memoryOffset = 0;
  guardIndex = -1;
  lanePlace = -1;
  /** FLUSH: its number, of `FlushLedger`. */
  serial = 0;
  /** FLUSH: it can't cover all that it would have to. */
  isDoomed = false;
  /** Taken off RTRS by `onRequestReissue`, to be sent anew when its device is open again. */
  parks = false;
  /** Next of a list: of the device's parked commands, or of the free ones. */
  next: RnbdCommand | null = null;

  get isFlush(): boolean {
    return (this.operation & 0xff) === RNBD_OP.FLUSH;
  }

  get isRead(): boolean {
    const operation = this.operation & 0xff;
    // Linux sends a flush as a READ, and servers expect it so (facts page 12).
    return operation === RNBD_OP.READ || operation === RNBD_OP.FLUSH;
  }

  /** Bytes that travel with it. */
  get dataLength(): number {
    return this.memory === null ? 0 : this.length;
  }

  /** Writes the message and where its data is into a request that is about to be submitted. */
  fill(request: ClientRequest): void {
    const id = (this.owner as CommandOwner).deviceId;
    const view = request.userView;
    if (this.isFlush) {
      writeRnbdIo(view, 0, id, 0xffff_ffff, 0xffff_ffff, this.operation, 0);
    } else {
      const sector = this.offset / RNBD_SECTOR_BYTES;
      writeRnbdIo(view, 0, id, highOf(sector), sector >>> 0, this.operation, this.length);
    }
    request.userLength = RNBD_IO_BYTES;
    request.memory = this.memory;
    request.memoryOffset = this.memoryOffset;
    request.context = this;
  }
}

/** What Linux sends as a flush: SYNC and FUA set. */
export const FLUSH_OPERATION = RNBD_OP.FLUSH | RNBD_FLAG.SYNC | RNBD_FLAG.FUA;

/** Commands for reuse: as many as were ever in flight at once. */
export class CommandPool {
  private free: RnbdCommand | null = null;

  take(): RnbdCommand {
    const command = this.free;
    if (command === null) return new RnbdCommand();
    this.free = command.next;
    command.next = null;
    return command;
  }

  give(command: RnbdCommand): void {
    assert(command.guardIndex < 0, "a free command guards nothing");
    command.owner = null;
    command.request = null;
    command.memory = null;
    command.parks = false;
    command.next = this.free;
    this.free = command;
  }
}

/** Commands in a row, linked by `next`. */
export class CommandList {
  first: RnbdCommand | null = null;
  count = 0;
  private last: RnbdCommand | null = null;

  push(command: RnbdCommand): void {
    command.next = null;
    if (this.last === null) this.first = command;
    else this.last.next = command;
    this.last = command;
    this.count++;
  }

  /** Preconditions: there is one. */
  shift(): RnbdCommand {
    const command = this.first as RnbdCommand;
    this.first = command.next;
    if (this.first === null) this.last = null;
    command.next = null;
    this.count--;
    return command;
  }
}
