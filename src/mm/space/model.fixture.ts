// SPDX-License-Identifier: MIT
// A naive model of processes and a file beside the real ones: a cell per page, held by whoever must
// see the same byte. A device beside each process keeps a page table of its own and knows of
// changes by its notifier alone. After each step what is in memory is compared, every reference
// counted, and the device's entries are those of the process.

import fc from "fast-check";
import { expect } from "vitest";
import { FRAME_FLAG, type Pfn } from "../frames/index.js";
import {
  ACCESS,
  ADDRESS_END,
  type AddressSpace,
  FAULT,
  HeapFileStore,
  type MappedFile,
  type MemoryManager,
  PAGE_BYTES,
  PROT,
  type Writeback,
} from "./index.js";
import { codeOf, Mirror, managerOf, RW, readByte, writeByte } from "./space.fixture.js";

export interface Step {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
}

interface Cell {
  value: number;
}

interface ModelPage {
  prot: number;
  readonly shared: boolean;
  /** Page of the file, -1 for anonymous memory. */
  readonly index: number;
  /** The process's own, null while it sees the file's or nothing was written. */
  own: Cell | null;
}

interface Process {
  readonly space: AddressSpace;
  readonly mirror: Mirror;
  readonly pages: Map<number, ModelPage>;
}

interface Pin {
  readonly frame: Pfn;
  readonly cell: Cell;
  readonly isWrite: boolean;
}

/** How large things are. */
export interface ModelSize {
  /** Frames of the host: more than all processes can fill. */
  readonly frames: number;
  /** Pages that are mapped, unmapped and moved at a time, at least. */
  readonly unitPages: number;
  readonly processesMax: number;
}

export const SMALL: ModelSize = { frames: 320, unitPages: 1, processesMax: 4 };
/** Two units are a block of 2 MiB, where they lie right. */
export const HUGE: ModelSize = { frames: 8192, unitPages: 256, processesMax: 2 };

/** Page at which the processes' mappings begin, the start of 2 MiB. */
const BASE = 0x1000;
const ARENA_UNITS = 8;
/** Units that a process has when it is not given more. */
const UNITS_MAX = 12;
const FILE_PAGES = 8;
const WRITEBACKS_MAX = 2;

export class SpaceModel {
  readonly manager: MemoryManager;
  private readonly store = new HeapFileStore();
  private readonly file: MappedFile;
  private readonly processes: Process[] = [];
  private readonly pins: Pin[] = [];
  private readonly writebacks: Writeback[] = [];
  private readonly size: ModelSize;
  private cells: Cell[] = [];
  private readonly freeAtFirst: number;
  private readonly actions: readonly ((a: number, b: number) => void)[];

  constructor(size: ModelSize) {
    this.size = size;
    this.manager = managerOf(size.frames);
    this.freeAtFirst = this.manager.memory.freeFrames;
    this.file = this.manager.openFile({
      name: "file",
      size: FILE_PAGES * PAGE_BYTES,
      store: this.store,
    });
    for (let i = 0; i < FILE_PAGES; i++) this.cells.push({ value: 0 });
    this.addProcess(this.manager.createSpace(), new Map());
    this.actions = [
      (a, b) => this.map(a, b, false, false),
      (a, b) => this.map(a, b, true, true),
      (a, b) => this.map(a, b, true, false),
      (a, b) => this.unmap(a, b),
      (a, b) => this.remap(a, b),
      (a, b) => this.protect(a, b),
      (a, b) => this.read(a, b),
      (a, b) => this.write(a, b),
      (a, b) => this.write(a, b),
      (a) => this.fork(a),
      (a) => this.exit(a),
      (a, b) => this.writeFile(a, b),
      (a) => this.truncate(a),
      (a) => this.file.writeback(a % FILE_PAGES, 4),
      (a) => this.startWriteback(a),
      (a) => this.finishWriteback(a),
      (a) => this.manager.reclaim((a % 8) + 1),
      (a) => this.manager.memory.compactor.makeBlock(1 + (a % 9)),
      (a, b) => this.device(a, b, false),
      (a, b) => this.device(a, b, true),
      (a, b) => this.move(a, b),
      (a, b) => this.pin(a, b),
      (a, b) => this.dma(a, b),
      (a) => this.unpin(a),
    ];
  }

