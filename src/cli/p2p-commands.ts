// SPDX-License-Identifier: MIT
// How `farpage p2p` is called.

import { type Command, Option } from "commander";
import {
  CHECK_STATUS,
  runP2pCheck,
  runP2pList,
  runP2pMatrix,
  runP2pPath,
  runP2pTree,
} from "./p2p.js";
import type { CommandParts } from "./tool-commands.js";

const DEVICE = "address, label (GPU0), kernel name (nvme0, mlx5_0), numbers (10de:2330) or words";

export function addP2pCommands({
  program,
  collect,
  run,
}: Pick<CommandParts, "program" | "collect" | "run">): void {
  const p2p = program
    .command("p2p")
    .description("may these two PCI devices talk peer to peer, by which way, and if not, why");
  judging(p2p.command("list"))
    .description("the devices that matter: GPUs, NICs, NVMe drives")
    .argument("[device...]", `${DEVICE}; or a kind: gpu, nic, nvme, bridge, all`)
    .action((what, options) =>
      run(options.json, (reporter) => runP2pList(options, what, reporter)),
    );
  for (const [name, isWhole] of [
    ["path", false],
    ["explain", true],
  ] as const) {
    judging(p2p.command(name))
      .description(
        isWhole
          ? "the same in sentences: the walk hop by hop, the rule, what would change it"
          : "the verdict for one device that reads or writes the memory of another",
      )
      .argument("<client>", `the device that reads and writes: ${DEVICE}`)
      .argument("<provider>", "the device whose memory it is")
      .action((client, provider, options) =>
        run(options.json, (reporter) =>
          runP2pPath({ client, provider }, options, isWhole, reporter),
        ),
      );
  }
  judging(p2p.command("matrix"))
    .description("every device against every other; default: NICs, GPUs and NVMe drives")
    .argument("[device...]", `rows: ${DEVICE}; or a kind`)
    .option("--to <device>", "columns, where they are not the rows; may be repeated", collect)
    .action((what, options) =>
      run(options.json, (reporter) => runP2pMatrix(what, options, reporter)),
    );
  judging(p2p.command("check"))
    // A mistyped flag is no verdict either.
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : CHECK_STATUS.error))
    .description("for scripts: exit status 0 all work, 1 one does not, 3 one is unknown, 2 error")
    .argument("<client:provider...>", "pairs; A..B too; a kind or list gives every pair of it")
    .action((pairs, options) =>
      run(options.json, (reporter) => runP2pCheck(pairs, options, reporter)),
    );
  judging(p2p.command("tree"))
    .description("the topology: root buses, bridges, devices, and which ports redirect")
    .option("--svg <file>", "draw it; - is standard output")
    .option("--path <client:provider>", "mark the way of a pair")
    .option("--all", "every function, not those alone that matter", false)
    .action((options) => run(options.json, (reporter) => runP2pTree(options, reporter)));
}

/** Flags of every p2p command. */
function judging(command: Command): Command {
  return command
    .option(
      "--from <file>",
      "a dump instead of this machine: file, folder, archive, - for stdin; may be repeated",
      (value: string, before: readonly string[] | undefined) => [...(before ?? []), value],
    )
    .option("--kernel <release>", "whose rules: 6.1, 7.1, ..., or running (default: the newest)")
    .addOption(
      new Option(
        "--assume-acs <word>",
        "take ports whose ACS is unknown for this: off, redirect, or a control word in hex",
      ),
    )
    .option("--json", "one JSON object on standard output", false)
    .option("--verbose", "tell every odd place in a dump", false);
}
