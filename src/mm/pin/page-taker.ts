// SPDX-License-Identifier: MIT
// The walk: makes the pages of a range of a process ready, one after the other, and takes hold of
// each at once. What can't be had undoes all of it. Not part of the room's door.
//
// Read first: Linux `mm/gup.c` (faultin_page, check_and_migrate_movable_folios).

import { assert } from "../../base/index.js";
import {
  FRAME_BYTES,
  FRAME_FLAG,
  MOVE_RESULT,
  type MoveResult,
  NO_FRAME,
  type Pfn,
  type PhysicalMemory,
  ZONE,
} from "../frames/index.js";
import type { FrameRun } from "../region/index.js";
import { LEAF_ORDER } from "../space/constants.js";
import {
  ACCESS,
  type Access,
  type AddressSpace,
  AnonGroup,
  FAULT,
  type FaultResult,
  type MemoryManager,
  PAGE,
  PROT,
  type Vma,
} from "../space/index.js";
import type { PinAccount } from "./account.js";
import { checkIntent, INTENT } from "./intent.js";
import type { DmaDevice, FileLease, PeerMemory } from "./interfaces.js";
import { leaveMovable, mustLeaveMovable } from "./long-term.js";
import { PinError, type PinReason } from "./pin-error.js";

/** Times that a page is looked at again after it was moved, or after a fault that said so. */
const ATTEMPTS_MAX = 4;
/** End of a process's addresses. */
const ADDRESS_END = 2 ** 47;

export interface TakeRequest {
  readonly space: AddressSpace;
  readonly address: number;
  readonly length: number;
  readonly access: Access;
  /** Bits of INTENT. */
  readonly intent: number;
  readonly device: DmaDevice | null;
  readonly lease: FileLease | null;
  /** Charged for what is pinned for long. */
  readonly account: PinAccount;
}

interface OpenRun {
  readonly pfn: Pfn;
  count: number;
}

export class PageTaker {
  /** Judges other devices' memory; null: there is none. */
  peers: PeerMemory | null = null;
  /** Frames that left movable blocks before they were pinned. Grows. */
  framesMoved = 0;
  private readonly manager: MemoryManager;
  private readonly memory: PhysicalMemory;

  constructor(manager: MemoryManager) {
    this.manager = manager;
    this.memory = manager.memory;
  }

  /**
   * Takes every page of the range: a reference, a pin and a charge each, as the intent says.
   * @throws PinError for the first page that can't be had; nothing is held then.
   */
  take(request: TakeRequest): FrameRun[] {
    checkIntent(request.intent);
    this.checkRange(request);
    const runs: OpenRun[] = [];
    const first = Math.floor(request.address / FRAME_BYTES);
    const end = Math.ceil((request.address + request.length) / FRAME_BYTES);
    let isWhole = false;
    try {
      for (let page = first; page < end; ) {
        const pfn = this.find(request, page, end);
        const count = this.hold(request, page, end, pfn);
        const last = runs[runs.length - 1];
        if (last !== undefined && last.pfn + last.count === pfn) last.count += count;
        else runs.push({ pfn, count });
        page += count;
      }
      isWhole = true;
    } finally {
      if (!isWhole) this.giveBack(runs, request.intent, request.account, false);
    }
    return runs;
  }

  /** Undoes `take`. @param isDirty whether the bytes may have been written. */
  giveBack(runs: readonly FrameRun[], intent: number, account: PinAccount, isDirty: boolean): void {
    const { memory } = this;
    for (const { pfn, count } of runs) {
      for (let frame = pfn; frame < pfn + count; ) {
        const blockEnd = memory.headOf(frame) + 2 ** memory.orderOf(frame);
        const frames = Math.min(blockEnd, pfn + count) - frame;
        this.giveFramesBack(frame, frames, intent, account, isDirty);
        frame += frames;
      }
    }
  }

