// SPDX-License-Identifier: MIT

/**
 * The verbs that every sans-I/O protocol object shares. (`onPacket` and `pump(nowNs, tx)` with
 * their arguments belong to the rooms that move packets.) All are synchronous, run to completion
 * and are never re-entered; time is nanoseconds on a monotonic clock, handed in.
 */
export interface Machine {
  /** Does what can be done now: polls its queues, fires due timers, posts work. */
  pump(nowNs: number): void;
  /** When `pump` must run again though nothing arrived; `Infinity` when idle. */
  deadlineNs(): number;
  /** Asserts everything that must hold between two calls. */
  checkInvariants(): void;
}
