// SPDX-License-Identifier: MIT
// A figure is a ratio: of the medians of alternating runs, ours and a peer's, in one session on one
// machine. Absolute numbers are printed beside it for orientation alone.

/** One program under measurement: each call is one run and gives one number. */
export interface Contender {
  readonly name: string;
  readonly measure: () => Promise<number>;
}

export interface Comparison {
  /** What is measured, with its size and depth. */
  readonly figure: string;
  readonly unit: string;
  /** Whether more is better (rates) or less (latencies). */
  readonly better: "more" | "less";
  readonly ours: Contender;
  readonly peers: readonly Contender[];
}

export interface Row {
  readonly figure: string;
  readonly unit: string;
  readonly better: "more" | "less";
  readonly peer: string;
  readonly ours: number;
  readonly theirs: number;
  /** Above 1: we are the better one, whichever way that is. */
  readonly ratio: number;
  readonly rounds: number;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? high : (high + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** Runs ours and each peer in turn, `rounds` times, the order reversed every other round. */
export async function compare(comparison: Comparison, rounds: number): Promise<Row[]> {
  const all = [comparison.ours, ...comparison.peers];
  const samples = all.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    const order = all.map((_, index) => (round % 2 === 0 ? index : all.length - 1 - index));
    for (const index of order) {
      const contender = all[index];
      if (contender !== undefined) samples[index]?.push(await contender.measure());
    }
  }
  const ours = median(samples[0] ?? []);
  return comparison.peers.map((peer, index) => {
    const theirs = median(samples[index + 1] ?? []);
    return {
      figure: comparison.figure,
      unit: comparison.unit,
      better: comparison.better,
      peer: peer.name,
      ours,
      theirs,
      ratio: comparison.better === "more" ? ours / theirs : theirs / ours,
      rounds,
    };
  });
}

/** The rows as a table in Markdown, which reads well on a terminal too. */
export function table(rows: readonly Row[]): string {
  const number = (value: number) =>
    value >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
  const lines = rows.map(
    (row) =>
      `| ${row.figure} | ${number(row.ours)} ${row.unit} | ${row.peer} | ` +
      `${number(row.theirs)} ${row.unit} | ${row.ratio.toFixed(2)} |`,
  );
  return [
    "| figure | farpage | peer | peer's | ratio (above 1: farpage is better) |",
    "| --- | --- | --- | --- | --- |",
    ...lines,
  ].join("\n");
}
