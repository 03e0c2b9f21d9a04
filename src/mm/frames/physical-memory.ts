// SPDX-License-Identifier: MIT
// A host's physical memory: zones of frames, who holds and who pins each of them, and the one way
// in which a frame's contents get to another frame.
//
// Two counts, never mixed. A reference keeps a frame alive. A pin says that somebody outside the
// CPU's page tables reads or writes its bytes; it moves for nobody and is not freed while one is
// there. Counts of a block are those of its first frame, whichever of its frames is named.

import { assert } from "../../base/index.js";
import { Compactor } from "../alloc/compactor.js";
import { type AllocatorPolicy, DEFAULT_POLICY } from "../alloc/policy.js";
import {
  ALLOCATE,
  BLOCK_TYPE,
  FRAME_BYTES,
  FRAME_STATE,
  MIGRATE,
  type MigrateType,
  MOBILITY_MASK,
  MOBILITY_SHIFT,
  MOVE_RESULT,
  type MoveResult,
  NO_FRAME,
  ORDER_MAX,
  PAGE_BLOCK_FRAMES,
  PAGE_BLOCK_ORDER,
  type Pfn,
  SOILED,
  USER_FLAGS,
  ZONE,
} from "./constants.js";
import { FrameSpace } from "./frame-space.js";
import { checkZone } from "./invariants.js";
import type { FrameOwner } from "./owner.js";
import type { Zone, ZoneOptions } from "./zone.js";

/** Somebody who can give memory back when it runs short: caches. */
export interface Reclaimer {
  /** Frees about `frameCount` frames if it can. @returns frames freed. */
  reclaim(frameCount: number): number;
}

export interface PhysicalMemoryOptions {
  readonly policy?: AllocatorPolicy;
}

export class PhysicalMemory extends FrameSpace {
  /** Makes big blocks out of small ones, in the calls that need it and as a machine by itself. */
  readonly compactor: Compactor;
  private readonly reclaimers: Reclaimer[] = [];
  private readonly baseOrder: number;
  private readonly evicts: boolean;
  private reserveLeft: number;
  /** No reclaim or compaction inside another. */
  private isInSlowPath = false;

  constructor(options: PhysicalMemoryOptions = {}) {
    super(options.policy ?? DEFAULT_POLICY);
    this.baseOrder = this.policy.baseShift - 12;
    this.evicts = this.policy.evictBeforeSteal && this.policy.groupByMobility;
    this.reserveLeft = this.policy.hugeReserveFrames;
    this.compactor = new Compactor(this);
  }

  override addZone(options: ZoneOptions): Zone {
    const zone = super.addZone(options);
    if (zone.kind === ZONE.NORMAL) this.fillReserve(zone);
    return zone;
  }

  override removeZone(zone: Zone): void {
    super.removeZone(zone);
    this.compactor.forgetZone(zone);
  }

  /**
   * Allocates a block of 2^order frames of a normal zone, aligned to its size, with one reference,
   * no pin and no owner. Under a policy with larger base pages a smaller order is rounded up.
   * @param flags bits of ALLOCATE.
   * @returns its first frame; NO_FRAME when there is none, after reclaim and compaction.
   */
  allocate(order: number, migrate: MigrateType, flags = 0): Pfn {
    assert(order >= 0 && order <= ORDER_MAX, "blocks have orders up to ORDER_MAX");
    const size = Math.max(order, this.baseOrder);
    if (migrate !== MIGRATE.MOVABLE) this.makeRoom(size, migrate, flags);
    let pfn = this.tryAllocate(size, migrate, flags);
    if (pfn === NO_FRAME && (flags & ALLOCATE.ATOMIC) === 0) {
      pfn = this.allocateSlowly(size, migrate, flags);
    }
    if (pfn === NO_FRAME) this.counters.countFailure(size, migrate);
    return pfn;
  }

  /** Allocates from one zone, of whatever kind; nothing is reclaimed or moved for it. */
  allocateIn(zone: Zone, order: number, migrate: MigrateType, flags = 0): Pfn {
    const granules = Math.max(0, order - zone.granuleOrder);
    const record = zone.buddy.allocate(granules, migrate);
    if (record < 0) return NO_FRAME;
    return this.begin(zone, record, granules, migrate, flags);
  }