  run(steps: readonly Step[]): void {
    for (const { kind, a, b } of steps) {
      (this.actions[kind % this.actions.length] as (a: number, b: number) => void)(a, b);
      this.check();
    }
  }

  /** All ends: every frame must be free again. */
  finish(): void {
    for (const process of this.processes) {
      for (const page of process.pages.keys()) this.expectRead(process, page);
    }
    // A file that is closed waits for its pins.
    const pinsLate = this.pins.splice(0, this.pins.length >> 1);
    while (this.pins.length > 0) this.unpin(0);
    this.pins.push(...pinsLate);
    for (const process of this.processes) process.space.exit();
    this.processes.length = 0;
    this.file.close();
    while (this.pins.length > 0) {
      this.dma(0, this.pins.length);
      this.unpin(0);
    }
    this.manager.checkInvariants(new Map());
    expect(this.manager.files.length).toBe(0);
    expect(this.manager.memory.freeFrames).toBe(this.freeAtFirst);
    for (let i = 0; i < this.cells.length; i++) {
      const page = new Uint8Array(PAGE_BYTES);
      this.store.readPage(i, page);
      expect(page[0]).toBe((this.cells[i] as Cell).value);
    }
  }

  private check(): void {
    const { memory } = this.manager;
    const others = new Map<Pfn, number>();
    const hold = (frame: Pfn): void => {
      const head = memory.headOf(frame);
      others.set(head, (others.get(head) ?? 0) + 1);
    };
    for (const { frame, cell } of this.pins) {
      hold(frame);
      expect(memory.bytesOf(frame)[memory.offsetOf(frame)]).toBe(cell.value);
    }
    for (const writeback of this.writebacks) {
      for (const frame of writeback.pages) hold(frame);
    }
    this.manager.checkInvariants(others);
    for (const process of this.processes) {
      process.mirror.check();
      expect(process.space.mappedPages).toBe(process.pages.size);
      for (const [page, model] of process.pages) {
        const frame = process.space.lookup(page);
        if (frame < 0) continue;
        const byte = memory.bytesOf(frame)[memory.offsetOf(frame)];
        expect(byte).toBe(this.valueOf(model));
      }
    }
  }

  private valueOf(model: ModelPage): number {
    return (model.own ?? this.cells[model.index])?.value ?? 0;
  }

  private process(a: number): Process {
    return this.processes[a % this.processes.length] as Process;
  }

  private pageOf(process: Process, b: number): number {
    const pages = [...process.pages.keys()];
    return pages.length === 0 ? BASE : (pages[b % pages.length] as number);
  }

  private map(a: number, b: number, isFile: boolean, shared: boolean): void {
    const process = this.process(a);
    const { unitPages } = this.size;
    const start = BASE + (b % ARENA_UNITS) * unitPages;
    const count = (1 + (a % 4)) * unitPages;
    const index = isFile ? b % FILE_PAGES : -1;
    const file = { file: this.file, offset: index * PAGE_BYTES };
    const address = start * PAGE_BYTES;
    const range = { length: count * PAGE_BYTES, address, fixed: "replace" as const };
    process.space.map({ ...range, prot: RW, shared, ...(isFile ? { file } : {}) });
    for (let i = 0; i < count; i++) {
      const page = { prot: RW, shared, index: isFile ? index + i : -1, own: null };
      process.pages.set(start + i, page);
    }
  }

  private unmap(a: number, b: number): void {
    const process = this.process(a);
    const start = this.pageOf(process, b);
    const units = (1 + (a % 3)) * (a % 5 === 0 ? 1 : this.size.unitPages);
    const count = Math.min(units, ADDRESS_END / PAGE_BYTES - start);
    process.space.unmap(start * PAGE_BYTES, count * PAGE_BYTES);
    for (let i = 0; i < count; i++) process.pages.delete(start + i);
  }

