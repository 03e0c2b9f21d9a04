// SPDX-License-Identifier: MIT

import { randomFillSync } from "node:crypto";
import type { Random } from "../base/index.js";

const POOL_WORDS = 1024;

/**
 * The system's entropy, drawn 4 KiB at a time: unpredictable to peers, as keys, QPNs and PSNs must
 * be. A drawn word is erased from the pool, so that memory that leaks later doesn't tell it.
 */
export class SystemRandom implements Random {
  private readonly pool = new Uint32Array(POOL_WORDS);
  private index = POOL_WORDS;

  nextU32(): number {
    if (this.index === POOL_WORDS) {
      randomFillSync(this.pool);
      this.index = 0;
    }
    const word = this.pool[this.index] as number;
    this.pool[this.index] = 0;
    this.index++;
    return word;
  }

  /** A stream with a pool of its own; the label tells streams apart only where they are seeded. */
  fork(_label: string): SystemRandom {
    return new SystemRandom();
  }
}
