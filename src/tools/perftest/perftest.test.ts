// SPDX-License-Identifier: MIT
// farpage as both sides of every test, over loopback.

import { describe, expect, it } from "vitest";
import { loopback, Stage } from "../tools.fixture.js";
import { PERF_DEFAULTS, PERF_KINDS, PERF_VERBS, type PerfOptions, runPerftest } from "./index.js";

function options(some: Partial<PerfOptions> & Pick<PerfOptions, "verb" | "kind">): PerfOptions {
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
    ...some,
  };
}

/** Runs both sides; each side's figures. */
async function run(some: Partial<PerfOptions> & Pick<PerfOptions, "verb" | "kind">) {
  await using there = await Stage.open(loopback(2));
  await using here = await Stage.open(loopback(3));
  const served = runPerftest(there.environment, options(some));
  const port = Number((await there.heard("listening"))["port"]);
  const own = { ...options(some), server: loopback(2), port };
  const [server, client] = await Promise.all([served, runPerftest(here.environment, own)]);
  return { server, client, here, there };
}

const EXCHANGES = [
  ["TCP", false],
  ["RDMA CM", true],
] as const;

for (const [exchange, cm] of EXCHANGES) {
  describe(`perftest by ${exchange}`, () => {
    for (const verb of PERF_VERBS) {
      for (const kind of PERF_KINDS) {
        it(`ib_${verb}_${kind}: figures of 20 messages`, async () => {
          const { server, client, there, here } = await run({ verb, kind, cm });
          const messageBytes = verb === "atomic" ? 8 : 3000;
          expect(client).toMatchObject([{ messageBytes, iterations: 20 }]);
          const oneSidedLatency = kind === "lat" && (verb === "read" || verb === "atomic");
          expect(server).toMatchObject(oneSidedLatency ? [] : [{ messageBytes, iterations: 20 }]);
          expect(here.told.map(({ event }) => event)).toEqual(["connected", "result"]);
          expect((await there.heard("connected"))["gid"]).toBe(loopback(3));
        });
      }
    }
  });
}
