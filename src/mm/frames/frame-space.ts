// SPDX-License-Identifier: MIT
// The flat physical space of a host: its zones, where a frame's bytes are, and what the records say
// about a frame. What changes the records' counts is `PhysicalMemory`.

import { assert } from "../../base/index.js";
import { AllocatorCounters } from "../alloc/counters.js";
import type { AllocatorPolicy } from "../alloc/policy.js";
import {
  FRAME_BYTES,
  FRAME_STATE,
  MIGRATE,
  type MigrateType,
  MOBILITY_MASK,
  MOBILITY_SHIFT,
  ORDER_MAX,
  type Pfn,
  USER_FLAGS,
  ZONE,
} from "./constants.js";
import { type FrameOwner, OwnerTable } from "./owner.js";
import { Zone, type ZoneOptions } from "./zone.js";

/** log2 of the frames of an entry of the zone map: zones begin at multiples of 1 GiB. */
const MAP_SHIFT = ORDER_MAX;
const PFN_END = 2 ** 32;

export class FrameSpace {
  readonly policy: AllocatorPolicy;
  readonly counters = new AllocatorCounters();
  readonly zones: Zone[] = [];
  readonly normalZones: Zone[] = [];
  protected readonly owners = new OwnerTable();
  /** Zone of each 2^MAP_SHIFT frames. */
  private readonly zoneMap: (Zone | null)[] = [];

  constructor(policy: AllocatorPolicy) {
    this.policy = policy;
  }

  /** Adds memory. Its frame numbers follow from the zones that are there. */
  addZone(options: ZoneOptions): Zone {
    const slots = Math.ceil(options.bytes / FRAME_BYTES / 2 ** MAP_SHIFT);
    const first = this.findSlots(slots);
    assert((first + slots) * 2 ** MAP_SHIFT <= PFN_END, "frame numbers have 32 bits");
    const zone = new Zone(options, first * 2 ** MAP_SHIFT, this.policy, this.counters);
    for (let slot = first; slot < first + slots; slot++) this.zoneMap[slot] = zone;
    this.zones.push(zone);
    if (zone.kind === ZONE.NORMAL) {
      this.normalZones.push(zone);
    }
    return zone;
  }

  /** Takes memory out again. Preconditions: all of it is free. */
  removeZone(zone: Zone): void {
    assert(zone.freeFrames === zone.frameCount, "a zone that is removed is free");
    const first = zone.basePfn / 2 ** MAP_SHIFT;
    const slots = Math.ceil(zone.frameCount / 2 ** MAP_SHIFT);
    for (let slot = first; slot < first + slots; slot++) this.zoneMap[slot] = null;
    this.zones.splice(this.zones.indexOf(zone), 1);
    if (zone.kind === ZONE.NORMAL) this.normalZones.splice(this.normalZones.indexOf(zone), 1);
  }

  /** Whether there is such a frame. */
  hasFrame(pfn: Pfn): boolean {
    const zone = this.zoneMap[pfn >>> MAP_SHIFT] ?? null;
    return zone !== null && pfn < zone.endPfn;
  }

  zoneOf(pfn: Pfn): Zone {
    const zone = this.zoneMap[pfn >>> MAP_SHIFT] ?? null;
    assert(zone !== null, "a frame lies in a zone");
    assert(pfn < zone.endPfn, "a frame lies in its zone");
    return zone;
  }

  /** Backing bytes of the section that the frame lies in; its own begin at `offsetOf`. */
  bytesOf(pfn: Pfn): Uint8Array {
    return this.zoneOf(pfn).sectionOf(pfn).bytes;
  }

  viewOf(pfn: Pfn): DataView {
    return this.zoneOf(pfn).sectionOf(pfn).view;
  }

  offsetOf(pfn: Pfn): number {
    return this.zoneOf(pfn).offsetOf(pfn);
  }

  /** Address of the frame's bytes in the process that runs the host. */
  nativeAddressOf(pfn: Pfn): number {
    const zone = this.zoneOf(pfn);
    return zone.sectionOf(pfn).address + zone.offsetOf(pfn);
  }

  /** Frames of normal zones that are free. */
  get freeFrames(): number {
    let count = 0;
    for (const zone of this.normalZones) count += zone.freeFrames;
    return count;
  }

  /** Frames of normal zones. */
  get normalFrames(): number {
    let count = 0;
    for (const zone of this.normalZones) count += zone.frameCount;
    return count;
  }

  get metadataBytes(): number {
    let bytes = 0;
    for (const zone of this.zones) bytes += zone.metadataBytes;
    return bytes;
  }

  isPinned(pfn: Pfn): boolean {
    return this.pinsOf(pfn) > 0;
  }