  private remap(a: number, b: number): void {
    const process = this.process(a);
    const start = this.pageOf(process, b);
    const area = process.space.vmaAt(start * PAGE_BYTES);
    const { unitPages } = this.size;
    if (area === null || process.pages.size > UNITS_MAX * unitPages) return;
    const oldCount = Math.min(area.endPage - start, (1 + (a % 3)) * unitPages);
    const newCount = (1 + (b % 4)) * unitPages;
    const sizes = [oldCount * PAGE_BYTES, newCount * PAGE_BYTES] as const;
    const to = process.space.remap(start * PAGE_BYTES, ...sizes, true) / PAGE_BYTES;
    const first = process.pages.get(start) as ModelPage;
    const moved: ModelPage[] = [];
    for (let i = 0; i < oldCount; i++) {
      moved.push(process.pages.get(start + i) as ModelPage);
      process.pages.delete(start + i);
    }
    for (let i = 0; i < newCount; i++) {
      const index = first.index < 0 ? -1 : first.index + i;
      const fresh = { prot: first.prot, shared: first.shared, index, own: null };
      process.pages.set(to + i, moved[i] ?? fresh);
    }
  }

  private protect(a: number, b: number): void {
    const process = this.process(a);
    const page = this.pageOf(process, b);
    const model = process.pages.get(page);
    if (model === undefined) return;
    model.prot = [PROT.NONE, PROT.READ, RW, RW][a % 4] as number;
    process.space.protect(page * PAGE_BYTES, PAGE_BYTES, model.prot);
  }

  private read(a: number, b: number): void {
    const process = this.process(a);
    this.expectRead(process, this.pageOf(process, b));
  }

  private expectRead(process: Process, page: number): void {
    const model = process.pages.get(page);
    const read = () => readByte(process.space, page * PAGE_BYTES);
    const error = this.errorOf(model, false);
    if (error !== null) expect(codeOf(read)).toBe(error);
    else expect(read()).toBe(this.valueOf(model as ModelPage));
  }

  private errorOf(model: ModelPage | undefined, isWrite: boolean): string | null {
    if (model === undefined) return "EFAULT";
    if (model.prot === PROT.NONE) return "EACCES";
    if (isWrite && (model.prot & PROT.WRITE) === 0) return "EACCES";
    return model.own === null && model.index >= this.cells.length ? "EFAULT" : null;
  }

  private write(a: number, b: number): void {
    const process = this.process(a);
    const page = this.pageOf(process, b);
    const model = process.pages.get(page);
    const value = (a * 7 + b) % 256;
    const write = () => writeByte(process.space, page * PAGE_BYTES, value);
    const error = this.errorOf(model, true);
    if (error !== null) {
      expect(codeOf(write)).toBe(error);
      return;
    }
    write();
    this.written(model as ModelPage).value = value;
  }

  /** The cell that a write goes to. */
  private written(model: ModelPage): Cell {
    if (model.shared) return this.cells[model.index] as Cell;
    model.own ??= { value: this.valueOf(model) };
    return model.own;
  }

  private addProcess(space: AddressSpace, pages: Map<number, ModelPage>): void {
    const mirror = new Mirror(space);
    this.processes.push({ space, mirror, pages });
  }

  private fork(a: number): void {
    if (this.processes.length >= this.size.processesMax) return;
    const parent = this.process(a);
    const pages = new Map<number, ModelPage>();
    for (const [page, model] of parent.pages) {
      pages.set(page, { ...model, own: model.own === null ? null : { ...model.own } });
    }
    this.addProcess(parent.space.fork(), pages);
  }

  private exit(a: number): void {
    if (this.processes.length === 1) return;
    this.process(a).space.exit();
    this.processes.splice(a % this.processes.length, 1);
  }

