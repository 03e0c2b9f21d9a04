// SPDX-License-Identifier: MIT
// A naive model of processes and a file beside the real ones: a cell per page, held by whoever must
// see the same byte. After each step what is in memory is compared, and every reference counted.

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
} from "./index.js";
import { codeOf, managerOf, RW, readByte, writeByte } from "./space.fixture.js";

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
  readonly pages: Map<number, ModelPage>;
}

interface Pin {
  readonly frame: Pfn;
  readonly cell: Cell;
}

const BASE = 0x1000;
const ARENA_PAGES = 16;
const FILE_PAGES = 8;
const PROCESSES_MAX = 4;
const FRAMES = 256;

export class SpaceModel {
  readonly manager: MemoryManager;
  private readonly store = new HeapFileStore();
  private readonly file: MappedFile;
  private readonly processes: Process[] = [];
  private readonly pins: Pin[] = [];
  private cells: Cell[] = [];
  private readonly freeAtFirst: number;
  private readonly actions: readonly ((a: number, b: number) => void)[];

  constructor() {
    this.manager = managerOf(FRAMES);
    this.freeAtFirst = this.manager.memory.freeFrames;
    this.file = this.manager.openFile({
      name: "file",
      size: FILE_PAGES * PAGE_BYTES,
      store: this.store,
    });
    for (let i = 0; i < FILE_PAGES; i++) this.cells.push({ value: 0 });
    this.processes.push({ space: this.manager.createSpace(), pages: new Map() });
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
      (a) => this.manager.reclaim((a % 8) + 1),
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
    while (this.pins.length > 0) this.unpin(0);
    for (const process of this.processes) process.space.exit();
    this.processes.length = 0;
    this.file.close();
    this.manager.checkInvariants(new Map());
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
    for (const { frame, cell } of this.pins) {
      others.set(frame, (others.get(frame) ?? 0) + 1);
      expect(memory.bytesOf(frame)[memory.offsetOf(frame)]).toBe(cell.value);
    }
    this.manager.checkInvariants(others);
    for (const process of this.processes) {
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
    const start = BASE + (b % ARENA_PAGES);
    const count = 1 + (a % 4);
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
    const count = Math.min(1 + (a % 3), ADDRESS_END / PAGE_BYTES - start);
    process.space.unmap(start * PAGE_BYTES, count * PAGE_BYTES);
    for (let i = 0; i < count; i++) process.pages.delete(start + i);
  }

  private remap(a: number, b: number): void {
    const process = this.process(a);
    const start = this.pageOf(process, b);
    const area = process.space.vmaAt(start * PAGE_BYTES);
    if (area === null || process.pages.size > 24) return;
    const oldCount = Math.min(area.endPage - start, 1 + (a % 3));
    const newCount = 1 + (b % 4);
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

  private fork(a: number): void {
    if (this.processes.length >= PROCESSES_MAX) return;
    const parent = this.process(a);
    const pages = new Map<number, ModelPage>();
    for (const [page, model] of parent.pages) {
      pages.set(page, { ...model, own: model.own === null ? null : { ...model.own } });
    }
    this.processes.push({ space: parent.space.fork(), pages });
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
    if (frame >= 0) this.manager.memory.move(frame);
  }

  private pin(a: number, b: number): void {
    const process = this.process(a);
    const page = this.pageOf(process, b);
    const model = process.pages.get(page);
    if (this.pins.length > 8 || this.errorOf(model, true) !== null) return;
    expect(process.space.fault(page, ACCESS.WRITE, true)).toBe(FAULT.READY);
    const frame = process.space.lookup(page);
    this.manager.memory.get(frame);
    this.manager.memory.pin(frame);
    this.pins.push({ frame, cell: this.written(model as ModelPage) });
  }

  /** A device writes through a pin: whoever has the page sees it, nobody else. */
  private dma(a: number, b: number): void {
    const pin = this.pins[a % Math.max(1, this.pins.length)];
    if (pin === undefined) return;
    const { memory } = this.manager;
    memory.bytesOf(pin.frame)[memory.offsetOf(pin.frame)] = b % 256;
    pin.cell.value = b % 256;
  }

  private unpin(a: number): void {
    if (this.pins.length === 0) return;
    const [pin] = this.pins.splice(a % this.pins.length, 1) as [Pin];
    this.manager.memory.setFlag(pin.frame, FRAME_FLAG.DIRTY);
    this.manager.memory.unpin(pin.frame);
    this.manager.memory.put(pin.frame);
  }
}
