// SPDX-License-Identifier: MIT
// rping: RDMA READ and WRITE over a connection of the RDMA CM, every byte compared.

import type { CaseContext, Direction, InteropCase } from "../case.js";
import { type Pair, runPair } from "./pair.js";

const PORT = 7174;

/** The two command lines; `flags` are the client's alone. */
export function rpingPair(
  context: CaseContext,
  direction: Direction,
  flags: readonly string[],
): Pair {
  const door = { kind: "cm", port: PORT } as const;
  const address = ["--address", context.here()];
  if (direction === "kernel to farpage") {
    const kernel = `rping -c -V -a ${context.here()} ${flags.join(" ")}`;
    return { direction, door, kernel, farpage: ["rping", "--server", "-V", ...address] };
  }
  const server = ["rping", "--client", context.there(), "-V"];
  // Its buffers are as large as -S says, and it READs into them whatever the client has.
  const kernel = `rping -s -V -S 65535 -a ${context.there()}`;
  return { direction, door, kernel, farpage: [...server, ...flags, ...address] };
}

function caseOf(
  name: string,
  title: string,
  direction: Direction,
  flags: readonly string[],
  smoke: InteropCase["smoke"] = [],
): InteropCase {
  return {
    id: `rping-${name}`,
    title,
    direction,
    ips: [4, 6],
    smoke,
    needs: ["rping"],
    async run(context): Promise<undefined> {
      await runPair(context, rpingPair(context, direction, flags));
    },
  };
}

const IN = "kernel to farpage";
const OUT = "farpage to kernel";

export const RPING_CASES: readonly InteropCase[] = [
  caseOf("in", "20 pings of 64 bytes", IN, ["-C", "20"], [4, 6]),
  caseOf("out", "20 pings of 64 bytes", OUT, ["-C", "20"], [4, 6]),
  caseOf("in-large", "10 pings of 60,000 bytes", IN, ["-C", "10", "-S", "60000"]),
  caseOf("out-large", "10 pings of 60,000 bytes", OUT, ["-C", "10", "-S", "60000"]),
];
