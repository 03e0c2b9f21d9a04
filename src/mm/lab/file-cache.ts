// SPDX-License-Identifier: MIT
// The page cache of the lab's server, and what the kernel keeps of each file beside its pages: an
// inode and a directory entry, small objects that stay for as long as the file may be asked for
// again. Under memory pressure the pages that were not read again go first, oldest first; files
// without pages follow. What stays of their slabs is what fragments memory.

import { assert, type Random } from "../../base/index.js";
import { NO_OBJECT, type ObjectAddress, type ObjectMover, SlabCache } from "../alloc/index.js";
import {
  FRAME_FLAG,
  type FrameOwner,
  MIGRATE,
  NO_FRAME,
  type Pfn,
  type PhysicalMemory,
  type Reclaimer,
} from "../frames/index.js";
import { uniform } from "./chance.js";
import type { Ledger } from "./frame-set.js";

const NOBODY = -1;
const INODE_BYTES = 1024;
const ENTRY_BYTES = 192;
/** Files that lose their objects for each page that is reclaimed. */
const FILES_PER_PAGE = 1 / 16;

interface CachedFile {
  /** Frames of its contents for each page of the cache. */
  readonly framesPerPage: number;
  inode: ObjectAddress;
  entry: ObjectAddress;
  pages: number;
  firstPage: number;
  /** Asked for again since the last look. */
  isHot: boolean;
  /** In the list of files without pages. */
  isIdle: boolean;
}

/** Objects that can be moved, because each is referenced from one place that is known. */
class ObjectHomes implements ObjectMover {
  private readonly files = new Map<ObjectAddress, CachedFile>();
  private readonly field: "inode" | "entry";

  constructor(field: "inode" | "entry") {
    this.field = field;
  }

  add(file: CachedFile): void {
    this.files.set(file[this.field], file);
  }

  remove(file: CachedFile): void {
    this.files.delete(file[this.field]);
  }

  hold(): boolean {
    return true;
  }

  moved(from: ObjectAddress, to: ObjectAddress): void {
    if (from === to) return;
    const file = this.files.get(from);
    assert(file !== undefined, "an object that moves is somebody's");
    this.files.delete(from);
    this.files.set(to, file);
    file[this.field] = to;
  }
}

export class FileCache implements FrameOwner, Reclaimer {
  readonly name = "file cache";
  readonly inodes: SlabCache;
  readonly entries: SlabCache;
  pageCount = 0;
  private readonly memory: PhysicalMemory;
  private readonly ledger: Ledger;
  private readonly ownerId: number;
  private readonly inodeHomes = new ObjectHomes("inode");
  private readonly entryHomes = new ObjectHomes("entry");
  private readonly filesMax: number;
  private readonly unit: number;
  /** Files without pages in the order in which they lost them; `oldest` is looked at first. */
  private idle: CachedFile[] = [];
  private oldest = 0;
  private fileCount = 0;
  private readonly byPage: (CachedFile | null)[] = [];
  /** By slot: where the page is, its neighbours by age, its neighbours in its file. */
  private readonly pfns: Float64Array;
  private readonly older: Int32Array;
  private readonly newer: Int32Array;
  private readonly nextInFile: Int32Array;
  private readonly previousInFile: Int32Array;
  private readonly hot: Uint8Array;
  private readonly freeSlots: number[] = [];
  private usedSlots = 0;
  private oldestPage = NOBODY;
  private newestPage = NOBODY;
  private reading: CachedFile | null = null;

  constructor(memory: PhysicalMemory, ledger: Ledger) {
    this.memory = memory;
    this.ledger = ledger;
    this.unit = 2 ** (memory.policy.baseShift - 12);
    const slots = Math.ceil(memory.normalFrames / this.unit);
    this.filesMax = Math.ceil(memory.normalFrames / 40);
    this.pfns = new Float64Array(slots).fill(NO_FRAME);
    this.older = new Int32Array(slots);
    this.newer = new Int32Array(slots);
    this.nextInFile = new Int32Array(slots);
    this.previousInFile = new Int32Array(slots);
    this.hot = new Uint8Array(slots);
    this.ownerId = memory.registerOwner(this);
    memory.registerReclaimer(this);
    const migrate = MIGRATE.RECLAIMABLE;
    this.inodes = new SlabCache(memory, {
      name: "inodes",
      objectBytes: INODE_BYTES,
      mover: this.inodeHomes,
      migrate,
    });
    this.entries = new SlabCache(memory, {
      name: "directory entries",
      objectBytes: ENTRY_BYTES,
      mover: this.entryHomes,
      migrate,
    });
  }

  /** Reads a file of so many frames; its pages come into the cache. */
  read(frames: number, isHot: boolean): void {
    const file = this.open(frames, isHot);
    if (file === null) return;
    this.reading = file;
    for (let left = frames; left > 0; left -= this.unit) if (!this.addPage(file, isHot)) break;
    this.reading = null;
    if (file.pages === 0) this.makeIdle(file);
    if (this.fileCount > this.filesMax) this.closeOldest(this.fileCount - this.filesMax);
  }

  /** Reads `count` pages, of those that are there, once more. */
  touch(random: Random, count: number): void {
    for (let i = 0; i < count; i++) {
      const slot = Math.floor(uniform(random) * this.usedSlots);
      if (this.pfns[slot] === NO_FRAME || slot >= this.usedSlots) continue;
      this.hot[slot] = 1;
      const file = this.byPage[slot] ?? null;
      if (file !== null) file.isHot = true;
    }
  }

