// SPDX-License-Identifier: MIT
// What a disk may answer, sector by sector: the checker that whole-system runs compare every byte
// with. It knows nothing of networks; it hears of requests when they are submitted and when they
// have completed, and keeps for each sector the set of writes that may be its contents.
//
// The rules, per sector (a register in the sense of Herlihy and Wing's linearizability, 1990):
//  - a write takes effect at one moment between its submission and its completion; one that failed
//    did so or never will;
//  - a read gives what was there at one moment between its submission and its completion;
//  - a discard is a write of zeroes that may choose to do nothing;
//  - when the machine crashes, a sector goes back to any write that is not surely behind a durable
//    one. Durable is: completed before a flush was submitted that has succeeded, or completed with
//    FUA. So a flush that succeeds after a crash says that nothing before it was lost. One that
//    fails says the opposite, once and for all writes that were not durable.

import { assert } from "../../src/base/index.js";

export const SECTOR_BYTES = 512;
const WORDS = SECTOR_BYTES / 4;

/** A write, as the model remembers it. Number 0 stands for zeroes. */
interface Write {
  readonly id: number;
  readonly first: number;
  readonly count: number;
  readonly writesZeroes: boolean;
  readonly startedAt: number;
  /** `Infinity` while in flight. */
  endedAt: number;
  /** Whether it surely took effect. */
  isSure: boolean;
}

interface Read {
  readonly first: number;
  readonly count: number;
  readonly startedAt: number;
  /** Per sector, what it may return: candidates at submission; writes submitted since are added. */
  readonly legal: Set<number>[];
}

/** A checked read that saw what it must not. */
export class ModelViolation extends Error {}

export class DiskModel {
  readonly sectorCount: number;
  /** Counts events, so that "before" is well defined within one instant. */
  private now = 0;
  private nextId = 1;
  /** When the machine crashed last. */
  private crashedAt = Number.NEGATIVE_INFINITY;
  private readonly writes = new Map<number, Write>();
  /** Per sector: what it may hold now, writes in flight aside. */
  private readonly current: Set<number>[];
  /** Per sector: what it may hold after a crash, writes in flight aside. */
  private readonly afterCrash: Set<number>[];
  /** Per sector: writes in flight. */
  private readonly pending: Set<number>[];
  private readonly reads = new Map<number, Read>();
  private readonly flushes = new Map<number, number>();
  checkedSectors = 0;

  /** A disk of zeroes. */
  constructor(sectorCount: number) {
    this.sectorCount = sectorCount;
    const sets = (first: number[]) =>
      Array.from({ length: sectorCount }, () => new Set<number>(first));
    this.current = sets([0]);
    this.afterCrash = sets([0]);
    this.pending = sets([]);
    this.writes.set(0, {
      id: 0,
      first: 0,
      count: sectorCount,
      writesZeroes: true,
      startedAt: -2,
      endedAt: -1,
      isSure: true,
    });
  }

  /** A write is submitted. @returns its number, which `fillSector` and `endWrite` want. */
  startWrite(first: number, count: number, writesZeroes: boolean): number {
    assert(first + count <= this.sectorCount, "inside the disk");
    const id = this.nextId++;
    const startedAt = ++this.now;
    const endedAt = Number.POSITIVE_INFINITY;
    this.writes.set(id, { id, first, count, writesZeroes, startedAt, endedAt, isSure: false });
    for (let sector = first; sector < first + count; sector++)
      this.at(this.pending, sector).add(id);
    for (const read of this.reads.values()) {
      const from = Math.max(first, read.first);
      const end = Math.min(first + count, read.first + read.count);
      for (let sector = from; sector < end; sector++)
        this.at(read.legal, sector - read.first).add(id);
    }
    return id;
  }

