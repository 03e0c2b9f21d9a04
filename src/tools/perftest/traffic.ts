// SPDX-License-Identifier: MIT
// The tests' own machines, run in the lane: what a side does between the last meeting before a test
// and the first after it.

import type { Machine } from "../../base/index.js";
import { FarpageError } from "../../runtime/index.js";
import {
  type CompletionQueue,
  type QueuePair,
  type RecvWorkRequest,
  SEND_FLAG,
  type SendWorkRequest,
  WC_STATUS,
  WorkCompletion,
} from "../../verbs/index.js";
import { completionFailure } from "../completions.js";
import { interruptible, type ToolEnvironment } from "../environment.js";

const BATCH = 64;
/** A peer that has finished may leave while the last of this side's packets are on their way. */
const LEAVE_GRACE_MS = 2_000;

/** Time in nanoseconds, fit for differences. */
export function nowNs(): number {
  return performance.now() * 1e6;
}

/** A machine that ends. */
export abstract class Traffic implements Machine {
  /** When the first request was posted (receivers: the first message came), and the end. */
  startNs = 0;
  endNs = 0;
  protected readonly batch = Array.from({ length: BATCH }, () => new WorkCompletion());
  private settled = false;
  private settle: (error: FarpageError | null) => void = () => {};

  /**
   * Runs to its end.
   * @param lost settles when the peer is gone, which it may be a little before the end.
   * @throws FarpageError of the completion that failed; ECONNRESET; EINTR; ESHUTDOWN.
   */
  async run(environment: ToolEnvironment, lost: Promise<FarpageError>): Promise<void> {
    const { host, signal } = environment;
    const { lane } = host.stack;
    let timer: NodeJS.Timeout | undefined;
    const finished = new Promise<void>((resolve, reject) => {
      this.settle = (error) => {
        if (this.settled) return;
        this.settled = true;
        lane.yieldToNode();
        if (error === null) resolve();
        else reject(error);
      };
      void lost.then((error) => {
        // Every peer leaves once its test is over: nothing is left to wait for then.
        if (!this.settled) timer = setTimeout(() => this.settle(error), LEAVE_GRACE_MS);
      });
    });
    // Hears when the host closes or fails.
    const channel = host.openChannel({
      onCmEvent: () => {},
      onCmEnd: () => this.settle(new FarpageError("ESHUTDOWN", "the host is closed")),
    });
    lane.add(this);
    try {
      await interruptible(signal, finished);
    } finally {
      this.settled = true;
      clearTimeout(timer);
      lane.remove(this);
      channel.close();
    }
  }

  /** Ends without a result; no-op when it has ended. */
  stop(): void {
    this.settle(null);
  }

  pump(): void {
    if (!this.settled) this.step();
  }

  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {}

  /** What can be done now. Ends by `finish` or `fail`. */
  protected abstract step(): void;

  protected finish(): void {
    this.endNs = nowNs();
    this.settle(null);
  }

  protected fail(wc: WorkCompletion, what: string): void {
    this.settle(completionFailure(wc, what));
  }

  protected failPosting(errno: number, what: string): void {
    this.settle(new FarpageError("EIO", `${what} could not be posted: errno ${errno}`));
  }
}

export interface StreamOptions {
  readonly qp: QueuePair;
  readonly cq: CompletionQueue;
  readonly wr: SendWorkRequest;
  readonly iterations: number;
  /** Posts for so long instead, and waits for what is under way. */
  readonly durationMs?: number | undefined;
  /** Requests under way at once. */
  readonly depth: number;
  /** One request in so many asks for a completion, 1 .. depth. */
  readonly signalEvery: number;
}

/** Bandwidth, at the side that posts: keeps so many requests under way. */
export class Stream extends Traffic {
  private readonly options: StreamOptions;
  /** Requests in all; by time, known when the time is over. */
  private total: number;
  private posted = 0;
  private completed = 0;

  constructor(options: StreamOptions) {
    super();
    this.options = options;
    this.total = options.durationMs === undefined ? options.iterations : Number.POSITIVE_INFINITY;
  }

