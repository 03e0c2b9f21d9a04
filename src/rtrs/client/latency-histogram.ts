// SPDX-License-Identifier: MIT

/** Bucket n holds latencies below 2^n microseconds and not below half of that; the last is open. */
const BUCKET_COUNT = 28;

/** How long answers took, in buckets of powers of two. Nothing is allocated after construction. */
export class LatencyHistogram {
  /** Latencies noted. */
  count = 0;
  sumNs = 0;
  maxNs = 0;
  private readonly counts = new Float64Array(BUCKET_COUNT);

  /** @param latencyNs nanoseconds, from 0. */
  add(latencyNs: number): void {
    this.count++;
    this.sumNs += latencyNs;
    if (latencyNs > this.maxNs) this.maxNs = latencyNs;
    const microseconds = Math.min(latencyNs / 1000, 0x7fff_ffff) | 0;
    const bucket = Math.min(32 - Math.clz32(microseconds), BUCKET_COUNT - 1);
    this.counts[bucket] = (this.counts[bucket] as number) + 1;
  }

  /** Nanoseconds on average; 0 before the first. */
  get meanNs(): number {
    return this.count === 0 ? 0 : this.sumNs / this.count;
  }

  /** Buckets that hold something, the fastest first: below `limitUs` microseconds, `count`. */
  buckets(): { limitUs: number; count: number }[] {
    const found: { limitUs: number; count: number }[] = [];
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket++) {
      const count = this.counts[bucket] as number;
      const limitUs = bucket === BUCKET_COUNT - 1 ? Infinity : 2 ** bucket;
      if (count > 0) found.push({ limitUs, count });
    }
    return found;
  }

  reset(): void {
    this.count = 0;
    this.sumNs = 0;
    this.maxNs = 0;
    this.counts.fill(0);
  }
}