  /** @param outcome "maybe": it failed, or was a discard. */
  endWrite(id: number, outcome: "done" | "maybe", isDurable: boolean): void {
    const write = this.writes.get(id) as Write;
    assert(write.endedAt === Number.POSITIVE_INFINITY, "a write ends once");
    write.endedAt = ++this.now;
    write.isSure = outcome === "done";
    for (let sector = write.first; sector < write.first + write.count; sector++) {
      this.at(this.pending, sector).delete(id);
      const current = this.at(this.current, sector);
      const afterCrash = this.at(this.afterCrash, sector);
      // The answer to a write that a crash has undone may still be under way when it strikes.
      const isThere = isDurable || write.startedAt > this.crashedAt;
      if (write.isSure && isThere) this.dropBefore(current, write);
      if (write.isSure && isDurable) this.dropBefore(afterCrash, write);
      current.add(id);
      afterCrash.add(id);
    }
  }

  startFlush(id: number): void {
    this.flushes.set(id, ++this.now);
  }

  endFlush(id: number, isDone: boolean): void {
    const startedAt = this.flushes.get(id);
    assert(startedAt !== undefined, "the flush was started");
    this.flushes.delete(id);
    this.now++;
    for (let sector = 0; sector < this.sectorCount; sector++) {
      const afterCrash = this.at(this.afterCrash, sector);
      if (afterCrash.size === 1) continue;
      for (const candidate of [...afterCrash]) {
        const write = this.writes.get(candidate) as Write;
        if (!isDone) {
          // The failure was told: what was not durable may be lost, and stays lost.
          if (write.endedAt < this.now) write.isSure = false;
        } else if (write.isSure && write.endedAt < startedAt) {
          // If the machine crashed meanwhile, then this write has survived: the flush says so.
          this.dropBefore(afterCrash, write);
          this.dropBefore(this.at(this.current, sector), write);
        }
      }
    }
  }

  startRead(id: number, first: number, count: number): void {
    assert(first + count <= this.sectorCount, "inside the disk");
    const legal: Set<number>[] = [];
    for (let sector = first; sector < first + count; sector++) {
      legal.push(new Set([...this.at(this.current, sector), ...this.at(this.pending, sector)]));
    }
    this.reads.set(id, { first, count, startedAt: ++this.now, legal });
  }

  /**
   * A read has returned `bytes`, or null when it failed.
   * @throws ModelViolation when a byte is none that could be there.
   */
  endRead(id: number, bytes: Uint8Array | null): void {
    const read = this.reads.get(id);
    assert(read !== undefined, "the read was started");
    this.reads.delete(id);
    this.now++;
    if (bytes === null) return;
    assert(bytes.length === read.count * SECTOR_BYTES, "a whole answer");
    const words = new Uint32Array(bytes.slice().buffer);
    for (let index = 0; index < read.count; index++) {
      const sector = read.first + index;
      const legal = this.at(read.legal, index);
      const found = this.findWriters(words, index * WORDS, sector, legal);
      if (found.length === 0) this.checkBytes(bytes, index * SECTOR_BYTES, sector, legal);
      this.checkedSectors++;
      // With no write about, what was read is what is there.
      if (found.length === 0 || this.at(this.pending, sector).size > 0) continue;
      if (read.startedAt < this.crashedAt) continue;
      if (this.isUndisturbed(legal, read)) this.current[sector] = new Set(found);
    }
  }

  /** The machine crashed: whatever was not durable may be gone. Requests in flight stay so. */
  crash(): void {
    this.crashedAt = ++this.now;
    for (let sector = 0; sector < this.sectorCount; sector++) {
      const survivors = new Set(this.at(this.afterCrash, sector));
      this.current[sector] = survivors;
      // A read that comes after may find any of them.
      for (const read of this.reads.values()) {
        const index = sector - read.first;
        if (index < 0 || index >= read.count) continue;
        for (const id of survivors) this.at(read.legal, index).add(id);
      }
    }
  }

  /** Writes in flight. */
  get pendingCount(): number {
    return [...this.writes.values()].filter((write) => write.endedAt === Number.POSITIVE_INFINITY)
      .length;
  }

