// SPDX-License-Identifier: MIT
import { defineConfig } from "vitest/config";

/** The long runs: a thousand simulated systems, a million and more fuzzed messages. */
export default defineConfig({
  test: {
    include: ["src/**/*.long.test.ts", "test/**/*.long.test.ts"],
    setupFiles: ["test/support/equal-bytes.ts"],
    testTimeout: 3_600_000,
    pool: "forks",
    maxWorkers: 2,
    fileParallelism: true,
  },
});
