// SPDX-License-Identifier: MIT
// Draws from the distributions that the life of a server is made of.

import type { Random } from "../../base/index.js";

/** 0 <= x < 1. */
export function uniform(random: Random): number {
  return random.nextU32() / 0x1_0000_0000;
}

/** Waiting times and lifetimes without a memory. */
export function exponential(random: Random, mean: number): number {
  return -mean * Math.log(1 - uniform(random));
}

/** Sizes: many small, few large. @param median half of the draws are below. @param sigma spread. */
export function logNormal(random: Random, median: number, sigma: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniform(random)));
  const normal = radius * Math.cos(2 * Math.PI * uniform(random));
  return median * Math.exp(sigma * normal);
}

/** How many events of a rate happen. Preconditions: mean below 100. */
export function poisson(random: Random, mean: number): number {
  const limit = Math.exp(-mean);
  let product = uniform(random);
  let count = 0;
  while (product > limit) {
    product *= uniform(random);
    count++;
  }
  return count;
}
