// SPDX-License-Identifier: MIT
// Slabs: objects of one size, cut from blocks of frames. A cache whose user can say where its
// objects are referenced from is movable: compaction then moves its objects to other slabs, or a
// slab as it is to other frames. Read first: Linux `mm/slub.c`; movable caches are what its
// "slab movable objects" patches of 2019 proposed.

import { assert } from "../../base/index.js";
import {
  FRAME_BYTES,
  FRAME_FLAG,
  MIGRATE,
  type MigrateType,
  MOVE_RESULT,
  NO_FRAME,
  type Pfn,
} from "../frames/constants.js";
import type { FrameOwner } from "../frames/owner.js";
import type { PhysicalMemory, Reclaimer } from "../frames/physical-memory.js";
import { SLAB_LIST, SlabTable } from "./slab-table.js";

/** Address of an object: first frame x 4096 + offset. */
export type ObjectAddress = number;
export const NO_OBJECT = -1;

/** Who uses a movable cache's objects and knows where they are referenced from. */
export interface ObjectMover {
  /** Nobody reads or writes the object from now until `moved`. @returns false: it is busy. */
  hold(object: ObjectAddress): boolean;
  /**
   * The contents are at `to`, and every reference must lead there; `to` equals `from` when the move
   * was given up. Must not allocate or free in the cache.
   */
  moved(from: ObjectAddress, to: ObjectAddress): void;
}

export interface SlabCacheOptions {
  readonly name: string;
  /** Bytes of an object, a multiple of 8, at most 32 KiB. */
  readonly objectBytes: number;
  /** Order of a slab; default: the smallest up to 3 that wastes at most an eighth. */
  readonly order?: number;
  /** Makes the cache movable, if the policy lets it. */
  readonly mover?: ObjectMover;
  /** What the slabs are where they can't move: reclaimable for caches that can be emptied. */
  readonly migrate?: MigrateType;
}

const ORDER_WANTED_MAX = 3;
/** Empty slabs that are kept for the next objects. */
const EMPTY_KEPT = 1;

export class SlabCache implements FrameOwner, Reclaimer {
  readonly name: string;
  readonly objectBytes: number;
  readonly order: number;
  readonly objectsPerSlab: number;
  readonly isMovable: boolean;
  /** Objects in use. */
  objectCount = 0;
  private readonly memory: PhysicalMemory;
  private readonly mover: ObjectMover | null;
  private readonly migrate: MigrateType;
  private readonly slabs: SlabTable;
  private readonly ownerId: number;

  constructor(memory: PhysicalMemory, options: SlabCacheOptions) {
    const { objectBytes } = options;
    assert(objectBytes >= 8 && objectBytes % 8 === 0, "objects are multiples of 8 bytes");
    assert(objectBytes <= FRAME_BYTES << ORDER_WANTED_MAX, "objects are at most 32 KiB");
    this.name = options.name;
    this.objectBytes = objectBytes;
    const wanted = options.order ?? orderOf(objectBytes);
    this.order = Math.max(wanted, memory.policy.baseShift - 12);
    this.objectsPerSlab = Math.floor((FRAME_BYTES * 2 ** this.order) / objectBytes);
    this.mover = options.mover ?? null;
    this.isMovable = this.mover !== null && memory.policy.movableSlabs;
    this.migrate = this.isMovable ? MIGRATE.MOVABLE : (options.migrate ?? MIGRATE.UNMOVABLE);
    this.memory = memory;
    this.slabs = new SlabTable(this.objectsPerSlab);
    this.ownerId = memory.registerOwner(this);
    memory.registerReclaimer(this);
  }

  get slabCount(): number {
    const { counts } = this.slabs;
    return (
      (counts[SLAB_LIST.EMPTY] as number) +
      (counts[SLAB_LIST.PARTIAL] as number) +
      (counts[SLAB_LIST.FULL] as number)
    );
  }

