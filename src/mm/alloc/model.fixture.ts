// SPDX-License-Identifier: MIT
// A naive model of a host's memory beside the real one. A run is a list of steps; after each step
// everything is counted anew from the model's own list of blocks and compared.

import fc from "fast-check";
import { expect } from "vitest";
import { HeapMemorySource } from "../../base/index.js";
import {
  ALLOCATE,
  type FrameOwner,
  MIGRATE,
  type MigrateType,
  MOVE_RESULT,
  NO_FRAME,
  type Pfn,
  PhysicalMemory,
  ZONE,
} from "../frames/index.js";
import {
  type AllocatorPolicy,
  ContiguousAllocator,
  HugePool,
  NO_OBJECT,
  type ObjectAddress,
  type ObjectMover,
  SlabCache,
} from "./index.js";

const MIB = 2 ** 20;
/** Two zones, the second no multiple of a page block. */
const ZONE_BYTES = [8 * MIB, 3 * MIB];

/** A block that somebody holds, as the model knows it. */
interface Block {
  pfn: Pfn;
  readonly frames: number;
  readonly migrate: MigrateType;
  /** Beyond the owner's own. */
  references: number;
  pins: number;
  /** Where it was when it was pinned. */
  pinnedAt: Pfn;
  readonly stamp: number;
  /** Allocated as one of several blocks of a range, which goes as a whole. */
  readonly range: number;
  isHeld: boolean;
  /** Refuses to let go. */
  isBusy: boolean;
}

/** An object of a slab cache, found by what is written in it. */
interface SlabObject {
  address: ObjectAddress;
  readonly stamp: number;
  isHeld: boolean;
}

export interface Step {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
}

const OWNED_REFERENCES = 1;

export class MemoryModel implements FrameOwner, ObjectMover {
  readonly name = "model";
  readonly memory: PhysicalMemory;
  private readonly contiguous: ContiguousAllocator;
  private readonly pool: HugePool;
  private readonly caches: SlabCache[];
  private readonly ownerId: number;
  private readonly blocks: Block[] = [];
  private readonly poolPages: Pfn[] = [];
  private readonly objects: SlabObject[][] = [[], []];
  private nextStamp = 1;
  private nextRange = 1;
  private nowNs = 0;
  /** The steps by number. */
  private readonly actions: readonly ((a: number, b: number) => void)[];

  constructor(policy: AllocatorPolicy) {
    this.memory = new PhysicalMemory({ policy });
    const heap = new HeapMemorySource();
    for (const bytes of ZONE_BYTES) {
      const sections = [heap.allocate(bytes / 2), heap.allocate(bytes / 2)];
      this.memory.addZone({ kind: ZONE.NORMAL, name: "normal", bytes, sections });
    }
    this.contiguous = new ContiguousAllocator(this.memory);
    this.pool = new HugePool(this.memory, { surplusMax: 1 });
    this.ownerId = this.memory.registerOwner(this);
    this.caches = [
      new SlabCache(this.memory, { name: "movable", objectBytes: 1000, mover: this }),
      new SlabCache(this.memory, { name: "fixed", objectBytes: 3072 }),
    ];
    this.actions = [
      (a, b) => this.allocate(a, b),
      (a, b) => this.allocate(a % 2, b),
      (a, b) => this.allocateMany(a, b),
      (a) => this.free(a),
      (a, b) => this.freeMany(a, b),
      (a, b) => this.pin(a, b),
      (a) => this.unpin(a),
      (a) => this.reference(a),
      (a) => this.dereference(a),
      (a) => this.move(a),
      (a) => this.compact(a),
      (a, b) => this.allocateObjects(a, b),
      (a, b) => this.freeObjects(a, b),
      (a) => this.defragment(a),
      (a, b) => this.allocateRange(a, b),
      (a) => this.background(a),
      (a) => this.usePool(a),
      (a) => this.toggleBusy(a),
      (a) => this.split(a),
    ];
  }

  run(steps: readonly Step[]): void {
    for (const step of steps) {
      (this.actions[step.kind % this.actions.length] as (a: number, b: number) => void)(
        step.a,
        step.b,
      );
      this.check();
    }
  }