  /** Requests that have completed. */
  get count(): number {
    return this.completed;
  }

  protected step(): void {
    const { cq } = this.options;
    for (let count = BATCH; count === BATCH; ) {
      count = cq.pollCq(this.batch);
      for (let i = 0; i < count; i++) {
        const wc = this.batch[i] as WorkCompletion;
        if (wc.status !== WC_STATUS.SUCCESS) {
          this.fail(wc, `request ${wc.wrId}`);
          return;
        }
        this.completed = wc.wrId;
      }
    }
    if (this.completed === this.total) this.finish();
    else this.post();
  }

  private post(): void {
    const { qp, wr, durationMs, depth, signalEvery } = this.options;
    if (this.posted === 0) this.startNs = nowNs();
    // One more, so that the last one asks for a completion.
    const isOver = durationMs !== undefined && nowNs() - this.startNs >= durationMs * 1e6;
    if (isOver && this.total > this.posted) this.total = this.posted + 1;
    while (this.posted < this.total && this.posted - this.completed < depth) {
      const number = this.posted + 1;
      wr.wrId = number;
      const wantsWord = number % signalEvery === 0 || number === this.total;
      wr.sendFlags = wantsWord ? SEND_FLAG.SIGNALED : 0;
      const errno = qp.tryPostSend(wr);
      if (errno !== 0) {
        this.failPosting(errno, `request ${number}`);
        return;
      }
      this.posted = number;
    }
  }
}

export interface SinkOptions {
  readonly qp: QueuePair;
  readonly cq: CompletionQueue;
  readonly wr: RecvWorkRequest;
  readonly iterations: number;
  /** Receives posted at once. */
  readonly depth: number;
}

/** Bandwidth of SENDs, at the side that receives. */
export class Sink extends Traffic {
  private readonly options: SinkOptions;
  private posted = 0;
  private received = 0;

  constructor(options: SinkOptions) {
    super();
    this.options = options;
    this.post();
  }

  protected step(): void {
    const { cq, iterations } = this.options;
    for (let count = BATCH; count === BATCH; ) {
      count = cq.pollCq(this.batch);
      for (let i = 0; i < count; i++) {
        const wc = this.batch[i] as WorkCompletion;
        if (wc.status !== WC_STATUS.SUCCESS) {
          this.fail(wc, "a receive");
          return;
        }
        if (this.received++ === 0) this.startNs = nowNs();
      }
    }
    if (this.received === iterations) this.finish();
    else this.post();
  }

  private post(): void {
    const { qp, wr, iterations, depth } = this.options;
    while (this.posted < iterations && this.posted - this.received < depth) {
      const errno = qp.tryPostRecv(wr);
      if (errno !== 0) {
        this.failPosting(errno, "a receive");
        return;
      }
      this.posted++;
    }
  }
}

/** How a side of a latency test sees that it is its turn. */
export interface Arrivals {
  /** A message that could not be received; null when all is well. */
  readonly failure: WorkCompletion | null;
  /** Whether message `number`, counted from 1, is there; asked again and again until it is. */
  readonly has: (number: number) => boolean;
  /** Message `number` is about to be posted. */
  readonly mark: (number: number) => void;
}

export interface TurnsOptions {
  readonly qp: QueuePair;
  readonly cq: CompletionQueue;
  readonly wr: SendWorkRequest;
  readonly iterations: number;
  /** Whether this side posts before the peer does. */
  readonly isFirst: boolean;
  /** Null: the request's own completion is the answer (READ, atomics). */
  readonly arrivals: Arrivals | null;
}

/** Latency: one message at a time, in turns with the peer. */
export class Turns extends Traffic {
  /** When each message was posted, and behind them the end. */
  readonly postedNs: Float64Array;
  private readonly options: TurnsOptions;
  private posted = 0;
  private completed = 0;
  private answered = 0;

  constructor(options: TurnsOptions) {
    super();
    this.options = options;
    this.postedNs = new Float64Array(options.iterations + 1);
  }

