// SPDX-License-Identifier: MIT
// Who has a volume open how: a few words, so that the lanes of a host can share them.
//
// The right to write is given to one client. A client that has a session on each of its lanes says
// with each that they are one *group*: a name of 128 bits that it has drawn at random and tells
// nobody else. Sessions of one group share a right, which lasts until the last request of the last
// of their opens has left its device; so nobody else becomes the writer while a write of any of
// them may still land.
//
// The words are behind a lock. It is taken when a volume is opened, and when an open has ended and
// its last request is over; never by other requests.

import { assert, ERRNO } from "../base/index.js";
import { RNBD_ACCESS, RNBD_GROUP_BYTES, type RnbdAccess } from "../wire/index.js";

const LOCK = 0;
const READERS = 1;
/** Opens for writing: one, or several of one group. */
const WRITERS = 2;
const MIGRATIONS = 3;
/** Opens that were given alone, each of which counts above, too: one, or several of one group. */
const ALONE = 4;
/** Name of the group that WRITERS or ALONE are of; zeroes for none. */
const GROUP = 5;
const GROUP_WORDS = RNBD_GROUP_BYTES / 4;
const WORD_COUNT = GROUP + GROUP_WORDS;

const COUNT_MAX = 0xffff;
/** One look at a taken lock; it is let go at once, unless its thread lost its processor. */
const LOCK_WAIT_MS = 1;

/** The rights to one volume. */
export class VolumeRights {
  static readonly byteLength = WORD_COUNT * 4;

  private readonly words: Int32Array;

  /**
   * @param memory `byteLength` bytes, 0 at first; the same for all lanes where several have the
   *   volume. Default: its own.
   */
  constructor(memory: ArrayBufferLike = new ArrayBuffer(VolumeRights.byteLength)) {
    assert(memory.byteLength === VolumeRights.byteLength, "memory for the rights to one volume");
    this.words = new Int32Array(memory);
  }

  /** Opens of all sessions on all lanes. */
  get openCount(): number {
    this.lock();
    const count = this.total();
    this.unlock();
    return count;
  }

  /**
   * Takes a right (facts page 13: any number of readers, one writer; two where one of them only
   * migrates).
   * @param group the name of the group that the session belongs to; null for none.
   * @returns 0; EPERM when somebody else has the right to write, EBUSY where one of both must be
   *   alone, EMFILE for more opens than can be counted.
   */
  acquire(access: RnbdAccess, exclusive: boolean, group: Uint8Array | null = null): number {
    this.lock();
    const errno = this.refusal(access, exclusive, group);
    if (errno === 0) this.take(access, exclusive, group);
    this.unlock();
    return errno;
  }

  /** Gives back what `acquire` gave. */
  release(access: RnbdAccess, exclusive: boolean): void {
    this.lock();
    const kind = kindOf(access);
    const isHeld = this.get(kind) > 0 && (!exclusive || this.get(ALONE) > 0);
    if (isHeld) {
      this.add(kind, -1);
      if (exclusive) this.add(ALONE, -1);
      if (this.get(WRITERS) === 0 && this.get(ALONE) === 0) this.setGroup(null);
    }
    this.unlock();
    assert(isHeld, "no more rights released than acquired");
  }

  checkInvariants(): void {
    this.lock();
    const [writers, alone, total] = [this.get(WRITERS), this.get(ALONE), this.total()];
    const migrations = this.get(MIGRATIONS);
    const hasGroup = this.hasGroup();
    this.unlock();
    assert(hasGroup || writers <= 1, "several writers are of one group");
    assert(Math.min(writers, 1) + migrations <= 2, "two writers at most, a group counting once");
    assert(alone === 0 || alone === total, "who has it alone is the only one");
    assert(hasGroup || alone <= 1, "several who have it alone are of one group");
    assert(!hasGroup || writers + alone > 0, "a group is known while it has a right of its own");
  }

  private refusal(access: RnbdAccess, exclusive: boolean, group: Uint8Array | null): number {
    const total = this.total();
    const isMember = group !== null && this.isGroup(group);
    if (this.get(ALONE) > 0 ? !(exclusive && isMember) : exclusive && total > 0) return ERRNO.EBUSY;
    if (this.get(kindOf(access)) === COUNT_MAX) return ERRNO.EMFILE;
    if (access === RNBD_ACCESS.RO) return 0;
    const writers = this.get(WRITERS);
    if (access === RNBD_ACCESS.RW) {
      if (writers > 0) return isMember ? 0 : ERRNO.EPERM;
      return this.get(MIGRATIONS) > 0 ? ERRNO.EPERM : 0;
    }
    return Math.min(writers, 1) + this.get(MIGRATIONS) >= 2 ? ERRNO.EPERM : 0;
  }

  private take(access: RnbdAccess, exclusive: boolean, group: Uint8Array | null): void {
    const isFirst = this.get(WRITERS) === 0 && this.get(ALONE) === 0;
    if (isFirst && (access === RNBD_ACCESS.RW || exclusive)) this.setGroup(group);
    this.add(kindOf(access), 1);
    if (exclusive) this.add(ALONE, 1);
  }

  private total(): number {
    return this.get(READERS) + this.get(WRITERS) + this.get(MIGRATIONS);
  }

  /** Whether the rights are of `group`: it takes as long wherever two names differ. */
  private isGroup(group: Uint8Array): boolean {
    let difference = 0;
    for (let i = 0; i < GROUP_WORDS; i++) difference |= this.get(GROUP + i) ^ wordOf(group, i);
    return difference === 0 && this.hasGroup();
  }

  private hasGroup(): boolean {
    let any = 0;
    for (let i = 0; i < GROUP_WORDS; i++) any |= this.get(GROUP + i);
    return any !== 0;
  }

  private setGroup(group: Uint8Array | null): void {
    for (let i = 0; i < GROUP_WORDS; i++) {
      this.words[GROUP + i] = group === null ? 0 : wordOf(group, i);
    }
  }

  private get(index: number): number {
    return this.words[index] as number;
  }

  private add(index: number, count: number): void {
    this.words[index] = this.get(index) + count;
  }

  private lock(): void {
    while (Atomics.compareExchange(this.words, LOCK, 0, 1) !== 0) {
      Atomics.wait(this.words, LOCK, 1, LOCK_WAIT_MS);
    }
  }

  private unlock(): void {
    Atomics.store(this.words, LOCK, 0);
    Atomics.notify(this.words, LOCK, 1);
  }
}

function kindOf(access: RnbdAccess): number {
  if (access === RNBD_ACCESS.RO) return READERS;
  return access === RNBD_ACCESS.RW ? WRITERS : MIGRATIONS;
}

function wordOf(group: Uint8Array, index: number): number {
  let word = 0;
  for (let i = 0; i < 4; i++) word = (word << 8) | (group[index * 4 + i] as number);
  return word;
}
