// SPDX-License-Identifier: MIT
// rping: RDMA READ and WRITE over a connection of the RDMA CM, every byte compared.

import type { CaseContext, Direction, InteropCase } from "../case.js";
import { checkDone, type Pair, runPair } from "./pair.js";

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

/** So many pings of so many bytes, each compared on both sides. */
export async function runRping(
  context: CaseContext,
  direction: Direction,
  pings: number,
  size: number,
): Promise<void> {
  const flags = ["-C", `${pings}`, "-S", `${size}`];
  const { farpage } = await runPair(context, rpingPair(context, direction, flags));
  checkDone(farpage, { pings, bytes: 2 * pings * size, verified: true });
}

function caseOf(
  name: string,
  direction: Direction,
  [pings, size]: readonly [number, number],
  smoke: InteropCase["smoke"] = [],
): InteropCase {
  return {
    id: `rping-${name}`,
    title: `${pings} pings of ${size} bytes`,
    direction,
    ips: [4, 6],
    smoke,
    needs: ["rping"],
    async run(context): Promise<undefined> {
      await runRping(context, direction, pings, size);
    },
  };
}

const IN = "kernel to farpage";
const OUT = "farpage to kernel";

export const RPING_CASES: readonly InteropCase[] = [
  caseOf("in", IN, [20, 64], [4, 6]),
  caseOf("out", OUT, [20, 64], [4, 6]),
  caseOf("in-large", IN, [10, 60_000]),
  caseOf("out-large", OUT, [10, 60_000]),
];
