// SPDX-License-Identifier: MIT
// How `farpage mem` is called.

import { runMem } from "./mem.js";
import type { CommandParts } from "./tool-commands.js";

export function addMemCommands({ program, run }: Pick<CommandParts, "program" | "run">): void {
  program
    .command("mem")
    .description("how memory lies: free blocks, fragmentation, huge pages, and what to do about it")
    .option("--from <dir>", "a saved copy of /proc and /sys instead of this machine")
    .option(
      "--need <size>",
      "for scripts: is so much free in huge pages? exit status 0 yes, 1 no, 2 error, 3 unknown",
    )
    .option("--json", "one JSON object on standard output", false)
    .option("--verbose", "tell every odd place in what was read", false)
    .action((options) => run(options.json, (reporter) => runMem(options, reporter)));
}