  /**
   * Takes the block of 2^order frames at `pfn`, for owners who say themselves where things are (a
   * device, a file system). As `allocate` otherwise. @returns false: not all of it is free.
   */
  claim(pfn: Pfn, order: number, migrate: MigrateType, flags = 0): boolean {
    const zone = this.zoneOf(pfn);
    const granules = Math.max(0, order - zone.granuleOrder);
    const record = zone.recordOf(pfn);
    const count = 2 ** granules;
    assert(record % count === 0, "a block is aligned to its size");
    if (record + count > zone.table.recordCount) return false;
    for (let i = record; i < record + count; i++) {
      const state = zone.table.states[i];
      if (state !== FRAME_STATE.FREE && state !== FRAME_STATE.FREE_TAIL) return false;
    }
    zone.buddy.takeExactly(record, granules);
    this.begin(zone, record, granules, migrate, flags);
    return true;
  }

  /** `count` references more. */
  get(pfn: Pfn, count = 1): void {
    const zone = this.zoneOf(pfn);
    const record = this.headRecord(zone, pfn);
    assert(zone.table.states[record] === FRAME_STATE.USED, "a frame that is referenced is in use");
    assert(count > 0, "references are counted up");
    zone.table.references[record] = (zone.table.references[record] as number) + count;
  }

  /** `count` references less; the last one frees the block. @returns whether it was the last. */
  put(pfn: Pfn, count = 1): boolean {
    const zone = this.zoneOf(pfn);
    const record = this.headRecord(zone, pfn);
    const { table } = zone;
    const references = (table.references[record] as number) - count;
    assert(references >= 0, "a reference is given back once");
    table.references[record] = references;
    if (references > 0) return false;
    assert(table.states[record] === FRAME_STATE.USED, "a frame that is freed is in use");
    assert(table.pins[record] === 0, "a frame that is freed is not pinned");
    this.release(zone, record);
    return true;
  }

  /** Counts `count` pins more on the block. Who may, and until when, is not decided here. */
  pin(pfn: Pfn, count = 1): void {
    const zone = this.zoneOf(pfn);
    const record = this.headRecord(zone, pfn);
    const { table } = zone;
    assert(table.states[record] === FRAME_STATE.USED, "a frame that is pinned is in use");
    assert(count > 0, "pins are counted up");
    const pins = table.pins[record] as number;
    table.pins[record] = pins + count;
    if (pins === 0 && this.isMovableRecord(zone, record)) {
      zone.buddy.blocks.addStuck(record, 2 ** (table.orders[record] as number), 1);
    }
  }

  /** Takes `count` pins away. */
  unpin(pfn: Pfn, count = 1): void {
    const zone = this.zoneOf(pfn);
    const record = this.headRecord(zone, pfn);
    const { table } = zone;
    const pins = (table.pins[record] as number) - count;
    assert(count > 0 && pins >= 0, "a pin is taken away once");
    table.pins[record] = pins;
    if (pins > 0) return;
    if (this.isMovableRecord(zone, record)) {
      zone.buddy.blocks.addStuck(record, 2 ** (table.orders[record] as number), -1);
    }
    const owner = this.owners.get(table.owners[record] as number);
    owner?.unpinned?.(zone.pfnOf(record), table.indexes[record] as number);
  }

  registerReclaimer(reclaimer: Reclaimer): void {
    this.reclaimers.push(reclaimer);
  }

  unregisterReclaimer(reclaimer: Reclaimer): void {
    const at = this.reclaimers.indexOf(reclaimer);
    assert(at >= 0, "a reclaimer is unregistered once");
    this.reclaimers.splice(at, 1);
  }

  /** Asks the caches for memory. @returns frames freed. */
  reclaim(frameCount: number): number {
    let freed = 0;
    for (const reclaimer of this.reclaimers) {
      if (freed >= frameCount) break;
      freed += reclaimer.reclaim(frameCount - freed);
    }
    this.counters.framesReclaimed += freed;
    return freed;
  }

  /**
   * Asks the caches for memory where little is free: zones below their low watermark come up to
   * the high one. @returns frames freed.
   */
  balance(): number {
    let freed = 0;
    for (const { buddy, watermarks } of this.normalZones) {
      const free = buddy.freeFor(0);
      if (free < watermarks.low) freed += this.reclaim(watermarks.high - free);
    }
    return freed;
  }

  /** Whether `balance` has something to do. */
  get isLow(): boolean {
    for (const { buddy, watermarks } of this.normalZones) {
      if (buddy.freeFor(0) < watermarks.low) return true;
    }
    return false;
  }

