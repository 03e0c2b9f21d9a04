// SPDX-License-Identifier: MIT
// The loop of `runtime/`, in virtual time and for any number of hosts: the next thing to happen is
// the earliest of all packets, disk completions, deadlines and scripted events. Everything that
// differs between two runs comes from the seed; `traceHash` tells whether two runs were the same.

import { assert, type Machine, type Random, randomBelow, SeededRandom } from "../base/index.js";
import { type Link, type RxBurst, TxBatch } from "../transport/index.js";
import { happens } from "./chance.js";
import { EventHeap } from "./event-heap.js";
import { SimClock } from "./sim-clock.js";
import type { SimDisk } from "./sim-disk.js";
import type { SimLink, SimLinkOptions } from "./sim-link.js";
import { type PathFaults, SimNetwork } from "./sim-network.js";
import { TraceHash } from "./trace-hash.js";

/** What a host runs on its link: `Device` of `transport/`, or a test's own. */
export interface PacketDevice {
  onPacket(nowNs: number, burst: RxBurst, offset: number, length: number): void;
  /** Called behind the packets of a turn, before its machines. */
  deliverEvents?(): void;
  /** @returns whether there is more to send than fitted. */
  pump(nowNs: number, tx: TxBatch): boolean;
  deadlineNs(): number;
  checkInvariants(): void;
}

export interface SimWorldOptions {
  readonly seed: number;
  /** What every path does to start with. */
  readonly faults?: Partial<PathFaults>;
  /** Checks all invariants after every n-th turn; 0 for never. */
  readonly checkEvery?: number;
  /** Hears of every turn, packet and event, one line each. */
  readonly trace?: (line: string) => void;
}

export interface SimHostOptions extends SimLinkOptions {
  /** Puts decorators around the host's link. */
  readonly decorate?: (link: SimLink) => Link;
  /** Bytes and messages of the transmit batch. */
  readonly txBytes?: number;
  readonly txMessageCountMax?: number;
  /** Probability that a turn takes up to `pauseNsMax` (the process was not scheduled). */
  readonly pauseRate?: number;
  readonly pauseNsMax?: number;
}

/** Something that has work for its host at a time. */
export interface SimWaker {
  /** World time; `Infinity` for never. */
  readonly nextWakeNs: number;
}

/** Turns in a row without a packet or an I/O after which a host counts as spinning. */
const IDLE_TURNS_MAX = 20_000;
/** What one turn takes: 200 .. 1,200 ns. */
const TURN_NS_MIN = 200;
const TURN_NS_SPREAD = 1_000;

/** One emulated machine: a link, a device on it, the machines above. Made by `SimWorld.addHost`. */
export class SimHost {
  readonly name: string;
  readonly options: SimHostOptions;
  readonly random: Random;
  /** This host's monotonic clock is the world's plus this; hosts differ, as in life. */
  readonly clockOffsetNs: number;
  link: Link;
  simLink: SimLink;
  tx: TxBatch;
  device: PacketDevice | null = null;
  /** Pumped in this order, before the device. */
  readonly machines: Machine[] = [];
  /** Files whose completions wake the host; whoever owns them polls them from a machine. */
  readonly disks: SimDisk[] = [];
  /** Other things that wake the host: decorators that hold something back. */
  readonly wakers: SimWaker[] = [];
  isAlive = true;
  turnCount = 0;
  /** World time before which the host takes no turn. */
  busyUntilNs = 0;
  /** Whether the last turn moved something, so that the next one follows at once. */
  isActive = true;
  idleTurnCount = 0;

  constructor(name: string, options: SimHostOptions, random: Random, link: SimLink) {
    this.name = name;
    this.options = options;
    this.random = random;
    this.clockOffsetNs = randomBelow(random, 1_000_000) * 1_000_000;
    this.simLink = link;
    this.link = options.decorate?.(link) ?? link;
    this.tx = makeBatch(options);
  }

  /** Takes `link` as the host's new one and starts with an empty batch, as a new process does. */
  renew(link: SimLink): void {
    this.simLink = link;
    this.link = this.options.decorate?.(link) ?? link;
    this.tx = makeBatch(this.options);
    this.isAlive = true;
    this.isActive = true;
    this.idleTurnCount = 0;
  }

