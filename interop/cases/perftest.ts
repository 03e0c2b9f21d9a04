// SPDX-License-Identifier: MIT
// perftest (ib_write_bw and its like) with `farpage perf` as the other side. Emulated guests say
// nothing about speed; what counts is that both sides agree and end well.

import { type CaseContext, check, type Direction, type InteropCase } from "../case.js";
import type { Farpage } from "../farpage.js";
import { addressOf, type IpVersion } from "../network.js";
import { type PairResult, runPair } from "./pair.js";

type Verb = "write" | "read" | "send" | "atomic";
type Kind = "bw" | "lat";

/** One test. */
export interface Perf {
  readonly verb: Verb;
  readonly kind: Kind;
  readonly direction: Direction;
  /** Flags that both sides get. */
  readonly flags: readonly string[];
}

const PORT = 18515;
/** -a goes from 2 bytes to so many: 8 MiB. */
const SIZES_LOG2_MAX = 23;
const BOTH: readonly IpVersion[] = [4, 6];

/** Runs one test. perftest 6.06 speaks TCP over IPv4 alone: the GIDs are what is IPv6. */
export async function runPerf(context: CaseContext, perf: Perf): Promise<PairResult> {
  const { verb, kind, direction, flags } = perf;
  const { ip, guest } = context;
  const gid = await guest.gidIndex(ip);
  const isClient = direction === "kernel to farpage";
  const words = [`ib_${verb}_${kind}`, "-F", "-d", "rxe0", "-x", `${gid}`, ...flags];
  const peer = isClient ? [addressOf(1, 4)] : [];
  const server = isClient ? [] : [addressOf(guest.host, 4)];
  const result = await runPair(context, {
    direction,
    kernel: [...words, ...peer].join(" "),
    farpage: ["perf", verb, kind, ...server, "--address", context.here(), ...flags],
    door: { kind: flags.includes("-R") ? "cm" : "tcp", port: PORT },
  });
  if (!isClient) checkResults(result.farpage, perf);
  return result;
}

/** farpage as the client has measured every size, with as many messages as it was told. */
function checkResults(farpage: Farpage, { verb, flags }: Perf): void {
  const after = (flag: string) => flags[flags.indexOf(flag) + 1];
  const all = Array.from({ length: SIZES_LOG2_MAX }, (_, index) => 2 ** (index + 1));
  const one = verb === "atomic" ? 8 : Number(after("-s"));
  const wanted = (flags.includes("-a") ? all : [one]).map((size) => `${size} ${after("-n")}`);
  const results = farpage.events.filter(({ event }) => event === "result");
  const said = results.map((result) => `${result["messageBytes"]} ${result["iterations"]}`);
  const what = `sizes and counts are ${said}, not ${wanted}`;
  check(said.join() === wanted.join(), what, farpage.evidence());
}

function caseOf(
  name: string,
  title: string,
  tests: readonly Omit<Perf, "direction">[],
  more: Partial<InteropCase> = {},
): InteropCase[] {
  return (["kernel to farpage", "farpage to kernel"] as const).map((direction) => ({
    id: `perf-${name}-${direction === "kernel to farpage" ? "in" : "out"}`,
    title,
    direction,
    ips: BOTH,
    needs: ["ib_write_bw"],
    ...more,
    async run(context: CaseContext): Promise<undefined> {
      for (const test of tests) await runPerf(context, { ...test, direction });
    },
  }));
}

function bandwidth(verb: Verb, ...flags: readonly string[]): Omit<Perf, "direction"> {
  const size = verb === "atomic" ? ["-n", "200"] : ["-s", "65536", "-n", "100"];
  return { verb, kind: "bw", flags: [...size, ...flags] };
}

function latency(verb: Verb, ...flags: readonly string[]): Omit<Perf, "direction"> {
  const size = verb === "atomic" ? [] : ["-s", "64"];
  return { verb, kind: "lat", flags: [...size, "-n", "50", ...flags] };
}

const smoke = { smoke: [4] } as const;

export const PERFTEST_CASES: readonly InteropCase[] = [
  ...caseOf("write", "ib_write_bw and ib_write_lat", [bandwidth("write"), latency("write")], smoke),
  ...caseOf("read", "ib_read_bw and ib_read_lat", [bandwidth("read"), latency("read")]),
  ...caseOf("send", "ib_send_bw and ib_send_lat", [bandwidth("send"), latency("send")]),
  ...caseOf("atomic", "ib_atomic_bw and ib_atomic_lat", [bandwidth("atomic"), latency("atomic")]),
  ...caseOf("ud", "ib_send_lat -c UD", [latency("send", "-c", "UD")]),
  ...caseOf("both-ways", "ib_write_bw -b, ib_send_bw -b", [
    bandwidth("write", "-b"),
    bandwidth("send", "-b"),
  ]),
  ...caseOf(
    "cm",
    "-R: the queue pairs by RDMA CM",
    [bandwidth("write", "-R"), latency("send", "-R")],
    {
      ips: [4],
    },
  ),
  ...caseOf("sizes", "-a: every power of two from 2 bytes to 8 MiB, WRITE, READ and SEND", [
    { verb: "write", kind: "bw", flags: ["-a", "-n", "5"] },
    { verb: "read", kind: "bw", flags: ["-a", "-n", "5"] },
    { verb: "send", kind: "bw", flags: ["-a", "-n", "5"] },
  ]),
];
