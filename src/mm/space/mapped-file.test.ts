// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { FRAME_FLAG, MIGRATE, MOVE_RESULT, type Pfn } from "../frames/index.js";
import { ACCESS, FAULT, HeapFileStore, INVALIDATE, PAGE_BYTES, PROT } from "./index.js";
import { codeOf, Listener, managerOf, pageOf, RW, readByte, writeByte } from "./space.fixture.js";

describe("MappedFile", () => {
  it("shared mappings and the file are one; private ones copy what they write", () => {
    const manager = managerOf(64);
    const store = new HeapFileStore();
    const file = manager.openFile({ name: "f", size: 3 * PAGE_BYTES, store });
    file.write(0, Uint8Array.of(1, 2, 3));
    const a = manager.createSpace();
    const b = manager.createSpace();
    const whole = { length: 3 * PAGE_BYTES, prot: RW, file: { file, offset: 0 } };
    const shared = a.map({ ...whole, shared: true });
    const own = b.map(whole);
    writeByte(a, shared + 1, 9);
    expect(readByte(b, own + 1)).toBe(9);
    writeByte(b, own + 1, 8);
    const bytes = new Uint8Array(3);
    file.read(0, bytes);
    expect([...bytes]).toEqual([1, 9, 3]);
    writeByte(a, shared + 2, 7);
    expect(readByte(b, own + 2)).toBe(3);
    manager.checkInvariants(new Map());
    const child = b.fork();
    expect(readByte(child, own + 1)).toBe(8);
    expect(readByte(child, own + PAGE_BYTES)).toBe(0);
    manager.checkInvariants(new Map());
    file.close();
    for (const space of [a, b, child]) space.exit();
    expect(manager.files.length).toBe(0);
    expect(store.writeCount).toBe(1);
    manager.checkInvariants(new Map());
  });

  it("written back → clean and write-protected; the next write makes it dirty again", () => {
    const manager = managerOf(64);
    const store = new HeapFileStore();
    const file = manager.openFile({ name: "f", size: PAGE_BYTES, store, stablePages: true });
    const space = manager.createSpace();
    const at = space.map({ length: PAGE_BYTES, prot: RW, shared: true, file: { file, offset: 0 } });
    const listener = new Listener(at, at + PAGE_BYTES);
    space.notifiers.add(listener);
    writeByte(space, at, 1);
    const writeback = file.startWriteback();
    expect(listener.reasons()).toEqual([INVALIDATE.WRITEBACK]);
    expect(space.isWritable(pageOf(at))).toBe(false);
    expect(space.fault(pageOf(at), ACCESS.WRITE)).toBe(FAULT.BUSY);
    expect(codeOf(() => file.write(0, Uint8Array.of(5)))).toBe("EAGAIN");
    expect(readByte(space, at)).toBe(1);
    expect(writeback.finish()).toBe(0);
    writeByte(space, at, 2);
    expect(file.writeback()).toBe(0);
    expect(file.writeback()).toBe(0);
    expect(store.writeCount).toBe(2);
    manager.checkInvariants(new Map());
  });

  it("a pinned page is written as a copy of its start and stays dirty", () => {
    const manager = managerOf(64);
    const { memory } = manager;
    const store = new HeapFileStore();
    const file = manager.openFile({ name: "f", size: PAGE_BYTES, store });
    file.write(0, Uint8Array.of(1));
    const frame = file.cachedFrame(0);
    memory.get(frame);
    memory.pin(frame);
    const writeback = file.startWriteback();
    memory.bytesOf(frame)[memory.offsetOf(frame)] = 2;
    writeback.finish();
    const page = new Uint8Array(PAGE_BYTES);
    store.readPage(0, page);
    expect(page[0]).toBe(1);
    memory.unpin(frame);
    memory.put(frame);
    file.writeback();
    store.readPage(0, page);
    expect(page[0]).toBe(2);
    expect(manager.counters.pinnedWrites).toBe(1);
  });

  it("truncated → gone from every process, pinned pages live on, zeroes behind the end", () => {
    const manager = managerOf(64);
    const { memory } = manager;
    const file = manager.openFile({ name: "f", size: 3 * PAGE_BYTES, store: new HeapFileStore() });
    const space = manager.createSpace();
    const options = { length: 3 * PAGE_BYTES, prot: RW, file: { file, offset: 0 } };
    const shared = space.map({ ...options, shared: true });
    const own = space.map(options);
    for (let i = 0; i < 3; i++) space.write(shared + i * PAGE_BYTES, new Uint8Array(9).fill(7));
    writeByte(space, own + 2 * PAGE_BYTES, 8);
    const frame = file.cachedFrame(2);
    memory.get(frame);
    memory.pin(frame);
    const listener = new Listener(shared, shared + 3 * PAGE_BYTES);
    space.notifiers.add(listener);
    file.truncate(PAGE_BYTES + 4);
    const start = shared + 2 * PAGE_BYTES;
    expect(listener.told).toEqual([[start, shared + 3 * PAGE_BYTES, INVALIDATE.TRUNCATE]]);
    expect(space.fault(pageOf(start), ACCESS.READ)).toBe(FAULT.PAST_END);
    expect(codeOf(() => readByte(space, own + 2 * PAGE_BYTES))).toBe("EFAULT");
    expect(memory.ownerOf(frame)).toBe(null);
    expect(memory.referencesOf(frame)).toBe(1);
    expect([
      readByte(space, shared + PAGE_BYTES + 3),
      readByte(space, shared + PAGE_BYTES + 4),
    ]).toEqual([7, 0]);
    file.truncate(3 * PAGE_BYTES);
    expect(readByte(space, start)).toBe(0);
    manager.checkInvariants(new Map([[frame, 1]]));
  });

  it("short of memory → file pages make room, clean and dirty; pinned ones stay", () => {
    const manager = managerOf(16);
    const store = new HeapFileStore();
    const file = manager.openFile({ name: "f", size: 64 * PAGE_BYTES, store });
    const space = manager.createSpace();
    const at = space.map({
      length: 64 * PAGE_BYTES,
      prot: RW,
      shared: true,
      file: { file, offset: 0 },
    });
    for (let i = 0; i < 64; i++) writeByte(space, at + i * PAGE_BYTES, i);
    for (let i = 0; i < 64; i++) expect(readByte(space, at + i * PAGE_BYTES)).toBe(i);
    expect(manager.counters.pagesReclaimed).toBeGreaterThan(90);
    const frame = file.cachedFrame(63);
    expect(frame).toBeGreaterThanOrEqual(0);
    manager.memory.get(frame);
    manager.memory.pin(frame);
    expect(manager.reclaim(100)).toBeGreaterThan(0);
    expect(file.cachedFrame(63)).toBe(frame);
    expect(file.cache.held).toBe(1);
    manager.checkInvariants(new Map([[frame, 1]]));
  });

  it("a write that fails has not made the file longer", () => {
    const manager = managerOf(8);
    const file = manager.openFile({ name: "f", size: PAGE_BYTES });
    const hog = manager.createSpace();
    const at = hog.map({ length: 7 * PAGE_BYTES, prot: RW, populate: true });
    const two = new Uint8Array(2 * PAGE_BYTES).fill(2);
    expect(codeOf(() => file.write(PAGE_BYTES, two))).toBe("ENOMEM");
    expect(file.size).toBe(PAGE_BYTES);
    hog.unmap(at, PAGE_BYTES);
    // What went before the failure is kept.
    expect([file.write(PAGE_BYTES + 8, two), file.size]).toEqual([PAGE_BYTES - 8, 2 * PAGE_BYTES]);
    manager.checkInvariants(new Map());
  });

  it("what the store has behind the end is not the file's", () => {
    const manager = managerOf(8);
    const store = new HeapFileStore();
    store.writePage(0, new Uint8Array(PAGE_BYTES).fill(7));
    const file = manager.openFile({ name: "f", size: 100, store });
    const space = manager.createSpace();
    const at = space.map({ length: PAGE_BYTES, prot: RW, file: { file, offset: 0 } });
    expect([readByte(space, at + 99), readByte(space, at + 100)]).toEqual([7, 0]);
    file.truncate(200);
    expect(readByte(space, at + 150)).toBe(0);
  });

  it("locked by its process → neither moved nor reclaimed", () => {
    const { manager, memory, file } = cachedFile(64, 1);
    memory.setFlag(file.cachedFrame(0), FRAME_FLAG.LOCKED);
    expect(memory.move(file.cachedFrame(0))).toBe(MOVE_RESULT.BUSY);
    expect(manager.reclaim(1)).toBe(0);
    memory.clearFlag(file.cachedFrame(0), FRAME_FLAG.LOCKED);
    expect(memory.move(file.cachedFrame(0))).toBe(MOVE_RESULT.DONE);
    expect(manager.reclaim(1)).toBe(1);
  });

  it("a broken store → EIO for reads, dirty pages are kept", () => {
    const manager = managerOf(16);
    const store = new HeapFileStore();
    const file = manager.openFile({ name: "f", size: 64 * PAGE_BYTES, store });
    file.write(0, Uint8Array.of(1));
    store.isBroken = true;
    expect(codeOf(() => file.read(PAGE_BYTES, new Uint8Array(1)))).toBe("EIO");
    expect(file.writeback()).toBe(1);
    expect(manager.reclaim(10)).toBe(0);
    store.isBroken = false;
    expect(file.writeback()).toBe(0);
    expect(file.writeErrors).toBeGreaterThan(0);
    expect(store.writeCount).toBe(1);
  });

  it("closed and unmapped under pins → ends with the last, what a device wrote is kept", () => {
    const manager = managerOf(64);
    const { memory } = manager;
    const store = new HeapFileStore();
    const file = manager.openFile({ name: "f", size: 2 * PAGE_BYTES, store });
    const space = manager.createSpace();
    const range = { length: 2 * PAGE_BYTES, prot: RW, file: { file, offset: 0 } };
    const at = space.map({ ...range, shared: true });
    const frames = [0, 1].map((page) => {
      writeByte(space, at + page * PAGE_BYTES, 1);
      const frame = space.lookup(pageOf(at) + page);
      memory.get(frame);
      memory.pin(frame);
      return frame;
    });
    file.close();
    expect(codeOf(() => space.map(range))).toBe("EBADF");
    space.exit();
    expect(manager.files).toEqual([file]);
    for (const [page, frame] of frames.entries()) {
      memory.bytesOf(frame)[memory.offsetOf(frame)] = 9;
      memory.setFlag(frame, FRAME_FLAG.DIRTY);
      expect(manager.files.length).toBe(1);
      manager.checkInvariants(new Map(frames.slice(page).map((pfn) => [pfn, 1])));
      memory.unpin(frame);
      memory.put(frame);
    }
    expect(manager.files).toEqual([]);
    for (const index of [0, 1]) {
      const page = new Uint8Array(PAGE_BYTES);
      store.readPage(index, page);
      expect(page[0]).toBe(9);
    }
    manager.checkInvariants(new Map());
    expect(memory.freeFrames).toBe(63);
  });

  it("the last pin ends within a change → the file ends after it", () => {
    const manager = managerOf(64);
    const { memory } = manager;
    const file = manager.openFile({ name: "f", size: PAGE_BYTES, store: new HeapFileStore() });
    file.write(0, Uint8Array.of(1));
    const frame = file.cachedFrame(0);
    memory.get(frame);
    memory.pin(frame);
    file.close();
    const space = manager.createSpace();
    const at = space.map({ length: PAGE_BYTES, prot: RW });
    space.notifiers.add({
      start: at,
      end: at + PAGE_BYTES,
      invalidate: () => {
        memory.unpin(frame);
        memory.put(frame);
        expect(manager.files).toEqual([file]);
      },
    });
    space.unmap(at, PAGE_BYTES);
    expect(manager.files).toEqual([]);
    expect(memory.freeFrames).toBe(63);
  });

  it("memory that is the medium: mapped where it is, no truncation under a pin", () => {
    const manager = managerOf(64);
    const { memory } = manager;
    const media: Pfn[] = [0, 1].map(() => memory.allocate(0, MIGRATE.UNMOVABLE));
    const store = new HeapFileStore();
    const direct = Object.assign(store, { directFrame: (index: number) => media[index] as Pfn });
    const file = manager.openFile({ name: "f", size: 2 * PAGE_BYTES, store: direct });
    const space = manager.createSpace();
    const options = { length: 2 * PAGE_BYTES, prot: RW, file: { file, offset: 0 } };
    const at = space.map({ ...options, shared: true });
    writeByte(space, at + PAGE_BYTES, 4);
    expect(space.lookup(pageOf(at) + 1)).toBe(media[1]);
    memory.get(media[1] as Pfn);
    memory.pin(media[1] as Pfn);
    expect(codeOf(() => file.truncate(PAGE_BYTES))).toBe("EBUSY");
    memory.unpin(media[1] as Pfn);
    memory.put(media[1] as Pfn);
    file.truncate(PAGE_BYTES);
    expect(memory.referencesOf(media[1] as Pfn)).toBe(1);
    expect(store.writeCount).toBe(0);
  });
});

