// SPDX-License-Identifier: MIT
// The project's own tools: `node dist/scripts/main.js COMMAND`. One entry with subcommands.

import { runE2e } from "./e2e.js";
import { runMutations } from "./mutate/mutate.js";
import { runFuzz, runSim } from "./runs.js";
import { runTidy } from "./tidy/tidy.js";

const USAGE = `usage: node dist/scripts/main.js COMMAND

  tidy [--update]   checks imports, floors, sizes, words and dependencies;
                    --update lowers the ratchet to what is needed now
  e2e [vitest arguments]
                    the built program under stock clients, which it installs where it may
  sim --seed N [--smoke] [--trace FILE] [--pcap FILE]
                    replays one seed of the whole-system simulation
  fuzz [--seed N] [--count N]
                    fuzzes every target; at least a million messages when told nothing
  mutate [TEXT...]  takes each check against hostile peers out, in a copy of the tree, and tells
                    whether its test fails then; TEXT chooses checks and files
`;

function main(args: readonly string[]): number | Promise<number> {
  const [command, ...rest] = args;
  switch (command) {
    case "tidy":
      return runTidy(process.cwd(), rest.includes("--update")) === 0 ? 0 : 1;
    case "e2e":
      return runE2e(rest);
    case "sim":
      return runSim(rest);
    case "fuzz":
      return runFuzz(rest);
    case "mutate":
      return runMutations(process.cwd(), rest);
    default:
      process.stderr.write(USAGE);
      return 2;
  }
}

process.exitCode = await main(process.argv.slice(2));
