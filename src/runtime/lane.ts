// SPDX-License-Identifier: MIT
// A lane: one NIC with its loop, shared-nothing. It moves packets between the link and the device,
// gives every machine its turn, and sleeps when there is nothing to do. More cores mean more lanes.
//
// A turn never blocks. After a turn in which nothing moved the loop stays close: it waits at once,
// on this thread, for at most a millisecond; a packet ends that wait some microseconds sooner than
// it would end a sleep. It does not spin: that is 5 us faster while every process has a processor
// of its own, and a thousand times slower as soon as one has not. After a while without traffic it
// sleeps in libuv, where it costs no processor time at all.
//
// Node's own event loop gets its turn when it has events, when a machine has settled a promise, and
// otherwise every half a millisecond, for the sake of its timers.

import { assert, type Machine } from "../base/index.js";
import { monotonicNs, type OsLink, type Poller } from "../os/index.js";
import { type Device, TxBatch } from "../transport/index.js";

/** After this long without traffic the loop stops waiting on this thread and sleeps. */
const LINGER_NS = 2_000_000;
/** Longest run of turns and waits before Node's event loop gets its turn; a wait may add 1 ms. */
const BUSY_NS = 500_000;
/** Rounds in which machines may hand work to each other before packets move again. */
const PUMP_ROUNDS_MAX = 8;
/**
 * After so many small packets, which are requests and answers rather than data, machines and device
 * have their turn in the middle of a burst. Thirty-two requests that arrive together would else be
 * answered together, and whoever waits for the answers, and whoever waits for theirs, in turn do
 * nothing meanwhile. Measured with NBD at depth 32 on two processors: 8 gives 30 % more requests a
 * second than no bound, 4 and 16 less than that.
 */
const SMALL_COUNT = 8;
const SMALL_BYTES = 1024;
/**
 * Four full GSO messages: enough to make a system call cheap, little enough that the peer can begin
 * while the next batch is built, and that the bytes are still in the processor's second cache then.
 */
const TX_BYTES = 4 * 65_536;

export interface LaneOptions {
  readonly poller: Poller;
  readonly link: OsLink;
  readonly device: Device;
  /** Native memory for the packets on their way out. */
  readonly txBytes: Uint8Array;
  /** Told when a machine threw: a bug. The lane has stopped by then. */
  readonly onFailure: (error: unknown) => void;
}

/** What a lane has done so far. */
export interface LaneCounters {
  turns: number;
  /** Turns in which nothing moved. */
  idleTurns: number;
  /** Times that the loop slept in libuv. */
  sleeps: number;
}

export class Lane {
  static readonly txBytes = TX_BYTES;

  readonly poller: Poller;
  readonly link: OsLink;
  readonly device: Device;
  readonly counters: LaneCounters = { turns: 0, idleTurns: 0, sleeps: 0 };

  private readonly machines: Machine[] = [];
  private readonly tx: TxBatch;
  private readonly onFailure: (error: unknown) => void;
  private state: "idle" | "running" | "stopping" | "stopped" = "idle";
  private inTurn = false;
  private asleep = false;
  private owesYield = false;
  private quietSinceNs = 0;
  private stopped: (() => void) | null = null;
  private readonly step = (): void => this.runSteps();

  constructor(options: LaneOptions) {
    this.poller = options.poller;
    this.link = options.link;
    this.device = options.device;
    this.onFailure = options.onFailure;
    this.tx = new TxBatch(options.txBytes);
  }

  /** Adds a machine; it is pumped every turn from now on, in the order of adding. */
  add(machine: Machine): void {
    assert(!this.machines.includes(machine), "a machine is added once");
    this.machines.push(machine);
    this.wake();
  }

  remove(machine: Machine): void {
    const index = this.machines.indexOf(machine);
    if (index >= 0) this.machines.splice(index, 1);
  }

  start(): void {
    assert(this.state === "idle", "a lane starts once");
    this.state = "running";
    this.quietSinceNs = monotonicNs();
    setImmediate(this.step);
  }

  /** Whether the machines get their turns: not before `start`, nor once the loop has ended. */
  get isRunning(): boolean {
    return this.state === "running" || this.state === "stopping";
  }

  /**
   * Must be called by a machine that settles a promise in its turn: whoever awaits it runs only
   * when Node does, and would otherwise wait as long as the loop waits for packets.
   */
  yieldToNode(): void {
    this.owesYield = true;
  }

  /** Must be called after work was handed to a machine from outside of a turn. */
  wake(): void {
    if (this.asleep) this.poller.wake();
    else this.quietSinceNs = monotonicNs();
  }

