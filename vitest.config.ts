// SPDX-License-Identifier: MIT
import { defineConfig } from "vitest/config";

/** Tests that bind real sockets: some need the same addresses and ports, so they run one by one. */
const REAL_SOCKETS = [
  "src/os/**/*.test.ts",
  "src/runtime/**/*.test.ts",
  "src/trace/**/*.test.ts",
  "test/contract/**/*.test.ts",
];

/**
 * Everything fast (`npm test`). The long runs (`npm run test:long`) and the built program
 * (`npm run test:e2e`) have configurations of their own.
 */
export default defineConfig({
  test: {
    exclude: ["test/e2e/**", "**/*.long.test.ts", "node_modules/**", "dist/**"],
    testTimeout: 60_000,
    setupFiles: ["test/support/equal-bytes.ts"],
    // Simulated worlds make many short-lived packets; collecting them took a tenth of the time.
    execArgv: ["--max-semi-space-size=64"],
    // Hosts' freed buffers are kept aside and looked at: who uses one still fails.
    env: { FARPAGE_CHECK_FREED: "1" },
    projects: [
      {
        extends: true,
        test: {
          name: "pure",
          include: ["src/**/*.test.ts", "test/**/*.test.ts"],
          exclude: REAL_SOCKETS,
          benchmark: { include: ["src/**/*.bench.ts"] },
          maxWorkers: 2,
          isolate: false,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: "sockets",
          include: REAL_SOCKETS,
          benchmark: { include: [] },
          fileParallelism: false,
          isolate: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
