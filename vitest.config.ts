// SPDX-License-Identifier: MIT
import { defineConfig } from "vitest/config";

/**
 * Three sets: everything fast (`npm test`), the long runs (`npm run test:long`), the built program.
 */
export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    exclude: ["test/e2e/**", "**/*.long.test.ts", "node_modules/**", "dist/**"],
    testTimeout: 60_000,
  },
});
