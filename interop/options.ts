// SPDX-License-Identifier: MIT
// The command line of `npm run interop`.

import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { InteropCase } from "./case.js";
import type { Job } from "./runner.js";

export const USAGE = `usage: npm run interop -- [options]

  --smoke         the small set that .ci/run runs
  --only WORDS    cases whose id holds one of these words (separated by commas or blanks)
  --repeat N      each case N times, one after the other: for faults that come now and then
  --list          name the cases, run nothing
  --keep          leave the guest of the last case running, and say how to reach it
  --capture       write the packets of each case into the run's folder
  --json FILE     write the results there
  --earlier FILE  what an earlier run's --json wrote: fills in what this one leaves out
  --docs          put the matrix into docs/interop.md; for full runs, or with --earlier
  --kvm           guests on /dev/kvm instead of software emulation
  --cache DIR     kernel and modules (default: $XDG_CACHE_HOME/farpage-interop)
`;

export interface Options {
  readonly smoke: boolean;
  readonly only: readonly string[];
  readonly repeat: number;
  readonly list: boolean;
  readonly keep: boolean;
  readonly capture: boolean;
  readonly json: string | null;
  readonly earlier: string | null;
  readonly docs: boolean;
  readonly kvm: boolean;
  readonly cache: string;
}

/** @throws a TypeError that says what is wrong. */
export function parseOptions(args: readonly string[]): Options {
  const flag = { type: "boolean", default: false } as const;
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      ...{ smoke: flag, list: flag, keep: flag, capture: flag, docs: flag, kvm: flag },
      only: { type: "string", multiple: true, default: [] },
      repeat: { type: "string", default: "1" },
      json: { type: "string" },
      earlier: { type: "string" },
      cache: { type: "string" },
    },
  });
  const only = [...values.only, ...positionals].flatMap((words) => words.split(/[\s,]+/));
  const repeat = Number(values.repeat);
  if (!Number.isInteger(repeat) || repeat < 1) throw new TypeError("--repeat takes a count");
  const isPartial = values.smoke || only.length > 0 || repeat > 1;
  if (values.docs && isPartial && values.earlier === undefined) {
    throw new TypeError("--docs is for a full run: a partial one needs --earlier with it");
  }
  const caches = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  const { smoke, list, keep, capture, docs, kvm } = values;
  const [json, earlier] = [values.json ?? null, values.earlier ?? null];
  const cache = resolve(values.cache ?? join(caches, "farpage-interop"));
  return { smoke, list, keep, capture, docs, kvm, only, repeat, json, earlier, cache };
}

/** The cases that the options choose, in their order: per IP version as often as `repeat` says. */
export function choose(cases: readonly InteropCase[], options: Options): Job[] {
  const isMeant = (id: string) =>
    options.only.length === 0 || options.only.some((word) => id.includes(word));
  return cases
    .filter((subject) => isMeant(subject.id))
    .flatMap((subject) => {
      const ips = options.smoke ? (subject.smoke ?? []) : subject.ips;
      return ips.flatMap((ip) => Array.from({ length: options.repeat }, () => ({ subject, ip })));
    });
}
