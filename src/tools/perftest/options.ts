// SPDX-License-Identifier: MIT
// What a run of perftest is told, and what follows from it.

import { FarpageError } from "../../runtime/index.js";
import type { PathMtu } from "../../verbs/index.js";

export const PERF_VERBS = ["write", "read", "send", "atomic"] as const;
export type PerfVerb = (typeof PERF_VERBS)[number];
export const PERF_KINDS = ["bw", "lat"] as const;
export type PerfKind = (typeof PERF_KINDS)[number];

export interface PerfOptions {
  /** ib_write_bw is `write` and `bw`, ib_send_lat `send` and `lat`. */
  readonly verb: PerfVerb;
  readonly kind: PerfKind;
  /** Whom to connect to: an IP address or a name (`cm`: an IP address); null waits for a client. */
  readonly server: string | null;
  /** TCP or RDMA CM port; a server may take any free one by 0. */
  readonly port: number;
  /** Connect by RDMA CM and converse over RDMA (-R), else over TCP. */
  readonly cm: boolean;
  /** UD: `send` alone. */
  readonly connection: "RC" | "UD";
  /** Bytes of a message; "all": 2 bytes to 8 MiB, a power of two each (-a). */
  readonly size: number | "all";
  /** Messages of each measurement, at least 5, as the peer's. */
  readonly iterations: number;
  /** Measures for so long instead, where the client alone works (-D); the server need not know. */
  readonly durationMs?: number | undefined;
  /** Both sides send (-b): `bw` alone. */
  readonly bidirectional: boolean;
  /** Path MTU at most; default what the link carries. */
  readonly mtu?: PathMtu | undefined;
  /** Requests under way at once. */
  readonly txDepth: number;
  /** Receives posted at once. */
  readonly rxDepth: number;
  /** READs and atomics under way at once, at most the device's 128. */
  readonly outReads: number;
  /** Coded ACK timeout, 4.096 us * 2^n, 1 .. 31. */
  readonly ackTimeout: number;
}

/** What perftest does where nobody says, and we do. */
export const PERF_DEFAULTS = {
  port: 18_515,
  bwBytes: 65_536,
  latBytes: 2,
  atomicBytes: 8,
  bwIterations: 5000,
  latIterations: 1000,
  txDepth: 128,
  rxDepth: 512,
  outReads: 128,
  /**
   * 1.07 s. perftest's own is 14, 67 ms: rdma_rxe, which repeats for ever, can live with that. A
   * peer that is slow to answer would lose us after half a second, and what is lost is repeated
   * long before anyhow.
   */
  ackTimeout: 18,
} as const;

export const ITERATIONS_MIN = 5;
export const ITERATIONS_MAX = 100_000_000;
/** Latencies are kept one by one. */
export const LAT_ITERATIONS_MAX = 10_000_000;
/** Both sides' halves of a message twice in memory. */
export const SIZE_MAX = 1 << 30;
const ALL_SIZES_LOG2_MAX = 23;

/** Name of the stock program that measures this: "ib_write_bw". */
export function stockName(options: PerfOptions): string {
  return `ib_${options.verb}_${options.kind}`;
}

/** The sizes to measure, one after the other. */
export function sizesOf(options: PerfOptions, mtu: number): number[] {
  if (options.size !== "all") return [options.size];
  const max = options.connection === "UD" ? Math.log2(mtu) : ALL_SIZES_LOG2_MAX;
  return Array.from({ length: max }, (_, index) => 2 ** (index + 1));
}

/**
 * Whether the client alone works: the server's memory is written, read or counted up without its
 * doing anything.
 */
export function isOneSided(options: PerfOptions): boolean {
  if (options.verb === "send") return false;
  return options.kind === "bw" || options.verb !== "write";
}

/** @throws FarpageError EINVAL for what perftest can't do either. */
export function checkPerfOptions(options: PerfOptions): void {
  const { verb, kind, size, iterations } = options;
  const refuse = (text: string): never => {
    throw new FarpageError("EINVAL", text);
  };
  if (options.connection === "UD" && verb !== "send") refuse(`UD has no ${verb}, SEND alone`);
  if (verb === "atomic" && size !== 8) refuse("atomics have 8 bytes, no other size");
  if (options.bidirectional && kind !== "bw") refuse("--bidirectional is of bandwidth tests");
  if (options.bidirectional && size === "all") {
    refuse("--bidirectional and --all don't go together");
  }
  const isForTime = kind === "bw" && verb !== "send" && !options.bidirectional && size !== "all";
  if (options.durationMs !== undefined && !isForTime) {
    refuse("--duration is of one-way write, read and atomic bandwidth, of one size");
  }
  if (size !== "all" && !(Number.isInteger(size) && size >= 1 && size <= SIZE_MAX)) {
    refuse(`a message has 1 to ${SIZE_MAX} bytes, not ${size}`);
  }
  const max = kind === "lat" ? LAT_ITERATIONS_MAX : ITERATIONS_MAX;
  if (!(Number.isInteger(iterations) && iterations >= ITERATIONS_MIN && iterations <= max)) {
    refuse(`iterations are ${ITERATIONS_MIN} to ${max}, not ${iterations}`);
  }
}