/** What the store has of a page's first byte. */
function stored(store: HeapFileStore, index: number): number {
  const page = new Uint8Array(PAGE_BYTES);
  store.readPage(index, page);
  return page[0] as number;
}

/** A file of so many pages, all read once. */
function cachedFile(frames: number, pages: number) {
  const manager = managerOf(frames);
  const store = new HeapFileStore();
  const file = manager.openFile({ name: "f", size: pages * PAGE_BYTES, store });
  const byte = new Uint8Array(1);
  const read = (index: number): void => void file.read(index * PAGE_BYTES, byte);
  for (let index = 0; index < pages; index++) read(index);
  const cached = () => [...Array(pages).keys()].filter((index) => file.cachedFrame(index) >= 0);
  return { manager, memory: manager.memory, store, file, read, cached };
}

describe("MappedFile: writeback", () => {
  it("a page has one at a time; what changes meanwhile stays dirty for the next", () => {
    const { memory, file, store } = cachedFile(64, 1);
    file.write(0, Uint8Array.of(1));
    const frame = file.cachedFrame(0);
    memory.get(frame);
    memory.pin(frame);
    const first = file.startWriteback();
    file.write(0, Uint8Array.of(2));
    const second = file.startWriteback();
    expect([first.pages, second.pages]).toEqual([[frame], []]);
    second.finish();
    first.finish();
    expect(stored(store, 0)).toBe(1);
    memory.unpin(frame);
    memory.put(frame);
    // As fsync: after what is under way, which has the older bytes.
    file.write(0, Uint8Array.of(3));
    const third = file.startWriteback();
    file.write(0, Uint8Array.of(4));
    expect(file.writeback()).toBe(0);
    expect([third.finish(), stored(store, 0)]).toEqual([0, 4]);
    expect(memory.hasFlag(frame, FRAME_FLAG.DIRTY)).toBe(false);
  });

  it("under way when the file is cut → finished first, and nothing comes back", () => {
    const { manager, file, store } = cachedFile(64, 2);
    file.write(PAGE_BYTES, Uint8Array.of(1));
    const writeback = file.startWriteback();
    file.truncate(PAGE_BYTES);
    expect([store.writeCount, stored(store, 1), writeback.finish()]).toEqual([1, 0, 0]);
    manager.checkInvariants(new Map());
  });

  it("what a mapping wrote behind the end is not the file's when it grows", () => {
    const { manager, file } = cachedFile(64, 1);
    file.truncate(100);
    const space = manager.createSpace();
    const at = space.map({ length: PAGE_BYTES, prot: RW, shared: true, file: { file, offset: 0 } });
    writeByte(space, at + 99, 1);
    writeByte(space, at + 100, 1);
    file.truncate(200);
    expect([readByte(space, at + 99), readByte(space, at + 100)]).toEqual([1, 0]);
    writeByte(space, at + 250, 1);
    file.write(300, Uint8Array.of(1));
    expect([readByte(space, at + 250), readByte(space, at + 300)]).toEqual([0, 1]);
  });
});