  /** The earliest deadline of device and machines, in world time. */
  get deadlineNs(): number {
    let deadlineNs = this.device?.deadlineNs() ?? Number.POSITIVE_INFINITY;
    for (const machine of this.machines) deadlineNs = Math.min(deadlineNs, machine.deadlineNs());
    // Clocks count whole nanoseconds; a smoothed deadline may lie between two.
    return Math.ceil(deadlineNs) - this.clockOffsetNs;
  }

  /** Says who asks for turns at `nowNs` (the host's time) that move nothing. */
  explainSpinning(nowNs: number): string {
    const due = this.machines.filter((machine) => machine.deadlineNs() <= nowNs);
    const names = due.map((machine) => machine.constructor.name);
    if (this.device !== null && this.device.deadlineNs() <= nowNs) names.push("the device");
    return `the host spins without work, for the sake of ${names.join(", ") || "nobody"}`;
  }

  /** When this host's next turn is; `Infinity` when nothing will ever happen by itself. */
  nextTurnNs(nowNs: number): number {
    if (!this.isAlive) return Number.POSITIVE_INFINITY;
    let wakeNs = this.isActive ? nowNs : Math.min(this.simLink.nextArrivalNs, this.deadlineNs);
    for (const disk of this.disks) wakeNs = Math.min(wakeNs, disk.nextWakeNs);
    for (const waker of this.wakers) wakeNs = Math.min(wakeNs, waker.nextWakeNs);
    return Math.max(wakeNs, this.busyUntilNs, nowNs);
  }

  checkInvariants(): void {
    this.device?.checkInvariants();
    for (const machine of this.machines) machine.checkInvariants();
  }
}

interface ScriptedEvent {
  readonly label: string;
  readonly action: () => void;
}

/** The whole world of one seed. */
export class SimWorld {
  readonly seed: number;
  readonly clock = new SimClock();
  readonly random: SeededRandom;
  readonly network: SimNetwork;
  readonly hosts: SimHost[] = [];
  turnCount = 0;

  private readonly hash = new TraceHash();
  private readonly events = new EventHeap<ScriptedEvent>();
  private readonly checkEvery: number;
  private readonly trace: ((line: string) => void) | null;

  constructor(options: SimWorldOptions) {
    this.seed = options.seed;
    this.random = new SeededRandom(options.seed);
    this.checkEvery = options.checkEvery ?? 1;
    this.trace = options.trace ?? null;
    this.network = new SimNetwork(this.clock, this.random, options.faults);
    this.network.observers.push((source, flow, bytes, offset, length, segmentIndex) => {
      this.hash.addNumber(this.clock.nowNs);
      this.hash.addBytes(bytes, offset, length);
      this.trace?.(
        `${this.clock.nowNs} ${source.name} sends ${length} to ${flow.destination} ` +
          `#${segmentIndex} ` +
          `${hexOf(bytes, offset, Math.min(length, 12))}`,
      );
    });
  }

  /** Two runs with equal hashes sent the same packets at the same times and took the same turns. */
  get traceHash(): string {
    return this.hash.toString();
  }

  /** Says something in the trace, and mixes it into the hash. */
  note(text: string): void {
    this.hash.addNumber(this.clock.nowNs);
    this.hash.addText(text);
    this.trace?.(`${this.clock.nowNs} ${text}`);
  }

  /** @throws FarpageError EADDRINUSE when another host has one of the addresses. */
  addHost(name: string, options: SimHostOptions): SimHost {
    const link = this.network.attach(name, options);
    const host = new SimHost(name, options, this.random.fork(`host ${name}`), link);
    this.hosts.push(host);
    return host;
  }

  /** Ends the host's process at once, as SIGKILL does: no packet leaves any more. */
  kill(host: SimHost): void {
    this.note(`${host.name} is killed`);
    this.network.detach(host.name);
    for (const disk of host.disks) disk.abandon();
    host.disks.length = 0;
    host.wakers.length = 0;
    host.machines.length = 0;
    host.device = null;
    host.isAlive = false;
  }

  /** Gives a killed host a new link; the caller builds device and machines anew. */
  revive(host: SimHost): void {
    assert(!host.isAlive, "the host is dead");
    this.note(`${host.name} comes back`);
    host.renew(this.network.attach(host.name, host.options));
  }

  /** The host's own time, for calls into its machines from outside a turn. */
  localNs(host: SimHost): number {
    return this.clock.nowNs + host.clockOffsetNs;
  }

  /** Runs `action` once, `delayNs` from now. `label` appears in the trace. */
  after(delayNs: number, label: string, action: () => void): void {
    this.events.push(this.clock.nowNs + delayNs, { label, action });
  }