  /** Slabs with used and free objects. */
  get partialCount(): number {
    return this.slabs.counts[SLAB_LIST.PARTIAL] as number;
  }

  get emptyCount(): number {
    return this.slabs.counts[SLAB_LIST.EMPTY] as number;
  }

  /** @returns an object's address, NO_OBJECT when there is no memory. Its bytes are anybody's. */
  allocate(): ObjectAddress {
    const { heads } = this.slabs;
    let slab = heads[SLAB_LIST.PARTIAL] as number;
    if (slab < 0) slab = heads[SLAB_LIST.EMPTY] as number;
    if (slab < 0) slab = this.addSlab();
    if (slab < 0) return NO_OBJECT;
    const object = this.slabs.take(slab);
    this.objectCount++;
    return this.addressOf(slab, object);
  }

  free(address: ObjectAddress): void {
    const slab = this.slabOf(address);
    this.slabs.give(slab, this.objectOf(slab, address));
    this.objectCount--;
    const empty = this.slabs.counts[SLAB_LIST.EMPTY] as number;
    if (empty > EMPTY_KEPT && this.slabs.listOf(slab) === SLAB_LIST.EMPTY) this.dropSlab(slab);
  }

  /** Frees every empty slab. @returns frames freed. */
  shrink(frameCount = Number.POSITIVE_INFINITY): number {
    let freed = 0;
    let slab = this.slabs.heads[SLAB_LIST.EMPTY] as number;
    while (slab >= 0 && freed < frameCount) {
      const next = this.slabs.after(slab);
      // Somebody who has walked the frames may hold it for a moment.
      if (this.dropSlab(slab)) freed += 2 ** this.order;
      slab = next;
    }
    return freed;
  }

  /** Memory is short: frees empty slabs, then empties some if the cache is movable. */
  reclaim(frameCount: number): number {
    const freed = this.shrink(frameCount);
    return freed < frameCount ? freed + this.emptySlabs(frameCount - freed) : freed;
  }

  /**
   * Moves objects out of the emptiest slabs into the fullest, until no slab can be saved.
   * @returns frames freed.
   */
  defragment(): number {
    return this.reclaim(Number.POSITIVE_INFINITY);
  }

  /** The end of a cache without objects. */
  close(): void {
    assert(this.objectCount === 0, "a cache that ends has no objects");
    this.shrink();
    assert(this.slabCount === 0, "a cache that ends has its slabs to itself");
    this.memory.unregisterReclaimer(this);
    this.memory.unregisterOwner(this.ownerId);
  }

  referencesOf(): number {
    return this.isMovable ? 1 : 0;
  }

  detach(pfn: Pfn, slab: number): boolean {
    if (!this.isMovable) return false;
    assert(this.slabs.pfnOf(slab) === pfn, "a slab knows its frames");
    for (let object = 0; object < this.objectsPerSlab; object++) {
      if (!this.slabs.isUsed(slab, object)) continue;
      if (this.moverHolds(this.addressOf(slab, object))) continue;
      this.tellMoved(slab, pfn, pfn, object);
      return false;
    }
    return true;
  }

  attach(from: Pfn, to: Pfn, slab: number): void {
    this.slabs.setPfn(slab, to);
    this.tellMoved(slab, from, to, this.objectsPerSlab);
  }

  /** Moves every object of a slab into other partial slabs and frees it. */
  vacate(pfn: Pfn, slab: number): boolean {
    if (!this.isMovable || this.memory.judge(pfn) !== MOVE_RESULT.DONE) return false;
    const used = this.slabs.usedOf(slab);
    if (used > 0 && this.roomBeside(slab) < used) return false;
    for (let object = 0; object < this.objectsPerSlab; object++) {
      if (!this.slabs.isUsed(slab, object)) continue;
      let target = this.slabs.heads[SLAB_LIST.PARTIAL] as number;
      if (target === slab) target = this.slabs.after(target);
      if (!this.moveObject(slab, object, target)) return false;
    }
    return this.dropSlab(slab);
  }