  /** Ends the loop after the turn under way; what machines still want to send is sent once. */
  stop(): Promise<void> {
    if (this.state === "stopped" || this.state === "idle") {
      this.state = "stopped";
      return Promise.resolve();
    }
    this.state = "stopping";
    return new Promise((resolve) => {
      const before = this.stopped;
      this.stopped = () => {
        before?.();
        resolve();
      };
      this.wake();
    });
  }

  private runSteps(): void {
    try {
      const startNs = monotonicNs();
      let nowNs = startNs;
      this.owesYield = false;
      while (this.state === "running" && !this.owesYield && nowNs - startNs < BUSY_NS) {
        const moved = this.turn(nowNs);
        nowNs = monotonicNs();
        if (moved) {
          this.quietSinceNs = nowNs;
          this.poller.poll();
          continue;
        }
        this.counters.idleTurns++;
        const waitNs = this.deadlineNs() - nowNs;
        if (waitNs <= 0 || this.owesYield) {
          this.poller.poll();
        } else if (nowNs - this.quietSinceNs > LINGER_NS) {
          this.sleep(waitNs);
          return;
        } else {
          this.poller.waitBriefly(waitNs);
          if (this.poller.eventLoopIsReady) break;
        }
        nowNs = monotonicNs();
      }
    } catch (error) {
      this.fail(error);
      return;
    }
    if (this.state === "running") setImmediate(this.step);
    else this.finish();
  }

  private sleep(waitNs: number): void {
    this.asleep = true;
    this.counters.sleeps++;
    this.poller.wait(waitNs).then(
      () => {
        this.asleep = false;
        this.quietSinceNs = monotonicNs() - LINGER_NS;
        this.runSteps();
      },
      (error) => this.fail(error),
    );
  }

  private finish(): void {
    try {
      this.turn(monotonicNs());
    } catch (error) {
      this.fail(error);
      return;
    }
    this.state = "stopped";
    this.stopped?.();
  }

  private fail(error: unknown): void {
    this.state = "stopped";
    this.stopped?.();
    this.onFailure(error);
  }

  private deadlineNs(): number {
    let deadlineNs = this.device.deadlineNs();
    for (let i = 0; i < this.machines.length; i++) {
      const own = (this.machines[i] as Machine).deadlineNs();
      if (own < deadlineNs) deadlineNs = own;
    }
    return deadlineNs;
  }

  /** One turn: packets in, machines, packets out. @returns whether anything moved. */
  private turn(nowNs: number): boolean {
    assert(!this.inTurn, "a lane's turn is never re-entered");
    this.inTurn = true;
    this.counters.turns++;
    const received = this.receive(nowNs);
    if (received) this.device.deliverEvents();
    this.pumpMachines(nowNs);
    const sent = this.transmit(nowNs);
    this.inTurn = false;
    return received || sent;
  }

  private receive(nowNs: number): boolean {
    const burstCount = this.link.readable ? this.link.receive() : 0;
    const device = this.device;
    let smallCount = 0;
    for (let i = 0; i < burstCount; i++) {
      const burst = this.link.bursts[i];
      assert(burst !== undefined, "a link fills its bursts from the first on");
      const end = burst.offset + burst.length;
      for (let offset = burst.offset; offset < end; offset += burst.segmentLength) {
        const length = Math.min(end - offset, burst.segmentLength);
        device.onPacket(nowNs, burst, offset, length);
        if (length <= SMALL_BYTES && ++smallCount === SMALL_COUNT) {
          smallCount = 0;
          device.deliverEvents();
          this.pumpMachines(nowNs);
          this.transmit(nowNs);
        }
      }
    }
    return burstCount > 0;
  }

  private pumpMachines(nowNs: number): void {
    for (let round = 0; round < PUMP_ROUNDS_MAX; round++) {
      let again = false;
      for (let i = 0; i < this.machines.length; i++) (this.machines[i] as Machine).pump(nowNs);
      for (let i = 0; i < this.machines.length; i++) {
        if ((this.machines[i] as Machine).deadlineNs() <= nowNs) again = true;
      }
      if (!again) return;
    }
  }

  private transmit(nowNs: number): boolean {
    let sent = false;
    for (;;) {
      const more = this.tx.isEmpty ? this.device.pump(nowNs, this.tx) : true;
      if (this.tx.isEmpty) break;
      if (this.link.send(this.tx) > 0) sent = true;
      if (this.tx.sentCount < this.tx.messageCount) {
        // The sockets are full: the rest of the batch goes first when they take datagrams again.
        this.link.setWantsWrite(true);
        return sent;
      }
      this.tx.reset();
      if (!more) break;
      // Acknowledgements that wait in the socket open the window again: look at them first.
      if (this.link.readable) return true;
    }
    this.link.setWantsWrite(false);
    return sent;
  }
}
