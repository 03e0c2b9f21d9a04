// SPDX-License-Identifier: MIT
// Three-valued facts. A dump tells a fact, tells its opposite, or doesn't tell; the third is a
// value like the others and runs through every rule into the verdict. Nothing here guesses.

/** What a dump doesn't tell. */
export const UNKNOWN = "unknown";
export type Unknown = typeof UNKNOWN;

/** A value that a dump tells, or `"unknown"`. Where `T` has null, null is: known not to be. */
export type Fact<T> = T | Unknown;

/** True, false or unknown (Kleene's logic). */
export type Tri = Fact<boolean>;

/** False if one is false, else unknown if one is unknown. */
export function triAnd(a: Tri, b: Tri): Tri {
  if (a === false || b === false) return false;
  return a === UNKNOWN || b === UNKNOWN ? UNKNOWN : true;
}

/** True if one is true, else unknown if one is unknown. */
export function triOr(a: Tri, b: Tri): Tri {
  if (a === true || b === true) return true;
  return a === UNKNOWN || b === UNKNOWN ? UNKNOWN : false;
}

export function triNot(fact: Tri): Tri {
  return fact === UNKNOWN ? UNKNOWN : !fact;
}

export function isKnown<T>(fact: Fact<T>): fact is T {
  return fact !== UNKNOWN;
}