  /**
   * Runs until `isDone` (asked after every step) or for `limitNs`.
   * @returns whether `isDone` came true; false also when nothing is left to happen.
   */
  run(limitNs: number, isDone: () => boolean = () => false): boolean {
    const endNs = this.clock.nowNs + limitNs;
    while (!isDone()) {
      if (!this.step(endNs)) return false;
    }
    return true;
  }

  /** Does the next thing, if it comes by `endNs`. @returns whether there was one. */
  step(endNs = Number.MAX_SAFE_INTEGER - 1): boolean {
    const nowNs = this.clock.nowNs;
    let nextNs = this.events.nextNs;
    let next: SimHost | null = null;
    for (const host of this.hosts) {
      const turnNs = host.nextTurnNs(nowNs);
      if (turnNs < nextNs) {
        nextNs = turnNs;
        next = host;
      }
    }
    if (nextNs > endNs) {
      if (Number.isFinite(endNs)) this.clock.advanceTo(endNs);
      return false;
    }
    this.clock.advanceTo(nextNs);
    try {
      if (next === null) this.runEvent();
      else this.takeTurn(next);
    } catch (error) {
      throw this.explain(error, next?.name ?? "script");
    }
    return true;
  }

  private runEvent(): void {
    const event = this.events.popDue(this.clock.nowNs);
    assert(event !== null, "an event is due");
    this.note(event.label);
    event.action();
    // An event may have posted work anywhere.
    for (const host of this.hosts) host.isActive = true;
  }

  private takeTurn(host: SimHost): void {
    host.turnCount++;
    this.turnCount++;
    this.hash.addNumber(this.clock.nowNs);
    const disksDue = host.disks.some((disk) => disk.nextWakeNs <= this.clock.nowNs);
    const nowNs = this.localNs(host);
    const received = this.receive(host, nowNs);
    for (const machine of host.machines) machine.pump(nowNs);
    const sent = this.send(host, nowNs);
    host.isActive = received || sent || disksDue;
    host.idleTurnCount = host.isActive ? 0 : host.idleTurnCount + 1;
    if (host.idleTurnCount >= IDLE_TURNS_MAX) throw new Error(host.explainSpinning(nowNs));
    host.busyUntilNs = this.clock.nowNs + this.drawTurnNs(host);
    if (this.checkEvery > 0 && this.turnCount % this.checkEvery === 0) host.checkInvariants();
  }

  /** @returns whether anything arrived. */
  private receive(host: SimHost, nowNs: number): boolean {
    const count = host.link.receive();
    for (let i = 0; i < count; i++) {
      const burst = host.link.bursts[i] as RxBurst;
      const end = burst.offset + burst.length;
      for (let offset = burst.offset; offset < end; offset += burst.segmentLength) {
        host.device?.onPacket(nowNs, burst, offset, Math.min(burst.segmentLength, end - offset));
      }
    }
    if (count > 0) host.device?.deliverEvents?.();
    return count > 0;
  }

  /** @returns whether anything was sent or still waits to be. */
  private send(host: SimHost, nowNs: number): boolean {
    const { tx } = host;
    let hasMore = false;
    if (tx.messageCount === tx.sentCount) {
      tx.reset();
      hasMore = host.device?.pump(nowNs, tx) ?? false;
    }
    if (tx.isEmpty) return hasMore;
    host.link.send(tx);
    return true;
  }

  private drawTurnNs(host: SimHost): number {
    const { pauseRate = 0, pauseNsMax = 0 } = host.options;
    const turnNs = TURN_NS_MIN + randomBelow(host.random, TURN_NS_SPREAD);
    if (!happens(host.random, pauseRate)) return turnNs;
    return turnNs + randomBelow(host.random, pauseNsMax + 1);
  }

  private explain(error: unknown, where: string): Error {
    const what = error instanceof Error ? error.message : String(error);
    const message = `seed ${this.seed}, ${this.clock.nowNs} ns, ${where}: ${what}`;
    return new Error(message, { cause: error });
  }
}

function makeBatch(options: SimHostOptions): TxBatch {
  return new TxBatch(new Uint8Array(options.txBytes ?? 1 << 18), options.txMessageCountMax ?? 64);
}

function hexOf(bytes: Uint8Array, offset: number, length: number): string {
  let text = "";
  for (let i = 0; i < length; i++) {
    text += (bytes[offset + i] as number).toString(16).padStart(2, "0");
  }
  return text;
}