  /** Gives everything back: all of memory must be free then. */
  finish(): void {
    for (const block of this.blocks) block.isBusy = false;
    while (this.blocks.length > 0) {
      const block = this.blocks[0] as Block;
      while (block.pins > 0) this.unpin(0);
      while (block.references > 0) this.dereference(0);
      for (const other of this.rangeOf(block)) {
        if (other.pins > 0) this.memory.unpin(other.pfn, other.pins);
        other.pins = 0;
        for (; other.references > 0; other.references--) this.memory.put(other.pfn);
      }
      this.free(0);
    }
    for (const pfn of this.poolPages.splice(0)) this.pool.give(pfn);
    this.pool.resize(0);
    for (const [number, cache] of this.caches.entries()) {
      for (const object of (this.objects[number] as SlabObject[]).splice(0)) {
        cache.free(object.address);
      }
      cache.close();
    }
    this.memory.checkInvariants();
    expect(this.memory.freeFrames).toBe(this.memory.normalFrames);
  }

  referencesOf(): number {
    return OWNED_REFERENCES;
  }

  detach(_pfn: Pfn, stamp: number): boolean {
    const block = this.blockOf(stamp);
    if (block.isBusy) return false;
    expect(block.pins).toBe(0);
    block.isHeld = true;
    return true;
  }

  attach(from: Pfn, to: Pfn, stamp: number): void {
    const block = this.blockOf(stamp);
    expect(block.isHeld).toBe(true);
    expect(block.pfn).toBe(from);
    block.isHeld = false;
    block.pfn = to;
  }

  hold(address: ObjectAddress): boolean {
    const object = this.objectAt(address);
    if (object.stamp % 13 === 0) return false;
    object.isHeld = true;
    return true;
  }

  moved(from: ObjectAddress, to: ObjectAddress): void {
    const object = this.objectAt(from);
    expect(object.isHeld).toBe(true);
    object.isHeld = false;
    object.address = to;
  }

  private blockOf(stamp: number): Block {
    return this.blocks.find((block) => block.stamp === stamp) as Block;
  }

  private objectAt(address: ObjectAddress): SlabObject {
    return (this.objects[0] as SlabObject[]).find((o) => o.address === address) as SlabObject;
  }

  private pick(a: number): Block | null {
    return this.blocks.length === 0 ? null : (this.blocks[a % this.blocks.length] as Block);
  }

  private allocate(a: number, b: number): void {
    const order = a % 11;
    const migrate = (b % 3) as MigrateType;
    const flags = ((b >>> 4) % 4 === 0 ? ALLOCATE.ZERO : 0) | ((b >>> 6) % 8 === 0 ? 2 : 0);
    const freeBefore = this.memory.freeFrames;
    const pfn = this.memory.allocate(order, migrate, flags);
    if (pfn === NO_FRAME) {
      // A single frame is refused when there is none, and for no other reason.
      const base = 2 ** (this.memory.policy.baseShift - 12);
      if (order === 0) expect(freeBefore - this.reserved()).toBeLessThan(base);
      return;
    }
    this.adopt(pfn, 2 ** this.memory.orderOf(pfn), migrate, 0, (flags & ALLOCATE.ZERO) !== 0);
  }

  /** Frames that small requests never get. */
  private reserved(): number {
    let count = 0;
    for (const zone of this.memory.normalZones) {
      const { types, free } = zone.buddy.blocks;
      for (let block = 0; block < types.length; block++) {
        if (types[block] === 3) count += free[block] as number;
      }
    }
    return count;
  }

  private allocateMany(a: number, b: number): void {
    for (let i = 0; i < 40 + (a % 200); i++) this.allocate(0, b + (i % 2));
  }

  private adopt(
    pfn: Pfn,
    frames: number,
    migrate: MigrateType,
    range: number,
    isZero: boolean,
  ): void {
    const stamp = this.nextStamp++;
    this.blocks.push({
      pfn,
      frames,
      migrate,
      references: 0,
      pins: 0,
      pinnedAt: NO_FRAME,
      stamp,
      range,
      isHeld: false,
      isBusy: false,
    });
    this.memory.setOwner(pfn, this.ownerId, stamp);
    for (let frame = pfn; frame < pfn + frames; frame++) {
      const offset = this.memory.offsetOf(frame);
      const view = this.memory.viewOf(frame);
      if (isZero) expect(view.getUint32(offset) + view.getUint32(offset + 4092)).toBe(0);
      view.setUint32(offset, stamp);
      view.setUint32(offset + 4092, frame - pfn + 1);
    }
  }

  private rangeOf(block: Block): Block[] {
    return block.range === 0 ? [block] : this.blocks.filter((b) => b.range === block.range);
  }

