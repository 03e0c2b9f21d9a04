// SPDX-License-Identifier: MIT
import { defineConfig } from "vitest/config";

/** One seed of the whole-system simulation, for `npm run sim`. */
export default defineConfig({
  test: { include: ["test/sim/replay.ts"], testTimeout: 3_600_000 },
});