describe("MappedFile: reclaim", () => {
  it("a file that is closed doesn't send the hand back to the first one", () => {
    const manager = managerOf(64);
    const open = (name: string) => {
      const file = manager.openFile({ name, size: 4 * PAGE_BYTES, store: new HeapFileStore() });
      const read = () => file.read(0, new Uint8Array(4 * PAGE_BYTES));
      return { file, read };
    };
    const [early, first, second, late] = ["a", "b", "c", "d"].map(open) as ReturnType<
      typeof open
    >[];
    for (const one of [first, second]) one?.read();
    // All four of the first file and one of the second; the first is then used again.
    expect(manager.reclaim(5)).toBe(5);
    first?.read();
    for (const one of [early, late]) {
      one?.file.close();
      expect(manager.reclaim(1)).toBe(1);
    }
    expect([first?.file.cache.held, second?.file.cache.held]).toEqual([4, 1]);
    expect(manager.reclaim(2)).toBe(2);
    expect([first?.file.cache.held, second?.file.cache.held]).toEqual([3, 0]);
  });

  it("second chance: what was read since the hand passed stays", () => {
    const { manager, read, cached } = cachedFile(64, 4);
    expect([manager.reclaim(1), cached()]).toEqual([1, [1, 2, 3]]);
    read(1);
    expect([manager.reclaim(1), cached()]).toEqual([1, [1, 3]]);
  });

  it("the same by way of a mapping, also one that is gone", () => {
    const { manager, file, cached } = cachedFile(64, 4);
    const space = manager.createSpace();
    const range = { length: 4 * PAGE_BYTES, prot: PROT.READ, file: { file, offset: 0 } };
    const at = space.map({ ...range, shared: true });
    expect([manager.reclaim(1), cached()]).toEqual([1, [1, 2, 3]]);
    readByte(space, at + PAGE_BYTES);
    expect([manager.reclaim(1), cached()]).toEqual([1, [1, 3]]);
    expect(manager.reclaim(1)).toBe(1);
    const left = cached()[0] as number;
    readByte(space, at + left * PAGE_BYTES);
    space.unmap(at, 4 * PAGE_BYTES);
    const frame = file.cachedFrame(left);
    expect(manager.memory.hasFlag(frame, FRAME_FLAG.REFERENCED)).toBe(true);
  });

  it("a page that somebody holds stays, and one that a device wrote last is written", () => {
    const { manager, memory, store, file, cached } = cachedFile(64, 2);
    const frame = file.cachedFrame(0);
    memory.get(frame);
    const space = manager.createSpace();
    const range = { length: PAGE_BYTES, prot: RW, file: { file, offset: PAGE_BYTES } };
    const at = space.map({ ...range, shared: true });
    readByte(space, at);
    const other = file.cachedFrame(1);
    // Its page table has dirty bits of its own, which it tells of when it is asked to forget.
    space.notifiers.add({
      start: at,
      end: at + PAGE_BYTES,
      invalidate: () => {
        memory.bytesOf(other)[memory.offsetOf(other)] = 5;
        memory.setFlag(other, FRAME_FLAG.DIRTY);
      },
    });
    expect([manager.reclaim(2), cached(), stored(store, 1)]).toEqual([1, [0], 5]);
    manager.checkInvariants(new Map([[frame, 1]]));
  });

  it("nothing is reclaimed within a change, nor of memory without a store", () => {
    const { manager, read } = cachedFile(64, 2);
    const space = manager.createSpace();
    const shared = space.map({ length: PAGE_BYTES, prot: RW, shared: true });
    writeByte(space, shared, 1);
    const freed: number[] = [];
    space.notifiers.add({
      start: shared,
      end: shared + PAGE_BYTES,
      invalidate: () => freed.push(manager.reclaim(1)),
    });
    space.protect(shared, PAGE_BYTES, PROT.READ);
    expect(freed).toEqual([0]);
    expect(manager.reclaim(10)).toBe(2);
    expect(readByte(space, shared)).toBe(1);
    read(0);
  });

  it("the page that a process copies is not the one that makes room for the copy", () => {
    const { manager, file } = cachedFile(8, 1);
    file.write(0, Uint8Array.of(6));
    file.writeback();
    const space = manager.createSpace();
    const at = space.map({ length: PAGE_BYTES, prot: RW, file: { file, offset: 0 } });
    expect(readByte(space, at)).toBe(6);
    const rest = manager.memory.freeFrames * PAGE_BYTES;
    const hog = space.map({ length: rest, prot: RW, populate: true });
    expect(codeOf(() => writeByte(space, at, 7))).toBe("ENOMEM");
    expect(readByte(space, at)).toBe(6);
    manager.checkInvariants(new Map());
    space.unmap(hog, PAGE_BYTES);
    writeByte(space, at, 7);
    expect(readByte(space, at)).toBe(7);
    manager.checkInvariants(new Map());
  });
});
