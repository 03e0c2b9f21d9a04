// SPDX-License-Identifier: MIT
// Random commands on a small host, against a model that knows no frames: what each page of each
// process, each file's page, and each pin should show. After every command all counts are made
// anew, and every pinned frame is looked at: it is where it was, nobody else's, and shows what the
// pin should.

import { type Random, randomBelow, SeededRandom } from "../../base/index.js";
import { FRAME_STATE, MOVE_RESULT, NO_FRAME, type Pfn } from "../frames/index.js";
import { CpuBorrow, type Hold, LongTermPin, PinError, ShortDmaPin } from "../pin/index.js";
import { checkAll, PAGE } from "../pin/pin.fixture.js";
import {
  ACCESS,
  type Access,
  type AddressSpace,
  PAGE as ENTRY,
  HeapFileStore,
  type MappedFile,
  PROT,
} from "../space/index.js";
import { deviceHost, FAR, NEAR } from "./device.fixture.js";

/** What one page shows; whoever shares it has the same object. */
interface Cell {
  value: number;
}

/** A mapping of a process: its own cells, and the file's where it has none. */
interface Area {
  readonly address: number;
  readonly pageCount: number;
  readonly kind: "anonymous" | "private-file" | "shared-file";
  readonly own: (Cell | null)[];
}

interface Process {
  readonly space: AddressSpace;
  areas: Area[];
}

interface Held {
  readonly hold: Hold;
  readonly cells: Cell[];
  readonly frames: Pfn[];
  readonly cover: { covers: () => boolean };
}

const FILE_PAGES = 5;
const AREA_PAGES = 5;
const PROCESSES_MAX = 3;
const AREAS_MAX = 3;
const HOLDS_MAX = 8;
/** What is played on; small enough that memory runs out now and then. */
export interface ModelSize {
  readonly hostFrames: number;
  /** Anonymous areas have so many pages more than up to AREA_PAGES. */
  readonly areaPagesMin: number;
  /** Pages that a process may have pinned for long. */
  readonly lockedPagesMax: number;
}
export const SMALL: ModelSize = { hostFrames: 14, areaPagesMin: 0, lockedPagesMax: 4 };
/** Anonymous memory in blocks of 2 MiB, as long as there are any. */
export const HUGE: ModelSize = { hostFrames: 2048, areaPagesMin: 512, lockedPagesMax: 300 };

export class PinModel {
  readonly host: ReturnType<typeof deviceHost>;
  /** How often each kind of thing has happened, so that a test can see that all do. */
  readonly seen = new Map<string, number>();
  private readonly random: Random;
  private readonly file: MappedFile;
  private readonly store = new HeapFileStore();
  private fileCells: Cell[] = [];
  private readonly processes: Process[] = [];
  private readonly helds: Held[] = [];
  private readonly size: ModelSize;
  private nextValue = 1;

  constructor(seed: number, size: ModelSize) {
    this.random = new SeededRandom(seed);
    this.size = size;
    this.host = deviceHost(size.hostFrames / 256);
    const { manager, memory } = this.host;
    if (memory.normalFrames !== size.hostFrames) throw new Error("the host has another size");
    const fileBytes = FILE_PAGES * PAGE;
    this.file = manager.openFile({ name: "/model", size: fileBytes, store: this.store });
    for (let i = 0; i < FILE_PAGES; i++) this.fileCells.push({ value: 0 });
    this.addProcess();
  }

  step(): void {
    const commands = [
      ...[this.map, this.map, this.fork, this.end],
      ...[this.write, this.write, this.write, this.read, this.read],
      ...[this.pin, this.pin, this.pin, this.release, this.dma, this.dma],
      ...[this.migrateIn, this.deviceFault, this.deviceFault],
      ...[this.moveAny, this.moveAny, this.background],
    ];
    const command = commands[this.below(commands.length)] as () => void;
    command.call(this);
    this.check();
  }

  /** Everything is given back, and nothing is left. */
  finish(): void {
    while (this.helds.length > 0) this.releaseAt(0);
    for (const process of this.processes) process.space.exit();
    this.processes.length = 0;
    this.file.close();
    checkAll(this.host);
    const { gpu, manager, memory } = this.host;
    if (memory.freeFrames !== this.size.hostFrames - 1) throw new Error("frames are lost");
    if (memory.stateOf(manager.zeroFrame) !== FRAME_STATE.USED) throw new Error("zeroes are lost");
    if (gpu.zone.freeFrames !== gpu.zone.frameCount) throw new Error("device frames are lost");
  }

