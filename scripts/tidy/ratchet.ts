// SPDX-License-Identifier: MIT
// The ratchet: sizes above the limit that were there when the rule came are listed with their size
// and may only shrink. A listed offender that has shrunk or gone must be taken down in the list too
// (`tidy --update` does that, and never raises anything).

import type { Problem } from "./rules.js";

/** rule -> key -> largest size allowed. */
export type Ratchet = Record<string, Record<string, number>>;

export interface Judgement {
  /** Problems that count. */
  readonly problems: readonly Problem[];
  /** The list as it should be. */
  readonly tightened: Ratchet;
}

/** Lets listed offenders pass and finds entries of the list that are out of date. */
export function applyRatchet(found: readonly Problem[], ratchet: Ratchet): Judgement {
  const problems: Problem[] = [];
  const tightened: Ratchet = {};
  const largest = new Map<string, number>();
  for (const problem of found) {
    const allowed = problem.key === undefined ? undefined : ratchet[problem.rule]?.[problem.key];
    if (allowed === undefined || (problem.size ?? 0) > allowed) {
      problems.push(problem);
      continue;
    }
    const id = `${problem.rule} ${problem.key}`;
    largest.set(id, Math.max(largest.get(id) ?? 0, problem.size ?? 0));
  }
  for (const [rule, entries] of Object.entries(ratchet)) {
    for (const [key, allowed] of Object.entries(entries)) {
      const size = largest.get(`${rule} ${key}`);
      if (size !== undefined) {
        tightened[rule] = { ...tightened[rule], [key]: size };
      }
      const isBroken = found.some((p) => p.rule === rule && p.key === key && size === undefined);
      if (size === allowed || isBroken) continue;
      const now = size === undefined ? "is gone" : `is down to ${size}`;
      const message = `${key} (${rule}, ${allowed}) ${now}: run tidy --update`;
      problems.push({ rule: "ratchet", path: "scripts/tidy-ratchet.json", line: 0, message });
    }
  }
  return { problems, tightened };
}