  /**
   * Makes an allocated block of order n 2^n allocated blocks of one frame, each with the
   * references, flags and owner of the whole and an index of its own, ascending. Preconditions: not
   * pinned.
   */
  split(pfn: Pfn): void {
    const zone = this.zoneOf(pfn);
    const { table } = zone;
    const head = this.headRecord(zone, pfn);
    assert(table.states[head] === FRAME_STATE.USED, "a block that is split is in use");
    assert(table.pins[head] === 0, "a block that is split is not pinned");
    const count = 2 ** (table.orders[head] as number);
    table.states.fill(FRAME_STATE.USED, head, head + count);
    table.orders.fill(0, head, head + count);
    table.flags.fill(table.flags[head] as number, head, head + count);
    table.references.fill(table.references[head] as number, head, head + count);
    table.owners.fill(table.owners[head] as number, head, head + count);
    for (let i = 1; i < count; i++) table.indexes[head + i] = (table.indexes[head] as number) + i;
  }

  /**
   * Moves an unpinned block's contents, flags, references, owner and index to another block and
   * frees it. The owner lets go before, and takes hold of the new block after.
   * @param to a block of the same order, just allocated by the caller, which keeps its mobility; it
   *   is the caller's again unless the result is DONE. Default: one is allocated.
   */
  move(from: Pfn, to: Pfn = NO_FRAME): MoveResult {
    const zone = this.zoneOf(from);
    const record = this.headRecord(zone, from);
    assert(zone.pfnOf(record) === from, "a block is moved by its first frame");
    const result = this.judgeMove(zone, record);
    if (result !== MOVE_RESULT.DONE) return this.countMove(result);
    let target = to;
    if (target === NO_FRAME) {
      const flags = ALLOCATE.NO_COMPACT | ALLOCATE.NO_RECLAIM;
      target = this.tryAllocate(zone.table.orders[record] as number, this.mobilityOf(from), flags);
      if (target === NO_FRAME) return this.countMove(MOVE_RESULT.NO_MEMORY);
    }
    const outcome = this.moveTo(zone, record, target);
    if (outcome !== MOVE_RESULT.DONE && to === NO_FRAME) this.put(target);
    return this.countMove(outcome);
  }

  /** Copies a block's bytes. Zones without bytes have nothing to copy. */
  copyBlock(from: Pfn, to: Pfn, frameCount: number): void {
    const source = this.zoneOf(from);
    const target = this.zoneOf(to);
    if (source.sections.length === 0 || target.sections.length === 0) return;
    if (frameCount > 1 && source.sections.length + target.sections.length > 2) {
      // A block may begin in one section and end in another.
      for (let i = 0; i < frameCount; i++) this.copyBlock(from + i, to + i, 1);
      return;
    }
    const sourceBytes = source.sectionOf(from).bytes;
    const targetBytes = target.sectionOf(to).bytes;
    const offset = source.offsetOf(from);
    const end = offset + frameCount * FRAME_BYTES;
    if (sourceBytes === targetBytes) {
      targetBytes.copyWithin(target.offsetOf(to), offset, end);
    } else {
      targetBytes.set(sourceBytes.subarray(offset, end), target.offsetOf(to));
    }
  }

  /** Whether a block could be moved now: MOVE_RESULT.DONE, or what is against it. */
  judge(pfn: Pfn): MoveResult {
    const zone = this.zoneOf(pfn);
    return this.judgeMove(zone, this.headRecord(zone, pfn));
  }

  /** Like `allocateIn`, out of free blocks below 2 MiB alone; see `BuddyAllocator`. */
  allocateFragment(zone: Zone, order: number, migrate: MigrateType): Pfn {
    const record = zone.buddy.allocateFragment(order, migrate);
    return record < 0 ? NO_FRAME : this.begin(zone, record, order, migrate, 0);
  }

  /**
   * Makes records that were taken off the free lists (isolated) the fewest allocated blocks that
   * cover them, each with one reference. @param flags ZERO counts.
   */
  beginRange(zone: Zone, first: number, count: number, migrate: MigrateType, flags: number): void {
    let record = first;
    let left = count;
    while (left > 0) {
      const aligned = record === 0 ? ORDER_MAX : 31 - Math.clz32(record & -record);
      const order = Math.min(aligned, 31 - Math.clz32(left), zone.buddy.orderMax);
      zone.buddy.markUsed(record, order);
      this.begin(zone, record, order, migrate, flags);
      record += 2 ** order;
      left -= 2 ** order;
    }
  }

