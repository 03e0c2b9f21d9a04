// SPDX-License-Identifier: MIT
// What the lanes of one process hand each other: a few bursts in shared memory, and a bell (an
// eventfd) that wakes the receiving lane. Any thread may put something in, one takes it out.
//
// It is for the exception: packets that the kernel brought to another lane than theirs, since it
// merges datagrams of one sender (GRO) whatever queue pairs they name. So a full box loses packets,
// as a full socket buffer does, and a lane never waits for another: whoever finds the box in
// somebody else's hands for longer than a copy takes loses his.

import { assert } from "../base/index.js";
import { RxBurst } from "../transport/index.js";
import type { PolledDescriptor, Poller } from "./door.js";
import { failure } from "./failure.js";
import { mapBlock, unmapBlock } from "./memory-source.js";
import { loadNative, type NativeBlock } from "./native.js";

const EFD_CLOEXEC_NONBLOCK = 0x80800;

/** Bursts that wait in a box. */
const SLOT_COUNT = 8;
const BURST_BYTES = 65_536;
/** Words in front of a slot's bytes, in this order. */
const FIELDS = [
  "length",
  "segmentLength",
  "port",
  "source0",
  "source1",
  "source2",
  "source3",
  "sourcePort",
  "trafficClass",
] as const;
const SLOT_HEADER_BYTES = 64;
const SLOT_BYTES = SLOT_HEADER_BYTES + BURST_BYTES;
/** Words of the box: who writes, how many were written, how many were read. */
const LOCK = 0;
const WRITTEN = 1;
const READ = 2;
const BOX_HEADER_BYTES = 64;
/** Looks at a taken lock before giving up: some ten microseconds. */
const LOCK_TRIES = 1000;

/** Plain data, for every thread of the process. */
export interface LaneBox {
  readonly shared: SharedArrayBuffer;
  /** The bell's descriptor. */
  readonly bell: number;
}

/** @throws FarpageError EMFILE and its like. To be freed by `freeLaneBox`. */
export function makeLaneBox(): LaneBox {
  const bell = loadNative().libc.eventfd(0, EFD_CLOEXEC_NONBLOCK);
  if (bell < 0) throw failure("make a bell for a lane");
  return { shared: new SharedArrayBuffer(BOX_HEADER_BYTES + SLOT_COUNT * SLOT_BYTES), bell };
}

/** Preconditions: no thread uses it any more. */
export function freeLaneBox(box: LaneBox): void {
  loadNative().libc.close(box.bell);
}

/** Rings the bells of lanes, its own or others'. One per thread. */
export class BellRinger {
  /** The eight bytes that are written. */
  private readonly block: NativeBlock = mapBlock(8);

  constructor() {
    this.block.view.setUint32(0, 1, true);
  }

  /** Has the lane of `box` take its next turn soon. Never blocks. */
  ring(box: LaneBox): void {
    loadNative().libc.write(box.bell, this.block.address, 8);
  }

  close(): void {
    unmapBlock(this.block);
  }
}

/** Puts a copy of `burst` into a box of another lane. @returns false when it found no room. */
export function putBurst(box: LaneBox, burst: RxBurst): boolean {
  const words = new Int32Array(box.shared, 0, 3);
  if (!takeLock(words)) return false;
  const written = Atomics.load(words, WRITTEN);
  const hasRoom = ((written - Atomics.load(words, READ)) | 0) < SLOT_COUNT;
  if (hasRoom) {
    const at = BOX_HEADER_BYTES + (written & (SLOT_COUNT - 1)) * SLOT_BYTES;
    const header = new Uint32Array(box.shared, at, FIELDS.length);
    FIELDS.forEach((field, index) => {
      header[index] = burst[field];
    });
    const bytes = burst.bytes.subarray(burst.offset, burst.offset + burst.length);
    new Uint8Array(box.shared, at + SLOT_HEADER_BYTES, BURST_BYTES).set(bytes);
    Atomics.store(words, WRITTEN, (written + 1) | 0);
  }
  Atomics.store(words, LOCK, 0);
  return hasRoom;
}

function takeLock(words: Int32Array): boolean {
  for (let i = 0; i < LOCK_TRIES; i++) {
    if (Atomics.compareExchange(words, LOCK, 0, 1) === 0) return true;
  }
  return false;
}

/** The receiving end of a box, in the hands of its lane. */
export class LaneInbox {
  /** `bursts[0 .. n-1]` hold what the last `take` brought. */
  readonly bursts: readonly RxBurst[];
  private readonly words: Int32Array;
  private readonly shared: SharedArrayBuffer;
  private readonly polled: PolledDescriptor;
  private readonly bell: number;
  private readonly block: NativeBlock = mapBlock(8);

  constructor(box: LaneBox, poller: Poller) {
    this.shared = box.shared;
    this.words = new Int32Array(box.shared, 0, 3);
    this.bell = box.bell;
    this.polled = poller.add(box.bell);
    // A copy of its own: nobody can change what has been checked.
    this.bursts = Array.from(
      { length: SLOT_COUNT },
      () => new RxBurst(new Uint8Array(BURST_BYTES)),
    );
  }

  /** The bell has rung. */
  get readable(): boolean {
    return this.polled.readable;
  }

  /** @returns how many bursts have come. */
  take(): number {
    loadNative().libc.read(this.bell, this.block.address, 8);
    const written = Atomics.load(this.words, WRITTEN);
    let read = Atomics.load(this.words, READ);
    let count = 0;
    for (; read !== written; read = (read + 1) | 0) {
      const at = BOX_HEADER_BYTES + (read & (SLOT_COUNT - 1)) * SLOT_BYTES;
      const burst = this.bursts[count++] as RxBurst;
      const header = new Uint32Array(this.shared, at, FIELDS.length);
      FIELDS.forEach((field, index) => {
        burst[field] = header[index] as number;
      });
      assert(burst.length <= BURST_BYTES, "a burst fits its slot");
      burst.bytes.set(new Uint8Array(this.shared, at + SLOT_HEADER_BYTES, burst.length));
    }
    Atomics.store(this.words, READ, read);
    return count;
  }

  close(): void {
    this.polled.remove();
    unmapBlock(this.block);
  }
}
