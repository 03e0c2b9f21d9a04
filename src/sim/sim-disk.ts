// SPDX-License-Identifier: MIT
// A simulated disk: `SimPlatter` is what survives a process (the medium, and the kernel's page
// cache over it), `SimDisk` is one open file on it. Writes reach the cache at once or when their
// thread gets to them; only a SYNC, or luck, brings them to the medium. What may be lost is kept
// per sector as the list of versions written since it was last durable: after a crash a sector is
// any one of them, or as it was, each sector on its own (a disk orders nothing between two
// flushes).

import { assert, ERRNO, type Memory, type Random, randomBelow } from "../base/index.js";
import { type BlockFile, FILE_OPERATION, type FileIo } from "../block/index.js";
import { happens } from "./chance.js";
import { EventHeap } from "./event-heap.js";
import type { SimClock } from "./sim-clock.js";

const SECTOR_BYTES = 512;

interface SectorVersion {
  readonly sequence: number;
  /** null: punched. */
  readonly bytes: Uint8Array | null;
}

/** The medium and the page cache above it. Survives processes; `crash` is the power going. */
export class SimPlatter {
  readonly sizeBytesMax: number;
  private currentSizeBytes: number;
  /** What reads give. */
  private readonly cache: Uint8Array;
  /** Per sector: 1 where the file has no hole, in the cache's view. */
  private readonly mapped: Uint8Array;
  /** Durable contents of the sectors that have `versions`. */
  private readonly durable = new Map<number, SectorVersion>();
  /** Versions since the sector was last durable, oldest first. */
  private readonly versions = new Map<number, SectorVersion[]>();
  private sequence = 0;
  private readonly random: Random;

  constructor(sizeBytes: number, random: Random, sizeBytesMax = sizeBytes) {
    assert(sizeBytes % SECTOR_BYTES === 0, "a platter has whole sectors");
    assert(sizeBytesMax % SECTOR_BYTES === 0, "a platter has whole sectors");
    this.sizeBytesMax = sizeBytesMax;
    this.currentSizeBytes = sizeBytes;
    this.cache = new Uint8Array(sizeBytesMax);
    this.mapped = new Uint8Array(sizeBytesMax / SECTOR_BYTES);
    this.random = random;
  }

  get sizeBytes(): number {
    return this.currentSizeBytes;
  }

  /** Number of the last write; everything up to it is what a SYNC that starts now makes durable. */
  get lastSequence(): number {
    return this.sequence;
  }

  /** Sectors that a crash could still change. */
  get unflushedSectorCount(): number {
    return this.versions.size;
  }

  /** Truncates or grows the file (within `sizeBytesMax`); new bytes are zeroes. Durable at once. */
  resize(sizeBytes: number): void {
    assert(sizeBytes % SECTOR_BYTES === 0, "a platter has whole sectors");
    assert(sizeBytes <= this.sizeBytesMax, "within the platter's bound");
    const from = Math.min(sizeBytes, this.currentSizeBytes);
    this.cache.fill(0, from);
    this.mapped.fill(0, from / SECTOR_BYTES);
    for (const sector of [...this.versions.keys()]) {
      if (sector >= from / SECTOR_BYTES) this.forget(sector);
    }
    this.currentSizeBytes = sizeBytes;
  }

  read(offset: number, into: Uint8Array, intoOffset: number, length: number): void {
    into.set(this.cache.subarray(offset, offset + length), intoOffset);
  }

  /** Writes to the cache. */
  write(offset: number, from: Uint8Array, fromOffset: number, length: number): void {
    if (length === 0) return;
    this.change(offset, length, () => {
      this.cache.set(from.subarray(fromOffset, fromOffset + length), offset);
      this.mapped.fill(1, sectorOf(offset), sectorOf(offset + length - 1) + 1);
    });
  }

