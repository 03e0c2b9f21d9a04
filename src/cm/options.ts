// SPDX-License-Identifier: MIT
// What a connection manager is made of, with our defaults. Coded times are the CM's: code c stands
// for 4.096 us * 2^c, about 2^(c - 8) ms (IBTA vol1 §12.7.2; rocev2 facts section 19).

import { FarpageError, type MemorySource, type Random } from "../base/index.js";
import type { Context } from "../verbs/index.js";

const MS = 1_000_000;

export interface ConnectionManagerOptions extends Partial<CmTuning> {
  /** A context of its own on the device: the connection manager opens QP1 in it and closes it. */
  readonly context: Context;
  /** For the buffers of QP1. */
  readonly memory: MemorySource;
  /** Communication ids, starting PSNs and transaction ids; unpredictable in production. */
  readonly random: Random;
}

/** Everything that can be tuned; durations in nanoseconds. */
export interface CmTuning {
  /**
   * The CA GUID, two 32-bit halves: with a comm id it names a connection for ever. Default random
   * per connection manager, so that a restarted host never looks like its former self.
   */
  readonly caGuid: { readonly high: number; readonly low: number };
  /** First repetition of an unanswered message; doubles up to `repeatNsMax`. */
  readonly repeatNsMin: number;
  readonly repeatNsMax: number;
  /** How long a connect waits for its answer; per id: `ConnectOptions.timeoutNs`. */
  readonly connectTimeoutNs: number;
  /** How long an accept waits for RTU or data. */
  readonly replyTimeoutNs: number;
  /** How long a disconnect waits for the peer's DREP. */
  readonly disconnectTimeoutNs: number;
  /** How long in all a peer's MRAs may stretch the two waits above. */
  readonly mraWaitNsMax: number;
  /** Coded service time that our MRA asks for while the application has not answered, 0 .. 31. */
  readonly mraServiceTimeout: number;
  /** How long the answer to a finished exchange is kept, to be repeated when the peer missed it. */
  readonly lingerNs: number;
  /** Coded time in which we answer a REP: what a Linux peer repeats its REP by, 0 .. 31. */
  readonly localResponseTimeout: number;
  /** Coded time that our REQ allows the peer for its REP, 0 .. 31. */
  readonly remoteResponseTimeout: number;
  /** Coded local ACK timeout of our connections, where the user does not choose, 1 .. 31. */
  readonly ackTimeout: number;
  /** Coded RNR timer of the queue pairs that are bound; 0 would be 655 ms. */
  readonly minRnrTimer: number;
  /** Connections asked for by peers and not yet established: in all, and from one address. */
  readonly halfOpenMax: number;
  readonly halfOpenPerSourceMax: number;
  /** Finished connections in timewait or lingering; beyond it the oldest are forgotten early. */
  readonly lingerCountMax: number;
  /** Connections and ids in all, whatever their state. */
  readonly connectionMax: number;
  /** Receives posted on QP1, and messages that can be on their way out at once. */
  readonly receiveDepth: number;
  readonly sendDepth: number;
}

/** Why each number: see the field of the same name. `caGuid` is drawn. */
export const CM_DEFAULTS: Omit<CmTuning, "caGuid"> = {
  repeatNsMin: 200 * MS,
  repeatNsMax: 2_000 * MS,
  connectTimeoutNs: 30_000 * MS,
  replyTimeoutNs: 30_000 * MS,
  disconnectTimeoutNs: 5_000 * MS,
  // Linux asks for 65.5 s at once; let one such request pass whole.
  mraWaitNsMax: 70_000 * MS,
  // 8.6 s: longer than an RTRS server needs to build its chunks.
  mraServiceTimeout: 21,
  // Longer than two of a Linux peer's REQ intervals (6.1 s).
  lingerNs: 15_000 * MS,
  // 0.54 s, sixteen times: a Linux peer waits 8.6 s for an RTU in all.
  localResponseTimeout: 17,
  remoteResponseTimeout: 20,
  // 134 ms. Linux's 19 (2.15 s) is what one lost packet costs there.
  ackTimeout: 15,
  // 0.64 ms.
  minRnrTimer: 12,
  halfOpenMax: 1024,
  halfOpenPerSourceMax: 256,
  lingerCountMax: 4096,
  connectionMax: 65_536,
  receiveDepth: 256,
  sendDepth: 256,
};

const CODED: readonly (keyof CmTuning)[] = [
  "mraServiceTimeout",
  "localResponseTimeout",
  "remoteResponseTimeout",
  "ackTimeout",
  "minRnrTimer",
];

/**
 * The defaults with what `options` says in their place.
 * @throws FarpageError EINVAL naming the option that is out of its range.
 */
export function resolveTuning(options: ConnectionManagerOptions): CmTuning {
  const { random } = options;
  const caGuid = options.caGuid ?? { high: random.nextU32(), low: random.nextU32() };
  const tuning: CmTuning = { ...CM_DEFAULTS, ...withoutAbsent(options), caGuid };
  for (const [name, value] of Object.entries(tuning)) {
    if (typeof value === "number" && !(value >= 0)) refuse(name, value);
  }
  for (const name of CODED) {
    const value = tuning[name] as number;
    if (!Number.isInteger(value) || value > 31) refuse(name, value);
  }
  if (tuning.ackTimeout === 0) refuse("ackTimeout", 0);
  if (tuning.repeatNsMin < MS) refuse("repeatNsMin", tuning.repeatNsMin);
  if (tuning.repeatNsMax < tuning.repeatNsMin) refuse("repeatNsMax", tuning.repeatNsMax);
  return tuning;
}

function withoutAbsent(options: ConnectionManagerOptions): Partial<CmTuning> {
  const known = new Set<string>(Object.keys(CM_DEFAULTS));
  return Object.fromEntries(
    Object.entries(options).filter(([name, value]) => known.has(name) && value !== undefined),
  );
}

function refuse(name: string, value: number): never {
  throw new FarpageError("EINVAL", `connection manager option ${name} can't be ${value}`);
}

/** A coded time in nanoseconds: 4.096 us * 2^code. Preconditions: 0 <= code <= 31. */
export function codedTimeNs(code: number): number {
  return 4096 * 2 ** code;
}
