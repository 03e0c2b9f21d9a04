// SPDX-License-Identifier: MIT
// How a tool waits for its work: one completion at a time, or an error that says what happened.

import { FarpageError } from "../runtime/index.js";
import { type CompletionQueue, WC_STATUS, WorkCompletion } from "../verbs/index.js";
import { interruptible, type ToolEnvironment } from "./environment.js";

const BATCH = 32;

/** Completions of one queue in their order, awaited. One reader per completion queue. */
export class CompletionReader {
  private readonly environment: ToolEnvironment;
  private readonly cq: CompletionQueue;
  private readonly batch = Array.from({ length: BATCH }, () => new WorkCompletion());
  private taken = 0;
  private filled = 0;
  private failWaiting: ((error: unknown) => void) | null = null;
  private failure: unknown = null;
  private readonly describe: (wrId: number) => string;
  /** Successful completions that came while another was waited for, by wrId. */
  private readonly held = new Map<number, WorkCompletion[]>();

  /** @param describe what a request was, by its wrId: for the error when it fails. */
  constructor(
    environment: ToolEnvironment,
    cq: CompletionQueue,
    describe: (wrId: number) => string = (wrId) => `work request ${wrId}`,
  ) {
    this.environment = environment;
    this.cq = cq;
    this.describe = describe;
  }

  /**
   * The next completion if there is one now, else null. The object is the reader's, and another's
   * completion after the next call.
   */
  poll(): WorkCompletion | null {
    if (this.taken === this.filled) {
      this.taken = 0;
      this.filled = this.cq.pollCq(this.batch);
    }
    return this.taken < this.filled ? (this.batch[this.taken++] as WorkCompletion) : null;
  }

  /**
   * The next completion, whatever its status. Wakes the lane first: what was posted before goes
   * out. The object as for `poll`.
   * @param options.timeoutMs how long to wait; default: for ever.
   * @throws FarpageError EINTR when the user stops the tool, ETIMEDOUT, ESHUTDOWN when the host
   *   closes; what `fail` was given.
   */
  async next(options: { readonly timeoutMs?: number } = {}): Promise<WorkCompletion> {
    for (;;) {
      const completion = this.poll();
      if (completion !== null) return completion;
      if (this.failure !== null) throw this.failure;
      await this.wait(options.timeoutMs);
    }
  }

  /**
   * The completion of the oldest request with this `wrId`; others' are kept until they are asked
   * for. For tools with a few requests under way: each that is kept is a fresh object.
   * @throws FarpageError as `next`, and what `completionFailure` makes of a request that failed,
   *   whichever it was.
   */
  async of(
    wrId: number,
    options: { readonly timeoutMs?: number } = {},
  ): Promise<Readonly<WorkCompletion>> {
    const kept = this.held.get(wrId)?.shift();
    if (kept !== undefined) return kept;
    for (;;) {
      const wc = await this.next(options);
      if (wc.status !== WC_STATUS.SUCCESS) {
        const before = this.failure;
        // A queue that is flushed says so; why it is, the one who ended it knows.
        if (wc.status === WC_STATUS.WR_FLUSH_ERR && before !== null) throw before;
        throw completionFailure(wc, this.describe(wc.wrId));
      }
      const copy = Object.assign(new WorkCompletion(), wc);
      if (wc.wrId === wrId) return copy;
      const waiting = this.held.get(wc.wrId);
      if (waiting === undefined) this.held.set(wc.wrId, [copy]);
      else waiting.push(copy);
    }
  }

  /**
   * Ends the waits for what will never complete, with `error`; completions that are here come
   * first.
   */
  fail(error: unknown): void {
    this.failure ??= error;
    this.failWaiting?.(error);
  }

  private async wait(timeoutMs: number | undefined): Promise<void> {
    const { host, signal } = this.environment;
    let timer: NodeJS.Timeout | null = null;
    const over = new AbortController();
    const failed = new Promise<never>((_, reject) => {
      this.failWaiting = reject;
      if (timeoutMs === undefined) return;
      timer = setTimeout(
        () => reject(new FarpageError("ETIMEDOUT", `nothing came for ${timeoutMs / 1000} s`)),
        timeoutMs,
      );
    });
    failed.catch(() => {});
    try {
      await interruptible(signal, Promise.race([host.completion(this.cq, over.signal), failed]));
    } catch (error) {
      if (this.cq.count === 0) throw error;
    } finally {
      this.failWaiting = null;
      over.abort();
      if (timer !== null) clearTimeout(timer);
    }
  }
}

const MEANINGS: Readonly<Record<string, string>> = {
  LOC_LEN_ERR: "the peer's message is longer than what was expected",
  LOC_PROT_ERR: "the request names memory that is not registered",
  WR_FLUSH_ERR: "the connection was lost or closed",
  REM_INV_REQ_ERR: "the peer could not take the request (its receive may be too small)",
  REM_ACCESS_ERR: "the peer does not let us at that memory",
  REM_OP_ERR: "the peer failed (its receive may be too small)",
  RETRY_EXC_ERR: "the peer does not answer any more",
  RNR_RETRY_EXC_ERR: "the peer posts no receives",
};

const STATUS_NAMES = new Map<number, string>(
  Object.entries(WC_STATUS).map(([name, value]) => [value, name]),
);

/**
 * The error for a completion that is no success: its code is the status' name.
 * @param what what failed: "SEND", "the READ of the client's buffer".
 */
export function completionFailure(wc: WorkCompletion, what: string): FarpageError {
  const name = STATUS_NAMES.get(wc.status) ?? `STATUS_${wc.status}`;
  const meaning = MEANINGS[name];
  return new FarpageError(name, `${what} failed: ${meaning ?? `status ${name}`}`);
}
