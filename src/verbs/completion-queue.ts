// SPDX-License-Identifier: MIT

import { FarpageError } from "../base/index.js";
import type { CqCore, WorkCompletion } from "../transport/index.js";
import type { Context } from "./context.js";
import { type HandleTable, VerbsObject } from "./verbs-object.js";

/**
 * A completion queue: ibv_create_cq(3). It must hold every completion that can be outstanding on
 * the queue pairs that use it; when one does not fit, those queue pairs go to ERR and the context
 * gets `CQ_ERR` (ibv_get_async_event(3)).
 */
export class CompletionQueue extends VerbsObject {
  readonly context: Context;
  /** Internal: the device's part. */
  readonly core: CqCore;

  /** Internal: use `Context.createCq`. */
  constructor(table: HandleTable, context: Context, core: CqCore) {
    super(table, "completion queue", []);
    this.context = context;
    this.core = core;
  }

  /** Completions that fit; at least what was asked for. */
  get depth(): number {
    return this.core.depth;
  }

  /** Completions that wait to be polled. */
  get count(): number {
    return this.core.count;
  }

  /** A completion was lost because the queue was full: it takes no more, destroy it. */
  get hasOverflowed(): boolean {
    return this.core.hasOverflowed;
  }

  /**
   * Takes the oldest completions (ibv_poll_cq(3)) into `into[0 ..]`, objects that the caller keeps
   * and reuses; every field of each is set. Allocates nothing.
   * @param countMax at most so many; default all of `into`.
   * @returns how many were taken, 0 when there were none.
   */
  pollCq(into: readonly WorkCompletion[], countMax: number = into.length): number {
    const limit = Math.min(countMax, into.length);
    let count = 0;
    while (count < limit && this.core.poll(into[count] as WorkCompletion)) count++;
    return count;
  }

  /**
   * Asks for one call of `listener` at the next completion (ibv_req_notify_cq(3)). Completions that
   * are in the queue already do not count: request, then poll once more.
   *
   * The listener runs while the device is pumped: it may poll and post, and must not drive the
   * device.
   * @param solicitedOnly only for a receive whose sender asked for it (SOLICITED), or an error.
   * @throws FarpageError EBADF when the queue was destroyed.
   */
  requestNotify(solicitedOnly: boolean, listener: () => void): void {
    this.assertOpen();
    this.core.arm(solicitedOnly, listener);
  }

  /** @throws FarpageError EBUSY while a queue pair uses it. No-op when destroyed already. */
  destroy(): void {
    this.closeHandle();
  }

  protected override release(): void {
    this.core.disarm();
    this.context.device.destroyCq(this.core);
  }
}

/** Checks a depth before the device is asked. @throws FarpageError EINVAL. */
export function checkDepth(what: string, depth: number, minimum: number, maximum: number): void {
  if (Number.isInteger(depth) && depth >= minimum && depth <= maximum) return;
  throw new FarpageError("EINVAL", `${what} must be ${minimum} .. ${maximum}, not ${depth}`);
}
