// SPDX-License-Identifier: MIT
// `sim` and `fuzz`: the long runs of the test suite with options, which reach the tests through the
// environment.

import { spawnSync } from "node:child_process";

interface Option {
  readonly flag: string;
  readonly variable: string;
  /** What to set when the flag takes no value. */
  readonly value?: string;
}

const SIM_OPTIONS: readonly Option[] = [
  { flag: "--seed", variable: "FARPAGE_SIM_SEED" },
  { flag: "--trace", variable: "FARPAGE_SIM_TRACE" },
  { flag: "--pcap", variable: "FARPAGE_SIM_PCAP" },
  { flag: "--smoke", variable: "FARPAGE_SIM_SCALE", value: "smoke" },
];
const FUZZ_OPTIONS: readonly Option[] = [
  { flag: "--seed", variable: "FARPAGE_FUZZ_SEED" },
  { flag: "--count", variable: "FARPAGE_FUZZ_COUNT" },
];

/** Replays one seed of the whole-system simulation. @returns the exit status. */
export function runSim(args: readonly string[]): number {
  return runVitest(["--config", "vitest.sim.config.ts"], args, SIM_OPTIONS);
}

/** Fuzzes in full, or as many messages per target as `--count` says. @returns the exit status. */
export function runFuzz(args: readonly string[]): number {
  return runVitest(["--config", "vitest.long.config.ts", "test/fuzz"], args, FUZZ_OPTIONS);
}

function runVitest(
  vitest: readonly string[],
  args: readonly string[],
  options: readonly Option[],
): number {
  const env = { ...process.env };
  for (let i = 0; i < args.length; i++) {
    const option = options.find(({ flag }) => flag === args[i]);
    const value = option?.value ?? args[++i];
    if (option === undefined || value === undefined) {
      const flags = options.map(
        ({ flag, value: fixed }) => flag + (fixed === undefined ? " X" : ""),
      );
      process.stderr.write(`options: ${flags.join(", ")}\n`);
      return 2;
    }
    env[option.variable] = value;
  }
  const command = ["--no-install", "vitest", "run", ...vitest];
  return spawnSync("npx", command, { stdio: "inherit", env }).status ?? 1;
}