  private check(): void {
    checkAll(this.host);
    for (const held of this.helds) this.checkHeld(held);
  }

  private checkHeld({ hold, cells, frames }: Held): void {
    const { memory } = this.host;
    let i = 0;
    for (const run of hold.runs) {
      for (let pfn = run.pfn; pfn < run.pfn + run.count; pfn++, i++) {
        if (pfn !== frames[i]) throw new Error("the frames of a hold have changed");
        if (memory.stateOf(memory.headOf(pfn)) !== FRAME_STATE.USED)
          throw new Error("a held frame is in no use");
        if (hold.isPinned && memory.move(memory.headOf(pfn)) !== MOVE_RESULT.PINNED) {
          throw new Error("a pinned frame could be moved");
        }
        // What was borrowed to be read shows the page as it was at some time.
        if (hold.isPinned) same(this.firstOf(pfn), (cells[i] as Cell).value, "a pinned frame");
      }
    }
  }

  /** Something ends: a mapping, a process, the end of a file. */
  private end(): void {
    const ends = [this.unmap, this.unmap, this.exit, this.truncate];
    (ends[this.below(ends.length)] as () => void).call(this);
  }

  /** What the host does by itself. */
  private background(): void {
    const works = [this.compact, this.writeback, this.reclaim];
    (works[this.below(works.length)] as () => void).call(this);
  }

  private addProcess(): void {
    const space = this.host.manager.createSpace({
      hugePages: this.size.areaPagesMin > 0,
      limits: { lockedBytesMax: this.size.lockedPagesMax * PAGE },
    });
    this.processes.push({ space, areas: [] });
  }

  private map(): void {
    const process = this.anyProcess();
    if (process.areas.length >= AREAS_MAX) return;
    const kinds = ["anonymous", "private-file", "shared-file"] as const;
    const kind = kinds[this.below(3)] as (typeof kinds)[number];
    const least = kind === "anonymous" ? this.size.areaPagesMin : 0;
    const pageCount = least + 1 + this.below(AREA_PAGES);
    const options = { length: pageCount * PAGE, prot: PROT.READ | PROT.WRITE };
    const backing = { file: { file: this.file, offset: 0 }, shared: kind === "shared-file" };
    const address = process.space.map(kind === "anonymous" ? options : { ...options, ...backing });
    const own = new Array<Cell | null>(pageCount).fill(null);
    if (kind === "anonymous") for (let i = 0; i < pageCount; i++) own[i] = { value: 0 };
    process.areas.push({ address, pageCount, kind, own });
    this.note("map");
  }

  private unmap(): void {
    const process = this.anyProcess();
    const at = this.below(Math.max(1, process.areas.length));
    const area = process.areas[at];
    if (area === undefined) return;
    process.space.unmap(area.address, area.pageCount * PAGE);
    process.areas.splice(at, 1);
    this.note("unmap");
  }

  private write(): void {
    const place = this.anyPage();
    if (place === null) return;
    const { area, page, process } = place;
    const value = this.newValue();
    const bytes = Uint8Array.of(value);
    const isDone = this.tries("write", () =>
      process.space.write(area.address + page * PAGE, bytes),
    );
    if (isDone && this.isBehindEnd(area, page)) throw new Error("written behind the file's end");
    this.syncOwn(process, area);
    if (isDone) this.cellOf(area, page).value = value;
  }

  private read(): void {
    const place = this.anyPage();
    if (place === null) return;
    const { area, page, process } = place;
    const found = new Uint8Array(1);
    if (!this.tries("read", () => process.space.read(area.address + page * PAGE, found))) return;
    same(found[0] as number, this.cellOf(area, page).value, "a page of a process");
  }

  private fork(): void {
    if (this.processes.length >= PROCESSES_MAX) return;
    const parent = this.anyProcess();
    let space: AddressSpace | null = null;
    this.tries("fork", () => {
      space = parent.space.fork();
    });
    if (space === null) return;
    const areas = parent.areas.map((area) => ({
      ...area,
      own: area.own.map((cell) => (cell === null ? null : { value: cell.value })),
    }));
    this.processes.push({ space, areas });
  }