  private free(a: number): void {
    const block = this.pick(a);
    if (block === null) return;
    const all = this.rangeOf(block);
    if (all.some((b) => b.pins > 0)) return;
    if (block.range > 0 && all.every((b) => b.references === 0)) {
      const first = Math.min(...all.map((b) => b.pfn));
      const frames = all.reduce((sum, b) => sum + b.frames, 0);
      expect(this.contiguous.freeRange(first, frames)).toBe(true);
    } else if (block.range > 0 || block.references > 0) {
      return;
    } else {
      expect(this.memory.put(block.pfn + (block.frames >>> 1))).toBe(true);
    }
    for (const gone of all) this.blocks.splice(this.blocks.indexOf(gone), 1);
  }

  private freeMany(a: number, b: number): void {
    for (let i = 0; i < 20 + (b % 200); i++) this.free(a + i * 7);
  }

  private pin(a: number, b: number): void {
    const block = this.pick(a);
    if (block === null) return;
    const count = 1 + (b % 3);
    this.memory.pin(block.pfn + (b % block.frames), count);
    block.pins += count;
    block.pinnedAt = block.pfn;
  }

  private unpin(a: number): void {
    const block = this.pick(a);
    if (block === null || block.pins === 0) return;
    this.memory.unpin(block.pfn + block.frames - 1);
    block.pins--;
  }

  private reference(a: number): void {
    const block = this.pick(a);
    if (block === null) return;
    this.memory.get(block.pfn);
    block.references++;
  }

  private dereference(a: number): void {
    const block = this.pick(a);
    if (block === null || block.references === 0) return;
    expect(this.memory.put(block.pfn)).toBe(false);
    block.references--;
  }

  private move(a: number): void {
    const block = this.pick(a);
    if (block === null || block.range > 0) return;
    const before = block.pfn;
    const result = this.memory.move(block.pfn);
    if (block.pins > 0) expect(result).toBe(MOVE_RESULT.PINNED);
    else if (block.references > 0 || block.isBusy) expect(result).not.toBe(MOVE_RESULT.DONE);
    expect(block.pfn !== before).toBe(result === MOVE_RESULT.DONE);
  }

  private compact(a: number): void {
    const order = 1 + (a % 10);
    if (!this.memory.compactor.makeBlock(order)) return;
    expect(this.memory.normalZones.some((zone) => zone.buddy.hasAny(order))).toBe(true);
  }

  private allocateObjects(a: number, b: number): void {
    const number = a % 2;
    const cache = this.caches[number] as SlabCache;
    for (let i = 0; i < 1 + (b % 60); i++) {
      const address = cache.allocate();
      if (address === NO_OBJECT) return;
      const stamp = this.nextStamp++;
      this.writeObject(address, stamp);
      (this.objects[number] as SlabObject[]).push({ address, stamp, isHeld: false });
    }
  }

  private freeObjects(a: number, b: number): void {
    const objects = this.objects[a % 2] as SlabObject[];
    for (let i = 0; i < 1 + (b % 60) && objects.length > 0; i++) {
      const [object] = objects.splice((b + i * 31) % objects.length, 1);
      (this.caches[a % 2] as SlabCache).free((object as SlabObject).address);
    }
  }

  private defragment(a: number): void {
    const cache = this.caches[a % 2] as SlabCache;
    const before = cache.slabCount;
    const freed = cache.defragment();
    expect(cache.slabCount).toBe(before - freed / 2 ** cache.order);
  }

  private allocateRange(a: number, b: number): void {
    const asked = 1 + (a % 700);
    const base = 2 ** (this.memory.policy.baseShift - 12);
    const frames = Math.ceil(asked / base) * base;
    const align = 2 ** (b % 11);
    const migrate = b % 4 === 0 ? MIGRATE.MOVABLE : MIGRATE.UNMOVABLE;
    const flags = b % 5 === 0 ? ALLOCATE.NO_COMPACT : ALLOCATE.ZERO;
    const pfn = this.contiguous.allocateRange(asked, align, migrate, flags);
    if (pfn === NO_FRAME) return;
    expect(pfn % align).toBe(0);
    const range = this.nextRange++;
    const isZero = (flags & ALLOCATE.ZERO) !== 0;
    let at = pfn;
    while (at < pfn + frames) {
      const size = 2 ** this.memory.orderOf(at);
      this.adopt(at, size, MIGRATE.UNMOVABLE, range, isZero);
      (this.blocks.at(-1) as Block).isBusy = true;
      at += size;
    }
    expect(at).toBe(pfn + frames);
  }

  private background(a: number): void {
    for (let i = 0; i < a % 30; i++) {
      this.nowNs += 1 + (a % 100_000_000);
      this.memory.compactor.pump(this.nowNs);
      const deadline = this.memory.compactor.deadlineNs();
      if (Number.isFinite(deadline)) this.nowNs = Math.max(this.nowNs, deadline);
    }
  }

