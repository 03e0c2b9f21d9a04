// SPDX-License-Identifier: MIT
// ucmatose (many connections at once) and udaddy (datagrams between queue pairs found by SIDR).

import type { CaseContext, Direction, InteropCase } from "../case.js";
import { type Pair, runPair } from "./pair.js";

const PORTS = { ucmatose: 7471, udaddy: 7174 } as const;
type Program = keyof typeof PORTS;

function pairOf(
  context: CaseContext,
  program: Program,
  direction: Direction,
  flags: readonly string[],
): Pair {
  const { here, there } = context;
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
  flags: readonly string[],
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
      await runPair(context, pairOf(context, program, direction, flags));
    },
  }));
}

export const CMA_CASES: readonly InteropCase[] = [
  ...casesOf(
    "",
    "8 connections, 5 messages of 4097 bytes each",
    "ucmatose",
    [...["-c", "8", "-C", "5", "-S", "4097"]],
    [4],
  ),
  ...casesOf("-64", "64 connections at once, 3 messages of 1000 bytes each", "ucmatose", [
    ...["-c", "64", "-C", "3", "-S", "1000"],
  ]),
  ...casesOf(
    "",
    "4 pairs, 5 datagrams of 1024 bytes each",
    "udaddy",
    [...["-c", "4", "-C", "5", "-S", "1024"]],
    [4],
  ),
];
