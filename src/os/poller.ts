// SPDX-License-Identifier: MIT
// Waiting. The native poller keeps its descriptors in an epoll set E. Three ways to wait on it:
//
//   poll          epoll_wait on E with timeout 0: about 0.25 us
//   waitBriefly   ppoll on E and on libuv's own set, this thread blocked: the kernel's wake-up
//   wait          libuv watches E, the promise resolves from its callback: some 4 us more
//
// A sleep in a foreign call on another thread, the obvious way to a promise, costs 32 us a round
// trip on the machine where the above was measured, takes one of libuv's few threads for good, and
// needs an eventfd to be woken; libuv can sleep on an epoll set itself. It watches E only while
// somebody waits: a ready descriptor would otherwise make every turn of the event loop call back.
//
// Time-outs are a timerfd in E: libuv's timers have a resolution of a millisecond, and a time-out
// given to ppoll would be programmed into the processor's timer and out of it for each wait, which
// costs some 10 us in a virtual machine. The timer is lazy: deadlines mostly move away before they
// come (each acknowledgement puts a retransmission off), so a timer that is armed for an earlier
// time is left alone, and what is left of the wait is armed when it fires.

import { assert, FarpageError } from "../base/index.js";
import { monotonicNs } from "./clock.js";
import type { BackendChoice, PolledDescriptor, Poller } from "./door.js";
import { failure } from "./failure.js";
import { mapBlock, unmapBlock } from "./memory-source.js";
import { choosesNative, type LoopWatch, loadNative, type NativeBlock } from "./native.js";

const EPOLL_CLOEXEC = 0x80000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 1;
const EPOLLOUT = 4;
const EPOLLERR = 8;
const EPOLLHUP = 16;
const EPOLLET = 0x8000_0000;
const POLLIN = 1;
const CLOCK_MONOTONIC = 1;
const TFD_NONBLOCK_CLOEXEC = 0x80800;
const PR_SET_TIMERSLACK = 29;

const NS_PER_S = 1_000_000_000;
/** Longest that `waitBriefly` may hold up Node's event loop. */
const BRIEF_NS_MAX = 1_000_000;
/**
 * The same where libuv's own descriptor is hidden, so that nothing of Node's could end the wait.
 */
const BRIEF_NS_MAX_BLIND = 50_000;
/** setTimeout takes 31 bits of milliseconds. Longer waits end early there. */
const WAIT_MS_MAX = 0x7fff_ffff;

/** Events fetched by one epoll_wait; the rest come with the next. */
const EVENT_COUNT_MAX = 64;
/** struct epoll_event: packed on x86-64 alone. */
const EVENT_BYTES = process.arch === "x64" ? 12 : 16;
const EVENT_DATA = process.arch === "x64" ? 4 : 8;

// Offsets in the poller's block.
const EVENTS = 0;
const CONTROL_EVENT = EVENTS + EVENT_COUNT_MAX * 16;
const POLL_FDS = CONTROL_EVENT + 16;
const TIMER_SPEC = POLL_FDS + 16;
const BLOCK_BYTES = TIMER_SPEC + 32;

/** Index in the event's data for the timer; descriptors have 0 and above. */
const TIMER_INDEX = 0xffff_ffff;

/** Makes a poller: native where it works, or as `choice` says. */
export function openPoller(choice: BackendChoice = "auto"): Poller {
  return choosesNative(choice) ? new NativePoller() : new NodePoller();
}

/**
 * What `wait` and `wake` share on both backends: at most one sleeper, and a wake-up kept for it.
 */
class Sleep {
  private resolve: (() => void) | null = null;
  private pendingWake = false;

  get isUnderWay(): boolean {
    return this.resolve !== null;
  }

  /** Takes a kept wake-up, if there is one. */
  takeWake(): boolean {
    const had = this.pendingWake;
    this.pendingWake = false;
    return had;
  }

  begin(): Promise<void> {
    assert(this.resolve === null, "one waiter at a time");
    return new Promise((resolve) => {
      this.resolve = resolve;
    });
  }

  /** Ends the sleep; without one, does nothing. @returns whether there was one. */
  end(): boolean {
    const resolve = this.resolve;
    this.resolve = null;
    resolve?.();
    return resolve !== null;
  }

  keepWake(): void {
    this.pendingWake = true;
  }
}

class NativeDescriptor implements PolledDescriptor {
  readable = false;
  writable = false;
  /** EPOLLIN and EPOLLOUT as the kernel has them; 0: not in the set. */
  mask = 0;
  readonly index: number;
  readonly descriptor: number;
  private poller: NativePoller | null;

  constructor(poller: NativePoller, index: number, descriptor: number) {
    this.poller = poller;
    this.index = index;
    this.descriptor = descriptor;
  }

  setInterest(read: boolean, write: boolean): void {
    const mask = (read ? EPOLLIN : 0) | (write ? EPOLLOUT : 0);
    if (mask !== this.mask) this.poller?.changeMask(this, mask);
  }

