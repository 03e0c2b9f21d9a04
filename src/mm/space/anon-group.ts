// SPDX-License-Identifier: MIT
// The owner of anonymous pages: everything that descends from one area by fork, split and move, so
// that whoever wants to move a page finds all who map it. What Linux calls an anon_vma.

import type { FrameOwner, Pfn } from "../frames/index.js";
import { LEAF_ORDER, LEAF_PAGES } from "./constants.js";
import type { MemoryManager } from "./memory-manager.js";
import { ReverseMap } from "./reverse-map.js";

export class AnonGroup implements FrameOwner {
  readonly name: string;
  readonly ownerId: number;
  readonly areas = new ReverseMap();
  private readonly manager: MemoryManager;
  private isEnded = false;

  /** @param spaceName the process's whose pages are the first. */
  constructor(manager: MemoryManager, spaceName: string) {
    this.manager = manager;
    this.name = `anonymous memory of ${spaceName}`;
    this.ownerId = manager.memory.registerOwner(this);
  }

  referencesOf(pfn: Pfn, index: number): number {
    return this.areas.countEntries(pfn, index, 2 ** this.manager.memory.orderOf(pfn));
  }

  detach(pfn: Pfn, index: number): boolean {
    if (this.manager.isChanging) return false;
    this.manager.beginChange();
    this.areas.hideEntries(pfn, index, 2 ** this.manager.memory.orderOf(pfn));
    return true;
  }

  attach(from: Pfn, to: Pfn, index: number): void {
    const { memory } = this.manager;
    this.areas.showEntries(memory, from, to, index, 2 ** memory.orderOf(to));
    this.manager.endChange();
  }

  /**
   * Entries that held some of a block are gone, and the block is not: who else holds it keeps it,
   * but it is nobody's memory any more when no entry is left.
   */
  noteUnmapped(head: Pfn): void {
    const { memory } = this.manager;
    const order = memory.orderOf(head);
    if (!this.areas.hasEntries(head, memory.indexOf(head), 2 ** order)) {
      memory.setOwner(head, 0, 0);
    } else if (order === LEAF_ORDER) {
      this.breakUp(head);
    }
  }

  /**
   * Makes a 2 MiB block single frames, and frees those that nobody maps. @returns false when
   * somebody beside page tables holds it.
   */
  breakUp(head: Pfn): boolean {
    const { memory } = this.manager;
    if (memory.isPinned(head)) return false;
    const index = memory.indexOf(head);
    /** Entries of each page. */
    const counts = new Int32Array(LEAF_PAGES);
    let sum = 0;
    this.areas.visitEntries(head, index, LEAF_PAGES, (area, page) => {
      const at = area.space.table.frameOf(page) - head;
      counts[at] = (counts[at] as number) + 1;
      sum++;
    });
    if (sum !== memory.referencesOf(head)) return false;
    if (sum > 1) memory.put(head, sum - 1);
    memory.split(head);
    for (let i = 0; i < LEAF_PAGES; i++) {
      const count = counts[i] as number;
      if (count === 0) memory.put(head + i);
      else if (count > 1) memory.get(head + i, count - 1);
    }
    return true;
  }

  /** When the last area is gone every page is. */
  endIfUnused(): void {
    if (this.areas.count > 0 || this.isEnded) return;
    this.isEnded = true;
    this.manager.memory.unregisterOwner(this.ownerId);
  }
}
