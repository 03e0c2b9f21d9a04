// SPDX-License-Identifier: MIT
// Who has a volume open how: one word, so that the lanes of a host can share it without a lock.

import { assert, ERRNO } from "../base/index.js";
import { RNBD_ACCESS, type RnbdAccess } from "../wire/index.js";

// The word: readers in the low 16 bits, then writers, those that migrate, and whether the one open
// there is was given alone.
const READER = 1;
const READERS_MASK = 0xffff;
const WRITER = 1 << 16;
const WRITERS_SHIFT = 16;
const MIGRATION = 1 << 20;
const MIGRATIONS_SHIFT = 20;
const COUNT_MASK = 15;
const EXCLUSIVE = 1 << 24;

/** The rights to one volume. */
export class VolumeRights {
  private readonly word: Int32Array;

  /** @param word one word, 0 at first; in shared memory where several lanes have the volume. */
  constructor(word: Int32Array) {
    this.word = word;
  }

  /** Opens of all sessions on all lanes. */
  get openCount(): number {
    return openCountOf(Atomics.load(this.word, 0));
  }

  /**
   * Takes a right (facts page 13: any number of readers, one writer; two where one of them only
   * migrates).
   * @returns 0; EPERM when somebody else has the right to write, EBUSY where one of both must be
   *   alone, EMFILE for more readers than can be counted.
   */
  acquire(access: RnbdAccess, exclusive: boolean): number {
    for (;;) {
      const state = Atomics.load(this.word, 0);
      const errno = refusalOf(state, access, exclusive);
      if (errno !== 0) return errno;
      const next = (state + unitOf(access)) | (exclusive ? EXCLUSIVE : 0);
      if (Atomics.compareExchange(this.word, 0, state, next) === state) return 0;
    }
  }

  /** Gives back what `acquire` gave. */
  release(access: RnbdAccess, exclusive: boolean): void {
    const state = Atomics.sub(this.word, 0, unitOf(access) + (exclusive ? EXCLUSIVE : 0));
    assert(exclusive === ((state & EXCLUSIVE) !== 0), "who has it alone gives it back");
    assert(countOf(state, access) > 0, "no more rights released than acquired");
  }

  checkInvariants(): void {
    const state = Atomics.load(this.word, 0);
    assert(writersOf(state) <= 2, "two writers at most");
    assert((state & EXCLUSIVE) === 0 || openCountOf(state) === 1, "exclusive is the only one");
  }
}

function refusalOf(state: number, access: RnbdAccess, exclusive: boolean): number {
  if ((state & EXCLUSIVE) !== 0 || (exclusive && openCountOf(state) > 0)) return ERRNO.EBUSY;
  if (access === RNBD_ACCESS.RO) {
    return (state & READERS_MASK) === READERS_MASK ? ERRNO.EMFILE : 0;
  }
  return writersOf(state) >= (access === RNBD_ACCESS.RW ? 1 : 2) ? ERRNO.EPERM : 0;
}

function unitOf(access: RnbdAccess): number {
  if (access === RNBD_ACCESS.RO) return READER;
  return access === RNBD_ACCESS.RW ? WRITER : MIGRATION;
}

function countOf(state: number, access: RnbdAccess): number {
  if (access === RNBD_ACCESS.RO) return state & READERS_MASK;
  const shift = access === RNBD_ACCESS.RW ? WRITERS_SHIFT : MIGRATIONS_SHIFT;
  return (state >> shift) & COUNT_MASK;
}

function writersOf(state: number): number {
  return ((state >> WRITERS_SHIFT) & COUNT_MASK) + ((state >> MIGRATIONS_SHIFT) & COUNT_MASK);
}

function openCountOf(state: number): number {
  return (state & READERS_MASK) + writersOf(state);
}
