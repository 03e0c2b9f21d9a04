// SPDX-License-Identifier: MIT
import { defineConfig } from "vitest/config";

/**
 * The built program on real sockets: one file at a time, since they share addresses and processors.
 */
export default defineConfig({
  test: {
    include: ["test/e2e/**/*.e2e.test.ts"],
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 30_000,
  },
});
