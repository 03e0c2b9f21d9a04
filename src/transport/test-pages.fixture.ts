// SPDX-License-Identifier: MIT
// Pages behind a memory region, under a test's control: scattered over two sections, taken away and
// put back at will, faults served when the test says so. Whoever touches a page that was taken away
// is found out: its old place is filled with a pattern that must stay.

import { PAGE_FAULT, type PageFault, type PageWaker, type RegionPages } from "../base/index.js";

const ABSENT = -1;
const POISON = 0xa5;

export class TestPages implements RegionPages {
  readonly pageBytes: number;
  readonly pageCount: number;
  readonly address: number;
  readonly isOnDemand = true;
  bytes: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(new ArrayBuffer(0));
  offset = 0;
  readonly span: number;
  /** Faults that nobody has served, in the order in which they came: page and whether to write. */
  readonly queue: { page: number; isWrite: boolean }[] = [];
  /** Pages whose faults fail. */
  readonly broken = new Set<number>();
  /** Pages that may not be written; a write fault on them fails. */
  readonly readOnly = new Set<number>();
  /** What the process sees: contents while a page is absent, the truth while it is there too. */
  private readonly saved: Uint8Array[];
  private readonly places: Int32Array;
  private readonly writable: Uint8Array;
  private readonly sections: Uint8Array[];
  private readonly views: DataView[];
  private readonly freePlaces: number[];
  private readonly wakers = new Set<PageWaker>();

  constructor(pageCount: number, address: number, pageBytes = 4096) {
    this.pageCount = pageCount;
    this.pageBytes = pageBytes;
    this.span = pageBytes;
    this.address = address;
    this.saved = Array.from({ length: pageCount }, () => new Uint8Array(pageBytes));
    this.places = new Int32Array(pageCount).fill(ABSENT);
    this.writable = new Uint8Array(pageCount);
    this.sections = [0, 1].map(() => new Uint8Array(pageBytes * pageCount).fill(POISON));
    this.views = this.sections.map((bytes) => new DataView(bytes.buffer));
    // Neighbouring pages lie in different sections and not in order.
    const places = Array.from({ length: 2 * pageCount }, (_, i) => i);
    this.freePlaces = places.sort((a, b) => ((a * 7) % 11) - ((b * 7) % 11) || a - b);
  }

  get attachedCount(): number {
    return this.wakers.size;
  }

  locate(page: number, isWrite: boolean): boolean {
    const place = this.places[page] as number;
    if (place === ABSENT || (isWrite && this.writable[page] === 0)) return false;
    this.bytes = this.sections[place % 2] as Uint8Array;
    this.view = this.views[place % 2] as DataView;
    this.offset = Math.floor(place / 2) * this.pageBytes;
    return true;
  }

  fault(page: number, count: number, isWrite: boolean): PageFault {
    if (this.broken.has(page) || (isWrite && this.readOnly.has(page))) return PAGE_FAULT.REFUSED;
    for (let i = page; i < page + count; i++) {
      if (!this.queue.some((fault) => fault.page === i && fault.isWrite === isWrite)) {
        this.queue.push({ page: i, isWrite });
      }
    }
    return PAGE_FAULT.QUEUED;
  }

  touch(page: number, isWrite: boolean): boolean {
    if (this.broken.has(page) || (isWrite && this.readOnly.has(page))) return false;
    this.put(page, isWrite);
    return true;
  }

  attach(waker: PageWaker): void {
    this.wakers.add(waker);
  }

  detach(waker: PageWaker): void {
    this.wakers.delete(waker);
  }

  /** Serves at most `count` faults. @returns how many. */
  serve(count = Number.POSITIVE_INFINITY): number {
    let served = 0;
    for (; served < count && this.queue.length > 0; served++) {
      const { page, isWrite } = this.queue.shift() as { page: number; isWrite: boolean };
      if (!this.broken.has(page)) this.put(page, isWrite && !this.readOnly.has(page));
    }
    if (served > 0) for (const waker of this.wakers) waker.pagesServed();
    return served;
  }

  /** Puts a page in, if it is not there, and lets it be written if so. */
  put(page: number, isWrite: boolean): void {
    if (this.places[page] === ABSENT) {
      this.places[page] = this.freePlaces.shift() as number;
      this.locate(page, false);
      this.bytes.set(this.saved[page] as Uint8Array, this.offset);
    }
    if (isWrite) this.writable[page] = 1;
  }

  /** Takes a page away, as a notifier's invalidation does. */
  takeAway(page: number): void {
    const place = this.places[page] as number;
    if (place === ABSENT) return;
    this.locate(page, false);
    const bytes = this.bytes.subarray(this.offset, this.offset + this.pageBytes);
    (this.saved[page] as Uint8Array).set(bytes);
    bytes.fill(POISON);
    this.places[page] = ABSENT;
    this.writable[page] = 0;
    this.freePlaces.push(place);
  }

  /** The process's own view of all bytes. */
  contents(): Uint8Array {
    const all = new Uint8Array(this.pageCount * this.pageBytes);
    for (let page = 0; page < this.pageCount; page++) {
      const isThere = this.locate(page, false);
      const bytes = isThere
        ? this.bytes.subarray(this.offset, this.offset + this.pageBytes)
        : (this.saved[page] as Uint8Array);
      all.set(bytes, page * this.pageBytes);
    }
    return all;
  }

  /** Fills the memory as a process would. */
  fill(source: Uint8Array): void {
    for (let page = 0; page < this.pageCount; page++) {
      const bytes = source.subarray(page * this.pageBytes, (page + 1) * this.pageBytes);
      if (this.locate(page, false)) this.bytes.set(bytes, this.offset);
      else (this.saved[page] as Uint8Array).set(bytes);
    }
  }

  /** Whether nobody has touched a place that no page has. */
  areFreePlacesUntouched(): boolean {
    for (const place of this.freePlaces) {
      const from = Math.floor(place / 2) * this.pageBytes;
      const section = this.sections[place % 2] as Uint8Array;
      for (let i = from; i < from + this.pageBytes; i++) if (section[i] !== POISON) return false;
    }
    return true;
  }
}
