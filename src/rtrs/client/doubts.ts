// SPDX-License-Identifier: MIT
import type { PermitPool } from "./permit-pool.js";

/** Which permits a path's lost incarnation may still hold at the server: 1 by number. */
export type PermitMarks = Uint8Array;

/**
 * Permits in doubt: requests that were in flight when their path failed may still be in a device of
 * the server, which may not know yet that the path is lost. Two things settle a permit:
 *
 * - its path is connected again: a server takes a path back only when the requests of its former
 *   incarnation are over;
 * - a request under the same permit is answered by another path: a farpage server closes the path
 *   that still holds the permit and waits for its request first (docs/rtrs.md).
 *
 * While the session lives its requests settle their own permits, since they move under them. When
 * all paths are lost at once, requests may end without an answer, and what was asked for later must
 * not overtake them: whoever uses the session settles what is in doubt before anything else.
 */
export class Doubts {
  /** Permits in doubt. */
  count = 0;
  /** By permit: paths that may hold it. */
  private readonly pathCounts: Uint8Array;

  /** @param permitCount of the session. */
  constructor(permitCount: number) {
    this.pathCounts = new Uint8Array(permitCount);
  }

  /** The path of `marks` is lost while a request with `permit` is in flight on it. */
  mark(marks: PermitMarks, permit: number): void {
    if (marks[permit] === 1) return;
    marks[permit] = 1;
    const before = this.pathCounts[permit] as number;
    this.pathCounts[permit] = before + 1;
    if (before === 0) this.count++;
  }

  /** The path of `marks` is connected again. */
  settlePath(marks: PermitMarks): void {
    for (let permit = 0; permit < marks.length; permit++) {
      if (marks[permit] === 0) continue;
      marks[permit] = 0;
      const left = (this.pathCounts[permit] as number) - 1;
      this.pathCounts[permit] = left;
      if (left === 0) this.count--;
    }
  }

  /** A request with `permit` was answered. @param all marks of every path that there is. */
  settlePermit(permit: number, all: readonly (PermitMarks | null)[]): void {
    if (this.pathCounts[permit] === 0) return;
    this.pathCounts[permit] = 0;
    this.count--;
    for (const marks of all) if (marks !== null) marks[permit] = 0;
  }

  has(permit: number): boolean {
    return this.pathCounts[permit] !== 0;
  }

  /** The lowest permit that nobody has and that is not in doubt, or -1. */
  findClean(permits: PermitPool): number {
    for (let permit = 0; permit < this.pathCounts.length; permit++) {
      if (this.pathCounts[permit] === 0 && !permits.isTaken(permit)) return permit;
    }
    return -1;
  }

  /** A permit in doubt that nobody has, or -1. */
  findFree(permits: PermitPool): number {
    for (let permit = 0; permit < this.pathCounts.length; permit++) {
      if (this.pathCounts[permit] !== 0 && !permits.isTaken(permit)) return permit;
    }
    return -1;
  }
}
