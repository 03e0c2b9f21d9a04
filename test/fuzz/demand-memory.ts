// SPDX-License-Identifier: MIT
// Memory of a process whose pages come and go under an on-demand region, for the fuzz of the
// transport: less of it than pages, so that they drive each other out. A frame that no page has any
// more is filled with a pattern that nobody may change.

import { FaultQueue, FRAME_BYTES, ProcessRegions } from "../../src/mm/index.js";
import { memoryOf, TestSpace } from "../support/process-space.js";

const FIRST_PAGE = 0x5000_0000;
/** Pages that are mapped, and those behind them in the region that are not. */
const MAPPED_PAGES = 6;
const ALL_PAGES = 8;
const FRAMES = 5;

export class DemandMemory {
  readonly space = new TestSpace(memoryOf(FRAMES));
  readonly queue = new FaultQueue();
  readonly regions = new ProcessRegions(this.space.memory, this.space, this.space, this.queue);
  readonly address = FIRST_PAGE * FRAME_BYTES;
  readonly length = ALL_PAGES * FRAME_BYTES;
  /** What of it is mapped, from its beginning on. */
  readonly mappedBytes = MAPPED_PAGES * FRAME_BYTES;

  constructor() {
    this.space.evictsWhenShort = true;
    this.space.mapAbsent(FIRST_PAGE, MAPPED_PAGES);
  }

  /** Takes a page away, moves it, or changes its rights. @param below draws 0 .. count - 1. */
  unsettle(below: (count: number) => number): void {
    const page = FIRST_PAGE + below(MAPPED_PAGES);
    switch (below(4)) {
      case 0:
        this.space.move(page);
        return;
      case 1:
        this.space.protect(page, false);
        this.space.protect(page, true);
        return;
      default:
        this.space.evict(page);
    }
  }

  /** @throws Error when somebody has written to a page that was taken away. */
  check(): void {
    this.space.memory.checkInvariants();
    const touched = this.space.touchedFrame();
    if (touched >= 0) throw new Error(`frame ${touched} was written after it was taken away`);
  }
}
