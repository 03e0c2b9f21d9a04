// SPDX-License-Identifier: MIT
// The project's own tools: `node dist/scripts/main.js COMMAND`. One entry with subcommands.

import { runTidy } from "./tidy/tidy.js";

const USAGE = `usage: node dist/scripts/main.js COMMAND

  tidy [--update]   checks imports, floors, sizes, words and dependencies;
                    --update lowers the ratchet to what is needed now
`;

function main(args: readonly string[]): number {
  const [command, ...rest] = args;
  switch (command) {
    case "tidy":
      return runTidy(process.cwd(), rest.includes("--update")) === 0 ? 0 : 1;
    default:
      process.stderr.write(USAGE);
      return 2;
  }
}

process.exitCode = main(process.argv.slice(2));
