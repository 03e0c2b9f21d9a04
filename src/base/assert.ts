// SPDX-License-Identifier: MIT

/**
 * States what must hold; a violation is a bug in farpage, never a peer's or a caller's doing.
 * @throws Error naming `what` when `condition` is false.
 */
export function assert(condition: boolean, what: string): asserts condition {
  if (!condition) fail(what);
}

/** Marks a branch that no value can reach; the compiler checks it where `value` is `never`. */
export function unreachable(value: never): never {
  fail(`unreachable value ${String(value)}`);
}

/** Kept apart from `assert`, so that the check itself stays small enough to be inlined. */
function fail(what: string): never {
  throw new Error(`assertion failed: ${what}`);
}
