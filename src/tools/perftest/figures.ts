// SPDX-License-Identifier: MIT
// What a test came to, in perftest's units.

import type { Report } from "./messages.js";

const MIB = 2 ** 20;
const NS_PER_US = 1000;

/** A bandwidth test. */
export interface BandwidthFigures {
  readonly messageBytes: number;
  readonly iterations: number;
  /** 2^20 bytes. */
  readonly mibPerSecond: number;
  readonly messagesPerSecond: number;
}

/** A latency test, in microseconds. */
export interface LatencyFigures {
  readonly messageBytes: number;
  readonly iterations: number;
  readonly minUs: number;
  readonly maxUs: number;
  /** perftest's "typical". */
  readonly medianUs: number;
  readonly meanUs: number;
  readonly stdevUs: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

export function bandwidthOf(
  messageBytes: number,
  iterations: number,
  elapsedNs: number,
): BandwidthFigures {
  const messagesPerSecond = iterations / (Math.max(elapsedNs, 1) / 1e9);
  const mibPerSecond = (messagesPerSecond * messageBytes) / MIB;
  return { messageBytes, iterations, mibPerSecond, messagesPerSecond };
}

/** Both directions of a bidirectional test together. */
export function sumOf(own: BandwidthFigures, theirs: BandwidthFigures): BandwidthFigures {
  return {
    ...own,
    mibPerSecond: own.mibPerSecond + theirs.mibPerSecond,
    messagesPerSecond: own.messagesPerSecond + theirs.messagesPerSecond,
  };
}

/** For the peer. No peak: 0, as perftest's own --noPeak. */
export function reportOf(figures: BandwidthFigures): Report {
  return {
    messageBytes: figures.messageBytes,
    iterations: figures.iterations,
    peak: 0,
    average: figures.mibPerSecond,
    messageRate: figures.messagesPerSecond / 1e6,
  };
}

export function figuresOf(report: Report): BandwidthFigures {
  return {
    messageBytes: report.messageBytes,
    iterations: report.iterations,
    mibPerSecond: report.average,
    messagesPerSecond: report.messageRate * 1e6,
  };
}

/**
 * @param postedNs when each message was posted, and the end: at least two.
 * @param isRoundTrip the peer's message lies between two of this side's: half of it is told.
 */
export function latencyOf(
  messageBytes: number,
  postedNs: Float64Array,
  isRoundTrip: boolean,
): LatencyFigures {
  const iterations = postedNs.length - 1;
  const times = new Float64Array(iterations);
  const unit = NS_PER_US * (isRoundTrip ? 2 : 1);
  for (let i = 0; i < iterations; i++) {
    times[i] = ((postedNs[i + 1] as number) - (postedNs[i] as number)) / unit;
  }
  times.sort();
  const mean = times.reduce((sum, time) => sum + time, 0) / iterations;
  const variance = times.reduce((sum, time) => sum + (time - mean) ** 2, 0) / iterations;
  const at = (share: number) =>
    times[Math.min(iterations - 1, Math.floor(iterations * share))] as number;
  return {
    messageBytes,
    iterations,
    minUs: at(0),
    maxUs: at(1),
    medianUs: at(0.5),
    meanUs: mean,
    stdevUs: Math.sqrt(variance),
    p99Us: at(0.99),
    p999Us: at(0.999),
  };
}

/** One line for people, under `headingOf`'s. */
export function lineOf(figures: BandwidthFigures | LatencyFigures): string {
  const { messageBytes, iterations } = figures;
  const numbers =
    "mibPerSecond" in figures
      ? [figures.mibPerSecond.toFixed(2), (figures.messagesPerSecond / 1e6).toFixed(6)]
      : [
          figures.minUs,
          figures.maxUs,
          figures.medianUs,
          figures.meanUs,
          figures.stdevUs,
          figures.p99Us,
          figures.p999Us,
        ].map((us) => us.toFixed(2));
  return row([String(messageBytes), String(iterations), ...numbers]);
}

export function headingOf(kind: "bw" | "lat"): string {
  const columns =
    kind === "bw"
      ? ["MiB/s", "Mpps"]
      : ["min us", "max us", "median us", "mean us", "stdev us", "99% us", "99.9% us"];
  return row(["bytes", "iterations", ...columns]);
}

function row(cells: readonly string[]): string {
  return cells.map((cell) => cell.padStart(12)).join("");
}
