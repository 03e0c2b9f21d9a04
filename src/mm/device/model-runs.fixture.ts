// SPDX-License-Identifier: MIT

import { PinModel, SMALL } from "./model.fixture.js";

/** Runs of `steps` commands each; what happened in all of them, by kind. */
export function runModel(firstSeed: number, runs: number, steps: number, size = SMALL) {
  const seen = new Map<string, number>();
  for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
    const model = new PinModel(seed, size);
    let step = 0;
    try {
      while (step++ < steps) model.step();
      model.finish();
    } catch (error) {
      throw new Error(`seed ${seed}, step ${step}`, { cause: error });
    }
    for (const [what, count] of model.seen) seen.set(what, (seen.get(what) ?? 0) + count);
  }
  return seen;
}

/** What has to happen at all, else the model tests less than it says: in a few runs, ... */
export const SEEN_OFTEN = ["fork", "exit", "dma", "migrate in", "move 0", "move 1", "pin 2"];

/** ... and in many. */
export const SEEN_AT_LEAST = [
  ...SEEN_OFTEN,
  "truncate",
  "pin 0",
  "pin 1",
  "pin 2: limit",
  "pin 2: file-lease-missing",
  "pin 2: migration-busy",
  "pin 2: fragmented",
  "pin 0: past-end",
  "device fault of kind 0",
  "device fault of kind 2",
  "stayed pinned",
];

/** In blocks of 2 MiB. */
export const SEEN_IN_BLOCKS = [
  ...SEEN_OFTEN,
  "pin in 2 MiB",
  "pin 2: limit",
  "pin 2: migration-busy",
  "truncate",
];
