// SPDX-License-Identifier: MIT
// What a purpose gives: pages that are held, and the one way to let go of them. A class each, so
// that what was taken in one way can't be released in another.

import { assert } from "../../base/index.js";
import type { PhysicalMemory } from "../frames/index.js";
import type { FrameRun } from "../region/index.js";
import { ACCESS, type Access, type AddressSpace } from "../space/index.js";
import { INTENT } from "./intent.js";
import type { FileLease } from "./interfaces.js";
import type { PinPurpose } from "./options.js";

/** What `release` is told: of pages that could be written, whether they may have been. */
export type Written<A extends Access> = A extends typeof ACCESS.WRITE ? [isDirty: boolean] : [];

/** The pinner's side of a hold. */
export interface HoldState {
  readonly memory: PhysicalMemory;
  readonly space: AddressSpace;
  readonly address: number;
  readonly length: number;
  readonly access: Access;
  readonly intent: number;
  readonly runs: readonly FrameRun[];
  readonly holder: string;
  /** Gives the pages back. */
  readonly end: (hold: Hold, isDirty: boolean) => void;
}

/** Pages of a process that are held for some purpose. */
export abstract class Hold {
  abstract readonly purpose: PinPurpose;
  readonly space: AddressSpace;
  readonly address: number;
  readonly length: number;
  readonly access: Access;
  /** Frames of the whole pages around the range, joined where they are neighbours. */
  readonly runs: readonly FrameRun[];
  /** Who holds it, for people. */
  readonly holder: string;
  /** Whether the frames are pinned; else they are referenced alone. */
  readonly isPinned: boolean;
  private readonly state: HoldState;
  private isOver = false;
  /** By the CPU, through the hold itself. */
  private isWritten = false;

  /** Pinner only. */
  constructor(state: HoldState) {
    this.state = state;
    this.space = state.space;
    this.address = state.address;
    this.length = state.length;
    this.access = state.access;
    this.runs = state.runs;
    this.holder = state.holder;
    this.isPinned = (state.intent & INTENT.PIN) !== 0;
  }

  /** Whether it was released. */
  get isReleased(): boolean {
    return this.isOver;
  }

  get frameCount(): number {
    let count = 0;
    for (const run of this.runs) count += run.count;
    return count;
  }

  protected finish(purpose: PinPurpose, isDirty: boolean): void {
    assert(this.purpose === purpose, `pages taken for ${this.purpose} are released as that`);
    assert(!this.isOver, "pages are released once");
    assert(!isDirty || this.access === ACCESS.WRITE, "what could only be read was not written");
    assert(isDirty || !this.isWritten, "what was written is dirty");
    this.isOver = true;
    this.state.end(this, isDirty);
  }

  protected copy(offset: number, bytes: Uint8Array, isWrite: boolean): void {
    assert(!this.isOver, "pages are copied while they are held");
    assert(offset >= 0 && offset + bytes.length <= this.length, "a copy stays in what is held");
    if (isWrite) this.isWritten = true;
    const { memory } = this.state;
    let skip = (this.address % 4096) + offset;
    let done = 0;
    for (const run of this.runs) {
      for (let i = Math.floor(skip / 4096); i < run.count && done < bytes.length; i++) {
        const inPage = skip - i * 4096;
        const count = Math.min(4096 - inPage, bytes.length - done);
        const at = memory.offsetOf(run.pfn + i) + inPage;
        const page = memory.bytesOf(run.pfn + i).subarray(at, at + count);
        if (isWrite) page.set(bytes.subarray(done, done + count));
        else bytes.set(page, done);
        done += count;
        skip += count;
      }
      skip -= run.count * 4096;
      if (done === bytes.length) return;
    }
  }
}

/** For one DMA transfer. */
export class ShortDmaPin<A extends Access = Access> extends Hold {
  readonly purpose = "short-dma";

  /** The transfer is over. @param written for pages that could be written: whether they may be. */
  release(...written: Written<A>): void {
    this.finish("short-dma", written[0] === true);
  }
}

/** For DMA until further notice. */
export class LongTermPin<A extends Access = Access> extends Hold {
  readonly purpose = "long-term-dma";
  /** Pinner only: the leases that it relies on, and what takes it back. */
  readonly lease: FileLease | null;
  readonly onRevoke: ((pin: LongTermPin) => void) | null;

  constructor(
    state: HoldState,
    lease: FileLease | null,
    onRevoke: ((pin: LongTermPin) => void) | null,
  ) {
    super(state);
    this.lease = lease;
    this.onRevoke = onRevoke;
  }

  /** The device has let go. */
  release(...written: Written<A>): void {
    this.finish("long-term-dma", written[0] === true);
    this.lease?.unpinned(this as unknown as LongTermPin);
  }

  /** Pinner only: the memory is taken back. Nothing of it is used any more on return. */
  revoke(): void {
    assert(this.onRevoke !== null, "a device's memory is pinned by who can give it back");
    this.onRevoke(this as unknown as LongTermPin);
    if (this.isReleased) return;
    this.finish("long-term-dma", this.access === ACCESS.WRITE);
    this.lease?.unpinned(this as unknown as LongTermPin);
  }
}

/**
 * Pages that the CPU copies from or to. To read, a reference is enough. To write they are pinned:
 * else a fork, a writeback or a move in between would have the bytes land in a page that is
 * somebody else's by then (Linux `pin_user_pages.rst`, case 5).
 */
abstract class Borrow extends Hold {
  /** Copies out, from `offset` of the range on. */
  read(offset: number, target: Uint8Array): void {
    this.copy(offset, target, false);
  }

  /** Copies in. Preconditions: borrowed to be written. */
  write(offset: number, source: Uint8Array): void {
    assert(this.access === ACCESS.WRITE, "what was borrowed to be read is not written");
    this.copy(offset, source, true);
  }
}

/** Pages of whoever asks. */
export class CpuBorrow<A extends Access = Access> extends Borrow {
  readonly purpose = "cpu-copy";

  release(...written: Written<A>): void {
    this.finish("cpu-copy", written[0] === true);
  }
}

/** Pages of another process. */
export class RemoteBorrow<A extends Access = Access> extends Borrow {
  readonly purpose = "remote";

  release(...written: Written<A>): void {
    this.finish("remote", written[0] === true);
  }
}