  /** Says that `count` frames, free ones of one zone, are all zero: the system took them back. */
  markZero(pfn: Pfn, count: number): void {
    const zone = this.zoneOf(pfn);
    const record = zone.recordOf(pfn);
    for (let i = record; i < record + count; i++) {
      assert((zone.table.references[i] as number) === 0, "frames that are marked are free");
      zone.table.flags[i] = 0;
    }
  }

  /** Recomputes every total from the records and asserts that all agree. */
  checkInvariants(): void {
    for (const zone of this.zones) checkZone(zone, this.owners);
    this.compactor.checkInvariants();
  }

  /** One try at the free lists, above the watermark. */
  tryAllocate(order: number, migrate: MigrateType, flags: number): Pfn {
    const count = 2 ** order;
    for (const zone of this.normalZones) {
      const floor = (flags & ALLOCATE.ATOMIC) === 0 ? zone.watermarks.min : 0;
      if (zone.buddy.freeFor(order) - count < floor) continue;
      const record = zone.buddy.allocate(order, migrate);
      if (record >= 0) return this.begin(zone, record, order, migrate, flags);
    }
    return NO_FRAME;
  }

  private allocateSlowly(order: number, migrate: MigrateType, flags: number): Pfn {
    if (this.isInSlowPath) return NO_FRAME;
    this.isInSlowPath = true;
    this.counters.slowPaths++;
    let pfn: Pfn = NO_FRAME;
    const missing = this.missingFor(2 ** order, order);
    if ((flags & ALLOCATE.NO_RECLAIM) === 0 && missing > 0) {
      this.reclaim(missing);
      // What was reclaimed lies among the movable: it is for frames that leave the unmovable.
      if (this.mayEvict(order, migrate, flags)) this.compactor.makeRoom(order, migrate);
      pfn = this.tryAllocate(order, migrate, flags);
    }
    if (pfn === NO_FRAME && (flags & ALLOCATE.NO_COMPACT) === 0 && order > 0) {
      if (this.compactor.makeBlock(order)) pfn = this.tryAllocate(order, migrate, flags);
    }
    this.isInSlowPath = false;
    return pfn;
  }

  /** Before an unmovable request takes from others: movable frames leave the blocks of its type. */
  private makeRoom(order: number, migrate: MigrateType, flags: number): void {
    if (this.isInSlowPath || !this.mayEvict(order, migrate, flags)) return;
    this.isInSlowPath = true;
    this.compactor.makeRoom(order, migrate);
    this.isInSlowPath = false;
  }

  private mayEvict(order: number, migrate: MigrateType, flags: number): boolean {
    if (!this.evicts || migrate === MIGRATE.MOVABLE || order >= PAGE_BLOCK_ORDER) return false;
    if ((flags & (ALLOCATE.NO_COMPACT | ALLOCATE.ATOMIC)) !== 0) return false;
    for (const zone of this.normalZones) if (zone.buddy.hasOwn(order, migrate)) return false;
    return true;
  }

  /**
   * Frames that must become free before a request of `frameCount`, in a block of `order`, leaves
   * as many as the low watermark says.
   */
  missingFor(frameCount: number, order: number): number {
    let most = Number.NEGATIVE_INFINITY;
    for (const zone of this.normalZones) {
      most = Math.max(most, zone.buddy.freeFor(order) - zone.watermarks.low);
    }
    return most === Number.NEGATIVE_INFINITY ? 0 : Math.max(0, frameCount - most);
  }

  /** First moments of an allocated block. @returns its first frame. */
  private begin(zone: Zone, record: number, order: number, migrate: number, flags: number): Pfn {
    const { table } = zone;
    if ((flags & ALLOCATE.ZERO) !== 0) this.wipe(zone, record, 2 ** order);
    table.flags[record] = migrate << MOBILITY_SHIFT;
    table.references[record] = 1;
    if (migrate !== MIGRATE.MOVABLE) zone.buddy.blocks.addStuck(record, 2 ** order, 1);
    this.counters.countAllocation(order + zone.granuleOrder, migrate);
    return zone.pfnOf(record);
  }

