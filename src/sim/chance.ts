// SPDX-License-Identifier: MIT

import type { Random } from "../base/index.js";

/** Draws once whether something of probability `rate` (0 .. 1) happens; draws nothing for 0. */
export function happens(random: Random, rate: number): boolean {
  return rate > 0 && random.nextU32() < rate * 0x1_0000_0000;
}
