// SPDX-License-Identifier: MIT
// Every order of a device's access and an invalidation, for small cases: the invalidation's three
// steps (begin, change, end) happen at any three points of an access that faults, waits, is served
// and comes again, the points inside of the fault's service included.

import { describe, expect, it } from "vitest";
import { memoryOf } from "../../../test/support/process-space.js";
import { assert } from "../../base/index.js";
import { FRAME_BYTES, MIGRATE, NO_FRAME, type Pfn } from "../frames/index.js";
import { DemandPages } from "./demand-pages.js";
import { type DemandNotifier, type DemandSpace, FAULT_WRONG } from "./demand-space.js";
import { FaultQueue } from "./fault-queue.js";

const POISON = 0xee;
const BEFORE = 1;
const AFTER = 2;
const BY_DEVICE = 77;

/** What the mapping of the one page becomes. */
const CHANGES = ["moves", "is evicted", "is unmapped", "is unmapped and mapped anew", "read-only"];

/** A process with one page, whose mapping changes in three steps. */
class OnePage implements DemandSpace {
  readonly memory = memoryOf(8);
  pfn: Pfn;
  isThere = true;
  canWrite = true;
  /** The value that the process sees in byte 0 while the page is away. */
  stored = BEFORE;
  /** Called at the points of a service. */
  onPoint: () => void = () => {};
  /** Frames that no page has any more. */
  readonly gone = new Set<Pfn>();
  private notifier: DemandNotifier | null = null;
  private sequence = 0;
  private readonly change: string;

  constructor(change: string) {
    this.change = change;
    this.pfn = this.memory.allocate(0, MIGRATE.MOVABLE);
    this.put(this.pfn, BEFORE);
  }

  addNotifier(notifier: DemandNotifier): void {
    this.notifier = notifier;
  }

  removeNotifier(): void {
    this.notifier = null;
  }

  readBegin(): number {
    this.onPoint();
    const { sequence } = this;
    this.onPoint();
    return sequence;
  }

  readRetry(_notifier: DemandNotifier, sequence: number): boolean {
    return this.sequence !== sequence;
  }

  isMapped(_vpn: number, isWrite: boolean): boolean {
    return this.isThere && (!isWrite || this.canWrite);
  }

  nextMapped(vpn: number, end: number): number {
    return this.isThere && vpn < end ? vpn : -1;
  }

  nextPresent(vpn: number, end: number): number {
    return this.pfn === NO_FRAME ? -1 : this.nextMapped(vpn, end);
  }

  deviceFrame(_vpn: number, isWrite: boolean): Pfn {
    if (!this.isMapped(0, isWrite)) return FAULT_WRONG;
    if (this.pfn === NO_FRAME) {
      this.pfn = this.memory.allocate(0, MIGRATE.MOVABLE);
      this.put(this.pfn, this.stored);
    }
    const { pfn } = this;
    this.onPoint();
    return pfn;
  }

  presentFrame(): Pfn {
    return this.pfn;
  }

  isWritable(): boolean {
    return this.canWrite;
  }

  begin(): void {
    this.sequence++;
    this.notifier?.invalidate(0, FRAME_BYTES);
  }

  apply(): void {
    if (this.change === "read-only") {
      this.canWrite = false;
      return;
    }
    const old = this.pfn;
    if (old !== NO_FRAME) {
      this.stored = this.byte(old);
      this.put(old, POISON);
      this.gone.add(old);
    }
    this.pfn = NO_FRAME;
    if (this.change === "moves") {
      this.pfn = this.memory.allocate(0, MIGRATE.MOVABLE);
      this.put(this.pfn, this.stored);
    } else if (this.change === "is unmapped") {
      this.isThere = false;
    } else if (this.change === "is unmapped and mapped anew") {
      this.stored = AFTER;
    }
  }

  end(): void {
    this.sequence++;
  }

  byte(pfn: Pfn): number {
    return this.memory.bytesOf(pfn)[this.memory.offsetOf(pfn)] as number;
  }

  put(pfn: Pfn, value: number): void {
    this.memory.bytesOf(pfn)[this.memory.offsetOf(pfn)] = value;
  }

  /** What the process sees. */
  get value(): number {
    return this.pfn === NO_FRAME ? this.stored : this.byte(this.pfn);
  }
}

/** Points at which a step of the invalidation can happen. */
const POINTS = 9;

/** One run: an access that tries three times, with service between; the steps at these points. */
function run(change: string, isWrite: boolean, at: readonly number[]): string {
  const space = new OnePage(change);
  const queue = new FaultQueue({ depth: 8 });
  const pages = new DemandPages(queue, space, space.memory, 0, FRAME_BYTES, true);
  const steps = [() => space.begin(), () => space.apply(), () => space.end()];
  let point = 0;
  let done = 0;
  let isInvalidating = false;
  const atPoint = (): void => {
    while (done < 3 && (at[done] as number) <= point) {
      isInvalidating = done < 2;
      (steps[done] as () => void)();
      done++;
    }
    point++;
  };
  space.onPoint = atPoint;
  const seen: string[] = [];
  const access = (): boolean => {
    atPoint();
    if (!pages.locate(0, isWrite)) {
      seen.push(pages.fault(0, 1, isWrite) === 0 ? "waits" : "refused");
      return false;
    }
    // The rule: nothing is there from the invalidation's return to its end, and never an old place.
    assert(!isInvalidating, "nothing is there while the mapping changes");
    assert(space.pfn !== NO_FRAME, "what is away is not there");
    assert(pages.offset === space.memory.offsetOf(space.pfn), "the page is found where it is");
    if (isWrite) pages.bytes[pages.offset] = BY_DEVICE;
    seen.push(`${pages.bytes[pages.offset]}`);
    return true;
  };
  access();
  for (let turn = 0; turn < 4; turn++) {
    queue.pump(turn * 1_000_000);
    access();
  }
  // The rest of the steps, if any, then to the end.
  point = POINTS + 10;
  atPoint();
  queue.pump(1e9);
  access();
  queue.pump(2e9);
  access();
  for (const pfn of space.gone) assert(space.byte(pfn) === POISON, "old places stay untouched");
  pages.checkInvariants();
  const last = seen[seen.length - 1] as string;
  const isRefused = change === "is unmapped" || (change === "read-only" && isWrite);
  assert(last === (isRefused ? "refused" : `${space.value}`), "the new mapping counts in the end");
  assert(!isWrite || isRefused || space.value === BY_DEVICE, "and is written");
  return seen.join(" ");
}

describe("a device's access and an invalidation, in every order", () => {
  for (const change of CHANGES) {
    it(`the page ${change}: no access after the invalidation has returned`, () => {
      const outcomes = new Set<string>();
      for (const isWrite of [false, true]) {
        for (let i = 0; i <= POINTS; i++) {
          for (let j = i; j <= POINTS; j++) {
            for (let k = j; k <= POINTS; k++) outcomes.add(run(change, isWrite, [i, j, k]));
          }
        }
      }
      // Orders differ in what happens, or the points are not where they are meant to be.
      expect(outcomes.size).toBeGreaterThan(6);
    });
  }
});
