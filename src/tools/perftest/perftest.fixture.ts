// SPDX-License-Identifier: MIT
// Runs of perftest between two hosts of this process.

import { loopback, Stage } from "../tools.fixture.js";
import { PERF_DEFAULTS, type PerfOptions, runPerftest } from "./index.js";

export type SomeOptions = Partial<PerfOptions> & Pick<PerfOptions, "verb" | "kind">;

/** A small test; a server on a free port. */
export function optionsOf(some: SomeOptions): PerfOptions {
  return {
    server: null,
    port: 0,
    cm: false,
    connection: "RC",
    size: some.verb === "atomic" ? 8 : 3000,
    iterations: 20,
    bidirectional: false,
    txDepth: 8,
    rxDepth: 16,
    outReads: PERF_DEFAULTS.outReads,
    ackTimeout: PERF_DEFAULTS.ackTimeout,
    ...some,
  };
}

/** A server that waits: its port, and what becomes of it. */
export async function serve(stage: Stage, some: SomeOptions) {
  const served = runPerftest(stage.environment, optionsOf(some));
  served.catch(() => {});
  const port = Number((await stage.heard("listening"))["port"]);
  return { served, port };
}

/** Runs both sides. @returns each side's figures, and what each told. */
export async function runBoth(some: SomeOptions, client: Partial<PerfOptions> = {}) {
  await using there = await Stage.open(loopback(2));
  await using here = await Stage.open(loopback(3));
  const { served, port } = await serve(there, some);
  const own = { ...optionsOf(some), server: loopback(2), port, ...client };
  const [server, mine] = await Promise.all([served, runPerftest(here.environment, own)]);
  return { server, client: mine, here, there };
}
