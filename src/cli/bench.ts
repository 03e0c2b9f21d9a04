// SPDX-License-Identifier: MIT
// `farpage bench`: what this machine reaches, between two processes over loopback. Comparisons with
// other programs are made by `npm run bench`, which calls this.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { z } from "zod";
import {
  BENCH_TEST,
  type BenchResult,
  type BenchRun,
  type BenchTest,
  FarpageError,
  formatSize,
  openHost,
  runBenchTest,
  startBenchResponder,
} from "../runtime/index.js";
import { createLog } from "./log.js";
import { observing } from "./observe.js";
import { BENCH_OPTIONS, checkOptions } from "./options.js";
import type { Reporter } from "./reporter.js";
import { StopSignal } from "./signals.js";

/** The measurements, by the name they are called with. */
const TESTS: Readonly<Record<string, readonly Omit<BenchRun, "durationMs">[]>> = {
  write: streams(BENCH_TEST.WRITE),
  read: streams(BENCH_TEST.READ),
  latency: [{ test: BENCH_TEST.WRITE_LATENCY, messageBytes: 8, depth: 1 }],
  rate: [{ test: BENCH_TEST.SEND_RATE, messageBytes: 4096, depth: 64 }],
};

const RESPONDER_ADDRESS = "127.0.0.62";
const INITIATOR_ADDRESS = "127.0.0.63";

function streams(test: BenchTest): Omit<BenchRun, "durationMs">[] {
  return [4096, 65_536, 1 << 20].map((size) => sized(test, size));
}

/** A stream of requests of `messageBytes`: as many at once as make a mebibyte, 4 to 64. */
function sized(test: BenchTest, messageBytes: number): Omit<BenchRun, "durationMs"> {
  const depth = Math.max(4, Math.min(64, Math.floor(2 ** 20 / messageBytes)));
  return { test, messageBytes, depth };
}

type BenchOptions = z.output<typeof BENCH_OPTIONS>;

export async function runBench(
  names: readonly string[],
  raw: unknown,
  reporter: Reporter,
): Promise<void> {
  const options = checkOptions(BENCH_OPTIONS, raw);
  const [responder, initiator] = options.address?.map(String) ?? [
    RESPONDER_ADDRESS,
    INITIATOR_ADDRESS,
  ];
  if (responder === undefined || initiator === undefined) throw new Error("two addresses");
  if (options.role === "responder") return respond(responder, options, reporter);
  const chosen = names.length === 0 ? Object.keys(TESTS) : names;
  for (const name of chosen) {
    if (TESTS[name] === undefined) {
      const known = Object.keys(TESTS).join(", ");
      throw new FarpageError("EINVAL", `there is no benchmark "${name}", but ${known}`);
    }
  }
  const stopResponder = await startResponder(responder, initiator, options.backend);
  try {
    await using host = await openHost({
      addresses: [initiator],
      backend: options.backend,
      segmentation: options.segmentation,
      ...observing("bench", options),
      log: createLog(options),
    });
    for (const name of chosen) {
      for (const test of testsOf(name, options.size)) {
        const durationMs = options.duration * 1000;
        const result = await runBenchTest(host, responder, { ...test, durationMs });
        report(name, test, result, reporter);
      }
    }
  } finally {
    await stopResponder();
  }
}

/** What a name stands for, with `size` at that message size alone. */
function testsOf(name: string, size: number | undefined): readonly Omit<BenchRun, "durationMs">[] {
  const tests = TESTS[name] ?? [];
  const [first] = tests;
  if (size === undefined || first === undefined) return tests;
  if (first.depth === 1) return [{ ...first, messageBytes: size }];
  return [sized(first.test, size)];
}

async function respond(address: string, options: BenchOptions, reporter: Reporter): Promise<void> {
  const stop = new StopSignal({ orStdinEnd: true });
  await using host = await openHost({
    addresses: [address],
    backend: options.backend,
    segmentation: options.segmentation,
    log: createLog(options),
  });
  startBenchResponder(host);
  reporter.event("ready", { addresses: [address] }, `answering benchmarks on ${address}`);
  await stop.wait(new Promise<never>(() => {}));
}

async function startResponder(
  address: string,
  peer: string,
  backend: string,
): Promise<() => Promise<void>> {
  const main = fileURLToPath(new URL("main.js", import.meta.url));
  const args = ["bench", "--role", "responder", "--json", "--backend", backend];
  const child = spawn(process.execPath, [main, ...args, "--address", `${address},${peer}`], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([once(lines, "line"), exited.then(() => null)]);
  const event: unknown = first === null ? null : JSON.parse(String(first[0]));
  if ((event as { event?: string } | null)?.event !== "ready") {
    child.kill();
    throw new FarpageError("EIO", "the responder's process did not start");
  }
  return async () => {
    child.kill("SIGTERM");
    await exited;
  };
}

function report(
  name: string,
  test: Omit<BenchRun, "durationMs">,
  result: BenchResult,
  reporter: Reporter,
): void {
  const size = formatSize(test.messageBytes);
  const perSecond = result.operations / result.seconds;
  const fields = { test: name, messageBytes: test.messageBytes, depth: test.depth, ...result };
  if (test.test === BENCH_TEST.WRITE_LATENCY) {
    const at = (share: number) =>
      (
        (result.latenciesNs[Math.floor(share * (result.latenciesNs.length - 1))] ?? 0) / 1000
      ).toFixed(1);
    reporter.event(
      "result",
      { ...fields, latenciesNs: undefined, medianUs: Number(at(0.5)), p99Us: Number(at(0.99)) },
      `${name.padEnd(8)} ${size.padStart(8)}  median ${at(0.5)} us, 99 % below ${at(0.99)} us`,
    );
    return;
  }
  const gigabytes = result.bytes / result.seconds / 1e9;
  reporter.event(
    "result",
    {
      ...fields,
      latenciesNs: undefined,
      operationsPerSecond: Math.round(perSecond),
      bytesPerSecond: Math.round(result.bytes / result.seconds),
    },
    `${name.padEnd(8)} ${size.padStart(8)}  ${gigabytes.toFixed(2)} GB/s, ` +
      `${Math.round(perSecond)} messages/s`,
  );
}