  /** Frames of one block. */
  private giveFramesBack(
    pfn: Pfn,
    frames: number,
    intent: number,
    account: PinAccount,
    isDirty: boolean,
  ): void {
    const { memory } = this;
    if ((intent & INTENT.LONG_TERM) !== 0) account.uncharge(pfn, frames);
    // Before the pin goes: a writeback between the two would take the page for a clean one.
    if (isDirty && memory.zoneOf(pfn).kind === ZONE.NORMAL) memory.setFlag(pfn, FRAME_FLAG.DIRTY);
    if ((intent & INTENT.PIN) !== 0) memory.unpin(pfn, frames);
    if (!memory.put(pfn, frames)) this.endPart(pfn);
  }

  /**
   * A 2 MiB block that was unmapped in part while it was held could not be taken apart then. Of
   * one that is mapped whole every page has a reference.
   */
  private endPart(pfn: Pfn): void {
    const { manager, memory } = this;
    if (memory.orderOf(pfn) !== LEAF_ORDER || manager.isChanging) return;
    if (memory.referencesOf(pfn) < 2 ** LEAF_ORDER) breakUp(memory, memory.headOf(pfn));
  }

  /**
   * Takes hold of a page that may be taken, and of those behind it that are as ready in the same
   * block. @returns how many.
   */
  private hold(request: TakeRequest, page: number, end: number, pfn: Pfn): number {
    const { memory } = this;
    const { access, account, intent, space } = request;
    // What a file's lease covers is asked page by page.
    const isFiles = space.vmaAt(page * FRAME_BYTES)?.file != null;
    let count = isFiles ? 1 : space.readyAlike(page, end - page, access);
    if ((intent & INTENT.LONG_TERM) !== 0) {
      const { lockedBytesMax } = space.limits;
      if (count > 1 && !account.charge(pfn, count, lockedBytesMax)) count = 1;
      if (count === 1 && !account.charge(pfn, 1, lockedBytesMax)) {
        const has = `${account.chargedBytes} of ${lockedBytesMax} bytes are pinned already`;
        const what = `over the limit of ${space.name}: ${has}`;
        const advice = "raise the process's limit (RLIMIT_MEMLOCK), or deregister what isn't used";
        throw new PinError("limit", page * FRAME_BYTES, what, advice);
      }
    }
    memory.get(pfn, count);
    if ((intent & INTENT.PIN) !== 0) memory.pin(pfn, count);
    return count;
  }