  /** Zeroes a range; with `isHole` gives whole sectors back. */
  clear(offset: number, length: number, isHole: boolean): void {
    if (length === 0) return;
    this.change(offset, length, () => {
      this.cache.fill(0, offset, offset + length);
      const first = isHole ? Math.ceil(offset / SECTOR_BYTES) : sectorOf(offset);
      const end = isHole ? sectorOf(offset + length) : sectorOf(offset + length - 1) + 1;
      if (end > first) this.mapped.fill(isHole ? 0 : 1, first, end);
    });
  }

  /** Makes every write up to number `sequence` durable. */
  sync(sequence: number): void {
    for (const [sector, versions] of this.versions) {
      let newest: SectorVersion | undefined;
      while (versions.length > 0 && (versions[0] as SectorVersion).sequence <= sequence) {
        newest = versions.shift();
      }
      if (newest !== undefined) this.durable.set(sector, newest);
      if (versions.length === 0) this.forget(sector);
    }
  }

  /**
   * The power goes: each sector that was written since it was last durable becomes, on its own,
   * what was durable or any version since. @returns sectors that lost something.
   */
  crash(): number {
    let lost = 0;
    for (const [sector, versions] of [...this.versions].sort((a, b) => a[0] - b[0])) {
      const choice = randomBelow(this.random, versions.length + 1);
      const kept = choice === 0 ? this.durable.get(sector) : versions[choice - 1];
      assert(kept !== undefined, "a changed sector has a durable version");
      if (choice < versions.length) lost++;
      if (kept.bytes === null)
        this.cache.fill(0, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
      else this.cache.set(kept.bytes, sector * SECTOR_BYTES);
      this.mapped[sector] = kept.bytes === null ? 0 : 1;
      this.forget(sector);
    }
    return lost;
  }

  /** Runs from `offset` on: [length, isHole]. */
  extents(offset: number, length: number): (readonly [length: number, hole: boolean])[] {
    const runs: (readonly [number, boolean])[] = [];
    const end = Math.min(offset + length, this.currentSizeBytes);
    let start = offset;
    while (start < end) {
      const isMapped = this.mapped[sectorOf(start)];
      let stop = (sectorOf(start) + 1) * SECTOR_BYTES;
      while (stop < end && this.mapped[sectorOf(stop)] === isMapped) stop += SECTOR_BYTES;
      stop = Math.min(stop, end);
      runs.push([stop - start, isMapped === 0]);
      start = stop;
    }
    return runs;
  }

  /** Does `apply` to the cache and keeps what a crash needs to undo any part of it. */
  private change(offset: number, length: number, apply: () => void): void {
    const first = sectorOf(offset);
    const last = sectorOf(offset + length - 1);
    for (let sector = first; sector <= last; sector++) {
      if (!this.durable.has(sector)) this.durable.set(sector, this.snapshot(sector));
    }
    this.sequence++;
    apply();
    for (let sector = first; sector <= last; sector++) {
      const versions = this.versions.get(sector);
      if (versions === undefined) this.versions.set(sector, [this.snapshot(sector)]);
      else versions.push(this.snapshot(sector));
    }
  }

  private snapshot(sector: number): SectorVersion {
    const isMapped = this.mapped[sector] === 1;
    const start = sector * SECTOR_BYTES;
    return {
      sequence: this.sequence,
      bytes: isMapped ? this.cache.slice(start, start + SECTOR_BYTES) : null,
    };
  }

  private forget(sector: number): void {
    this.versions.delete(sector);
    this.durable.delete(sector);
  }
}

/** How a simulated disk misbehaves. Rates are probabilities 0 .. 1 per operation. */
export interface DiskFaults {
  /** Time an operation takes that isn't served at once. */
  readonly latencyNs: number;
  /** Uniform extra time 0 .. jitterNs; operations overtake one another by it. */
  readonly jitterNs: number;
  /** `tryRead` and `tryWrite` that answer -EAGAIN. */
  readonly blockRate: number;
  /** EIO. A failed WRITE, PUNCH or ZERO has changed any part of its range. */
  readonly readErrorRate: number;
  readonly writeErrorRate: number;
  readonly syncErrorRate: number;
  /** ENOSPC on WRITE and ZERO. */
  readonly noSpaceRate: number;
  /** READ and WRITE that move only a part. */
  readonly shortRate: number;
}

/** A disk without errors: half of the operations at once, the others within 100 us. */
export const SOUND_DISK: DiskFaults = {
  latencyNs: 20_000,
  jitterNs: 80_000,
  blockRate: 0.5,
  readErrorRate: 0,
  writeErrorRate: 0,
  syncErrorRate: 0,
  noSpaceRate: 0,
  shortRate: 0,
};

export interface SimDiskOptions {
  readonly path?: string;
  readonly kind?: "file" | "block-special";
  readonly readOnly?: boolean;
  readonly canPunch?: boolean;
  readonly canZero?: boolean;
  readonly faults?: Partial<DiskFaults>;
}

interface PendingIo {
  readonly io: FileIo;
  /** SYNC: the last write that it covers. */
  readonly sequence: number;
}

/** An open file on a platter. */
export class SimDisk implements BlockFile {
  readonly path: string;
  readonly kind: "file" | "block-special";
  readonly readOnly: boolean;
  readonly logicalBlockBytes = SECTOR_BYTES;
  readonly physicalBlockBytes = 4096;
  readonly rotational = false;
  readonly canPunch: boolean;
  readonly canZero: boolean;
  readonly platter: SimPlatter;
  faults: DiskFaults;