  remove(): void {
    this.poller?.drop(this);
    this.poller = null;
  }
}

class NativePoller implements Poller {
  readonly backend = "native";
  private readonly native = loadNative();
  private readonly block: NativeBlock = mapBlock(BLOCK_BYTES);
  private readonly set: number;
  private readonly timer: number;
  private readonly loopWatch: LoopWatch;
  private readonly briefNsMax: number;
  private readonly pollFdCount: number;
  /** By index in the event's data; null: free. */
  private readonly descriptors: (NativeDescriptor | null)[] = [];
  private readonly freeIndexes: number[] = [];
  private readonly sleep = new Sleep();
  /** Who is flagged now: indexes 0 .. readyCount - 1. */
  private readonly ready: NativeDescriptor[] = [];
  /** When the timer fires; `Infinity`: it is not armed. */
  private timerNs = Number.POSITIVE_INFINITY;
  /** When the sleep that is under way is to end. */
  private sleepEndNs = Number.POSITIVE_INFINITY;
  private isClosed = false;
  descriptorCount = 0;
  eventLoopIsReady = false;

  private readonly onLoopReady = (): void => {
    // libuv calls from outside Node's callback scope, where promises would not run on: hop into
    // one.
    this.loopWatch.stop();
    setImmediate(this.endSleep);
  };
  private readonly endSleep = (): void => {
    if (this.isClosed || !this.sleep.isUnderWay) return;
    // The timer alone, and set for an earlier time: on with it.
    if (this.poll() === 0 && monotonicNs() < this.sleepEndNs) {
      this.armTimer(this.sleepEndNs);
      this.loopWatch.start({ readable: true }, this.onLoopReady);
      return;
    }
    this.sleep.end();
  };