  /** Deletes the file that a random page is of. */
  deleteSome(random: Random): void {
    const slot = Math.floor(uniform(random) * this.usedSlots);
    const file = this.byPage[slot] ?? null;
    if (file === null || this.pfns[slot] === NO_FRAME) return;
    while (file.firstPage !== NOBODY) this.dropPage(file.firstPage);
    this.close(file);
  }

  reclaim(frameCount: number): number {
    const pages = Math.ceil(frameCount / this.unit);
    let freed = 0;
    // Each page gets one more chance at most: twice round is enough.
    for (let looked = 0; freed < pages && looked < 2 * pages + this.pageCount; looked++) {
      const slot = this.oldestPage;
      if (slot === NOBODY) break;
      if (this.hot[slot] !== 0) {
        this.hot[slot] = 0;
        this.unlinkAge(slot);
        this.linkNewest(slot);
      } else {
        this.dropPage(slot);
        freed++;
      }
    }
    this.closeOldest(Math.ceil(freed * FILES_PER_PAGE));
    return freed * this.unit;
  }

  referencesOf(): number {
    return 1;
  }

  detach(): boolean {
    return true;
  }

  attach(_from: Pfn, to: Pfn, slot: number): void {
    this.pfns[slot] = to;
  }

  private open(frames: number, isHot: boolean): CachedFile | null {
    const inode = this.inodes.allocate();
    if (inode === NO_OBJECT) return null;
    const framesPerPage = frames / Math.ceil(frames / this.unit);
    const entry = NO_OBJECT;
    const file = { framesPerPage, inode, entry, pages: 0, firstPage: NOBODY, isHot, isIdle: false };
    // At home at once: the next allocation may move it.
    this.inodeHomes.add(file);
    file.entry = this.entries.allocate();
    if (file.entry === NO_OBJECT) {
      this.inodeHomes.remove(file);
      this.inodes.free(file.inode);
      return null;
    }
    this.entryHomes.add(file);
    this.fileCount++;
    return file;
  }

  private close(file: CachedFile): void {
    this.inodeHomes.remove(file);
    this.entryHomes.remove(file);
    this.inodes.free(file.inode);
    this.entries.free(file.entry);
    file.inode = NO_OBJECT;
    file.entry = NO_OBJECT;
    this.fileCount--;
  }

  /** Takes the objects of up to `count` files away that have no pages and were not asked for. */
  private closeOldest(count: number): void {
    for (let closed = 0; closed < count && this.oldest < this.idle.length; ) {
      const file = this.idle[this.oldest++] as CachedFile;
      file.isIdle = false;
      if (file.inode === NO_OBJECT || file.pages > 0) continue;
      if (file.isHot || file === this.reading) {
        file.isHot = false;
        this.makeIdle(file);
        if (file === this.reading) return;
      } else {
        this.close(file);
        closed++;
      }
    }
    if (this.oldest > 65_536 && this.oldest > this.idle.length / 2) {
      this.idle = this.idle.slice(this.oldest);
      this.oldest = 0;
    }
  }

  private makeIdle(file: CachedFile): void {
    if (file.isIdle) return;
    file.isIdle = true;
    this.idle.push(file);
  }

  private addPage(file: CachedFile, isHot: boolean): boolean {
    const pfn = this.memory.allocate(0, MIGRATE.MOVABLE);
    if (pfn === NO_FRAME) return false;
    const slot = this.freeSlots.pop() ?? this.usedSlots++;
    this.pfns[slot] = pfn;
    this.memory.setOwner(pfn, this.ownerId, slot);
    this.memory.setFlag(pfn, FRAME_FLAG.FILE);
    this.hot[slot] = isHot ? 1 : 0;
    this.byPage[slot] = file;
    this.nextInFile[slot] = file.firstPage;
    this.previousInFile[slot] = NOBODY;
    if (file.firstPage !== NOBODY) this.previousInFile[file.firstPage] = slot;
    file.firstPage = slot;
    file.pages++;
    this.linkNewest(slot);
    this.pageCount++;
    this.ledger.asked += file.framesPerPage;
    this.ledger.given += this.unit;
    return true;
  }

  private dropPage(slot: number): void {
    const file = this.byPage[slot] ?? null;
    assert(file !== null, "a page of the cache is a file's");
    this.unlinkFromFile(file, slot);
    this.unlinkAge(slot);
    if (file.pages === 0) this.makeIdle(file);
    this.memory.put(this.pfns[slot] as number);
    this.pfns[slot] = NO_FRAME;
    this.byPage[slot] = null;
    this.freeSlots.push(slot);
    this.pageCount--;
    this.ledger.asked -= file.framesPerPage;
    this.ledger.given -= this.unit;
  }

  private unlinkFromFile(file: CachedFile, slot: number): void {
    const next = this.nextInFile[slot] as number;
    const previous = this.previousInFile[slot] as number;
    if (previous === NOBODY) file.firstPage = next;
    else this.nextInFile[previous] = next;
    if (next !== NOBODY) this.previousInFile[next] = previous;
    file.pages--;
  }

  private linkNewest(slot: number): void {
    this.older[slot] = this.newestPage;
    this.newer[slot] = NOBODY;
    if (this.newestPage === NOBODY) this.oldestPage = slot;
    else this.newer[this.newestPage] = slot;
    this.newestPage = slot;
  }

  private unlinkAge(slot: number): void {
    const older = this.older[slot] as number;
    const newer = this.newer[slot] as number;
    if (older === NOBODY) this.oldestPage = newer;
    else this.newer[older] = newer;
    if (newer === NOBODY) this.newestPage = older;
    else this.older[newer] = older;
  }
}
