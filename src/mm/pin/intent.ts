// SPDX-License-Identifier: MIT
// What the walk over a process's pages is to do: for the purposes (`pinner.ts`) alone, which set
// combinations that make sense. Not part of the room's door. Read first: Linux `mm/gup.c`,
// is_valid_gup_args.

import { assert } from "../../base/index.js";

export const INTENT = {
  /** The bytes are read or written from outside the CPU's page tables. */
  PIN: 1,
  /** Until somebody says so. */
  LONG_TERM: 2,
  /** Nothing is faulted in. */
  PRESENT_ONLY: 4,
  /** Memory of another device will do. */
  PEER: 8,
  /** The memory of another process than the caller's. */
  REMOTE: 16,
} as const;

/** Asserts that a combination means something. */
export function checkIntent(intent: number): void {
  const has = (bit: number) => (intent & bit) !== 0;
  assert(!has(INTENT.LONG_TERM) || has(INTENT.PIN), "what is held for long is pinned");
  assert(!has(INTENT.PEER) || has(INTENT.PIN), "a device's memory is pinned, not borrowed");
  assert(
    !has(INTENT.LONG_TERM) || !has(INTENT.PRESENT_ONLY),
    "what is held for long may take a fault",
  );
  assert(!has(INTENT.REMOTE) || !has(INTENT.LONG_TERM), "nobody else's memory is held for long");
  assert(!has(INTENT.REMOTE) || !has(INTENT.PEER), "another process is not a device");
}