  /** The end of an allocated block that nobody references and nobody pins. */
  private release(zone: Zone, record: number): void {
    const { table } = zone;
    const order = table.orders[record] as number;
    if (!this.isMovableRecord(zone, record)) {
      zone.buddy.blocks.addStuck(record, 2 ** order, -1);
    }
    table.soil(record, 2 ** order);
    const { frees } = this.counters;
    frees[order + zone.granuleOrder] = (frees[order + zone.granuleOrder] as number) + 1;
    this.counters.freeCount++;
    zone.buddy.free(record, order);
  }

  /** Zeroes what somebody had before. */
  private wipe(zone: Zone, record: number, count: number): void {
    if (zone.sections.length === 0) return;
    const { flags } = zone.table;
    const granuleBytes = 2 ** zone.granuleShift;
    for (let i = record; i < record + count; i++) {
      if ((flags[i] as number) !== SOILED) continue;
      const pfn = zone.pfnOf(i);
      const offset = zone.offsetOf(pfn);
      zone.sectionOf(pfn).bytes.fill(0, offset, offset + granuleBytes);
      this.counters.framesWiped += granuleBytes / FRAME_BYTES;
    }
  }

  /** Whether a block may be moved now: DONE, or what is against it. */
  private judgeMove(zone: Zone, record: number): MoveResult {
    const { table } = zone;
    if (zone.kind !== ZONE.NORMAL) return MOVE_RESULT.UNMOVABLE;
    if ((table.pins[record] as number) > 0) return MOVE_RESULT.PINNED;
    if (table.states[record] !== FRAME_STATE.USED) return MOVE_RESULT.BUSY;
    const owner = this.owners.get(table.owners[record] as number);
    if (owner === null) return MOVE_RESULT.UNMOVABLE;
    const pfn = zone.pfnOf(record);
    const known = owner.referencesOf(pfn, table.indexes[record] as number);
    return known === table.references[record] ? MOVE_RESULT.DONE : MOVE_RESULT.BUSY;
  }

  private moveTo(zone: Zone, record: number, to: Pfn): MoveResult {
    const { table } = zone;
    const from = zone.pfnOf(record);
    const target = this.zoneOf(to);
    const targetRecord = target.recordOf(to);
    const order = table.orders[record] as number;
    assert(target.table.orders[targetRecord] === order, "a block moves to one of its size");
    assert(
      target.table.references[targetRecord] === 1,
      "the target of a move is the mover's alone",
    );
    assert(target.table.pins[targetRecord] === 0, "nobody pins the target of a move");
    assert(target.table.owners[targetRecord] === 0, "nobody owns the target of a move");
    const owner = this.owners.get(table.owners[record] as number) as FrameOwner;
    const index = table.indexes[record] as number;
    if (!owner.detach(from, index)) return MOVE_RESULT.BUSY;
    const refusal = this.judgeMove(zone, record);
    if (refusal !== MOVE_RESULT.DONE) {
      // What let go may have been told of by a notifier, whose owner took hold in another way.
      owner.attach(from, from, index);
      return refusal;
    }
    table.states[record] = FRAME_STATE.ISOLATED;
    this.copyBlock(from, to, 2 ** order);
    const mobility = (target.table.flags[targetRecord] as number) & MOBILITY_MASK;
    target.table.flags[targetRecord] = ((table.flags[record] as number) & USER_FLAGS) | mobility;
    target.table.references[targetRecord] = table.references[record] as number;
    target.table.owners[targetRecord] = table.owners[record] as number;
    target.table.indexes[targetRecord] = index;
    owner.attach(from, to, index);
    table.states[record] = FRAME_STATE.USED;
    this.release(zone, record);
    this.counters.framesMoved += 2 ** order;
    return MOVE_RESULT.DONE;
  }

  private countMove(result: MoveResult): MoveResult {
    if (result !== MOVE_RESULT.DONE) {
      const { movesFailed } = this.counters;
      movesFailed[result] = (movesFailed[result] as number) + 1;
    }
    return result;
  }

  /** Sets the policy's reserve of 2 MiB blocks apart, at the top. */
  private fillReserve(zone: Zone): void {
    const { buddy } = zone;
    if (this.reserveLeft < 0) this.reserveLeft = zone.frameCount >>> 1;
    for (let block = buddy.blocks.count - 1; block >= 0 && this.reserveLeft > 0; block--) {
      const first = block << PAGE_BLOCK_ORDER;
      if (first + PAGE_BLOCK_FRAMES > zone.frameCount) continue;
      buddy.setBlockType(block, BLOCK_TYPE.HUGE);
      this.reserveLeft -= PAGE_BLOCK_FRAMES;
    }
  }
}
