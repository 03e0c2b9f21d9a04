// SPDX-License-Identifier: MIT

/** A queue whose reader waits. One reader at a time. */
export class AsyncQueue<T> {
  private readonly items: T[] = [];
  private waiting: ((item: T | null) => void) | null = null;
  private ended = false;

  push(item: T): void {
    if (this.waiting === null) {
      this.items.push(item);
      return;
    }
    const deliver = this.waiting;
    this.waiting = null;
    deliver(item);
  }

  /** The next item, or null after the end. */
  next(): Promise<T | null> {
    const item = this.items.shift();
    if (item !== undefined || this.ended) return Promise.resolve(item ?? null);
    return new Promise((resolve) => {
      this.waiting = resolve;
    });
  }

  /** Ends the queue. @returns what nobody has taken. */
  end(): T[] {
    this.ended = true;
    this.waiting?.(null);
    this.waiting = null;
    return this.items.splice(0);
  }
}
