// SPDX-License-Identifier: MIT

interface Entry<T> {
  readonly timeNs: number;
  readonly sequence: number;
  readonly value: T;
}

/**
 * A binary heap of things that happen at a time. Equal times come out in the order they went in,
 * which is what keeps a simulation deterministic.
 */
export class EventHeap<T> {
  private readonly entries: Entry<T>[] = [];
  private nextSequence = 0;

  get count(): number {
    return this.entries.length;
  }

  /** Time of the next entry; `Infinity` when there is none. */
  get nextNs(): number {
    return this.entries[0]?.timeNs ?? Number.POSITIVE_INFINITY;
  }

  push(timeNs: number, value: T): void {
    const entry: Entry<T> = { timeNs, sequence: this.nextSequence++, value };
    let index = this.entries.push(entry) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = this.entries[parent] as Entry<T>;
      if (!isBefore(entry, above)) break;
      this.entries[index] = above;
      index = parent;
    }
    this.entries[index] = entry;
  }

  /** Takes the next entry that is due at `nowNs`, or gives null. */
  popDue(nowNs: number): T | null {
    const top = this.entries[0];
    if (top === undefined || top.timeNs > nowNs) return null;
    const last = this.entries.pop() as Entry<T>;
    if (this.entries.length > 0) this.sink(last);
    return top.value;
  }

  /** Forgets everything. @returns what was in it, in no particular but a repeatable order. */
  drain(): T[] {
    return this.entries.splice(0).map((entry) => entry.value);
  }

  /** Puts `entry` in at the top and moves it down to its place. */
  private sink(entry: Entry<T>): void {
    const entries = this.entries;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= entries.length) break;
      const right = child + 1;
      if (
        right < entries.length &&
        isBefore(entries[right] as Entry<T>, entries[child] as Entry<T>)
      )
        child = right;
      const below = entries[child] as Entry<T>;
      if (!isBefore(below, entry)) break;
      entries[index] = below;
      index = child;
    }
    entries[index] = entry;
  }
}

function isBefore<T>(left: Entry<T>, right: Entry<T>): boolean {
  if (left.timeNs !== right.timeNs) return left.timeNs < right.timeNs;
  return left.sequence < right.sequence;
}