  protected step(): void {
    const { iterations } = this.options;
    for (let moved = true; moved; ) {
      if (!this.takeCompletions()) return;
      moved = this.takeAnswer();
      const failure = this.options.arrivals?.failure ?? null;
      if (failure !== null) {
        this.fail(failure, "a receive");
        return;
      }
      if (this.answered === iterations && this.completed === iterations) {
        this.postedNs[iterations] = nowNs();
        this.finish();
        return;
      }
      if (this.isOwnTurn()) {
        if (!this.post()) return;
        moved = true;
      }
    }
  }

  private isOwnTurn(): boolean {
    const { iterations, isFirst } = this.options;
    if (this.posted === iterations) return false;
    return isFirst ? this.posted === this.answered : this.posted < this.answered;
  }

  private takeCompletions(): boolean {
    const count = this.options.cq.pollCq(this.batch);
    for (let i = 0; i < count; i++) {
      const wc = this.batch[i] as WorkCompletion;
      if (wc.status !== WC_STATUS.SUCCESS) {
        this.fail(wc, `message ${wc.wrId}`);
        return false;
      }
      this.completed++;
    }
    return true;
  }

  private takeAnswer(): boolean {
    const { arrivals, iterations } = this.options;
    if (this.answered === iterations) return false;
    const isHere =
      arrivals === null ? this.completed > this.answered : arrivals.has(this.answered + 1);
    if (isHere) this.answered++;
    return isHere;
  }

  private post(): boolean {
    const { qp, wr, arrivals } = this.options;
    const number = this.posted + 1;
    arrivals?.mark(number);
    wr.wrId = number;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    this.postedNs[this.posted] = nowNs();
    if (this.posted === 0) this.startNs = this.postedNs[0] as number;
    const errno = qp.tryPostSend(wr);
    if (errno !== 0) {
      this.failPosting(errno, `message ${number}`);
      return false;
    }
    this.posted = number;
    return true;
  }
}

/** write_lat: the last byte of a message is its number; the peer looks at it in memory. */
export class ByteArrivals implements Arrivals {
  readonly failure = null;
  private readonly bytes: Uint8Array;
  private readonly outOffset: number;
  private readonly inOffset: number;

  /** @param outOffset of the byte that is sent last; `inOffset` of the one that comes last. */
  constructor(bytes: Uint8Array, outOffset: number, inOffset: number) {
    this.bytes = bytes;
    this.outOffset = outOffset;
    this.inOffset = inOffset;
  }

  readonly has = (number: number): boolean => this.bytes[this.inOffset] === (number & 0xff);

  readonly mark = (number: number): void => {
    this.bytes[this.outOffset] = number & 0xff;
  };
}

/** send_lat: receives, posted again as they are filled. */
export class ReceiveArrivals implements Arrivals {
  failure: WorkCompletion | null = null;
  private readonly qp: QueuePair;
  private readonly cq: CompletionQueue;
  private readonly wr: RecvWorkRequest;
  private readonly one = [new WorkCompletion()];
  private left: number;

  /** Posts `depth` receives at once, `iterations` in all. */
  constructor(o: {
    readonly qp: QueuePair;
    readonly cq: CompletionQueue;
    readonly wr: RecvWorkRequest;
    readonly depth: number;
    readonly iterations: number;
  }) {
    this.qp = o.qp;
    this.cq = o.cq;
    this.wr = o.wr;
    this.left = o.iterations;
    for (let i = 0; i < Math.min(o.depth, o.iterations); i++) this.post();
  }

  readonly has = (): boolean => {
    if (this.cq.pollCq(this.one) === 0) return false;
    const wc = this.one[0] as WorkCompletion;
    if (wc.status !== WC_STATUS.SUCCESS) {
      this.failure = wc;
      return false;
    }
    this.post();
    return true;
  };

  readonly mark = (): void => {};

  private post(): void {
    if (this.left === 0) return;
    this.left--;
    this.qp.postRecv(this.wr);
  }
}
