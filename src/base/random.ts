// SPDX-License-Identifier: MIT

/**
 * Randomness, always handed in. `os/` implements it from the system's entropy (keys, QPNs and PSNs
 * must be unpredictable to peers); tests and the simulator use `SeededRandom`.
 */
export interface Random {
  /** Uniform in 0 .. 2^32 - 1. */
  nextU32(): number;
  /**
   * An independent stream for one consumer, named so that adding a consumer does not shift the
   * others.
   */
  fork(label: string): Random;
}

/** Uniform in 0 .. bound - 1. Preconditions: 1 <= bound <= 2^32. */
export function randomBelow(random: Random, bound: number): number {
  // 2^-32 x bound of bias is below anything that farpage draws for.
  return Math.floor((random.nextU32() / 0x1_0000_0000) * bound);
}

/**
 * sfc32 (Chris Doty-Humphrey, PractRand): small, fast, good enough for simulation; not for secrets.
 */
export class SeededRandom implements Random {
  private a: number;
  private b: number;
  private c: number;
  private counter: number;
  private readonly seed: number;

  /** @param seed any number; its low 32 bits are used. */
  constructor(seed: number) {
    this.seed = seed >>> 0;
    this.a = 0x9e3779b9;
    this.b = 0x243f6a88;
    this.c = seed | 0;
    this.counter = 1;
    for (let i = 0; i < 12; i++) this.nextU32();
  }

  nextU32(): number {
    const t = (((this.a + this.b) | 0) + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = ((this.c << 21) | (this.c >>> 11)) + t;
    this.c |= 0;
    return t >>> 0;
  }

  fork(label: string): SeededRandom {
    // FNV-1a over the label, mixed into this stream's seed (not its position).
    let hash = 0x811c9dc5 ^ this.seed;
    for (let i = 0; i < label.length; i++) {
      hash = Math.imul(hash ^ label.charCodeAt(i), 0x01000193);
    }
    return new SeededRandom(hash ^ (hash >>> 15));
  }
}
