// SPDX-License-Identifier: MIT
// Who lives on the lab's server beside its files: processes with their page tables and stacks, the
// kernel's own objects and pages, and buffers that are pinned for devices.

import type { Random } from "../../base/index.js";
import { NO_OBJECT, type ObjectAddress, SlabCache } from "../alloc/index.js";
import {
  ALLOCATE,
  MIGRATE,
  MOVE_RESULT,
  PAGE_BLOCK_FRAMES,
  PAGE_BLOCK_ORDER,
  type PhysicalMemory,
} from "../frames/index.js";
import { leaveMovable, mustLeaveMovable } from "../pin/long-term.js";
import { exponential, logNormal, poisson, uniform } from "./chance.js";
import { FrameSet, type Ledger, NO_SLOT, type Slot } from "./frame-set.js";

/** Something with an end. */
interface Resident {
  readonly endMinute: number;
  leave(): void;
}

/** Residents by when they leave. */
export class Residents {
  private readonly all = new Map<number, Resident[]>();

  add(resident: Resident): void {
    const minute = Math.ceil(resident.endMinute);
    const list = this.all.get(minute);
    if (list === undefined) this.all.set(minute, [resident]);
    else list.push(resident);
  }

  /** Everybody leaves whose time is over. */
  leaveAt(minute: number): void {
    for (const resident of this.all.get(minute) ?? []) resident.leave();
    this.all.delete(minute);
  }
}

/** What every kind of resident needs. */
export interface Home {
  readonly memory: PhysicalMemory;
  readonly ledger: Ledger;
  readonly residents: Residents;
  readonly random: Random;
}

/** A number of frames in blocks of 2 MiB, where they are to be had, and base pages. */
export class Frames {
  readonly set: FrameSet;
  readonly slots: Slot[] = [];
  /** Blocks of 2 MiB, and others. */
  hugeCount = 0;
  readonly asked: number;
  private given = 0;
  private readonly home: Home;

  /** @param hugeFlags flags of requests for 2 MiB; null: base pages alone. */
  constructor(home: Home, set: FrameSet, frames: number, hugeFlags: number | null) {
    this.home = home;
    this.set = set;
    const unit = 2 ** (home.memory.policy.baseShift - 12);
    let left = frames;
    let isHuge = hugeFlags !== null;
    while (left > 0) {
      isHuge = isHuge && left >= PAGE_BLOCK_FRAMES;
      const order = isHuge ? PAGE_BLOCK_ORDER : 0;
      const slot = set.take(order, MIGRATE.MOVABLE, isHuge ? (hugeFlags ?? 0) : 0);
      if (slot === NO_SLOT && !isHuge) break;
      if (slot === NO_SLOT) {
        isHuge = false;
        continue;
      }
      this.slots.push(slot);
      const size = isHuge ? PAGE_BLOCK_FRAMES : unit;
      if (isHuge) this.hugeCount++;
      this.given += size;
      left -= size;
    }
    this.asked = left > 0 ? frames - left : frames;
    home.ledger.asked += this.asked;
    home.ledger.given += this.given;
  }

  free(): void {
    for (const slot of this.slots) this.set.give(slot);
    this.home.ledger.asked -= this.asked;
    this.home.ledger.given -= this.given;
  }
}

/** Programs: anonymous memory, and what the kernel keeps for each of them. */
export class Processes {
  private readonly anonymous: FrameSet;
  private readonly kernel: FrameSet;
  private readonly home: Home;

  constructor(home: Home) {
    this.home = home;
    this.anonymous = new FrameSet(home.memory, "anonymous memory");
    this.kernel = new FrameSet(home.memory, "page tables and stacks");
  }

  /** A program of so many frames runs until `endMinute`. */
  start(frames: number, endMinute: number): void {
    const stack = this.kernel.take(2, MIGRATE.UNMOVABLE);
    const tables: Slot[] = [];
    for (let i = 0; i < 4 + frames / PAGE_BLOCK_FRAMES; i++) {
      const slot = this.kernel.take(0, MIGRATE.UNMOVABLE);
      if (slot !== NO_SLOT) tables.push(slot);
    }
    // As a program that asks for huge pages at a fault and waits for none of them.
    const own = new Frames(this.home, this.anonymous, frames, ALLOCATE.NO_COMPACT);
    this.home.residents.add({
      endMinute,
      leave: () => {
        own.free();
        for (const slot of tables) this.kernel.give(slot);
        if (stack !== NO_SLOT) this.kernel.give(stack);
      },
    });
  }
}

/** The kernel's own: objects of sessions and packets, and pages that drivers and pipes hold. */
export class KernelObjects {
  private readonly sessions: SlabCache;
  private readonly packets: SlabCache;
  private readonly pages: FrameSet;
  private readonly packetsHeld: ObjectAddress[] = [];
  private readonly home: Home;

