// SPDX-License-Identifier: MIT
// How `farpage mem` is called.

import { Option } from "commander";
import { NEED_STATUS, runMem } from "./mem.js";
import { runMemLab } from "./mem-lab.js";
import type { CommandParts } from "./tool-commands.js";

export function addMemCommands({
  program,
  collect,
  run,
}: Pick<CommandParts, "program" | "collect" | "run">): void {
  const mem = program
    .command("mem")
    // A mistyped flag is no answer to --need.
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : NEED_STATUS.error))
    .description("how memory lies: free blocks, fragmentation, huge pages, and what to do about it")
    .argument("[instance]", "a running instance: its memory instead of the machine's")
    .option("--data <dir>", "the instance whose state is in this folder")
    .option("--from <dir>", "a saved copy of /proc and /sys instead of this machine")
    .option(
      "--need <size>",
      "for scripts: is so much free in huge pages? exit status 0 yes, 1 no, 2 error, 3 unknown",
    )
    .option("--json", "one JSON object on standard output", false)
    .option("--verbose", "tell every odd place in what was read", false)
    .action((target, options) =>
      run(options.json, (reporter) => runMem(target, options, reporter)),
    );
  mem
    .command("lab")
    .configureHelp({ showGlobalOptions: false })
    .description("a seeded week of a server's life under each policy of allocation, compared")
    .option("--seed <n>", "the same seed gives the same week", "1")
    .option("--hours <n>", "how long it is", "168")
    .option("--memory <size>", "of the server; no bytes of it are needed here", "4G")
    .option("--policy <name>", "this policy alone; may be repeated", collect)
    .addOption(
      new Option("--table <which>", "the end of each week, or its hours too")
        .choices(["summary", "hours"])
        .default("summary"),
    )
    .option("--svg <file>", "draw it, hour by hour")
    .option("--csv <file>", "every hour of every policy, for a spreadsheet")
    .option("--quiet", "no progress", false)
    .option("--json", "one JSON object on standard output", false)
    .action((_options, command) => {
      // `mem` has a --json of its own, and whichever is written first gets it.
      const options = command.optsWithGlobals();
      return run(options.json, (reporter) => runMemLab(options, reporter));
    });
}