  private readonly clock: SimClock;
  private readonly random: Random;
  private readonly pending = new EventHeap<PendingIo>();
  private knownSizeBytes: number;
  private isClosed = false;
  private pollDepth = 0;

  constructor(clock: SimClock, random: Random, platter: SimPlatter, options: SimDiskOptions = {}) {
    this.clock = clock;
    this.random = random;
    this.platter = platter;
    this.path = options.path ?? "simulated";
    this.kind = options.kind ?? "file";
    this.readOnly = options.readOnly ?? false;
    this.canPunch = options.canPunch ?? true;
    this.canZero = options.canZero ?? true;
    this.faults = { ...SOUND_DISK, ...options.faults };
    this.knownSizeBytes = platter.sizeBytes;
  }

  get sizeBytes(): number {
    return this.knownSizeBytes;
  }

  get inflight(): number {
    return this.pending.count;
  }

  /** When `poll` has something to deliver; `Infinity` for nothing. */
  get nextWakeNs(): number {
    return this.pending.nextNs;
  }

  refreshSize(): number {
    this.knownSizeBytes = this.platter.sizeBytes;
    return this.knownSizeBytes;
  }

  tryRead(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    this.assertRange(memory, memoryOffset, length);
    if (happens(this.random, this.faults.blockRate)) return -ERRNO.EAGAIN;
    return this.read(offset, memory, memoryOffset, length);
  }

  tryWrite(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    this.assertRange(memory, memoryOffset, length);
    if (happens(this.random, this.faults.blockRate)) return -ERRNO.EAGAIN;
    return this.write(offset, memory, memoryOffset, length);
  }

  start(io: FileIo): void {
    assert(!this.isClosed, "the file is open");
    const movesData = io.operation === FILE_OPERATION.READ || io.operation === FILE_OPERATION.WRITE;
    if (movesData) this.assertRange(io.memory as Memory, io.memoryOffset, io.length);
    const extraNs = randomBelow(this.random, this.faults.jitterNs + 1);
    const dueNs = this.clock.nowNs + this.faults.latencyNs + extraNs;
    this.pending.push(dueNs, { io, sequence: this.platter.lastSequence });
  }

  poll(): number {
    assert(this.pollDepth === 0, "poll is not re-entered");
    this.pollDepth++;
    let count = 0;
    // What an owner starts from inside its callback waits for the next poll.
    for (let left = this.pending.count; left > 0; left--) {
      const due = this.pending.popDue(this.clock.nowNs);
      if (due === null) break;
      due.io.result = this.perform(due);
      count++;
      due.io.owner.onFileIoComplete(due.io);
    }
    this.pollDepth--;
    return count;
  }

  close(): void {
    assert(this.pending.count === 0, "nothing is in flight");
    this.isClosed = true;
  }

