// SPDX-License-Identifier: MIT

import { System, type SystemReport } from "./system.js";
import { configOf, LONG_SCALE } from "./system-config.js";

/** Seeds in the long run; `FARPAGE_SIM_SEEDS` asks for another (even) number of them. */
export const LONG_SEED_COUNT = Number(process.env["FARPAGE_SIM_SEEDS"] ?? "1000");

/** @throws Error naming the seed; `npm run sim -- --seed N` replays it. */
export function runLongSeed(seed: number): SystemReport {
  return new System(configOf(seed, LONG_SCALE)).run();
}
