// SPDX-License-Identifier: MIT

/** How long a fault that has failed is remembered for those who waited for it. */
const FAILURE_NS = 50_000_000;
/** So many are remembered: of a peer that asks for ever other pages, the newest. */
const COUNT_MAX = 1024;

/** Faults that failed of late, where an access was allowed: who asks again is refused at once. */
export class FailedFaults {
  /** page * 2 + (write ? 1 : 0) → when that is forgotten. Oldest first. */
  private readonly untilNs = new Map<number, number>();

  get count(): number {
    return this.untilNs.size;
  }

  has(page: number, isWrite: boolean, nowNs: number): boolean {
    if (this.untilNs.size === 0) return false;
    const untilNs = this.untilNs.get(page * 2 + (isWrite ? 1 : 0));
    return untilNs !== undefined && nowNs < untilNs;
  }

  add(page: number, isWrite: boolean, nowNs: number): void {
    const { untilNs } = this;
    const key = page * 2 + (isWrite ? 1 : 0);
    // It goes to the end, too.
    untilNs.delete(key);
    if (untilNs.size >= COUNT_MAX) {
      for (const oldest of untilNs.keys()) {
        untilNs.delete(oldest);
        break;
      }
    }
    untilNs.set(key, nowNs + FAILURE_NS);
  }

  clear(): void {
    this.untilNs.clear();
  }
}