  /**
   * The process dies: each operation in flight has or hasn't happened, nobody hears of it. The
   * kernel, its cache and the platter live on.
   */
  abandon(): void {
    for (const pending of this.pending.drain()) {
      if (happens(this.random, 0.5)) this.perform(pending);
    }
    this.isClosed = true;
  }

  /** The power goes: as `abandon`, and the platter loses what it may. @returns sectors lost. */
  crash(): number {
    this.abandon();
    return this.platter.crash();
  }

  private perform(pending: PendingIo): number {
    const { io } = pending;
    switch (io.operation) {
      case FILE_OPERATION.READ:
        return this.read(io.offset, io.memory as Memory, io.memoryOffset, io.length);
      case FILE_OPERATION.WRITE:
        return this.write(io.offset, io.memory as Memory, io.memoryOffset, io.length);
      case FILE_OPERATION.SYNC:
        return this.sync(pending.sequence);
      case FILE_OPERATION.PUNCH:
        return this.clear(io, this.canPunch, true);
      case FILE_OPERATION.ZERO:
        return this.clear(io, this.canZero, false);
      case FILE_OPERATION.CACHE:
        return 0;
      case FILE_OPERATION.EXTENTS:
        io.extents = this.platter.extents(io.offset, io.length);
        return 0;
    }
  }

  private read(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    if (happens(this.random, this.faults.readErrorRate)) return -ERRNO.EIO;
    const there = Math.max(0, Math.min(length, this.platter.sizeBytes - offset));
    const moved = this.shorten(there);
    this.platter.read(offset, memory.bytes, memoryOffset, moved);
    return moved;
  }

  private write(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    if (this.readOnly) return -ERRNO.EBADF;
    const room = Math.max(0, this.platter.sizeBytesMax - offset);
    const errno = this.drawWriteError(room === 0 && length > 0);
    let moved = Math.min(length, room);
    if (errno !== 0) moved = randomBelow(this.random, moved + 1);
    else moved = this.shorten(moved);
    if (offset + moved > this.platter.sizeBytes) this.grow(offset + moved);
    this.platter.write(offset, memory.bytes, memoryOffset, moved);
    return errno === 0 ? moved : -errno;
  }

  private clear(io: FileIo, isPossible: boolean, isHole: boolean): number {
    if (this.readOnly) return -ERRNO.EBADF;
    if (!isPossible) return -ERRNO.EOPNOTSUPP;
    const errno = this.drawWriteError(false);
    const there = Math.max(0, Math.min(io.length, this.platter.sizeBytes - io.offset));
    const length = errno === 0 ? there : randomBelow(this.random, there + 1);
    this.platter.clear(io.offset, length, isHole);
    return errno === 0 ? 0 : -errno;
  }

  private sync(sequence: number): number {
    if (happens(this.random, this.faults.syncErrorRate)) return -ERRNO.EIO;
    this.platter.sync(sequence);
    return 0;
  }

  private drawWriteError(isFull: boolean): number {
    if (isFull || happens(this.random, this.faults.noSpaceRate)) return ERRNO.ENOSPC;
    return happens(this.random, this.faults.writeErrorRate) ? ERRNO.EIO : 0;
  }

  /** Sometimes a part of `length`, at least one byte. */
  private shorten(length: number): number {
    if (length < 2 || !happens(this.random, this.faults.shortRate)) return length;
    return 1 + randomBelow(this.random, length - 1);
  }

  /** A write past the end makes a regular file longer, by whole sectors. */
  private grow(end: number): void {
    this.platter.resize(Math.ceil(end / SECTOR_BYTES) * SECTOR_BYTES);
  }

  private assertRange(memory: Memory, memoryOffset: number, length: number): void {
    assert(!this.isClosed, "the file is open");
    assert(length >= 0, "a length is not negative");
    assert(memoryOffset >= 0, "the memory range starts inside");
    assert(memoryOffset + length <= memory.length, "the memory range ends inside");
  }
}

function sectorOf(offset: number): number {
  return Math.floor(offset / SECTOR_BYTES);
}
