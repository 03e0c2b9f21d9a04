// SPDX-License-Identifier: MIT

/** What `Heartbeat.tick` asks of its path. */
export type HeartbeatVerdict = "QUIET" | "SEND" | "FAILED";

/**
 * One end's watch over a path (facts page, section 9). Every interval, busy or idle: send a
 * heartbeat when nothing is missed; else count one more interval without a sign of life, and fail
 * beyond the limit. So a dead peer is noticed `missedMax + 1` intervals after the heartbeat that it
 * never answered.
 */
export class Heartbeat {
  /** When `tick` has something to do; Infinity while stopped. */
  deadlineNs = Infinity;
  private missed = 0;
  private readonly intervalNs: number;
  private readonly missedMax: number;

  constructor(intervalNs: number, missedMax: number) {
    this.intervalNs = intervalNs;
    this.missedMax = missedMax;
  }

  start(nowNs: number): void {
    this.missed = 0;
    this.deadlineNs = nowNs + this.intervalNs;
  }

  stop(): void {
    this.deadlineNs = Infinity;
  }

  /** The peer gave a sign of life: an acknowledgement or any other message. */
  onTraffic(): void {
    this.missed = 0;
  }

  tick(nowNs: number): HeartbeatVerdict {
    if (nowNs < this.deadlineNs) return "QUIET";
    this.deadlineNs = nowNs + this.intervalNs;
    if (this.missed > this.missedMax) return "FAILED";
    this.missed++;
    if (this.missed > 1) return "QUIET";
    return "SEND";
  }
}
