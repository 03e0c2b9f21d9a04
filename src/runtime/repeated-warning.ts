// SPDX-License-Identifier: MIT
// Warnings of things that can happen thousands of times a second: the first is said at once, what
// follows is counted and said together. Peers may choose what makes a kind (a name that they ask
// for), so that kinds are no more than so many a minute, either: the rest are counted as one.

import type { Log } from "./log.js";

/** How long a kind of warning is quiet after it was said. */
const INTERVAL_MS = 60_000;
/** Kinds that are told apart within the interval; further ones are one kind. */
const KIND_COUNT_MAX = 64;
/** The key of all kinds that are too many. */
const OTHERS = "";

interface Kind {
  /** When it was last said. */
  saidMs: number;
  /** How often it has happened since, unsaid. */
  unsaid: number;
  text: string;
}

export class RepeatedWarning {
  private readonly log: Log;
  private readonly intervalMs: number;
  private readonly nowMs: () => number;
  private readonly kinds = new Map<string, Kind>();

  /**
   * @param options.intervalMs at least this long lies between two warnings of a kind, default one
   *   minute.
   * @param options.nowMs the time; for tests.
   */
  constructor(
    log: Log,
    options: { readonly intervalMs?: number; readonly nowMs?: () => number } = {},
  ) {
    this.log = log;
    this.intervalMs = options.intervalMs ?? INTERVAL_MS;
    this.nowMs = options.nowMs ?? (() => performance.now());
  }

  /**
   * Something happened: warned of now, or counted.
   * @param key what makes two of them the same kind; not empty.
   */
  say(key: string, text: string): void {
    const nowMs = this.nowMs();
    const isKnown = this.kinds.has(key) || this.makeRoom(nowMs);
    const place = isKnown ? key : OTHERS;
    const kind = this.kinds.get(place);
    if (kind === undefined) {
      this.kinds.set(place, { saidMs: nowMs, unsaid: 0, text });
      this.log.warn(text);
      return;
    }
    kind.unsaid++;
    kind.text = text;
    if (nowMs - kind.saidMs >= this.intervalMs) this.sayCount(kind, nowMs);
  }

  /** Says what was counted and not said yet. */
  flush(): void {
    const nowMs = this.nowMs();
    for (const kind of this.kinds.values()) this.sayCount(kind, nowMs);
  }

  private sayCount(kind: Kind, nowMs: number): void {
    if (kind.unsaid === 0) return;
    const seconds = Math.max(1, Math.round((nowMs - kind.saidMs) / 1000));
    this.log.warn(`${kind.text} (${kind.unsaid} more in ${seconds} s)`);
    kind.saidMs = nowMs;
    kind.unsaid = 0;
  }

  /** Forgets a kind that was not said lately. @returns whether there is room for another. */
  private makeRoom(nowMs: number): boolean {
    if (this.kinds.size < KIND_COUNT_MAX) return true;
    for (const [key, kind] of this.kinds) {
      if (key === OTHERS || nowMs - kind.saidMs < this.intervalMs) continue;
      this.sayCount(kind, nowMs);
      this.kinds.delete(key);
      return true;
    }
    return false;
  }
}
