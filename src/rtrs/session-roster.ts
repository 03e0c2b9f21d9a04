// SPDX-License-Identifier: MIT
// What the servers of one host's lanes must know of each other's sessions: how many there are, and
// their names, since both are the host's. Everything else of a session is on its lane alone.
//
// A table in shared memory behind a lock that is held for a look through the table, and taken when
// a session comes, gives its name, or goes.

import { assert, decodeUtf8, encodeUtf8 } from "../base/index.js";

/** A place in the roster, of one session. */
export type RosterPlace = number;
/** `enter`: there are as many sessions as may be. */
export const ROSTER_FULL = -1;

// Words of the table.
const LOCK = 0;
/** Goes up when somebody wants to know whether a session is still alive. */
const PROBES = 1;
const HEADER_WORDS = 4;
// Words of a place: the lane + 1, or 0 for none; whether it is to be probed; bytes of the name.
const LANE = 0;
const PROBED = 1;
const NAME_LENGTH = 2;
const PLACE_WORDS = 3;
const NAME_BYTES_MAX = 256;
const PLACE_BYTES = PLACE_WORDS * 4 + NAME_BYTES_MAX;
/** One look at a taken lock; it is let go in microseconds, unless its thread lost its processor. */
const LOCK_WAIT_MS = 1;

export interface RosterOptions {
  /** From `SessionRoster.allocate`, the same for all lanes. */
  readonly shared: SharedArrayBuffer;
  /** The lane whose server this one is for. */
  readonly lane: number;
  /** Has another lane's server pumped soon: `takeProbes` has something for it. */
  readonly wake: (lane: number) => void;
}

/** One lane's view of the table. */
export class SessionRoster {
  private readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly placeCount: number;
  private readonly lane: number;
  private readonly wake: (lane: number) => void;
  private probesSeen = 0;

  constructor(options: RosterOptions) {
    this.words = new Int32Array(options.shared);
    this.bytes = new Uint8Array(options.shared);
    this.placeCount = (options.shared.byteLength - HEADER_WORDS * 4) / PLACE_BYTES;
    this.lane = options.lane;
    this.wake = options.wake;
  }

  /** A table for `sessionCountMax` sessions of all lanes together. */
  static allocate(sessionCountMax: number): SharedArrayBuffer {
    return new SharedArrayBuffer(HEADER_WORDS * 4 + sessionCountMax * PLACE_BYTES);
  }

  /** A place for a session without a name, or `ROSTER_FULL`. To be given back by `leave`. */
  enter(): RosterPlace {
    this.lock();
    let place: RosterPlace = ROSTER_FULL;
    for (let i = 0; i < this.placeCount && place === ROSTER_FULL; i++) {
      if (this.words[this.at(i) + LANE] === 0) place = i;
    }
    if (place !== ROSTER_FULL) {
      const at = this.at(place);
      this.words[at + LANE] = this.lane + 1;
      this.words[at + PROBED] = 0;
      this.words[at + NAME_LENGTH] = 0;
    }
    this.unlock();
    return place;
  }

  leave(place: RosterPlace): void {
    this.lock();
    const at = this.at(place);
    const isOurs = this.words[at + LANE] === this.lane + 1;
    this.words[at + LANE] = 0;
    this.words[at + NAME_LENGTH] = 0;
    this.unlock();
    assert(isOurs, "a place is given back once, by the lane that took it");
  }

  /**
   * Gives the session at `place` its name.
   * @returns false when another session has it, which is probed: often it is the same client's,
   *   whose former process is dead.
   */
  claim(place: RosterPlace, name: string): boolean {
    const wanted = encodeUtf8(name);
    assert(wanted.length > 0 && wanted.length <= NAME_BYTES_MAX, "a name's length is checked");
    this.lock();
    let holder = -1;
    for (let i = 0; i < this.placeCount && holder < 0; i++) {
      if (i !== place && this.isNamed(i, wanted)) holder = i;
    }
    let lane = -1;
    if (holder < 0) {
      const at = this.at(place);
      this.words[at + NAME_LENGTH] = wanted.length;
      this.bytes.set(wanted, (at + PLACE_WORDS) * 4);
    } else {
      const at = this.at(holder);
      this.words[at + PROBED] = 1;
      lane = (this.words[at + LANE] as number) - 1;
      Atomics.add(this.words, PROBES, 1);
    }
    this.unlock();
    if (lane >= 0) this.wake(lane);
    return lane < 0;
  }

  /** Whether somebody has asked for any lane's session since the last call. */
  hasProbes(): boolean {
    const probes = Atomics.load(this.words, PROBES);
    if (probes === this.probesSeen) return false;
    this.probesSeen = probes;
    return true;
  }

  /** Whether the session at `place` is to be probed; asked once. */
  takeProbe(place: RosterPlace): boolean {
    return Atomics.exchange(this.words, this.at(place) + PROBED, 0) === 1;
  }

  /** Names in the table; for display. */
  names(): string[] {
    this.lock();
    const names: string[] = [];
    for (let i = 0; i < this.placeCount; i++) {
      const at = this.at(i);
      const start = (at + PLACE_WORDS) * 4;
      const length = this.words[at + NAME_LENGTH] as number;
      if (length > 0) names.push(decodeUtf8(this.bytes, start, start + length) ?? "");
    }
    this.unlock();
    return names;
  }

  private at(place: RosterPlace): number {
    assert(place >= 0 && place < this.placeCount, "the place is in the table");
    return HEADER_WORDS + place * (PLACE_BYTES / 4);
  }

  private isNamed(place: RosterPlace, name: Uint8Array): boolean {
    const at = this.at(place);
    if (this.words[at + NAME_LENGTH] !== name.length) return false;
    const start = (at + PLACE_WORDS) * 4;
    for (let i = 0; i < name.length; i++) if (this.bytes[start + i] !== name[i]) return false;
    return true;
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
