// SPDX-License-Identifier: MIT
// All timers of a device in one binary heap, one timer per queue pair. ACK timers are put off on
// every acknowledgement and almost never fire, so putting off only writes the new deadline; the
// heap learns of it when the old one comes up.

import { assert } from "../base/index.js";

const NEVER = Number.POSITIVE_INFINITY;

export class TimerHeap {
  /** When each timer is due; NEVER when it is not set. */
  private readonly deadlines: Float64Array;
  /** Where each timer is in the heap, -1 if it is not. */
  private readonly places: Int32Array;
  /** The heap: timers, and the times by which they are ordered (never after their deadlines). */
  private readonly heap: Int32Array;
  private readonly times: Float64Array;
  private size = 0;

  /** @param timerCount timers 0 .. timerCount - 1. */
  constructor(timerCount: number) {
    this.deadlines = new Float64Array(timerCount).fill(NEVER);
    this.places = new Int32Array(timerCount).fill(-1);
    this.heap = new Int32Array(timerCount);
    this.times = new Float64Array(timerCount);
  }

  /** Sets or moves a timer; Infinity clears it. */
  set(timer: number, deadlineNs: number): void {
    this.deadlines[timer] = deadlineNs;
    const place = this.places[timer] as number;
    if (place < 0) {
      if (deadlineNs === NEVER) return;
      this.places[timer] = this.size;
      this.heap[this.size] = timer;
      this.times[this.size] = deadlineNs;
      this.siftUp(this.size++);
    } else if (deadlineNs < (this.times[place] as number)) {
      this.times[place] = deadlineNs;
      this.siftUp(place);
    }
  }

  /** When the next timer is due; Infinity when none is set. */
  deadlineNs(): number {
    this.settle();
    return this.size === 0 ? NEVER : (this.times[0] as number);
  }

  /** Takes a timer that is due at `nowNs`, earliest first; -1 when there is none. */
  takeDue(nowNs: number): number {
    this.settle();
    if (this.size === 0 || (this.times[0] as number) > nowNs) return -1;
    const timer = this.heap[0] as number;
    this.removeTop();
    this.deadlines[timer] = NEVER;
    return timer;
  }

  checkInvariants(): void {
    for (let place = 0; place < this.size; place++) {
      const timer = this.heap[place] as number;
      assert(this.places[timer] === place, "a timer knows its place");
      assert(
        (this.times[place] as number) <= (this.deadlines[timer] as number),
        "a timer comes up no later than it is due",
      );
      const parent = (place - 1) >> 1;
      assert(
        place === 0 || (this.times[parent] as number) <= (this.times[place] as number),
        "the heap is ordered",
      );
    }
  }

  /** Brings a timer that is really the next one to the top. */
  private settle(): void {
    while (this.size > 0) {
      const deadline = this.deadlines[this.heap[0] as number] as number;
      if (deadline === this.times[0]) return;
      if (deadline === NEVER) {
        this.removeTop();
      } else {
        this.times[0] = deadline;
        this.siftDown(0);
      }
    }
  }

  private removeTop(): void {
    this.places[this.heap[0] as number] = -1;
    this.size--;
    if (this.size === 0) return;
    this.heap[0] = this.heap[this.size] as number;
    this.times[0] = this.times[this.size] as number;
    this.places[this.heap[0] as number] = 0;
    this.siftDown(0);
  }

  private siftUp(place: number): void {
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if ((this.times[parent] as number) <= (this.times[place] as number)) return;
      this.swap(place, parent);
      place = parent;
    }
  }

  private siftDown(place: number): void {
    for (;;) {
      let least = place;
      const left = 2 * place + 1;
      for (let child = left; child <= left + 1 && child < this.size; child++) {
        if ((this.times[child] as number) < (this.times[least] as number)) least = child;
      }
      if (least === place) return;
      this.swap(place, least);
      place = least;
    }
  }

  private swap(a: number, b: number): void {
    const timer = this.heap[a] as number;
    const time = this.times[a] as number;
    this.heap[a] = this.heap[b] as number;
    this.times[a] = this.times[b] as number;
    this.heap[b] = timer;
    this.times[b] = time;
    this.places[this.heap[a] as number] = a;
    this.places[timer] = b;
  }
}
