// SPDX-License-Identifier: MIT
// `node dist/scripts/main.js e2e`: installs the stock clients that the end-to-end tests need, where
// that is possible, and runs the tests. What can't be installed is named, and its tests are
// skipped.

import { type ExecFileSyncOptions, execFileSync, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

/** Programs, and the Debian packages that bring them. */
const PROGRAMS: Readonly<Record<string, string>> = {
  nbdinfo: "libnbd-bin",
  nbdcopy: "libnbd-bin",
  "qemu-img": "qemu-utils",
  fio: "fio",
  tcpdump: "tcpdump",
  tshark: "tshark",
};

function has(program: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" }).status === 0;
}

function install(packages: readonly string[]): void {
  const isRoot = process.getuid?.() === 0;
  if (!isRoot || !existsSync("/usr/bin/apt-get")) {
    process.stdout.write(`can't install ${packages.join(", ")}: needs root and apt-get\n`);
    return;
  }
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const quiet: ExecFileSyncOptions = { env, stdio: ["ignore", "ignore", "inherit"] };
  try {
    execFileSync("apt-get", ["update", "-qq"], quiet);
    execFileSync(
      "apt-get",
      ["install", "-y", "-qq", "--no-install-recommends", ...packages],
      quiet,
    );
  } catch (error) {
    process.stdout.write(`apt-get failed: ${error instanceof Error ? error.message : error}\n`);
  }
}

/** @returns the exit status. */
export function runE2e(args: readonly string[]): number {
  const missing = Object.keys(PROGRAMS).filter((program) => !has(program));
  if (missing.length > 0) install([...new Set(missing.map((program) => PROGRAMS[program] ?? ""))]);
  for (const program of Object.keys(PROGRAMS)) {
    if (!has(program)) {
      process.stdout.write(`skipped: tests with ${program} (package ${PROGRAMS[program]})\n`);
    }
  }
  const vitest = ["node_modules/vitest/vitest.mjs", "run", "--config", "vitest.e2e.config.ts"];
  return spawnSync(process.execPath, [...vitest, ...args], { stdio: "inherit" }).status ?? 1;
}