  pinsOf(pfn: Pfn): number {
    const zone = this.zoneOf(pfn);
    return zone.table.pins[this.headRecord(zone, pfn)] as number;
  }

  referencesOf(pfn: Pfn): number {
    const zone = this.zoneOf(pfn);
    return zone.table.references[this.headRecord(zone, pfn)] as number;
  }

  /** FRAME_STATE of this very frame. */
  stateOf(pfn: Pfn): number {
    const zone = this.zoneOf(pfn);
    return zone.table.states[zone.recordOf(pfn)] as number;
  }

  /** First frame of the allocated block that `pfn` lies in. */
  headOf(pfn: Pfn): Pfn {
    const zone = this.zoneOf(pfn);
    return zone.pfnOf(this.headRecord(zone, pfn));
  }

  /** Order in frames of the allocated block that `pfn` lies in. */
  orderOf(pfn: Pfn): number {
    const zone = this.zoneOf(pfn);
    return (zone.table.orders[this.headRecord(zone, pfn)] as number) + zone.granuleOrder;
  }

  /** Bits of FRAME_FLAG of the block. */
  flagsOf(pfn: Pfn): number {
    const zone = this.zoneOf(pfn);
    return (zone.table.flags[this.headRecord(zone, pfn)] as number) & USER_FLAGS;
  }

  hasFlag(pfn: Pfn, flag: number): boolean {
    return (this.flagsOf(pfn) & flag) !== 0;
  }

  setFlag(pfn: Pfn, flag: number): void {
    assert((flag & ~USER_FLAGS) === 0, "the allocator's flags are its own");
    const zone = this.zoneOf(pfn);
    const record = this.headRecord(zone, pfn);
    zone.table.flags[record] = (zone.table.flags[record] as number) | flag;
  }

  clearFlag(pfn: Pfn, flag: number): void {
    assert((flag & ~USER_FLAGS) === 0, "the allocator's flags are its own");
    const zone = this.zoneOf(pfn);
    const record = this.headRecord(zone, pfn);
    zone.table.flags[record] = (zone.table.flags[record] as number) & ~flag;
  }

  /** The mobility that the block was asked for with, MIGRATE. */
  mobilityOf(pfn: Pfn): MigrateType {
    const zone = this.zoneOf(pfn);
    const flags = zone.table.flags[this.headRecord(zone, pfn)] as number;
    return ((flags & MOBILITY_MASK) >>> MOBILITY_SHIFT) as MigrateType;
  }

  registerOwner(owner: FrameOwner): number {
    return this.owners.register(owner);
  }

  /** Preconditions: it owns no frame any more. */
  unregisterOwner(ownerId: number): void {
    this.owners.unregister(ownerId);
  }

  ownerById(ownerId: number): FrameOwner | null {
    return this.owners.get(ownerId);
  }

  ownerOf(pfn: Pfn): FrameOwner | null {
    return this.owners.get(this.ownerIdOf(pfn));
  }

  /** 0 for nobody. */
  ownerIdOf(pfn: Pfn): number {
    const zone = this.zoneOf(pfn);
    const record = this.headRecord(zone, pfn);
    return zone.table.owners[record] as number;
  }

  indexOf(pfn: Pfn): number {
    const zone = this.zoneOf(pfn);
    return zone.table.indexes[this.headRecord(zone, pfn)] as number;
  }

  /** @param ownerId 0 for nobody. */
  setOwner(pfn: Pfn, ownerId: number, index: number): void {
    assert(ownerId === 0 || this.owners.get(ownerId) !== null, "an owner is registered");
    const zone = this.zoneOf(pfn);
    const record = this.headRecord(zone, pfn);
    zone.table.owners[record] = ownerId;
    zone.table.indexes[record] = index;
  }

  /** First of `count` neighbouring entries of the zone map that are free. */
  private findSlots(count: number): number {
    let first = 0;
    for (let slot = 0; slot < this.zoneMap.length; slot++) {
      if ((this.zoneMap[slot] ?? null) !== null) first = slot + 1;
      else if (slot - first + 1 === count) return first;
    }
    return first;
  }

  /** First record of the block that `pfn` lies in: itself, or the head of a used block. */
  protected headRecord(zone: Zone, pfn: Pfn): number {
    const record = zone.recordOf(pfn);
    const state = zone.table.states[record];
    if (state !== FRAME_STATE.TAIL) {
      assert(state === FRAME_STATE.USED || state === FRAME_STATE.ISOLATED, "a frame is in use");
      return record;
    }
    const order = zone.table.orders[record] as number;
    return record - (record % 2 ** order);
  }

  protected isMovableRecord(zone: Zone, record: number): boolean {
    const flags = zone.table.flags[record] as number;
    return (flags & MOBILITY_MASK) >>> MOBILITY_SHIFT === MIGRATE.MOVABLE;
  }
}
