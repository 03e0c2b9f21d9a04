// SPDX-License-Identifier: MIT
// The page table of a pinned memory region: made once, at registration, of runs of contiguous
// frames, with the largest page that they all allow.

import {
  type Advice,
  assert,
  type Memory,
  PAGE_FAULT,
  type PageFault,
  type PageWaker,
  type RegisteredPages,
} from "../../base/index.js";
import { FRAME_BYTES, type Pfn, type PhysicalMemory } from "../frames/index.js";
import { SectionList } from "./section-list.js";

/** Contiguous frames. */
export interface FrameRun {
  readonly pfn: Pfn;
  readonly count: number;
}

/** Pinned frames of consecutive pages, and the way to let go of them. */
export interface PinnedRuns {
  readonly runs: readonly FrameRun[];
  /** @param dirty whether they may have been written. Once, and not after a revocation. */
  release(dirty: boolean): void;
  /** Of memory that its owner can take back while it is pinned, as a device's; else absent. */
  readonly revocation?: Revocation;
}

/** How pinned memory is taken back. */
export interface Revocation {
  /**
   * Set by the region. On return no packet touches the memory any more, nor ever will; the pin is
   * over without `release`.
   */
  onRevoke: (() => void) | null;
}

/** Bytes in one section that consecutive addresses have. */
interface Piece {
  readonly section: Uint8Array;
  readonly view: DataView;
  /** Of its first byte: local address, physical address, place in the section. */
  readonly address: number;
  readonly physical: number;
  readonly offset: number;
  bytes: number;
}

const NO_BYTES = new Uint8Array(0);
const NO_VIEW = new DataView(new ArrayBuffer(0));
/** Largest page of a table: nothing is gained by more, and offsets stay integers. */
const PAGE_BYTES_MAX = 2 ** 40;

export class PinnedPages implements RegisteredPages {
  readonly pageBytes: number;
  readonly pageCount: number;
  readonly address: number;
  readonly isOnDemand = false;
  readonly contiguous: Memory | null;
  bytes: Uint8Array = NO_BYTES;
  view: DataView = NO_VIEW;
  offset = 0;
  readonly span: number;

  private readonly pinned: PinnedRuns;
  private readonly isWrite: boolean;
  private readonly sections = new SectionList();
  private readonly sectionOf: Uint16Array | null;
  private readonly offsets: Float64Array;
  private isLive = true;
  /** The memory was taken back. */
  private isRevoked = false;

  /**
   * @param pinned frames of the whole pages around `length` bytes at `address`.
   * @param isWrite whether anybody may write through the region: they are dirty then when released.
   */
  constructor(
    pinned: PinnedRuns,
    memory: PhysicalMemory,
    address: number,
    length: number,
    isWrite: boolean,
  ) {
    this.pinned = pinned;
    this.isWrite = isWrite;
    const start = Math.floor(address / FRAME_BYTES) * FRAME_BYTES;
    const pieces = piecesOf(pinned.runs, memory, start);
    const end = Math.ceil((address + length) / FRAME_BYTES) * FRAME_BYTES;
    const total = pieces.reduce((sum, piece) => sum + piece.bytes, 0);
    assert(total === end - start, "exactly the pages of the region are pinned");
    this.pageBytes = bestPageBytes(pieces);
    this.span = this.pageBytes;
    this.address = Math.floor(start / this.pageBytes) * this.pageBytes;
    this.pageCount = Math.ceil((end - this.address) / this.pageBytes);
    this.offsets = new Float64Array(this.pageCount);
    const numbers = new Uint16Array(this.pageCount);
    for (const piece of pieces) this.fill(piece, numbers);
    this.sectionOf = this.sections.count > 1 ? numbers : null;
    const { revocation } = pinned;
    // What can be taken back is asked for at every access.
    const isRange = pieces.length === 1 && revocation === undefined;
    this.contiguous = isRange ? rangeOf(pieces[0] as Piece, address, length) : null;
    if (revocation !== undefined) revocation.onRevoke = () => this.revoke();
  }