  /** Forgets writes that can be nobody's contents any more; cheap enough to call now and then. */
  collect(): void {
    const live = new Set<number>([0]);
    for (const sets of [this.current, this.afterCrash, this.pending]) {
      for (const set of sets) for (const id of set) live.add(id);
    }
    for (const read of this.reads.values()) {
      for (const set of read.legal) for (const id of set) live.add(id);
    }
    for (const id of [...this.writes.keys()]) if (!live.has(id)) this.writes.delete(id);
  }

  /** Whether no write to the sector was in flight at any moment of the read. */
  private isUndisturbed(legal: ReadonlySet<number>, read: Read): boolean {
    for (const id of legal) {
      const write = this.writes.get(id) as Write;
      if (write.endedAt > read.startedAt) return false;
    }
    return true;
  }

  /** Removes from `set` what was over before `write` began. */
  private dropBefore(set: Set<number>, write: Write): void {
    for (const id of set) {
      if ((this.writes.get(id) as Write).endedAt < write.startedAt) set.delete(id);
    }
  }

  /** Whose the sector may be: of several only where all wrote zeroes. */
  private findWriters(
    words: Uint32Array,
    offset: number,
    sector: number,
    legal: ReadonlySet<number>,
  ): number[] {
    return [...legal].filter((id) => {
      return this.matches(words, offset, sector, this.writes.get(id) as Write);
    });
  }

  private matches(words: Uint32Array, offset: number, sector: number, write: Write): boolean {
    for (let i = 0; i < WORDS; i++) {
      if (words[offset + i] !== wordOf(write, sector, i)) return false;
    }
    return true;
  }

  /** No single write explains the sector: each byte must then be explained by one. */
  private checkBytes(
    bytes: Uint8Array,
    offset: number,
    sector: number,
    legal: ReadonlySet<number>,
  ): void {
    for (let i = 0; i < SECTOR_BYTES; i++) {
      const actual = bytes[offset + i];
      let isLegal = false;
      for (const id of legal) {
        const word = wordOf(this.writes.get(id) as Write, sector, i >> 2);
        isLegal ||= ((word >>> ((i & 3) * 8)) & 0xff) === actual;
      }
      if (!isLegal) {
        throw new ModelViolation(
          `sector ${sector}, byte ${i} is ${actual}; it may be of write ${[...legal].join(", ")}` +
            `${this.explain(bytes, offset, sector)}`,
        );
      }
    }
  }

  /** Says whose bytes they are, if the model still knows. */
  private explain(bytes: Uint8Array, offset: number, sector: number): string {
    const words = new Uint32Array(bytes.slice(offset, offset + SECTOR_BYTES).buffer);
    for (const write of this.writes.values()) {
      if (this.matches(words, 0, sector, write)) return `, but is of write ${write.id}`;
    }
    return "";
  }

  private at<T>(list: readonly T[], index: number): T {
    return list[index] as T;
  }
}

/** Writes what write `id` puts into `sector` (numbered on the disk) at `bytes[offset]`. */
export function fillSector(bytes: Uint8Array, offset: number, sector: number, id: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, SECTOR_BYTES);
  for (let i = 0; i < WORDS; i++) view.setUint32(i * 4, patternWord(id, sector, i), true);
}

function wordOf(write: Write, sector: number, index: number): number {
  return write.writesZeroes ? 0 : patternWord(write.id, sector, index);
}

/** Different for every write, sector and word, so that data in the wrong place is found too. */
function patternWord(id: number, sector: number, index: number): number {
  let word = Math.imul(id, 0x9e3779b1) ^ Math.imul(sector + 1, 0x85ebca77) ^ (index * 0x01010101);
  word = Math.imul(word ^ (word >>> 15), 0x2c1b3c6d);
  return (word ^ (word >>> 13)) >>> 0;
}