  private writeFile(a: number, b: number): void {
    const index = a % FILE_PAGES;
    const value = b % 256;
    expect(this.file.write(index * PAGE_BYTES, new Uint8Array(PAGE_BYTES).fill(value))).toBe(
      PAGE_BYTES,
    );
    while (this.cells.length <= index) this.cells.push({ value: 0 });
    (this.cells[index] as Cell).value = value;
  }

  private truncate(a: number): void {
    const count = a % (FILE_PAGES + 1);
    this.file.truncate(count * PAGE_BYTES);
    const isShorter = count < this.cells.length;
    this.cells = this.cells.slice(0, count);
    while (this.cells.length < count) this.cells.push({ value: 0 });
    if (!isShorter) return;
    for (const process of this.processes) {
      for (const model of process.pages.values()) if (model.index >= count) model.own = null;
    }
  }

  private move(a: number, b: number): void {
    const process = this.process(a);
    const frame = process.space.lookup(this.pageOf(process, b));
    const { memory } = this.manager;
    if (frame >= 0) memory.move(memory.headOf(frame));
  }

  private startWriteback(a: number): void {
    if (this.writebacks.length >= WRITEBACKS_MAX) return;
    this.writebacks.push(this.file.startWriteback(a % FILE_PAGES, 3));
  }

  private finishWriteback(a: number): void {
    if (this.writebacks.length === 0) return;
    const [writeback] = this.writebacks.splice(a % this.writebacks.length, 1) as [Writeback];
    expect(writeback.finish()).toBe(0);
  }

  /** A device that follows the notifier reads, or writes, a page of a process. */
  private device(a: number, b: number, isWrite: boolean): void {
    const process = this.process(a);
    const page = this.pageOf(process, b);
    const model = process.pages.get(page);
    const at = process.mirror.find(page, isWrite);
    expect(at !== null).toBe(this.errorOf(model, isWrite) === null);
    if (at === null) return;
    const { bytes, offset } = at;
    if (isWrite) {
      const value = (a * 3 + b) % 256;
      bytes[offset] = value;
      this.written(model as ModelPage).value = value;
    } else {
      expect(bytes[offset]).toBe(this.valueOf(model as ModelPage));
    }
  }

  private pin(a: number, b: number): void {
    const process = this.process(a);
    const page = this.pageOf(process, b);
    const model = process.pages.get(page);
    const isWrite = a % 3 !== 0;
    if (this.pins.length > 8 || this.errorOf(model, isWrite) !== null) return;
    const access = isWrite ? ACCESS.WRITE : ACCESS.READ;
    expect(process.space.fault(page, access, true)).toBe(FAULT.READY);
    const frame = process.space.lookup(page);
    this.manager.memory.get(frame);
    this.manager.memory.pin(frame);
    this.pins.push({ frame, cell: this.written(model as ModelPage), isWrite });
  }

  /** A device writes through a pin: whoever has the page sees it, nobody else. */
  private dma(a: number, b: number): void {
    const pin = this.pins[a % Math.max(1, this.pins.length)];
    if (pin === undefined || !pin.isWrite) return;
    const { memory } = this.manager;
    memory.bytesOf(pin.frame)[memory.offsetOf(pin.frame)] = b % 256;
    pin.cell.value = b % 256;
  }

  private unpin(a: number): void {
    if (this.pins.length === 0) return;
    const [pin] = this.pins.splice(a % this.pins.length, 1) as [Pin];
    if (pin.isWrite) this.manager.memory.setFlag(pin.frame, FRAME_FLAG.DIRTY);
    this.manager.memory.unpin(pin.frame);
    this.manager.memory.put(pin.frame);
  }
}

const STEP = fc.record({ kind: fc.nat(1000), a: fc.nat(1000), b: fc.nat(1000) });

/** Any run of at most `steps` steps keeps model and memory in agreement, and leaves nothing. */
export function modelLaw(size: ModelSize, steps: number): fc.IProperty<[Step[]]> {
  return fc.property(fc.array(STEP, { maxLength: steps, size: "max" }), (run) => {
    const model = new SpaceModel(size);
    model.run(run);
    model.finish();
  });
}