  /** Calls `visit` with the address of each object in use. */
  forEach(visit: (object: ObjectAddress) => void): void {
    for (const list of [SLAB_LIST.PARTIAL, SLAB_LIST.FULL]) {
      for (let slab = this.slabs.heads[list] as number; slab >= 0; slab = this.slabs.after(slab)) {
        for (let object = 0; object < this.objectsPerSlab; object++) {
          if (this.slabs.isUsed(slab, object)) visit(this.addressOf(slab, object));
        }
      }
    }
  }

  checkInvariants(): void {
    let objects = 0;
    for (const list of [SLAB_LIST.EMPTY, SLAB_LIST.PARTIAL, SLAB_LIST.FULL]) {
      let count = 0;
      for (let slab = this.slabs.heads[list] as number; slab >= 0; slab = this.slabs.after(slab)) {
        objects += this.checkSlab(slab, list);
        count++;
      }
      assert(count === this.slabs.counts[list], "a list of slabs is as long as it says");
    }
    assert(objects === this.objectCount, "objects in use are those of the slabs");
  }

  private checkSlab(slab: number, list: number): number {
    const { memory } = this;
    const pfn = this.slabs.pfnOf(slab);
    assert(memory.ownerOf(pfn) === this, "a slab's frames are its cache's");
    assert(memory.indexOf(pfn) === slab, "a slab's frames know their slab");
    let used = 0;
    for (let object = 0; object < this.objectsPerSlab; object++) {
      if (this.slabs.isUsed(slab, object)) used++;
    }
    assert(used === this.slabs.usedOf(slab), "a slab counts its objects");
    assert((used === 0) === (list === SLAB_LIST.EMPTY), "empty slabs are in the list of such");
    const isFull = used === this.objectsPerSlab;
    assert(isFull === (list === SLAB_LIST.FULL), "full slabs are in the list of such");
    return used;
  }

  private addSlab(): number {
    // May empty slabs of this very cache, or free its objects: nothing of it is kept over the call.
    const pfn = this.memory.allocate(this.order, this.migrate);
    if (pfn === NO_FRAME) return -1;
    const slab = this.slabs.add(pfn);
    this.memory.setOwner(pfn, this.ownerId, slab);
    this.memory.setFlag(pfn, FRAME_FLAG.SLAB);
    return slab;
  }

  /** @returns false when somebody else holds the frames. */
  private dropSlab(slab: number): boolean {
    const pfn = this.slabs.pfnOf(slab);
    if (this.memory.referencesOf(pfn) !== 1 || this.memory.isPinned(pfn)) return false;
    this.slabs.remove(slab);
    this.memory.put(pfn);
    this.memory.counters.slabsFreed++;
    return true;
  }

  /** Moves one object to another slab, which has room. @returns false: it is busy. */
  private moveObject(slab: number, object: number, target: number): boolean {
    const from = this.addressOf(slab, object);
    if (!this.moverHolds(from)) return false;
    assert(target >= 0 && target !== slab, "there is room in another slab");
    const to = this.addressOf(target, this.slabs.take(target));
    this.copy(from, to);
    this.slabs.give(slab, object);
    (this.mover as ObjectMover).moved(from, to);
    this.memory.counters.slabObjectsMoved++;
    return true;
  }

  /** Frame by frame: neighbours may lie in different sections. */
  private copy(from: ObjectAddress, to: ObjectAddress): void {
    const { memory } = this;
    if (memory.zoneOf(Math.floor(from / FRAME_BYTES)).sections.length === 0) return;
    if (memory.zoneOf(Math.floor(to / FRAME_BYTES)).sections.length === 0) return;
    for (let done = 0; done < this.objectBytes; ) {
      const source = Math.floor((from + done) / FRAME_BYTES);
      const target = Math.floor((to + done) / FRAME_BYTES);
      const inSource = (from + done) % FRAME_BYTES;
      const inTarget = (to + done) % FRAME_BYTES;
      const rest = FRAME_BYTES - Math.max(inSource, inTarget);
      const length = Math.min(this.objectBytes - done, rest);
      const start = memory.offsetOf(source) + inSource;
      const bytes = memory.bytesOf(source).subarray(start, start + length);
      memory.bytesOf(target).set(bytes, memory.offsetOf(target) + inTarget);
      done += length;
    }
  }