  constructor(home: Home) {
    this.home = home;
    this.sessions = new SlabCache(home.memory, { name: "sessions", objectBytes: 512 });
    this.packets = new SlabCache(home.memory, { name: "packets", objectBytes: 2048 });
    this.pages = new FrameSet(home.memory, "kernel pages");
  }

  /** What is there from boot on and never leaves. */
  boot(frames: number): void {
    for (let left = frames; left >= PAGE_BLOCK_FRAMES; left -= PAGE_BLOCK_FRAMES) {
      this.pages.take(PAGE_BLOCK_ORDER, MIGRATE.UNMOVABLE);
    }
  }

  openSession(endMinute: number): void {
    const object = this.sessions.allocate();
    if (object === NO_OBJECT) return;
    this.home.residents.add({ endMinute, leave: () => this.sessions.free(object) });
  }

  holdPages(order: number, endMinute: number): void {
    const slot = this.pages.take(order, MIGRATE.UNMOVABLE);
    if (slot === NO_SLOT) return;
    this.home.residents.add({ endMinute, leave: () => this.pages.give(slot) });
  }

  /** Packets come and go; in the end `target` of them are held. */
  turnPackets(target: number, share: number): void {
    const { random } = this.home;
    const leaving = Math.floor(this.packetsHeld.length * share);
    for (let i = 0; i < leaving; i++) {
      const at = Math.floor(uniform(random) * this.packetsHeld.length);
      const last = this.packetsHeld.pop() as ObjectAddress;
      if (at < this.packetsHeld.length) {
        this.packets.free(this.packetsHeld[at] as ObjectAddress);
        this.packetsHeld[at] = last;
      } else {
        this.packets.free(last);
      }
    }
    while (this.packetsHeld.length < target) {
      const object = this.packets.allocate();
      if (object === NO_OBJECT) return;
      this.packetsHeld.push(object);
    }
    while (this.packetsHeld.length > target) {
      this.packets.free(this.packetsHeld.pop() as ObjectAddress);
    }
  }
}

/**
 * Buffers of programs, pinned for a device for as long as they live, by the same rule as the pins
 * of a process (`pin/long-term.ts`). But they are no process's, whose pages are 4 KiB each: a
 * policy may hand out nothing below 64 KiB.
 */
export class PinnedBuffers {
  /** Buffers that could not be moved out of movable memory, and so were not pinned. */
  refused = 0;
  private readonly set: FrameSet;
  private readonly home: Home;

  constructor(home: Home) {
    this.home = home;
    this.set = new FrameSet(home.memory, "pinned buffers");
  }

  /** Registers a buffer of so many frames until `endMinute`. */
  register(frames: number, endMinute: number): void {
    const buffer = new Frames(this.home, this.set, frames, 0);
    if (!this.pinAll(buffer)) {
      this.refused++;
      buffer.free();
      return;
    }
    const { memory } = this.home;
    this.home.residents.add({
      endMinute,
      leave: () => {
        for (const slot of buffer.slots) memory.unpin(this.set.pfnOf(slot));
        buffer.free();
      },
    });
  }

  private pinAll(buffer: Frames): boolean {
    const { memory } = this.home;
    const pinned: Slot[] = [];
    for (const slot of buffer.slots) {
      if (!this.leaveMovable(slot)) {
        for (const done of pinned) memory.unpin(this.set.pfnOf(done));
        return false;
      }
      memory.pin(this.set.pfnOf(slot));
      pinned.push(slot);
    }
    return true;
  }

  private leaveMovable(slot: Slot): boolean {
    const { memory } = this.home;
    if (!mustLeaveMovable(memory, this.set.pfnOf(slot))) return true;
    return leaveMovable(memory, () => this.set.pfnOf(slot)) === MOVE_RESULT.DONE;
  }
}

/** Draws that decide who comes in a minute: the same for every policy. */
export class Arrivals {
  private readonly random: Random;

  constructor(random: Random) {
    this.random = random;
  }

  /** Calls `come` for each arrival of a rate per hour with a size and a stay in minutes. */
  draw(
    perHour: number,
    size: { readonly median: number; readonly sigma: number },
    stay: { readonly minutes: number; readonly longShare: number; readonly longMinutes: number },
    come: (size: number, minutes: number) => void,
  ): void {
    for (let count = poisson(this.random, perHour / 60); count > 0; count--) {
      const frames = Math.max(1, Math.round(logNormal(this.random, size.median, size.sigma)));
      const isLong = uniform(this.random) < stay.longShare;
      const mean = isLong ? stay.longMinutes : stay.minutes;
      come(frames, exponential(this.random, mean));
    }
  }
}