  private exit(): void {
    const [process] = this.processes.splice(this.below(this.processes.length), 1);
    process?.space.exit();
    if (this.processes.length === 0) this.addProcess();
    this.note("exit");
  }

  private pin(): void {
    const place = this.anyPage();
    if (place === null || this.helds.length >= HOLDS_MAX) return;
    const { area, page, process } = place;
    const count = 1 + this.below(area.pageCount - page);
    const access = this.below(2) === 0 ? ACCESS.READ : ACCESS.WRITE;
    const address = area.address + page * PAGE;
    let hold: Hold | null = null;
    const cover = { covers: () => this.below(4) !== 0 };
    const purpose = this.below(3);
    this.tries(`pin ${purpose}`, () => {
      hold = this.take(
        purpose,
        process.space,
        address,
        count * PAGE - this.below(PAGE),
        access,
        cover,
      );
    });
    this.syncOwn(process, area);
    if (hold === null) return;
    if (this.isHuge(process, area)) this.note("pin in 2 MiB");
    this.keep(hold, area, page, cover);
  }

  private take(
    purpose: number,
    space: AddressSpace,
    address: number,
    length: number,
    access: Access,
    cover: { covers: () => boolean },
  ): Hold {
    const { pinner } = this.host;
    if (purpose === 0) return pinner.pinForShortDma(space, address, length, access);
    if (purpose === 1) return pinner.borrowForCpuCopy(space, address, length, access);
    const lease = { name: "lease", ...cover, pinned: () => {}, unpinned: () => {} };
    const runsMax = this.below(2) === 0 ? 1 : 100;
    return pinner.pinForLongTermDma(space, address, length, access, { lease, runsMax });
  }

  private keep(hold: Hold, area: Area, page: number, cover: Held["cover"]): void {
    const frames: Pfn[] = [];
    const cells: Cell[] = [];
    for (const run of hold.runs) {
      for (let pfn = run.pfn; pfn < run.pfn + run.count; pfn++) {
        frames.push(pfn);
        cells.push(this.cellOf(area, page + cells.length));
      }
    }
    this.helds.push({ hold, cells, frames, cover });
  }

  private release(): void {
    if (this.helds.length > 0) this.releaseAt(this.below(this.helds.length));
  }

  private releaseAt(at: number): void {
    const [held] = this.helds.splice(at, 1);
    const hold = held?.hold as Hold;
    if (hold.access === ACCESS.READ) {
      (hold as ShortDmaPin<typeof ACCESS.READ>).release();
    } else if (
      hold instanceof ShortDmaPin ||
      hold instanceof LongTermPin ||
      hold instanceof CpuBorrow
    ) {
      (hold as ShortDmaPin<typeof ACCESS.WRITE>).release(true);
    }
    this.note("release");
  }

  /** A device writes through a pin. */
  private dma(): void {
    const held = this.helds[this.below(Math.max(1, this.helds.length))];
    if (held === undefined || held.hold.access === ACCESS.READ) return;
    const i = this.below(held.frames.length);
    const value = this.newValue();
    this.setFirst(held.frames[i] as Pfn, value);
    (held.cells[i] as Cell).value = value;
    this.note("dma");
  }

  private migrateIn(): void {
    const process = this.anyProcess();
    const area = process.areas[this.below(Math.max(1, process.areas.length))];
    if (area === undefined) return;
    const result = this.host.gpu.migrateIn(process.space, area.address, area.pageCount * PAGE);
    for (const reason of result.stayed.keys()) this.note(`stayed ${reason}`);
    if (result.moved > 0) this.note("migrate in");
  }

  /** A device without a pin: faults, and reads or writes what it got before anything changes. */
  private deviceFault(): void {
    const place = this.anyPage();
    if (place === null) return;
    const { area, page, process } = place;
    const isWrite = this.below(2) === 0;
    const client = this.below(2) === 0 ? NEAR : FAR;
    const vpn = area.address / PAGE + page;
    const pfn = this.host.devices.dmaFault(process.space, vpn, isWrite, client);
    this.syncOwn(process, area);
    this.note(pfn < 0 ? `device fault ${pfn}` : `device fault of kind ${this.kindOf(pfn)}`);
    if (pfn < 0) return;
    const cell = this.cellOf(area, page);
    same(this.firstOf(pfn), cell.value, "what a device finds");
    if (!isWrite) return;
    cell.value = this.newValue();
    this.setFirst(pfn, cell.value);
  }