  /** Empties the slabs with the fewest objects into those with the most. @returns frames freed. */
  private emptySlabs(frameCount: number): number {
    if (!this.isMovable) return 0;
    const partial = this.slabs.sortedPartial();
    let target = partial.length - 1;
    let freed = 0;
    for (let source = 0; source < target && freed < frameCount; source++) {
      const slab = partial[source] as number;
      if (this.memory.judge(this.slabs.pfnOf(slab)) !== MOVE_RESULT.DONE) continue;
      if (this.roomBeside(slab) < this.slabs.usedOf(slab)) break;
      let isBusy = false;
      for (let object = 0; object < this.objectsPerSlab && !isBusy; object++) {
        if (!this.slabs.isUsed(slab, object)) continue;
        while (target > source && this.isFull(partial[target] as number)) target--;
        isBusy = target === source || !this.moveObject(slab, object, partial[target] as number);
      }
      if (!isBusy && this.dropSlab(slab)) freed += 2 ** this.order;
    }
    return freed;
  }

  private isFull(slab: number): boolean {
    return this.slabs.usedOf(slab) === this.objectsPerSlab;
  }

  /** Free objects in the partial slabs beside this one. */
  private roomBeside(slab: number): number {
    const { counts } = this.slabs;
    const slabs = (counts[SLAB_LIST.PARTIAL] as number) + (counts[SLAB_LIST.FULL] as number);
    const own = this.objectsPerSlab - this.slabs.usedOf(slab);
    return slabs * this.objectsPerSlab - this.objectCount - own;
  }

  private moverHolds(object: ObjectAddress): boolean {
    return (this.mover as ObjectMover).hold(object);
  }

  /** Tells the mover of the used objects before `end`: they are held no more. */
  private tellMoved(slab: number, from: Pfn, to: Pfn, end: number): void {
    for (let object = 0; object < end; object++) {
      if (!this.slabs.isUsed(slab, object)) continue;
      const offset = object * this.objectBytes;
      (this.mover as ObjectMover).moved(from * FRAME_BYTES + offset, to * FRAME_BYTES + offset);
    }
  }

  private addressOf(slab: number, object: number): ObjectAddress {
    return this.slabs.pfnOf(slab) * FRAME_BYTES + object * this.objectBytes;
  }

  private slabOf(address: ObjectAddress): number {
    const pfn = Math.floor(address / FRAME_BYTES);
    assert(this.memory.ownerOf(pfn) === this, "an object is freed in its cache");
    return this.memory.indexOf(pfn);
  }

  private objectOf(slab: number, address: ObjectAddress): number {
    const object = (address - this.addressOf(slab, 0)) / this.objectBytes;
    assert(Number.isInteger(object), "an object is named by its address");
    assert(object < this.objectsPerSlab, "an object does not begin in what a slab wastes");
    return object;
  }
}

/** The smallest order up to 3 that wastes at most an eighth of a slab, or the least of them. */
function orderOf(objectBytes: number): number {
  let best: number = ORDER_WANTED_MAX;
  let bestWaste = 1;
  for (let order = 0; order <= ORDER_WANTED_MAX; order++) {
    const bytes = FRAME_BYTES * 2 ** order;
    if (bytes < objectBytes) continue;
    const waste = (bytes % objectBytes) / bytes;
    if (waste <= 1 / 8) return order;
    if (waste < bestWaste) {
      best = order;
      bestWaste = waste;
    }
  }
  return best;
}
