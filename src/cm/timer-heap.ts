// SPDX-License-Identifier: MIT
// Deadlines of connections, earliest first: an indexed binary min-heap, so that moving or clearing
// one costs O(log n) and asking for the earliest costs nothing. The lane asks on every turn.

import { assert } from "../base/index.js";

/**
 * What the heap holds. The two fields belong to the heap; set them to these values at construction.
 */
export interface Timed {
  /** When it fires, monotonic nanoseconds; `Infinity` while it is not in the heap. */
  timerNs: number;
  /** Its place in the heap, -1 while it is not in it. */
  heapIndex: number;
}

export class TimerHeap<T extends Timed> {
  private readonly slots: T[] = [];

  get count(): number {
    return this.slots.length;
  }

  /** When the earliest fires; `Infinity` when none is armed. */
  deadlineNs(): number {
    const first = this.slots[0];
    return first === undefined ? Number.POSITIVE_INFINITY : first.timerNs;
  }

  /** Arms `item` for `timerNs`, or moves it there when it is armed. */
  arm(item: T, timerNs: number): void {
    assert(Number.isFinite(timerNs), "a timer fires at a time");
    item.timerNs = timerNs;
    if (item.heapIndex < 0) {
      item.heapIndex = this.slots.length;
      this.slots.push(item);
    }
    this.settle(item);
  }

  /** Takes `item` out; nothing happens when it is not armed. */
  disarm(item: T): void {
    const index = item.heapIndex;
    if (index < 0) return;
    const last = this.slots.pop() as T;
    if (last !== item) {
      this.place(last, index);
      this.settle(last);
    }
    item.heapIndex = -1;
    item.timerNs = Number.POSITIVE_INFINITY;
  }

  /** Takes out and returns one item that is due at `nowNs`, or null. */
  takeDue(nowNs: number): T | null {
    const first = this.slots[0];
    if (first === undefined || first.timerNs > nowNs) return null;
    this.disarm(first);
    return first;
  }

  checkInvariants(): void {
    for (let index = 0; index < this.slots.length; index++) {
      const item = this.slots[index] as T;
      assert(item.heapIndex === index, "a timer knows its place");
      const parent = this.slots[(index - 1) >> 1];
      assert(index === 0 || (parent as T).timerNs <= item.timerNs, "no timer before its parent");
    }
  }

  private place(item: T, index: number): void {
    this.slots[index] = item;
    item.heapIndex = index;
  }

  /** Moves `item`, whose deadline may have changed, to where it belongs. */
  private settle(item: T): void {
    let index = item.heapIndex;
    while (index > 0) {
      const parent = this.slots[(index - 1) >> 1] as T;
      if (parent.timerNs <= item.timerNs) break;
      this.place(parent, index);
      index = (index - 1) >> 1;
    }
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = this.slots[childIndex];
      if (child === undefined) break;
      const right = this.slots[childIndex + 1];
      if (right !== undefined && right.timerNs < child.timerNs) {
        child = right;
        childIndex++;
      }
      if (child.timerNs >= item.timerNs) break;
      this.place(child, index);
      index = childIndex;
    }
    this.place(item, index);
  }
}