  private isHuge(process: Process, area: Area): boolean {
    const pfn = process.space.lookup(area.address / PAGE);
    return pfn !== NO_FRAME && this.host.memory.orderOf(pfn) > 0;
  }

  private moveAny(): void {
    const place = this.anyPage();
    const { memory } = this.host;
    if (place === null) return;
    const pfn = place.process.space.lookup(place.area.address / PAGE + place.page);
    if (pfn === NO_FRAME) return;
    const isPinned = memory.isPinned(pfn);
    const result = memory.move(memory.headOf(pfn));
    if (isPinned && result !== MOVE_RESULT.PINNED) throw new Error("a pinned frame was moved");
    this.note(`move ${result}`);
  }

  private compact(): void {
    this.host.memory.compactor.makeBlock(2 + this.below(3));
    this.note("compact");
  }

  private writeback(): void {
    this.file.writeback();
    this.note("writeback");
  }

  private truncate(): void {
    const pages = this.below(FILE_PAGES + 1);
    this.file.truncate(pages * PAGE);
    this.fileCells = this.fileCells.slice(0, pages);
    while (this.fileCells.length < pages) this.fileCells.push({ value: 0 });
    // Copies of private mappings behind the end go, too.
    for (const { areas } of this.processes) {
      for (const area of areas) {
        if (area.kind !== "anonymous") area.own.fill(null, Math.min(pages, area.pageCount));
      }
    }
    this.note("truncate");
  }

  private reclaim(): void {
    this.host.memory.reclaim(1 + this.below(4));
    this.note("reclaim");
  }

  /**
   * A private mapping's page of a file becomes the process's own by a write or a pin, also by one
   * that failed afterwards: whether it did, the page table says.
   */
  private syncOwn(process: Process, area: Area): void {
    if (area.kind !== "private-file") return;
    for (let page = 0; page < area.pageCount; page++) {
      const flags = process.space.table.flagsOf(area.address / PAGE + page);
      if (area.own[page] !== null || (flags & ENTRY.EXCLUSIVE) === 0) continue;
      area.own[page] = { value: (this.fileCells[page] as Cell).value };
    }
  }

  private cellOf(area: Area, page: number): Cell {
    const cell = area.own[page] ?? this.fileCells[page];
    if (cell === undefined) throw new Error("a page behind the file's end was had");
    return cell;
  }

  private isBehindEnd(area: Area, page: number): boolean {
    return area.kind !== "anonymous" && page >= this.fileCells.length;
  }

  /** @returns whether it could be done: memory may run out, a page be behind the file's end. */
  private tries(what: string, action: () => void): boolean {
    try {
      action();
    } catch (error) {
      const code = (error as { code?: string }).code;
      if (code === undefined) throw error;
      this.note(`${what}: ${error instanceof PinError ? error.reason : code}`);
      return false;
    }
    this.note(what);
    return true;
  }

  private kindOf(pfn: Pfn): number {
    return this.host.memory.zoneOf(pfn).kind;
  }

  private firstOf(pfn: Pfn): number {
    const { memory } = this.host;
    return memory.bytesOf(pfn)[memory.offsetOf(pfn)] as number;
  }

  private setFirst(pfn: Pfn, value: number): void {
    const { memory } = this.host;
    memory.bytesOf(pfn)[memory.offsetOf(pfn)] = value;
  }

  private anyProcess(): Process {
    return this.processes[this.below(this.processes.length)] as Process;
  }

  private anyPage(): { process: Process; area: Area; page: number } | null {
    const process = this.anyProcess();
    const area = process.areas[this.below(Math.max(1, process.areas.length))];
    return area === undefined ? null : { process, area, page: this.below(area.pageCount) };
  }

  private newValue(): number {
    this.nextValue = (this.nextValue % 255) + 1;
    return this.nextValue;
  }

  private below(bound: number): number {
    return randomBelow(this.random, bound);
  }

  private note(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }
}

function same(found: number, expected: number, what: string): void {
  if (found !== expected) throw new Error(`${what} shows ${found} instead of ${expected}`);
}
