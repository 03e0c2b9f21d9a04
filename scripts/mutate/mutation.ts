// SPDX-License-Identifier: MIT

export interface Mutation {
  /** What is taken out, in words. */
  readonly check: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
  /** The test that has to fail: its file, and a part of its name that is in no other's. */
  readonly test: string;
  readonly name: string;
}

/** The mutations of a file, as they are written down. */
export type MutationRow = readonly [file: string, rows: readonly Row[]];
type Row = readonly [check: string, from: string, to: string, test: string, name: string];

export function mutationsOf(rows: readonly MutationRow[]): readonly Mutation[] {
  return rows.flatMap(([file, edits]) =>
    edits.map(([check, from, to, test, name]) => ({ check, file, from, to, test, name })),
  );
}
