// SPDX-License-Identifier: MIT
// ucmatose (many connections at once) and udaddy (datagrams between queue pairs found by SIDR).

import type { CaseContext, Direction, InteropCase } from "../case.js";
import { checkDone, type Pair, runPair } from "./pair.js";

const PORTS = { ucmatose: 7471, udaddy: 7174 } as const;
type Program = keyof typeof PORTS;

/** Connections or pairs, messages each way on each, bytes of a message. */
interface Round {
  readonly connections: number;
  readonly count: number;
  readonly size: number;
}

function pairOf(
  context: CaseContext,
  program: Program,
  direction: Direction,
  { connections, count, size }: Round,
): Pair {
  const { here, there } = context;
  const flags = ["-c", `${connections}`, "-C", `${count}`, "-S", `${size}`];
  const isClient = direction === "kernel to farpage";
  const role = isClient ? ["--server"] : ["--client", there()];
  return {
    direction,
    kernel: [program, isClient ? `-s ${here()}` : `-b ${there()}`, ...flags].join(" "),
    farpage: [program, ...role, "-V", "--address", here(), ...flags],
    door: { kind: "cm", port: PORTS[program] },
    timeoutMs: 280_000,
  };
}

function casesOf(
  name: string,
  title: string,
  program: Program,
  round: Round,
  smoke: InteropCase["smoke"] = [],
): InteropCase[] {
  return (["kernel to farpage", "farpage to kernel"] as const).map((direction) => ({
    id: `${program}${name}-${direction === "kernel to farpage" ? "in" : "out"}`,
    title,
    direction,
    ips: [4, 6],
    smoke,
    needs: [program],
    async run(context): Promise<undefined> {
      const { farpage } = await runPair(context, pairOf(context, program, direction, round));
      const { connections, count, size } = round;
      checkDone(farpage, { connections, messages: 2 * connections * count, size, verified: true });
    },
  }));
}

export const CMA_CASES: readonly InteropCase[] = [
  ...casesOf(
    "",
    "8 connections, 5 messages of 4097 bytes each",
    "ucmatose",
    { connections: 8, count: 5, size: 4097 },
    [4],
  ),
  ...casesOf("-64", "64 connections at once, 3 messages of 1000 bytes each", "ucmatose", {
    ...{ connections: 64, count: 3, size: 1000 },
  }),
  ...casesOf(
    "",
    "4 pairs, 5 datagrams of 1024 bytes each",
    "udaddy",
    { connections: 4, count: 5, size: 1024 },
    [4],
  ),
];