  /** The frame of a page that may be taken now. */
  private find(request: TakeRequest, page: number, end: number): Pfn {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const pfn = this.present(request, page);
      if ((request.intent & INTENT.LONG_TERM) === 0) return pfn;
      this.checkLease(request, page, pfn);
      if (this.isSettled(request, page, end, pfn)) return pfn;
    }
    throw migrationBusy(page, MOVE_RESULT.DONE);
  }

  private present(request: TakeRequest, page: number): Pfn {
    const { intent, space } = request;
    const isPresent = (intent & INTENT.PRESENT_ONLY) !== 0;
    const pfn = isPresent ? this.lookUp(request, page) : this.faultIn(request, page);
    assert(pfn !== NO_FRAME, "a page that is ready has a frame");
    const { kind } = this.memory.zoneOf(pfn);
    assert(kind !== ZONE.PRIVATE, "memory that the CPU can't touch is in no page table of its");
    if (kind === ZONE.P2P) this.checkPeer(request, page, pfn);
    assert(space.lookup(page) === pfn, "a page that is judged stays where it is");
    return pfn;
  }

  private faultIn(request: TakeRequest, page: number): Pfn {
    const { access, intent, space } = request;
    const isExclusive = (intent & INTENT.PIN) !== 0;
    let result: FaultResult = FAULT.BUSY;
    for (let attempt = 0; attempt < ATTEMPTS_MAX && result === FAULT.BUSY; attempt++) {
      result = space.fault(page, access, isExclusive);
    }
    if (result !== FAULT.READY) throw faultError(result, page, space.name);
    return space.lookup(page);
  }

  /** Without a fault. A pinned page must be the process's own, as one that was faulted in is. */
  private lookUp(request: TakeRequest, page: number): Pfn {
    const { access, intent, space } = request;
    const area = space.vmaAt(page * FRAME_BYTES);
    const refusal = area === null ? FAULT.NOT_MAPPED : forbids(area, access);
    if (refusal !== FAULT.READY) throw faultError(refusal, page, space.name);
    const pfn = space.lookup(page);
    const flags = space.table.flagsOf(page);
    const isOwn = (flags & PAGE.EXCLUSIVE) !== 0 || area?.isShared === true;
    const isReady =
      pfn !== NO_FRAME &&
      (access === ACCESS.READ || space.isWritable(page)) &&
      (isOwn || (intent & INTENT.PIN) === 0);
    if (isReady) return pfn;
    const what = "the page isn't there as it is needed, and no fault was to be taken";
    throw new PinError("not-present", page * FRAME_BYTES, what, "touch it first, or allow a fault");
  }

  private checkPeer(request: TakeRequest, page: number, pfn: Pfn): void {
    const address = page * FRAME_BYTES;
    const { device, intent } = request;
    const name = this.memory.zoneOf(pfn).name;
    if ((intent & INTENT.PIN) === 0 || (intent & INTENT.REMOTE) !== 0) {
      const what = `memory of a device (${name}) is not for the CPU to copy`;
      throw new PinError("device-memory", address, what, "let a device do the transfer");
    }
    if ((intent & INTENT.PEER) === 0 || device === null || this.peers === null) {
      const isLong = (intent & INTENT.LONG_TERM) !== 0;
      const reason: PinReason = isLong ? "device-not-revocable" : "device-path-refused";
      const advice = isLong
        ? "name the device and what is to be done when the memory is taken back (onRevoke)"
        : "name the device that does the DMA, so that the path can be judged";
      throw new PinError(reason, address, `the page is memory of a device (${name})`, advice);
    }
    const verdict = this.peers.judge(pfn, device);
    if (verdict.isAllowed) return;
    const what = `${device.name} can't reach memory of ${name}: ${verdict.why}`;
    const advice = "copy through system memory; `farpage p2p` tells what would make the path";
    throw new PinError("device-path-refused", address, what, advice);
  }

  /** A page that is a file's is pinned for long with the file's consent alone. */
  private checkLease(request: TakeRequest, page: number, pfn: Pfn): void {
    const { access, lease, space } = request;
    const area = space.vmaAt(page * FRAME_BYTES);
    assert(area !== null, "a page that is ready is mapped");
    const isFiles = area.file !== null && !this.memory.hasFlag(pfn, FRAME_FLAG.ANON);
    if (!isFiles || area.file === null) return;
    if (lease?.covers(area.file, area.indexOf(page), access) === true) return;
    const has = lease === null ? "without a lease" : `and lease ${lease.name} does not cover it`;
    const what = `the page is of file ${area.file.name}, ${has}`;
    const advice = "take a lease of the file, register on demand, or copy to anonymous memory";
    throw new PinError("file-lease-missing", page * FRAME_BYTES, what, advice);
  }

  /**
   * Whether the frame may be pinned for long where it is. What is movable leaves its page block
   * first, unless it is all of it.
   * @returns false: look again, it is elsewhere now.
   */
  private isSettled(request: TakeRequest, page: number, end: number, pfn: Pfn): boolean {
    const { memory } = this;
    if (memory.zoneOf(pfn).kind !== ZONE.NORMAL) return true;
    const head = memory.headOf(pfn);
    const order = memory.orderOf(pfn);
    const isWhole = pfn === head && page + 2 ** order <= end;
    // A part of it is wanted: the rest is not to be pinned along.
    if (!isWhole && breakUp(memory, head)) return false;
    if (mustLeaveMovable(memory, head)) {
      this.moveAway(request.space, page, pfn);
      return false;
    }
    if (!isWhole && order === LEAF_ORDER) this.checkPart(request, page, head);
    return true;
  }

  /**
   * Of a block that somebody holds whole, a part is pinned where that costs nothing: somebody has
   * pinned it for long. Else all of it would stay for the part, when who holds it has let go.
   */
  private checkPart({ account }: TakeRequest, page: number, head: Pfn): void {
    const { memory } = this;
    if (!memory.policy.migrateBeforeLongTermPin) return;
    if (account.hasSome(head, 2 ** LEAF_ORDER)) return;
    throw migrationBusy(page, memory.isPinned(head) ? MOVE_RESULT.PINNED : MOVE_RESULT.BUSY);
  }

  private moveAway(space: AddressSpace, page: number, pfn: Pfn): void {
    const { memory } = this;
    const frames = 2 ** memory.orderOf(pfn);
    const result = leaveMovable(memory, () => {
      const now = space.lookup(page);
      return now === NO_FRAME ? NO_FRAME : memory.headOf(now);
    });
    if (result === MOVE_RESULT.DONE) {
      this.framesMoved += frames;
    } else if (space.lookup(page) === pfn) {
      if (result !== MOVE_RESULT.NO_MEMORY) throw migrationBusy(page, result);
      const what = "there is no memory for it outside the movable blocks";
      throw new PinError("out-of-memory", page * FRAME_BYTES, what, MORE_MEMORY);
    }
  }

  private checkRange(request: TakeRequest): void {
    const { address, length } = request;
    const isRange = Number.isSafeInteger(address) && Number.isSafeInteger(length);
    if (!isRange || address < 0 || length <= 0 || address + length > ADDRESS_END) {
      const advice = "name a range of at least a byte below 2^47";
      throw new PinError("bad-range", address, "no process has these addresses", advice);
    }
    if (!this.manager.isChanging) return;
    const what = "mappings are changing: pages are not taken by those who are told of it";
    throw new PinError("busy", address, what, "try again after the change");
  }
}