  constructor() {
    const { libc, loopDescriptor } = this.native;
    this.set = libc.epoll_create1(EPOLL_CLOEXEC);
    if (this.set < 0) throw failure("make an epoll set");
    this.timer = libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK_CLOEXEC);
    if (this.timer < 0) throw failure("make a timer");
    // Edge-triggered, so that an expired timer need not be read.
    this.control(EPOLL_CTL_ADD, this.timer, EPOLLIN | EPOLLET, TIMER_INDEX);
    // This thread's timers are late by up to 50 us unless told otherwise.
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    this.loopWatch = this.native.watch(this.set);
    const { view } = this.block;
    view.setInt32(POLL_FDS, this.set, true);
    view.setInt16(POLL_FDS + 4, POLLIN, true);
    view.setInt32(POLL_FDS + 8, loopDescriptor, true);
    view.setInt16(POLL_FDS + 12, POLLIN, true);
    this.pollFdCount = loopDescriptor < 0 ? 1 : 2;
    this.briefNsMax = loopDescriptor < 0 ? BRIEF_NS_MAX_BLIND : BRIEF_NS_MAX;
  }

  add(descriptor: number): PolledDescriptor {
    assert(!this.isClosed, "the poller is open");
    const index = this.freeIndexes.pop() ?? this.descriptors.length;
    const entry = new NativeDescriptor(this, index, descriptor);
    this.descriptors[index] = entry;
    this.descriptorCount++;
    this.changeMask(entry, EPOLLIN);
    return entry;
  }

  changeMask(entry: NativeDescriptor, mask: number): void {
    // Whoever outlives the poller may still say what it wants; the block is unmapped by then.
    if (this.isClosed) return;
    // A descriptor without interest leaves the set: the kernel reports a hang-up to any that is in
    // it, and would keep a poller awake whose owner does not want to know.
    if (mask === 0) this.control(EPOLL_CTL_DEL, entry.descriptor, 0, 0);
    else if (entry.mask === 0) this.control(EPOLL_CTL_ADD, entry.descriptor, mask, entry.index);
    else this.control(EPOLL_CTL_MOD, entry.descriptor, mask, entry.index);
    entry.mask = mask;
    if ((mask & EPOLLIN) === 0) entry.readable = false;
    if ((mask & EPOLLOUT) === 0) entry.writable = false;
  }

  drop(entry: NativeDescriptor): void {
    if (this.isClosed) return;
    if (entry.mask !== 0) this.changeMask(entry, 0);
    this.descriptors[entry.index] = null;
    this.freeIndexes.push(entry.index);
    this.descriptorCount--;
  }

  poll(): number {
    assert(!this.isClosed, "the poller is open");
    const { view, address } = this.block;
    this.clearFlags();
    const count = this.native.libc.epoll_wait(this.set, address + EVENTS, EVENT_COUNT_MAX, 0);
    for (let i = 0; i < count; i++) {
      const at = EVENTS + i * EVENT_BYTES;
      const index = view.getUint32(at + EVENT_DATA, true);
      if (index === TIMER_INDEX) {
        this.timerNs = Number.POSITIVE_INFINITY;
        continue;
      }
      const entry = this.descriptors[index];
      if (entry === null || entry === undefined) continue;
      const events = view.getUint32(at, true);
      // An error or a hang-up shows itself to whichever call the owner makes next.
      const failed = (events & (EPOLLERR | EPOLLHUP)) !== 0;
      entry.readable = failed || (events & EPOLLIN) !== 0;
      entry.writable = (entry.mask & EPOLLOUT) !== 0 && (failed || (events & EPOLLOUT) !== 0);
      this.ready.push(entry);
    }
    return this.ready.length;
  }

  waitBriefly(timeoutNs: number): number {
    const bounded = Math.min(timeoutNs, this.briefNsMax);
    // A kept wake-up stays for `wait`: it means that the caller has something to do.
    if (bounded > 0) {
      this.armTimer(monotonicNs() + bounded);
      const { view, address } = this.block;
      // Whatever ended it, a signal too, the set is looked at next.
      const count = this.native.libc.ppoll(address + POLL_FDS, this.pollFdCount, 0, 0);
      this.eventLoopIsReady = count <= 0 || view.getInt16(POLL_FDS + 14, true) !== 0;
    }
    return this.poll();
  }

  wait(timeoutNs: number): Promise<void> {
    assert(!this.isClosed, "the poller is open");
    assert(!this.sleep.isUnderWay, "one waiter at a time");
    if (this.sleep.takeWake() || timeoutNs <= 0) return Promise.resolve();
    this.sleepEndNs = monotonicNs() + timeoutNs;
    this.armTimer(this.sleepEndNs);
    const slept = this.sleep.begin();
    this.loopWatch.start({ readable: true }, this.onLoopReady);
    return slept;
  }

  wake(): void {
    if (this.sleep.isUnderWay) {
      this.loopWatch.stop();
      this.sleep.end();
    } else {
      this.sleep.keepWake();
    }
  }

  close(): void {
    if (this.isClosed) return;
    this.wake();
    this.clearFlags();
    this.isClosed = true;
    this.loopWatch.close();
    this.native.libc.close(this.timer);
    this.native.libc.close(this.set);
    unmapBlock(this.block);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private clearFlags(): void {
    const { ready } = this;
    for (let i = 0; i < ready.length; i++) {
      const entry = ready[i] as NativeDescriptor;
      entry.readable = false;
      entry.writable = false;
    }
    ready.length = 0;
  }

  /** Makes sure that the timer fires by `deadlineNs`; earlier is all right. */
  private armTimer(deadlineNs: number): void {
    if (this.timerNs <= deadlineNs) return;
    this.timerNs = deadlineNs;
    const { view, address } = this.block;
    // struct itimerspec: interval (left 0), value in seconds and nanoseconds; 0 would disarm.
    const ns = Math.max(1, Math.ceil(deadlineNs - monotonicNs()));
    view.setUint32(TIMER_SPEC + 16, Math.floor(ns / NS_PER_S), true);
    view.setUint32(TIMER_SPEC + 24, ns % NS_PER_S, true);
    this.native.libc.timerfd_settime(this.timer, 0, address + TIMER_SPEC, 0);
  }

  private control(operation: number, fd: number, events: number, index: number): void {
    const { view, address } = this.block;
    view.setUint32(CONTROL_EVENT, events >>> 0, true);
    view.setUint32(CONTROL_EVENT + EVENT_DATA, index, true);
    view.setUint32(CONTROL_EVENT + EVENT_DATA + 4, 0, true);
    if (this.native.libc.epoll_ctl(this.set, operation, fd, address + CONTROL_EVENT) < 0) {
      throw failure(`watch descriptor ${fd}`);
    }
  }
}

/** On Node's own events: sockets call `wake`, and only time can pass in between. */
class NodePoller implements Poller {
  readonly backend = "node";
  readonly descriptorCount = 0;
  readonly eventLoopIsReady = true;
  private readonly sleep = new Sleep();
  private timeout: NodeJS.Timeout | null = null;
  /** Wake-ups since the last `poll`. */
  private wakeCount = 0;

  add(_descriptor: number): PolledDescriptor {
    throw new FarpageError("EOPNOTSUPP", "a poller on Node's own modules can't watch descriptors");
  }

  poll(): number {
    const count = this.wakeCount;
    this.wakeCount = 0;
    return count;
  }

  waitBriefly(_timeoutNs: number): number {
    return this.poll();
  }

  wait(timeoutNs: number): Promise<void> {
    assert(!this.sleep.isUnderWay, "one waiter at a time");
    if (this.sleep.takeWake() || timeoutNs <= 0) return Promise.resolve();
    const slept = this.sleep.begin();
    const milliseconds = Math.min(Math.ceil(timeoutNs / 1e6), WAIT_MS_MAX);
    this.timeout = setTimeout(() => {
      this.timeout = null;
      this.sleep.end();
    }, milliseconds);
    return slept;
  }

  wake(): void {
    this.wakeCount++;
    if (this.timeout !== null) clearTimeout(this.timeout);
    this.timeout = null;
    if (!this.sleep.end()) this.sleep.keepWake();
  }

  close(): void {
    this.wake();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
