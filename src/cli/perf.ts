// SPDX-License-Identifier: MIT
// `farpage perf`: the other side of perftest.

import { lookup } from "node:dns/promises";
import type { z } from "zod";
import { FarpageError, IpAddress } from "../runtime/index.js";
import { PERF_DEFAULTS, type PerfOptions, runPerftest } from "../tools/index.js";
import { checkOptions, PERF_OPTIONS } from "./options.js";
import type { Reporter } from "./reporter.js";
import { runTool } from "./tool.js";

export async function runPerf(
  test: { readonly verb: string; readonly kind: string; readonly server: string | undefined },
  raw: object,
  reporter: Reporter,
): Promise<void> {
  const { verb, kind } = test;
  const options = checkOptions(PERF_OPTIONS, { ...raw, verb, kind });
  const peer = test.server === undefined ? null : await resolve(test.server);
  const perf: PerfOptions = {
    verb: options.verb,
    kind: options.kind,
    server: peer === null ? null : String(peer),
    port: options.port,
    cm: options.cm,
    connection: options.connection,
    size: options.all ? "all" : (options.size ?? defaultSize(options)),
    iterations: options.iterations ?? defaultIterations(options),
    durationMs: options.duration === undefined ? undefined : options.duration * 1000,
    bidirectional: options.bidirectional,
    mtu: options.mtu as PerfOptions["mtu"],
    txDepth: options.txDepth,
    rxDepth: options.rxDepth,
    outReads: options.outs,
    ackTimeout: options.qpTimeout,
  };
  await runTool({ ...options, peer }, reporter, async (environment) => {
    await runPerftest(environment, perf);
  });
}

type Options = z.output<typeof PERF_OPTIONS>;

function defaultSize({ verb, kind }: Options): number {
  if (verb === "atomic") return PERF_DEFAULTS.atomicBytes;
  return kind === "bw" ? PERF_DEFAULTS.bwBytes : PERF_DEFAULTS.latBytes;
}

function defaultIterations({ kind }: Options): number {
  return kind === "bw" ? PERF_DEFAULTS.bwIterations : PERF_DEFAULTS.latIterations;
}

async function resolve(name: string): Promise<IpAddress> {
  try {
    return IpAddress.parse((await lookup(name)).address);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof FarpageError) throw error;
    throw new FarpageError(code ?? "ENOTFOUND", `there is no host "${name}"`, { cause: error });
  }
}