const MORE_MEMORY = "free memory, or give the host more";

/** What came of the last try to move a page. */
const MOVE_HINDRANCES: Readonly<Record<number, string>> = {
  [MOVE_RESULT.DONE]: "it is moved again and again",
  [MOVE_RESULT.PINNED]: "a transfer that is under way has pinned it",
  [MOVE_RESULT.BUSY]: "somebody beside the process holds it, or it is being written back",
  [MOVE_RESULT.UNMOVABLE]: "nobody knows who uses it",
};

function migrationBusy(page: number, result: MoveResult): PinError {
  const why = MOVE_HINDRANCES[result] as string;
  const what = `the page must leave movable memory before it is pinned for long, and can't: ${why}`;
  return new PinError("migration-busy", page * FRAME_BYTES, what, "try again");
}

/** Makes a 2 MiB block of anonymous memory single pages. @returns whether it was one and did. */
export function breakUp(memory: PhysicalMemory, head: Pfn): boolean {
  if (memory.orderOf(head) !== LEAF_ORDER || memory.isPinned(head)) return false;
  const owner = memory.ownerOf(head);
  return owner instanceof AnonGroup && owner.breakUp(head);
}

/** What an area's protection has against an access; READY for nothing. */
function forbids(area: Vma, access: Access): FaultResult {
  const needed = access === ACCESS.WRITE ? PROT.WRITE : PROT.READ;
  if ((area.prot & needed) !== 0) return FAULT.READY;
  return area.prot === PROT.NONE ? FAULT.NO_ACCESS : FAULT.READ_ONLY;
}

function faultError(result: FaultResult, page: number, process: string): PinError {
  const fail = (reason: PinReason, what: string, advice: string) =>
    new PinError(reason, page * FRAME_BYTES, what, advice);
  switch (result) {
    case FAULT.NOT_MAPPED:
      return fail("not-mapped", `nothing is mapped there in ${process}`, "map it first (mmap)");
    case FAULT.NO_ACCESS:
      return fail("no-access", "the mapping allows no access", "allow it (mprotect)");
    case FAULT.READ_ONLY:
      return fail("read-only", "the mapping may only be read", "ask to read, or mprotect it");
    case FAULT.PAST_END:
      return fail("past-end", "the page is behind the file's end", "make the file longer");
    case FAULT.IO_ERROR:
      return fail("io-error", "the file's page could not be read", "look at the file's disk");
    case FAULT.NO_MEMORY:
      return fail("out-of-memory", "there is no memory for the page", MORE_MEMORY);
    case FAULT.DEVICE:
      return fail(
        "device-memory",
        "the page is in a device's memory",
        "let the device give it back",
      );
    default:
      return fail("busy", "the page must stay as it is while it is written", "try again");
  }
}