  private usePool(a: number): void {
    if (a % 3 === 0) this.pool.resize(a % 4);
    const pfn = a % 3 === 1 ? this.pool.take() : NO_FRAME;
    if (pfn !== NO_FRAME) this.poolPages.push(pfn);
    const page = a % 3 === 2 ? this.poolPages.pop() : undefined;
    if (page !== undefined) this.pool.give(page);
  }

  private toggleBusy(a: number): void {
    const block = this.pick(a);
    if (block !== null && block.range === 0) block.isBusy = !block.isBusy;
  }

  private split(a: number): void {
    const block = this.pick(a);
    const base = 2 ** (this.memory.policy.baseShift - 12);
    if (block === null || block.range > 0 || block.pins > 0 || block.frames > 64) return;
    if (block.references > 0 || block.frames === 1 || base > 1) return;
    this.memory.split(block.pfn);
    this.blocks.splice(this.blocks.indexOf(block), 1);
    for (let i = 0; i < block.frames; i++) this.adopt(block.pfn + i, 1, block.migrate, 0, false);
  }

  private writeObject(address: ObjectAddress, stamp: number): void {
    const pfn = Math.floor(address / 4096);
    const offset = this.memory.offsetOf(pfn) + (address % 4096);
    this.memory.viewOf(pfn).setUint32(offset, stamp);
  }

  /** Everything anew from the model's own list. */
  private check(): void {
    const { memory } = this;
    memory.checkInvariants();
    const seen = new Set<Pfn>();
    let frames = 0;
    const own = (pfn: Pfn, count: number): void => {
      for (let frame = pfn; frame < pfn + count; frame++) seen.add(frame);
      frames += count;
    };
    for (const block of this.blocks) {
      own(block.pfn, block.frames);
      if (block.pins > 0 && block.pfn !== block.pinnedAt) throw new Error("a pinned block moved");
      if (memory.pinsOf(block.pfn) !== block.pins) throw new Error("a block's pins");
      const references = block.references + OWNED_REFERENCES;
      if (memory.referencesOf(block.pfn) !== references) throw new Error("a block's references");
      if (memory.indexOf(block.pfn) !== block.stamp) throw new Error("a block's index");
      for (let frame = 0; frame < block.frames; frame++) this.checkFrame(block, frame);
    }
    for (const cache of this.caches) cache.checkInvariants();
    for (const [number, objects] of this.objects.entries()) {
      const cache = this.caches[number] as SlabCache;
      if (cache.objectCount !== objects.length) throw new Error("objects of a cache");
      for (const object of objects) this.checkObject(object);
      frames += cache.slabCount * 2 ** cache.order;
    }
    frames += (this.pool.pageCount + this.pool.surplusCount) * 512;
    for (const pfn of this.poolPages) for (let i = 0; i < 512; i++) seen.add(pfn + i);
    const counted = this.blocks.reduce((sum, b) => sum + b.frames, this.poolPages.length * 512);
    if (seen.size !== counted) throw new Error("a frame has two owners");
    expect(memory.normalFrames - memory.freeFrames).toBe(frames);
  }

  private checkFrame(block: Block, frame: number): void {
    const offset = this.memory.offsetOf(block.pfn + frame);
    const view = this.memory.viewOf(block.pfn + frame);
    if (view.getUint32(offset) !== block.stamp) throw new Error("a frame's contents");
    if (view.getUint32(offset + 4092) !== frame + 1)
      throw new Error("a frame's place in its block");
  }

  private checkObject(object: SlabObject): void {
    const pfn = Math.floor(object.address / 4096);
    const offset = this.memory.offsetOf(pfn) + (object.address % 4096);
    if (this.memory.viewOf(pfn).getUint32(offset) !== object.stamp) {
      throw new Error("an object's contents");
    }
    if (object.isHeld) throw new Error("an object is held after the move");
  }
}

/** One step, as fast-check makes and shrinks it. */
export const STEP = fc.record({
  kind: fc.nat({ max: 1000 }),
  a: fc.nat({ max: 100_000 }),
  b: fc.nat({ max: 100_000 }),
});

/** Every run of at most `steps` steps keeps the model and the memory in agreement. */
export function modelLaw(policy: AllocatorPolicy, steps: number): fc.IProperty<[Step[]]> {
  return fc.property(fc.array(STEP, { maxLength: steps, size: "max" }), (run) => {
    const model = new MemoryModel(policy);
    model.run(run);
    model.finish();
  });
}