  locate(page: number, isWrite: boolean): boolean {
    if (this.isRevoked || (isWrite && !this.isWrite)) return false;
    const section = this.sectionOf === null ? 0 : (this.sectionOf[page] as number);
    this.bytes = this.sections.bytes[section] as Uint8Array;
    this.view = this.sections.views[section] as DataView;
    this.offset = this.offsets[page] as number;
    return true;
  }

  fault(_page: number, _count: number, _isWrite: boolean): PageFault {
    return PAGE_FAULT.REFUSED;
  }

  touch(page: number, isWrite: boolean): boolean {
    return this.locate(page, isWrite);
  }

  advise(_page: number, _count: number, _advice: Advice, _flush: boolean): boolean {
    return !this.isRevoked;
  }

  attach(_waker: PageWaker): void {
    // Nobody ever waits for these pages.
  }

  detach(_waker: PageWaker): void {
    // As above.
  }

  release(): void {
    assert(this.isLive, "pages are released once");
    this.isLive = false;
    if (!this.isRevoked) this.pinned.release(this.isWrite);
  }

  private revoke(): void {
    assert(this.isLive && !this.isRevoked, "memory that a region has is taken back once");
    this.isRevoked = true;
  }

  private fill(piece: Piece, numbers: Uint16Array): void {
    const number = this.sections.numberOf(piece.section, piece.view);
    const first = Math.floor((piece.address - this.address) / this.pageBytes);
    const last = Math.floor((piece.address + piece.bytes - 1 - this.address) / this.pageBytes);
    // Of a page of which the region has only the end, the beginning is where it would be.
    const delta = piece.offset - (piece.address - this.address);
    for (let page = first; page <= last; page++) {
      numbers[page] = number;
      this.offsets[page] = delta + page * this.pageBytes;
    }
  }
}

/** Runs as addresses and places, cut where sections end and joined where they go on. */
function piecesOf(runs: readonly FrameRun[], memory: PhysicalMemory, start: number): Piece[] {
  const pieces: Piece[] = [];
  let address = start;
  for (const { pfn, count } of runs) {
    for (let done = 0; done < count; ) {
      const at = pfn + done;
      const section = memory.bytesOf(at);
      const offset = memory.offsetOf(at);
      const frames = Math.min(count - done, (section.length - offset) / FRAME_BYTES);
      const last = pieces[pieces.length - 1];
      const isNext = last?.section === section && last.offset + last.bytes === offset;
      if (last !== undefined && isNext) {
        last.bytes += frames * FRAME_BYTES;
      } else {
        const view = memory.viewOf(at);
        const bytes = frames * FRAME_BYTES;
        const physical = at * FRAME_BYTES;
        pieces.push({ section, view, address, physical, offset, bytes });
      }
      address += frames * FRAME_BYTES;
      done += frames;
    }
  }
  return pieces;
}

/**
 * The largest page in which every piece begins and ends with a whole one (but for the region's own
 * beginning and end) and lies at the same place in its page by local as by physical address: what a
 * NIC's address translation needs (ib_umem_find_best_pgsz of Linux).
 */
function bestPageBytes(pieces: readonly Piece[]): number {
  let pageBytes = PAGE_BYTES_MAX;
  const shrinkTo = (value: number) => {
    while (pageBytes > FRAME_BYTES && value % pageBytes !== 0) pageBytes /= 2;
  };
  pieces.forEach((piece, i) => {
    shrinkTo(Math.abs(piece.address - piece.physical));
    if (i > 0) shrinkTo(piece.address);
  });
  // No larger than what is needed to have it all in one.
  const first = pieces[0] as Piece;
  const end = pieces.reduce((sum, piece) => sum + piece.bytes, first.address);
  while (pageBytes > FRAME_BYTES && isInOnePage(first.address, end, pageBytes / 2)) pageBytes /= 2;
  return pageBytes;
}

function isInOnePage(start: number, end: number, pageBytes: number): boolean {
  return Math.floor(start / pageBytes) === Math.floor((end - 1) / pageBytes);
}

/** A region in one piece as a range of bytes. */
function rangeOf(piece: Piece, address: number, length: number): Memory {
  const offset = piece.offset + (address - piece.address);
  const { buffer, byteOffset } = piece.section;
  return {
    bytes: piece.section.subarray(offset, offset + length),
    view: new DataView(buffer, byteOffset + offset, length),
    address,
    length,
  };
}
