// SPDX-License-Identifier: MIT
// The devices that one session has open, by the ids that it names them with.
//
// Ids start at 0, as in Linux, and none is used twice in the life of a session: an I/O that was on
// its way when its device was closed must not reach the next one. An id is slot + 1024 x
// generation.

import { assert, IntRing } from "../base/index.js";
import type { RnbdAccess } from "../wire/index.js";
import type { Volume } from "./volume.js";

/** Devices that a session can have open at once. */
const DEVICE_COUNT_MAX = 1024;

const GENERATION_COUNT = 0x1_0000_0000 / DEVICE_COUNT_MAX;

/** One open of one volume by one session. */
export class OpenDevice {
  readonly id: number;
  readonly volume: Volume;
  readonly access: RnbdAccess;
  /** Nobody else has the volume open. */
  readonly exclusive: boolean;
  /** Requests of this open in the device. */
  inflight = 0;
  /** Ended: no id names it any more; its right goes back when `inflight` is 0. */
  ended = false;

  constructor(id: number, volume: Volume, access: RnbdAccess, exclusive: boolean) {
    this.id = id;
    this.volume = volume;
    this.access = access;
    this.exclusive = exclusive;
  }

  /** The open is over. Its right to the volume ends with its last request. */
  end(): void {
    assert(!this.ended, "an open ends once");
    this.ended = true;
    if (this.inflight === 0) this.volume.release(this.access, this.exclusive);
  }

  requestBegins(): void {
    assert(!this.ended, "an ended open takes no requests");
    this.inflight++;
    this.volume.inflight++;
  }

  requestEnds(): void {
    this.inflight--;
    this.volume.inflight--;
    assert(this.inflight >= 0, "no more requests end than begin");
    if (this.ended && this.inflight === 0) this.volume.release(this.access, this.exclusive);
  }
}

export class DeviceTable {
  /** Protocol version that the session agreed on; 0 before SESS_INFO. */
  version = 0;
  /** Of which group the client says that the session is, 16 secret bytes; null for none. */
  group: Uint8Array | null = null;
  private readonly slots: (OpenDevice | null)[] = [];
  private readonly generations: number[] = [];
  private readonly freeSlots = new IntRing(DEVICE_COUNT_MAX);
  private readonly byVolume = new Map<Volume, OpenDevice>();

  get count(): number {
    return this.byVolume.size;
  }

  /** The open with this id, or null. */
  find(id: number): OpenDevice | null {
    const open = this.slots[id % DEVICE_COUNT_MAX];
    return open !== undefined && open !== null && open.id === id ? open : null;
  }

  /** This session's open of `volume`, or null. */
  findVolume(volume: Volume): OpenDevice | null {
    return this.byVolume.get(volume) ?? null;
  }

  /**
   * Adds an open, for which the right has been acquired.
   * @returns null when the session has 1024 devices open, or has used up all ids.
   */
  add(volume: Volume, access: RnbdAccess, exclusive: boolean): OpenDevice | null {
    const slot = this.takeSlot();
    if (slot < 0) return null;
    const id = slot + DEVICE_COUNT_MAX * (this.generations[slot] as number);
    const open = new OpenDevice(id, volume, access, exclusive);
    this.slots[slot] = open;
    this.byVolume.set(volume, open);
    return open;
  }

  /** Ends an open and forgets its id. */
  remove(open: OpenDevice): void {
    const slot = open.id % DEVICE_COUNT_MAX;
    assert(this.slots[slot] === open, "an open is in the slot of its id");
    this.slots[slot] = null;
    this.byVolume.delete(open.volume);
    const generation = (this.generations[slot] as number) + 1;
    this.generations[slot] = generation;
    if (generation < GENERATION_COUNT) this.freeSlots.push(slot);
    open.end();
  }

  /** Ends all. */
  clear(): void {
    for (const open of [...this.byVolume.values()]) this.remove(open);
  }

  /** The opens there are; for display. */
  list(): readonly OpenDevice[] {
    return [...this.byVolume.values()];
  }

  /** A slot never used while there is one, then the one unused longest; -1 for none. */
  private takeSlot(): number {
    if (this.slots.length < DEVICE_COUNT_MAX) {
      this.slots.push(null);
      this.generations.push(0);
      return this.slots.length - 1;
    }
    return this.freeSlots.count > 0 ? this.freeSlots.shift() : -1;
  }
}
